"""What a pretraining can be told, and the sizes and settings that were published."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from metatransformer.core.errors import UsageError, nearest
from metatransformer.core.settings import Rule, Settings, typed
from metatransformer.pairs.losses import LossName

# Sizes: ViT-Ti as in DeiT (arXiv 2012.12877) with a text tower in proportion; S, B and L as in OpenCLIP's model files
# (ViT-S-16, ViT-B-16, ViT-L-14). Settings: OpenCLIP's runs on LAION-400M (docs/PRETRAINED.md there) and, for ti and s,
# DataComp's small scale (arXiv 2304.14108, table 3), whose batches one machine can hold.
_SMALL = {"lr": 5e-4, "batch": 4096, "steps": 3125, "warmup": 500}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "vit-ti16": {
        **{"width": 192, "depth": 12, "heads": 3, "patch": 16, "outputs": 192},
        **{"text_width": 192, "text_depth": 12, "text_heads": 3, **_SMALL},
    },
    "vit-s16": {
        **{"width": 384, "depth": 12, "heads": 6, "patch": 16, "outputs": 384},
        **{"text_width": 384, "text_depth": 12, "text_heads": 6, **_SMALL},
    },
    "vit-b16": {
        **{"width": 768, "depth": 12, "heads": 12, "patch": 16, "outputs": 512},
        **{"text_width": 512, "text_depth": 12, "text_heads": 8},
        **{"lr": 5e-4, "batch": 32768, "steps": 390_000, "warmup": 2000},
    },
    "vit-l14": {
        **{"width": 1024, "depth": 24, "heads": 16, "patch": 14, "outputs": 768},
        **{"text_width": 768, "text_depth": 12, "text_heads": 12, "checkpointing": True},
        **{"lr": 5e-4, "batch": 32768, "steps": 390_000, "warmup": 2000},
    },
}


def _multiple(name: str, of: str) -> Rule:
    return Rule(name, f"be a multiple of {of}", lambda own: getattr(own, name) % getattr(own, of) == 0)


def _share(name: str, *, least: bool = False) -> Rule:
    must = "lie in 0..1, without 1" if not least else "lie above 0, up to 1"
    return Rule(name, must, lambda own: 0 < getattr(own, name) <= 1 if least else 0 <= getattr(own, name) < 1)


def _positive(*names: str) -> tuple[Rule, ...]:
    return tuple(Rule(name, "be above 0", lambda own, name=name: getattr(own, name) > 0) for name in names)


@dataclass(frozen=True)
class PretrainOptions(Settings):
    """All settings of a pretraining; ``preset`` changes the defaults of the others.

    Model: ``size`` and ``patch`` are in pixels, ``outputs`` is the width of the common space, ``context`` the places of
    a text; ``vocabulary`` is "train", a known one or a file, ``vocabulary_size`` counts what is learned.

    Training: ``batch`` is that of all processes together; ``eps`` and betas are AdamW's; ``warmup`` counts steps;
    ``clip`` bounds the norm of the gradients (0 = no bound); ``ema`` is the decay of an average of the weights that is
    then what is validated and saved (0 = none); ``chunk`` counts rows of similarities that are in memory at a time.
    ``drop`` is the share of patches that training leaves out, ``start_size`` the side of training pictures at first
    (0 = ``size`` throughout); for the last ``finish`` of the steps all patches are seen, at ``size``.
    ``crop`` is the least share of a picture's area that a training crop keeps.

    Pairs: ``least_words`` and ``most_words`` of a text (0 = no limit); ``language`` keeps pairs whose
    ``language_column`` says so, ``similarity`` those whose ``similarity_column`` is at least that; ``duplicates``
    "pairs" keeps one of each equal picture with an equal text, "texts" one of each equal text, "all" keeps all.

    ``held_out`` is the share of texts that is kept for validation (at most ``most_held_out`` pairs), every ``validate``
    steps; ``zero_shot`` is a folder with one folder of pictures a class. ``save_minutes`` lie between checkpoints.
    """

    preset: str = "vit-b16"
    width: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 16
    size: int = 224
    outputs: int = 512
    text_width: int = 512
    text_depth: int = 12
    text_heads: int = 8
    context: int = 77
    causal: bool = True
    vocabulary: str = "train"
    vocabulary_size: int = 32768

    loss: LossName = "infonce"
    batch: int = 32768
    steps: int = 390_000
    lr: float = 5e-4
    warmup: int = 2000
    weight_decay: float = 0.2
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    clip: float = 1.0
    ema: float = 0.0
    checkpointing: bool = False
    chunk: int = 1024
    drop: float = 0.0
    start_size: int = 0
    finish: float = 0.1
    crop: float = 0.9

    least_words: int = 1
    most_words: int = 0
    language: str = ""
    language_column: str = "language"
    similarity: float = 0.0
    similarity_column: str = "similarity"
    duplicates: Literal["pairs", "texts", "all"] = "pairs"

    held_out: float = 0.02
    most_held_out: int = 5000
    validate: int = 1000
    zero_shot: str = ""
    save_minutes: float = 20.0
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: int = 0

    key: ClassVar[str] = "{}"
    rules = (
        *_positive(*("width", "heads", "patch", "size", "outputs", "text_width", "text_heads", "context")),
        *_positive(*("batch", "steps", "lr", "chunk", "validate", "most_held_out", "vocabulary_size")),
        _multiple("size", "patch"),
        _multiple("start_size", "patch"),
        _multiple("width", "heads"),
        _multiple("text_width", "text_heads"),
        _share("drop"),
        _share("ema"),
        _share("held_out"),
        _share("crop", least=True),
        Rule("finish", "lie in 0..1", lambda own: 0 <= own.finish <= 1),
        Rule("start_size", "be at most size", lambda own: own.start_size <= own.size),
        Rule("batch", "be at least 2: a pair is told from others", lambda own: own.batch >= 2),
        Rule("warmup", "lie in 0..steps", lambda own: 0 <= own.warmup <= own.steps),
    )


def make_options(given: Mapping[str, Any]) -> PretrainOptions:
    """Returns the settings: a preset's, with what is ``given`` on top.

    Raises:
        UsageError: an unknown preset, an unknown setting, or a bad value.
    """
    preset = str(given.get("preset") or PretrainOptions.preset)
    if preset not in PRESETS:
        raise UsageError("--preset", must="be a known one", found=repr(preset), do=nearest(preset, PRESETS))
    told = {**PRESETS[preset], **given, "preset": preset}
    if "steps" in given and "warmup" not in given:  # a shorter run warms up in proportion
        usual = PRESETS[preset]
        told["warmup"] = max(1, round(usual["warmup"] / usual["steps"] * given["steps"]))
    return typed(PretrainOptions, told, prefix="")
