"""Saved models live: what older revisions wrote becomes what this one reads, one format number after the other.

Each step takes the content of ``model.json`` in one format and returns it in the next. Folders that older revisions
wrote are fixtures of the tests.

1: one modality and one task (``transform``, ``task``, ``centres``, ``norm``); an ``embedder.json`` of its own for what
   only embeds.
2: inputs and tasks by name, each with its file; models that only embed have no tasks.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metatransformer.core.errors import DataError
from metatransformer.modalities import get_modality
from metatransformer.recipe import merged, without_gone


def migrated(description: Mapping[str, Any], *, path: Path) -> dict[str, Any]:
    """Returns the content of ``path`` in today's format.

    Raises:
        DataError: a setting of a modality is not in it that came later and changes what the model computes.
    """
    found = dict(description)
    if found["format"] == 1:
        found = _embedder(found) if path.name == "embedder.json" else _one_to_two(found)
    recipe = without_gone(found["recipe"], usual_only=False)  # they concerned training only
    if len(recipe.get("inputs", ())) > 1:
        recipe = {"fusion": "tokens", **recipe}  # the only way before there was a choice
    return {**found, "recipe": _complete(recipe, path=path)}


def _one_to_two(old: Mapping[str, Any]) -> dict[str, Any]:
    recipe = old["recipe"]
    modality, task = recipe["modality"], recipe["task"]["name"]
    # The first revisions wrote no centres, and no norm.
    norm = old.get("norm") or ("standard" if recipe["tune"] == "head" else "layer")
    head = {"state": old["task"], "solved": norm == "standard", "centres": old.get("centres", 0)}
    return {
        "format": 2,
        "recipe": recipe,
        "inputs": {modality: {"transform": old["transform"], "tokenizer": f"tokenizers/{modality}.safetensors"}},
        "tasks": {task: {**head, "head": f"heads/{task}.safetensors"}},
        "encoder": old["encoder"],
        "metrics": old["metrics"],
    }


def _embedder(old: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(old["arguments"])
    flat = {
        "task.name": get_modality(given["modality"]).task,
        "head.pool": given["pool"],
        "task.target": given["target"],
        **dict(given["recipe"]),
        "head.read": [-1],
    }
    flat |= {f"run.{name}": given[name] for name in ("seed", "device", "precision")}
    recipe = merged({"modality": given["modality"], "encoder": given["encoder"], "tune": "head"}, flat)
    nothing = {"fingerprint": [], "licence": "", "config": {}, "stem": {}, "included": False, "bytes": ""}
    return {
        "format": 2,
        "recipe": recipe,
        "inputs": {given["modality"]: {"transform": old["transform"], "tokenizer": "tokenizer.safetensors"}},
        "tasks": {},
        "encoder": {"name": given["encoder"], "sha256": old["sha256"], **nothing},
        "metrics": {},
    }


def _complete(recipe: Mapping[str, Any], *, path: Path) -> dict[str, Any]:
    """Returns the recipe with the settings of its inputs that came later, at the values that change nothing."""
    plural = "inputs" in recipe
    inputs = dict(recipe["inputs"]) if plural else {recipe["modality"]: recipe.get("input") or {}}
    for name, given in inputs.items():
        modality = get_modality(given["modality"] if plural else name)
        later = {item.name for item in dataclasses.fields(modality.options)} - set(given)
        if unknown := sorted(later - set(modality.before)):
            key = f"inputs.{name}.{unknown[0]}" if plural else f"input.{unknown[0]}"
            do = "Fit it again: it would be read with today's default, on which it was not fitted."
            raise DataError(path, must=f"say {key}", found="a model from before it", do=do)
        inputs[name] = {**given, **{key: modality.before[key] for key in later}}
    return {**recipe, "inputs": inputs} if plural else {**recipe, "input": inputs[recipe["modality"]]}
