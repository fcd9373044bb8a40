"""Two towers on disk: the vision tower is an encoder like any other, what only pairs need lies beside it.

``model.safetensors`` is the canonical file of a trunk and its front end; ``text.safetensors`` holds the text tower,
both maps and the scale, and in its header the vocabulary, and the digest of the vision tower that it belongs to.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metatransformer.core.errors import WeightsError
from metatransformer.pairs.towers import TextConfig, TextTower, Towers, VisionConfig, VisionTower
from metatransformer.pairs.words import Words
from metatransformer.trunk import Pretrained, load_encoder
from metatransformer.trunk.build import assemble, measure
from metatransformer.trunk.encoder import EncoderConfig, digest
from metatransformer.trunk.files import (
    Weights,
    damaged,
    read_record,
    read_tensors,
    stem_tensors,
    write_cached,
    write_canonical,
)

VISION, TEXT = "model.safetensors", "text.safetensors"
REMEDY = "Copy it again, or run 'metatransformer pretrain' again."


@dataclass(frozen=True)
class Loaded:
    """Frozen towers with the words of the text tower; ``encoder`` is the vision tower as every model here uses it."""

    towers: Towers
    words: Words
    encoder: Pretrained

    @torch.no_grad()
    def of_texts(self, texts: list[str], *, batch: int = 256) -> Tensor:
        """Returns a vector of length 1 a text, ``[n, E]``."""
        device = next(self.towers.parameters()).device
        parts = [
            self.towers.of_texts(torch.from_numpy(self.words(texts[start : start + batch])[0]).to(device)).cpu()
            for start in range(0, len(texts), batch)
        ]
        return torch.cat(parts)


def save_towers(folder: Path, towers: Towers, words: Words, *, licence: str) -> tuple[str, tuple[float, ...]]:
    """Writes both files; returns digest and fingerprint of the vision tower.

    Raises:
        WeightsError: the disk is full, or the weights compute no finite numbers.
    """
    vision, config = towers.vision, towers.vision.config
    stem = vision.stem()
    trunk = {name: tensor.detach().cpu().contiguous() for name, tensor in vision.trunk.state_dict().items()}
    held = {name: tensor.cpu().contiguous() for name, tensor in stem.tensors().items()}
    stem = type(stem)(**held, mean=stem.mean, std=stem.std)
    sha256 = digest({**trunk, **stem_tensors(stem)})
    weights = Weights(config.trunk, trunk, stem, config.size, licence, sha256)
    fingerprint = measure(assemble(weights, where=str(folder)), where=str(folder))
    weights = Weights(config.trunk, trunk, stem, config.size, licence, sha256, fingerprint, sha256)
    write_canonical(folder / VISION, weights)
    beside = {name: t.detach().cpu().contiguous() for name, t in towers.state_dict().items() if _is_beside(name)}
    record: dict[str, Any] = {
        "vision": {"sha256": sha256, "outputs": config.outputs, "pool": config.pool},
        "words": dict(words.told),
    }
    record |= {"text": asdict(towers.text.config), "sha256": digest(beside)}
    write_cached(folder / TEXT, beside, record)
    return sha256, fingerprint


def _is_beside(name: str) -> bool:
    return not name.startswith(("vision.front.", "vision.trunk."))


def read_towers(folder: Path) -> Loaded:
    """Returns the towers that ``save_towers`` wrote, frozen.

    Raises:
        WeightsError: a file is missing, damaged, or belongs to another vision tower.
    """
    encoder = load_encoder(str((folder / VISION).absolute()))
    tensors, record = read_tensors(folder / TEXT, remedy=REMEDY)
    try:
        told = read_record(record or "{}")
        settings: dict[str, Any] = {**told["text"], "trunk": EncoderConfig(**told["text"]["trunk"])}
        text = TextConfig(**settings)
        words = Words.of(told["words"], context=text.context)
        own, sha256 = told["vision"], told["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(folder / TEXT, "text tower", error, remedy=REMEDY) from error
    if own["sha256"] != encoder.sha256 or digest(tensors) != sha256:
        found = "another one" if own["sha256"] != encoder.sha256 else "changed bytes"
        raise WeightsError(folder / TEXT, must=f"belong to {folder / VISION}", found=found, do=REMEDY)
    return assembled(encoder, text, words, tensors, own=own, where=folder / TEXT)


def assembled(
    encoder: Pretrained,
    text: TextConfig,
    words: Words,
    tensors: Mapping[str, Tensor],
    *,
    own: Mapping[str, Any],
    where: Path,
) -> Loaded:
    """Returns frozen towers around a loaded encoder; ``tensors`` are all that it does not have, ``own`` tells the
    ``pool`` and the ``outputs`` of its tower.

    Raises:
        WeightsError: tensors that are missing, too many, or of another shape.
    """
    patch = encoder.stem.patch_size
    config = VisionConfig(encoder.encoder.config, patch, encoder.size, own["outputs"], own["pool"])
    with torch.random.fork_rng(devices=[]):
        vision = VisionTower(config, stem=encoder.stem, trunk=encoder.encoder)
        towers = Towers(vision, TextTower(text), loss="sigmoid" if "bias" in tensors else "infonce")
    wanted = {name: tuple(t.shape) for name, t in towers.state_dict().items() if _is_beside(name)}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if wrong := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        name = wrong[0]
        raise WeightsError(where, must=f"have '{name}' with shape {wanted.get(name)}", found=f"{found.get(name)}")
    for prefix, part in (("text.", towers.text), ("vision.out.", vision.out)):
        part.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    with torch.no_grad():
        towers.log_scale.copy_(tensors["log_scale"])
        if towers.bias is not None:
            towers.bias.copy_(tensors["bias"])
    return Loaded(towers.requires_grad_(False).eval(), words, encoder)
