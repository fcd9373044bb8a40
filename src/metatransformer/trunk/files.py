"""Weights on disk: the canonical file that the cache holds, and the safe reading of others.

Nothing here runs foreign code: safetensors, ``torch.load(weights_only=True)``, or numbers out of an ONNX file.
"""

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from metatransformer.core.border import foreign, words
from metatransformer.core.errors import DataError, WeightsError
from metatransformer.core.modality import Stem
from metatransformer.data.write import atomic_file
from metatransformer.trunk.catalog import rgb
from metatransformer.trunk.encoder import EncoderConfig, digest

FORMAT = 1
METADATA = "metatransformer"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".whl", ".onnx")


@dataclass(frozen=True)
class Weights:
    """A trunk and its front end in our own names, before an ``Encoder`` is made of them.

    ``trunk`` has exactly the keys of ``Encoder.state_dict()``. ``size`` is the input side in pixels. ``fingerprint``
    was recorded when the weights were converted, None when they come straight from a foreign file. ``source_sha256`` is
    the digest of the file that they were converted from.
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
        "config": asdict(weights.config),
        "mean": weights.stem.mean,
        "std": weights.stem.std,
        "size": weights.size,
        "licence": weights.licence,
        "sha256": weights.sha256,
        "source_sha256": weights.source_sha256,
        "fingerprint": weights.fingerprint,
    }
    write_cached(path, {**weights.trunk, **stem_tensors(weights.stem)}, record)


def write_cached(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Writes tensors, with a record in the header, to the cache; whole or not at all.

    Raises:
        WeightsError: the disk is full, or the folder may not be written to.
    """
    try:
        with atomic_file(path) as temporary:
            rights = temporary.stat().st_mode
            save_file(dict(tensors), temporary, metadata={METADATA: json.dumps({"format": FORMAT, **record})})
            temporary.chmod(rights)  # safetensors makes files that nobody else may read
    except DataError as error:
        do = "Free some space, or set METATRANSFORMER_CACHE to another folder."
        raise WeightsError(path, must=error.must, found=error.found, do=do) from error


def read_tensors(path: Path, *, remedy: str) -> tuple[dict[str, Tensor], str | None]:
    """Returns the tensors of a safetensors file, and our record in its header if it has one.

    ``remedy`` is the sentence that tells the user what to do about a damaged file.

    Raises:
        WeightsError: the file is missing, truncated or damaged.
    """
    with decoding(path, "safetensors", remedy=remedy), safe_open(path, framework="pt") as file:
        record = (file.metadata() or {}).get(METADATA)
        # Cloned, because a memory-mapped tensor dies with its file.
        return {name: file.get_tensor(name).clone() for name in file.keys()}, record


def read_canonical(path: Path, tensors: dict[str, Tensor], record: str, *, remedy: str) -> Weights:
    """Returns the weights that ``write_canonical`` wrote, compared with the recorded digest.

    Raises:
        WeightsError: the header is not understood, or the bytes are not those that were written.
    """
    try:
        told = read_record(record)
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
        WeightsError: the file is missing, truncated, holds other objects than tensors, or no state dict.
    """
    with decoding(path, "torch", remedy=remedy):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise WeightsError(
                path,
                must="be a file of tensors only",
                found="objects that would have to run code, or damage",
                do=f"Save it again with torch.save(model.state_dict(), ...). {remedy}",
            ) from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise WeightsError(path, must="hold a state dict", found=f"a {type(content).__name__}")
    if odd := [str(name) for name, value in content.items() if not isinstance(value, Tensor)]:
        raise WeightsError(path, must="hold a state dict of tensors", found=f"other values, as '{odd[0]}'")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def read_record(text: str) -> dict[str, Any]:
    """Returns the record in the header of a file of ours; raises a ValueError or KeyError for one of another format."""
    told = json.loads(text)
    if told["format"] != FORMAT:
        raise ValueError(f"format {told['format']}, not {FORMAT}")
    return told


def decoding(path: Path, kind: str, *, remedy: str) -> foreign:
    """Returns the border around a library that reads a ``kind`` file; what it raises becomes a WeightsError."""
    return foreign(path, kind, must=f"be a complete {kind} file", do=remedy, kind=WeightsError)


def damaged(path: Path, kind: str, error: Exception, *, remedy: str) -> WeightsError:
    """Returns the error for a file of ours that is not understood."""
    return WeightsError(path, must=f"be a complete {kind} file", found=f"'{words(error)}'", do=remedy)
