"""Features on disk, so that a later fit of the same samples through the same frozen model computes only its head.

A vector is found by the content of its sample and by everything else that it depends on (``memo.model_state``, the code
of this package). A file holds what one call computed and is written whole or not at all, so several processes may use
one folder. What was not used for longest goes when the folder is full.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.examples import Examples
from metatransformer.data.identity import value_digests
from metatransformer.data.write import atomic_file
from metatransformer.infer.evaluate import Features
from metatransformer.machine.console import Console
from metatransformer.trunk.cache import cache_folder, make_room

VARIABLE = "METATRANSFORMER_FEATURES_GB"
MOST_GB = 5.0
_DIGEST = 16  # bytes
_Rows = dict[bytes, tuple[Features, int]]  # by sample: a table, and its row in it


class FeatureStore:
    """Features of any samples and models, up to ``most_gb`` in ``folder``."""

    def __init__(self, folder: Path, *, most_gb: float) -> None:
        self.folder = folder
        self._most = int(most_gb * 2**30)
        self._files: dict[Path, bytes] = {}  # digests of what was read before
        self._folders: dict[Path, list[tuple[str, int, int]]] = {}

    @classmethod
    def usual(cls) -> "FeatureStore | None":
        """Returns the one in the user's cache, with ``$METATRANSFORMER_FEATURES_GB``; None where that is 0.

        Raises:
            UsageError: the variable is no size.
        """
        words = os.environ.get(VARIABLE, str(MOST_GB))
        try:
            most = float(words)
        except ValueError:
            most = -1.0
        if not 0 <= most < float("inf"):
            raise UsageError(VARIABLE, must="be a number of gigabytes, 0 = none are kept", found=repr(words))
        return cls(cache_folder() / "features", most_gb=most) if most else None

    def samples(self, examples: Examples) -> list[bytes]:
        """Returns a digest of what each sample holds: its values, or the bytes of its file."""
        digests = [hashlib.sha256() for _ in range(len(examples))]
        for name, column in examples.inputs.items():
            records = [column[row] for row in range(len(column))]
            values = value_digests([None if record is None else record.value for record in records])
            for digest, record, value in zip(digests, records, values, strict=True):
                own = b"" if record is None or record.path is None else self._content(record.path)
                part = None if record is None else record.part
                digest.update(repr((name, record is None, value, part)).encode() + own)
        return [digest.digest()[:_DIGEST] for digest in digests]

    def find(self, state: str, samples: Sequence[bytes], *, columns: Mapping[str, Tensor]) -> _Rows:
        """Returns what is here of these samples, with what ``columns`` says of their features."""
        wanted, found = set(samples), _Rows()
        for path in sorted((self.folder / _place(state)).glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    keys = [row.tobytes() for row in file.get_tensor("samples").numpy()]
                    if not wanted.intersection(keys):
                        continue
                    features = _features({name: file.get_tensor(name) for name in file.keys()}, columns)
                os.utime(path)
            except FileNotFoundError:  # another process made room
                continue
            except (SafetensorError, OSError, KeyError):
                with suppress(OSError):
                    path.unlink(missing_ok=True)  # damaged: computed again
                continue
            found |= {key: (features, row) for row, key in enumerate(keys) if key in wanted}
        return found

    def add(self, state: str, samples: Sequence[bytes], features: Features, *, console: Console) -> None:
        """Keeps the features of some samples, and makes room for them."""
        tensors = {"samples": torch.from_numpy(np.frombuffer(b"".join(samples), np.uint8).reshape(-1, _DIGEST).copy())}
        tensors |= _tensors(features)
        if sum(tensor.nbytes for tensor in tensors.values()) > self._most:
            return
        name = hashlib.sha256(b"".join(samples)).hexdigest()[:16]
        try:
            with atomic_file(self.folder / _place(state) / f"{name}.safetensors") as temporary:
                save_file(tensors, temporary)
            make_room(self.folder, "*/*.safetensors", most=self._most)
        except (DataError, OSError) as error:
            console.warn(f"features are not kept for later fits: {error}")

    def _content(self, path: Path) -> bytes:
        """Returns a digest of a file, or of the files of a folder, and of what lies beside it under the same stem: a
        header, an index, the numbers to a header.
        """
        if path not in self._files:
            digest = hashlib.sha256()
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    digest.update(file.name.encode())
                    with file.open("rb") as stream:
                        digest.update(hashlib.file_digest(stream, "sha256").digest())
            stem = path.name.split(".")[0]
            for beside, size, time in self._listed(path.parent):
                if beside != path.name and beside.split(".")[0] == stem:
                    digest.update(f"{beside} {size} {time}".encode())
            self._files[path] = digest.digest()
        return self._files[path]

    def _listed(self, folder: Path) -> list[tuple[str, int, int]]:
        if folder not in self._folders:
            with os.scandir(folder) as entries:
                files = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
            self._folders[folder] = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)
        return self._folders[folder]


@cache
def code_digest() -> str:
    """Returns a hash of the package's own code, and the version of torch: what they compute may differ."""
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _place(state: str) -> str:
    return hashlib.sha256(f"{state} {code_digest()}".encode()).hexdigest()[:24]


def _tensors(features: Features) -> dict[str, Tensor]:
    tensors = {"trunk": features.trunk.contiguous()}
    for name, x in features.plain.items():
        if x.is_sparse:
            known = x.coalesce()
            tensors |= {f"places:{name}": known.indices(), f"values:{name}": known.values()}
            tensors[f"shape:{name}"] = torch.tensor(x.shape)
        else:
            tensors[f"plain:{name}"] = x.contiguous()
    return tensors


def _features(tensors: Mapping[str, Tensor], columns: Mapping[str, Tensor]) -> Features:
    plain = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition(":")
        if kind == "plain":
            plain[name] = tensor
        elif kind == "shape":
            places, values, shape = tensors[f"places:{name}"], tensors[f"values:{name}"], tensor.tolist()
            plain[name] = torch.sparse_coo_tensor(places, values, shape, is_coalesced=True, check_invariants=False)
    return Features(tensors["trunk"], plain, columns)
