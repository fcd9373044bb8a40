"""Reading a saved pipeline back: its folder is checked part by part, and its trunk is found and compared.

Folders of older revisions are migrated while they are read (``migrate.py``); the folder itself is not changed.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from metatransformer.core.errors import DataError, MetaTransformerError, WeightsError
from metatransformer.core.modality import Stem
from metatransformer.migrate import migrated
from metatransformer.nn.beside import BesideFacts
from metatransformer.pipeline import (
    ADAPTERS,
    FORMAT,
    ORIGINS,
    HeadPlan,
    Pipeline,
    assemble,
    make_reader,
    make_task,
    plain_inputs,
)
from metatransformer.recipe import Recipe
from metatransformer.trunk import Pretrained, load_encoder
from metatransformer.trunk.encoder import Encoder, EncoderConfig

ENTRY = ("name", "sha256", "fingerprint", "licence", "config", "stem", "included", "bytes")  # of the trunk
AGAIN = "Copy the whole model folder again."


def load_pipeline(folder: Path, *, encoder: str = "", device: str = "auto") -> Pipeline:
    """Returns the pipeline of a run or of a saved model, ready to predict and to embed.

    ``encoder`` names another place of the same trunk (a path); by default the name in the folder is resolved.
    ``device``: where it will run; the one that it was trained on need not be here.

    Raises:
        DataError: the folder is not a saved model, or a part of it is missing or damaged.
        WeightsError: the trunk found is not the one that the model was trained on.
    """
    folder = saved_model(folder)
    path = folder / "model.json"
    description = read_description(folder)
    with _intact(path):
        tree = description["recipe"]
        recipe = Recipe.of({**tree, "run": {**tree["run"], "device": device}})
    trunk = _trunk(folder, description["encoder"], encoder=encoder)
    route = {name: make_reader(recipe, name, stem=trunk.stem) for name in recipe.inputs}
    tasks = {name: make_task(recipe, name) for name in description["tasks"]}
    with _intact(path):
        for name, reader in route.items():
            about = description["inputs"][name]
            reader.transform.load_state(about["transform"])
            route[name] = dataclasses.replace(reader, always=bool(about.get("always", False)))  # older ones do not say
        for name, task in tasks.items():
            task.load_state(description["tasks"][name]["state"])
        plans = {name: _plan(told) for name, told in description["tasks"].items()}
        # Tokenizers are built from what transforms have learned.
        pipeline = assemble(recipe, trunk=trunk, route=route, tasks=tasks, plans=plans)
    pipeline.read_plain(plain_inputs(key for name in plans for key in pipeline.model.head(name).keys))
    model = pipeline.model
    for name in model.tokenizers:
        _load(model.tokenizers[name].load_state_dict, folder / description["inputs"][name]["tokenizer"])
    for name in model.heads:
        _load(model.heads[name].load_state_dict, folder / description["tasks"][name]["head"])
        if tensors := description["tasks"][name].get("tensors"):
            _load(tasks[name].load_tensors, folder / tensors)
    if len(model.origins):
        _load(model.origins.load_state_dict, folder / ORIGINS)
    if model.adapters is not None:
        _load(model.adapters.take, folder / ADAPTERS)
    model.requires_grad_(False).eval()
    return pipeline


def _plan(told: Mapping[str, Any]) -> HeadPlan:
    # Heads of older revisions read the trunk alone, and have nothing of their own for samples without an input.
    parts = {"": told.get("beside", {}), **told.get("lacking", {})}
    facts = {name: {key: BesideFacts(**fact) for key, fact in own.items()} for name, own in parts.items()}
    return HeadPlan(bool(told["solved"]), int(told["centres"]), bool(told.get("through", True)), facts.pop(""), facts)


def _trunk(folder: Path, entry: Mapping[str, Any], *, encoder: str) -> Pretrained:
    """Returns the trunk of the folder, or the one that is found where the folder or the caller says."""
    path = folder / "model.json"
    if entry["included"]:
        with _intact(path):
            return _included_trunk(folder, entry)
    trunk = load_encoder(encoder or entry["name"])
    if not entry["fingerprint"]:  # of an embedder of format 1
        return _of_digest(trunk, entry["sha256"], where=f"{folder}: trunk '{trunk.name}'")
    with _intact(path):
        where = f"{folder}: trunk '{entry['name']}'"
        trunk.require_same(config=entry["config"], fingerprint=entry["fingerprint"], where=where)
        # The pixel statistics of the training: a file of the same bytes may not tell its own.
        mean, std = (tuple(entry["stem"][name]) for name in ("mean", "std"))
    return dataclasses.replace(trunk, stem=dataclasses.replace(trunk.stem, mean=mean, std=std))


def _of_digest(trunk: Pretrained, sha256: str, *, where: str) -> Pretrained:
    if trunk.sha256 != sha256:
        do = "Name its place: load(folder, encoder=PATH)."
        raise WeightsError(where, must=f"be the one with digest {sha256[:12]}", found=trunk.sha256[:12], do=do)
    return trunk


def _included_trunk(folder: Path, entry: Mapping[str, Any]) -> Pretrained:
    encoder = Encoder(EncoderConfig(**entry["config"]))
    _load(encoder.load_state_dict, folder / "encoder.safetensors")
    if encoder.bytes_hash() != entry["bytes"]:
        raise WeightsError(
            folder / "encoder.safetensors",
            must="hold the trunk that model.json describes",
            found="other bytes",
            do=AGAIN,
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


def saved_model(run: Path) -> Path:
    """Returns the model folder of a run folder, or the folder itself when it is a model.

    Raises:
        DataError: the run was not finished and has no model yet.
    """
    if (run / "run.json").is_file() and not (run / "model" / "model.json").is_file():
        raise DataError(
            run,
            must="be a finished run",
            found="one that was interrupted before it had a model",
            do="Continue it with the same 'fit' command.",
        )
    return run / "model" if (run / "model" / "model.json").is_file() else run


def read_description(folder: Path) -> dict[str, Any]:
    """Returns what ``model.json`` says, in today's form.

    Raises:
        DataError: there is none, it is damaged, or a later revision wrote it.
    """
    path = next((folder / name for name in ("model.json", "embedder.json") if (folder / name).is_file()), None)
    if path is None:
        raise DataError(
            folder,
            must="be a saved model (a folder with model.json)",
            found="no model.json",
            do="Name a run's model folder, or fit first.",
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(path, must="be valid JSON", found=str(error), do=AGAIN) from error
    form = description.get("format") if isinstance(description, dict) else None
    if not isinstance(form, int) or not 1 <= form <= FORMAT:
        do = "Use the version of metatransformer that wrote it, or a later one."
        raise DataError(path, must=f"have a format of 1 to {FORMAT}", found=repr(form), do=do)
    with _intact(path):
        description = migrated(description, path=path)
        _ = description["recipe"], description["inputs"].items(), description["tasks"].items()
        told = [description["encoder"][key] for key in ENTRY]
        files = [about["tokenizer"] for about in description["inputs"].values()]
        files += [about[key] for about in description["tasks"].values() for key in ("head", "tensors") if key in about]
        _ = [about["head"] for about in description["tasks"].values()]
        for text in (told[0], *files):
            if not isinstance(text, str):
                raise TypeError(f"{text!r} where a name belongs")
    return description


def _load(take: Callable[[dict[str, Tensor]], object], path: Path) -> None:
    """Hands over the tensors of a file.

    Raises:
        DataError: it is not there, damaged or another model's.
    """
    try:
        take(load_file(path))
    except (OSError, safetensors.SafetensorError, RuntimeError, ValueError, KeyError) as error:
        must, found = "hold the parameters that model.json describes", str(error).splitlines()[-1].strip()
        raise DataError(path, must=must, found=found, do=AGAIN) from error


@contextmanager
def _intact(path: Path) -> Iterator[None]:
    """Says of values in ``path`` that cannot be understood that the file was damaged or edited."""
    try:
        yield
    except MetaTransformerError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # the last: shapes
        found = f"values that cannot be read ({type(error).__name__}: {error})"
        raise DataError(path, must="be as it was saved", found=found, do=AGAIN) from error
