"""Weights on disk: the canonical file that the cache holds, and the safe reading of others.

Nothing here runs foreign code: safetensors, ``torch.load(weights_only=True)``, or numbers out of an
ONNX file.
"""

import hashlib
import json
import pickle
import struct
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metatransformer.core.errors import DataError, WeightsError
from metatransformer.core.modality import Stem
from metatransformer.data.write import atomic_file
from metatransformer.trunk.catalog import rgb
from metatransformer.trunk.encoder import EncoderConfig

FORMAT = 1
METADATA = "metatransformer"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".whl", ".onnx")

# What torch.load raised on 137 truncated and 800 randomly changed files of its two formats, and
# TypeError and AttributeError, which other damage to a pickle may bring.
_TORCH_ERRORS = (
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    struct.error,
    IndexError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
)


@dataclass(frozen=True)
class Weights:
    """A trunk and its front end in our own names, before an ``Encoder`` is made of them.

    ``trunk`` has exactly the keys of ``Encoder.state_dict()``. ``size`` is the input side in
    pixels. ``fingerprint`` was recorded when the weights were converted, None when they come
    straight from a foreign file. ``source_sha256`` is the digest of the file that they were
    converted from.
    """

    config: EncoderConfig
    trunk: Mapping[str, Tensor]
    stem: Stem
    size: int
    licence: str
    sha256: str
    fingerprint: tuple[float, ...] | None = None
    source_sha256: str = ""
    note: str = ""


def stem_tensors(stem: Stem) -> dict[str, Tensor]:
    """Returns the tensors that the front end has, by their canonical names."""
    return {f"stem.{name}": tensor for name, tensor in stem.tensors().items()}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 over names, shapes, dtypes and bytes in the order of the names.

    It identifies the weights whatever file they stood in, and shows a changed bit that safetensors
    does not notice.
    """
    running = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        running.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        running.update(tensor.detach().contiguous().numpy().reshape(-1).view("uint8").data)
    return running.hexdigest()


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_canonical(path: Path, weights: Weights) -> None:
    """Writes the weights as one canonical safetensors file, whole or not at all.

    Raises:
        WeightsError: the disk is full, or the folder may not be written to.
    """
    record = {
        "format": FORMAT,
        "config": asdict(weights.config),
        "mean": weights.stem.mean,
        "std": weights.stem.std,
        "size": weights.size,
        "licence": weights.licence,
        "sha256": weights.sha256,
        "source_sha256": weights.source_sha256,
        "fingerprint": weights.fingerprint,
    }
    tensors = {**weights.trunk, **stem_tensors(weights.stem)}
    try:
        with atomic_file(path) as temporary:
            rights = temporary.stat().st_mode
            save_file(tensors, temporary, metadata={METADATA: json.dumps(record)})
            temporary.chmod(rights)  # safetensors makes files that nobody else may read
    except DataError as error:
        raise WeightsError(
            path,
            must=error.must,
            found=error.found,
            do="Free some space, or set METATRANSFORMER_CACHE to another folder.",
        ) from error


def read_tensors(path: Path, *, remedy: str) -> tuple[dict[str, Tensor], str | None]:
    """Returns the tensors of a safetensors file, and our record in its header if it has one.

    ``remedy`` is the sentence that tells the user what to do about a damaged file.

    Raises:
        WeightsError: the file is missing, truncated or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            record = (file.metadata() or {}).get(METADATA)
            # Cloned, because a memory-mapped tensor dies with its file.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, record
    except (SafetensorError, OSError) as error:
        raise damaged(path, "safetensors", error, remedy=remedy) from error


def read_canonical(path: Path, tensors: dict[str, Tensor], record: str, *, remedy: str) -> Weights:
    """Returns the weights that ``write_canonical`` wrote, compared with the recorded digest.

    Raises:
        WeightsError: the header is not understood, or the bytes are not those that were written.
    """
    try:
        told = json.loads(record)
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']}, not {FORMAT}")
        stem = {name.removeprefix("stem."): t for name, t in tensors.items() if name.startswith("stem.")}
        weights = Weights(
            config=EncoderConfig(**told["config"]),
            trunk={name: t for name, t in tensors.items() if not name.startswith("stem.")},
            stem=Stem(**stem, mean=rgb(told["mean"]), std=rgb(told["std"])),
            size=told["size"],
            licence=told["licence"],
            sha256=told["sha256"],
            fingerprint=tuple(float(value) for value in told["fingerprint"]),
            source_sha256=told["source_sha256"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, "converted weight", error, remedy=remedy) from error
    found = digest(tensors)
    if found != weights.sha256:
        raise WeightsError(
            path,
            must=f"hold the tensors with digest {weights.sha256[:12]} that were written to it",
            found=f"digest {found[:12]}",
            do=remedy,
        )
    return weights


def read_torch(path: Path, *, remedy: str) -> dict[str, Tensor]:
    """Returns the state dict of a ``.pth``, ``.pt`` or ``.bin`` file; no code in it is run.

    Raises:
        WeightsError: the file is missing, truncated, holds other objects than tensors, or no state
            dict.
    """
    try:
        with warnings.catch_warnings():
            # A damaged header makes torch warn about a strange pickle protocol before it raises.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            path,
            must="be a file of tensors only",
            found="objects that would have to run code, or damage",
            do=f"Save it again with torch.save(model.state_dict(), ...). {remedy}",
        ) from error
    except (*_TORCH_ERRORS, OSError) as error:
        raise damaged(path, "torch", error, remedy=remedy) from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise WeightsError(path, must="hold a state dict", found=f"a {type(content).__name__}")
    if odd := [str(name) for name, value in content.items() if not isinstance(value, Tensor)]:
        raise WeightsError(path, must="hold a state dict of tensors", found=f"other values, as '{odd[0]}'")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def damaged(path: Path, kind: str, error: Exception, *, remedy: str) -> WeightsError:
    """Returns the error for a file that cannot be read."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return WeightsError(path, must=f"be a complete {kind} file", found=f"'{lines[0][:160]}'", do=remedy)
