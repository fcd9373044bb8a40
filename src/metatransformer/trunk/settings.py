"""What a state dict does not say: head count, eps, activation, pixel statistics.

In this order: the options behind the path, a ``config.json`` (transformers, timm) or ``open_clip_config.json`` beside
the file, the convention of the layout. Where each came from is written into the note that goes with the weights.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metatransformer.core.errors import WeightsError
from metatransformer.trunk.catalog import PIXELS, RGB, rgb
from metatransformer.trunk.convert import Converted
from metatransformer.trunk.encoder import EncoderConfig
from metatransformer.trunk.names import Options

# The files beside the weights that are looked into.
BESIDE = ("open_clip_config.json", "config.json", "preprocessor_config.json")
# transformers' names; the three tanh spellings compute the same function.
ACTIVATION_NAMES = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}
# Published ViTs have heads of 64, except these widths: ViT-H (80), ViT-g (88), ViT-bigG (104).
_HEADS = {1280: 16, 1408: 16, 1664: 16}


@dataclass(frozen=True)
class Settings:
    """The settled values, and in words where they came from."""

    config: EncoderConfig
    mean: RGB
    std: RGB
    licence: str
    note: str


def settle(converted: Converted, options: Options, *, path: Path) -> Settings:
    """Returns the complete configuration of a converted state dict.

    Raises:
        WeightsError: a head count that nobody tells for an unusual width, or a configuration file that is damaged or
            describes another network.
    """
    told, source = _beside(path, converted)
    layout, said = converted.layout, []
    heads = _HEADS.get(converted.width, converted.width // 64 if converted.width % 64 == 0 else None)
    values: dict[str, Any] = {}
    for key, convention in (("heads", heads), ("eps", layout.eps), ("activation", layout.activation)):
        asked = getattr(options, key)
        values[key] = next((v for v in (asked, told.get(key), convention) if v is not None), None)
        origin = "the option" if asked is not None else source if key in told else "convention"
        said.append(f"{key} {values[key]} ({origin})")
    if values["heads"] is None:
        raise WeightsError(
            path,
            must="come with a head count, which a state dict does not hold",
            found=f"width {converted.width} and no config.json",
            do=f"Append it, as in {path.name}?heads=4",
        )
    mean, std = PIXELS[options.pixels or layout.pixels]
    if options.pixels is None and "mean" in told:
        mean, std = told["mean"], told["std"]
    pixels = "the option" if options.pixels else source if "mean" in told else "convention"
    said.append(f"pixel mean and deviation ({pixels})")
    shape: dict[str, Any] = {**converted.shape}
    config = EncoderConfig(**shape, **values)
    return Settings(config, mean, std, told.get("licence", "unknown"), "; ".join(said))


def _beside(path: Path, converted: Converted) -> tuple[dict[str, Any], str]:
    """Returns what the configuration file beside the weights tells, and that file's name."""
    readers = {"open_clip_config.json": _open_clip, "config.json": _transformers_or_timm}
    if converted.layout.name != "open_clip":
        del readers["open_clip_config.json"]
    for name, reader in readers.items():
        file = path.with_name(name)
        if not file.is_file():
            continue
        try:
            told = reader(json.loads(file.read_text(encoding="utf-8")), converted, file)
        except (ValueError, TypeError, AttributeError) as error:
            raise WeightsError(
                file,
                must="be the JSON configuration of the weights beside it",
                found=f"'{error}'",
                do="Repair it, or move the weights to a folder of their own.",
            ) from error
        if told:
            processor = path.with_name("preprocessor_config.json")
            return {**_pixels_of(processor), **told}, name
    return {}, ""


def _transformers_or_timm(config: dict[str, Any], converted: Converted, file: Path) -> dict[str, Any]:
    config = config.get("vision_config", config)
    if "pretrained_cfg" in config:
        _agree(file, "num_features", config, converted.width)
        pretrained = config["pretrained_cfg"]
        told: dict[str, Any] = {key: rgb(pretrained[key]) for key in ("mean", "std") if key in pretrained}
        if "license" in pretrained:
            told["licence"] = pretrained["license"]
        if "quickgelu" in config.get("architecture", ""):
            told["activation"] = "quick_gelu"
        return told
    _agree(file, "hidden_size", config, converted.width)
    _agree(file, "num_hidden_layers", config, converted.depth)
    names = {"num_attention_heads": "heads", "layer_norm_eps": "eps", "hidden_act": "activation"}
    told = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
    told.update({key: kind(told[key]) for key, kind in (("heads", int), ("eps", float)) if key in told})
    if "activation" in told:
        if told["activation"] not in ACTIVATION_NAMES:
            raise WeightsError(
                file, must=f"have a hidden_act among {', '.join(ACTIVATION_NAMES)}", found=f"'{told['activation']}'"
            )
        told["activation"] = ACTIVATION_NAMES[told["activation"]]
    return told


def _open_clip(config: dict[str, Any], converted: Converted, file: Path) -> dict[str, Any]:
    model = config.get("model_cfg", {})
    vision = model.get("vision_cfg", {})
    _agree(file, "width", vision, converted.width)
    _agree(file, "layers", vision, converted.depth)
    pixels = config.get("preprocess_cfg", {})
    told: dict[str, Any] = {key: rgb(pixels[key]) for key in ("mean", "std") if key in pixels}
    told["activation"] = "quick_gelu" if model.get("quick_gelu") else "gelu"
    told["heads"] = converted.width // vision.get("head_width", 64)
    return told


def _agree(file: Path, key: str, config: dict[str, Any], found: int) -> None:
    if config.get(key, found) != found:
        raise WeightsError(
            file,
            must=f"describe the weights beside it, whose {key} is {found}",
            found=f"{key} {config[key]}",
            do="Move the weights to a folder of their own.",
        )


def _pixels_of(file: Path) -> dict[str, Any]:
    """Returns the pixel statistics of transformers' ``preprocessor_config.json``, if any."""
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return {"mean": rgb(config["image_mean"]), "std": rgb(config["image_std"])}
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            file, must="hold image_mean and image_std", found=f"'{error}'", do="Repair or remove it."
        ) from error
