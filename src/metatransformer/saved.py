"""Reading a saved pipeline back: its folder is checked part by part, and its trunk is found and compared."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file

from metatransformer.core.errors import DataError, MetaTransformerError, WeightsError
from metatransformer.core.modality import Stem
from metatransformer.modalities import get_modality
from metatransformer.nn.lowrank import Adapters
from metatransformer.pipeline import ADAPTERS, FORMAT, Pipeline, assemble, make_task
from metatransformer.recipe import make_recipe
from metatransformer.trunk import Pretrained, load_encoder
from metatransformer.trunk.encoder import Encoder, EncoderConfig

ENTRY = ("name", "sha256", "fingerprint", "licence", "config", "stem", "included", "bytes")  # of the trunk


def load_pipeline(folder: Path, *, encoder: str = "", device: str = "auto") -> Pipeline:
    """Returns a saved pipeline, ready to predict.

    ``encoder`` names another place of the same trunk (a path); by default the name in the folder is resolved.
    ``device``: where it will run; the one that it was trained on need not be here.

    Raises:
        DataError: the folder is not a saved model, or a part of it is missing or damaged.
        WeightsError: the trunk found is not the one that the model was trained on.
    """
    description = _read_description(folder)
    entry = description["encoder"]
    modality = get_modality(description["recipe"]["modality"])
    settings = {item.name for item in dataclasses.fields(modality.options)}
    if later := sorted(settings - set(description["recipe"].get("input") or {})):
        do = "Fit it again: it would be read with today's default, on which it was not fitted."
        raise DataError(folder / "model.json", must=f"say input.{later[0]}", found="a model from before it", do=do)
    recipe = make_recipe(
        modality.name,
        options=modality.options,
        defaults={},
        base=description["recipe"],
        overrides={"run.device": device},
    )
    if entry["included"]:
        with _intact(folder / "model.json"):
            trunk = _included_trunk(folder, entry)
    else:
        trunk = load_encoder(encoder or entry["name"])
        with _intact(folder / "model.json"):
            where = f"{folder}: trunk '{entry['name']}'"
            trunk.require_same(config=entry["config"], fingerprint=entry["fingerprint"], where=where)
            trunk = _normalising_alike(trunk, entry["stem"])
    transform = modality.transform(recipe.input, trunk.stem)
    task = make_task(recipe, modality=modality)
    with _intact(folder / "model.json"):
        transform.load_state(description["transform"])
        task.load_state(description["task"])
        centres = int(description.get("centres", 0))  # models of before have none
        norm = description.get("norm") or ("standard" if recipe.tune == "head" else "layer")  # nor a norm
    pipeline = assemble(
        recipe, modality=modality, trunk=trunk, transform=transform, task=task, centres=centres, norm=norm
    )
    _load(pipeline.model.tokenizer(modality.name), folder / "tokenizers" / f"{modality.name}.safetensors")
    _load(pipeline.head, folder / "heads" / f"{recipe.task.name}.safetensors")
    if pipeline.model.adapters is not None:
        _load_adapters(pipeline.model.adapters, folder / ADAPTERS)
    pipeline.model.eval()
    return pipeline


def _included_trunk(folder: Path, entry: dict[str, Any]) -> Pretrained:
    encoder = Encoder(EncoderConfig(**entry["config"]))
    _load(encoder, folder / "encoder.safetensors")
    if encoder.bytes_hash() != entry["bytes"]:
        raise WeightsError(
            folder / "encoder.safetensors",
            must="hold the trunk that model.json describes",
            found="other bytes",
            do="Copy the whole model folder again.",
        )
    shapes = entry["stem"]
    # Only the shapes matter: the tokenizer's saved parameters replace the values.
    tensors = {name: torch.zeros(shape) for name, shape in shapes["shapes"].items()}
    stem = Stem(**tensors, mean=tuple(shapes["mean"]), std=tuple(shapes["std"]))
    return Pretrained(
        encoder=encoder,
        stem=stem,
        name=entry["name"],
        sha256=entry["sha256"],
        fingerprint=encoder.fingerprint(),
        licence=entry["licence"],
        size=0,
        verified=True,
        note=f"the trunk that was saved in {folder}",
    )


def _normalising_alike(trunk: Pretrained, told: Mapping[str, Any]) -> Pretrained:
    """Returns the trunk with the pixel statistics of the training: a file of the same bytes may not tell its own."""
    mean, std = (tuple(told[name]) for name in ("mean", "std"))
    return dataclasses.replace(trunk, stem=dataclasses.replace(trunk.stem, mean=mean, std=std))


@contextmanager
def _intact(path: Path) -> Iterator[None]:
    """Says of values in ``path`` that cannot be understood that the file was damaged or edited."""
    try:
        yield
    except MetaTransformerError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            path,
            must="be as it was saved",
            found=f"values that cannot be read ({type(error).__name__}: {error})",
            do="Copy the whole model folder again.",
        ) from error


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    if not path.is_file():
        raise DataError(
            folder,
            must="be a saved model (a folder with model.json)",
            found="no model.json",
            do="Name a run's model folder, or fit first.",
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(path, must="be valid JSON", found=str(error)) from error
    form = description.get("format") if isinstance(description, dict) else None
    if form != FORMAT:
        raise DataError(
            path,
            must=f"have format {FORMAT}",
            found=repr(form),
            do="Use the version of metatransformer that wrote it.",
        )
    with _intact(path):
        _ = description["recipe"]["modality"], description["transform"], description["task"]
        _ = [description["encoder"][key] for key in ENTRY]
    return description


def _load_adapters(adapters: Adapters, path: Path) -> None:
    try:
        adapters.take(load_file(path))
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise DataError(
            path,
            must="hold the adapters that model.json describes",
            found=str(error).splitlines()[-1].strip(),
            do="Copy the whole model folder again.",
        ) from error


def _load(module: torch.nn.Module, path: Path) -> None:
    try:
        module.load_state_dict(load_file(path))
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        raise DataError(
            path,
            must="hold the parameters that model.json describes",
            found=str(error).splitlines()[-1].strip(),
            do="Copy the whole model folder again.",
        ) from error
