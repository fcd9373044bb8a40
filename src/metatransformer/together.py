"""Several saved models as one: one trunk, and the inputs and tasks of each, which nobody else's arrival changes.

A model that is added brings its files under their own names; those that were there stay as they are, byte for byte.
Only ``model.json`` is written anew, last, so that a call that was cut off leaves the model that was there.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from metatransformer.core.errors import UsageError
from metatransformer.data.write import atomic_file, write_json
from metatransformer.pipeline import ORIGINS
from metatransformer.recipe import Recipe, to_dict, tune_mode
from metatransformer.saved import read_description, saved_model


def add_model(part: Path, folder: Path, *, name: str) -> None:
    """Adds the model in ``part`` to the one in ``folder``, as what was learned from the data set ``name``; where there
    is none yet, it becomes the first.

    Raises:
        UsageError: they have different trunks, a tuned trunk, or an input or task of the same name.
        DataError: one of them is damaged.
    """
    new = read_description(saved_model(part))
    if (folder / "model.json").is_file():
        old = read_description(folder)
        require_addable(folder, new, name=name)
        joint = _joined(old, new, name=name)
    else:
        recipe = Recipe.joined({name: Recipe.of(new["recipe"])})
        joint = {**new, "recipe": to_dict(recipe), "metrics": _by_task(new)}
    source = saved_model(part)
    files = [about["tokenizer"] for about in new["inputs"].values()]
    files += [about["head"] for about in new["tasks"].values()]
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / file) as temporary:
            shutil.copyfile(source / file, temporary)
    if (source / ORIGINS).is_file():
        known = load_file(folder / ORIGINS) if (folder / ORIGINS).is_file() else {}
        with atomic_file(folder / ORIGINS) as temporary:
            save_file({**known, **load_file(source / ORIGINS)}, temporary)
    write_json(folder / "model.json", joint)


def require_addable(folder: Path, new: Mapping[str, Any], *, name: str) -> None:
    """Raises UsageError where a model cannot be added to the one in ``folder``; ``new`` needs ``recipe`` and
    ``encoder``, as ``model.json`` has them.
    """
    old = read_description(folder)
    where, recipes = f"{folder}: adding '{name}'", [Recipe.of(one["recipe"]) for one in (old, new)]
    if old["encoder"]["sha256"] != new["encoder"]["sha256"]:
        found = f"'{new['encoder']['name']}' beside '{old['encoder']['name']}'"
        raise UsageError(where, must="be of the same trunk", found=found, do="Use the same --encoder.")
    for recipe in recipes:
        if tune_mode(recipe.tune)[0] not in ("head", "tokens", "ends"):
            must = "leave the trunk as it is, which all tasks share (tune mode head, tokens or ends)"
            raise UsageError(where, must=must, found=recipe.tune)
    one, other = recipes
    if one.run.precision != other.run.precision:
        found = f"{other.run.precision} beside {one.run.precision}"
        raise UsageError(where, must="be of the same run.precision", found=found)
    names = {*one.inputs, *one.tasks, *one.sets}
    if twice := sorted(names & {*other.inputs, *other.tasks, name}):
        raise UsageError(where, must="have other names than what is in the model", found=twice[0], do="Choose another.")


def _joined(old: Mapping[str, Any], new: Mapping[str, Any], *, name: str) -> dict[str, Any]:
    first = Recipe.of(old["recipe"])
    recipe = Recipe.joined({next(iter(first.tasks)): first, name: Recipe.of(new["recipe"])})
    return {
        **old,
        "recipe": to_dict(recipe),
        "inputs": {**old["inputs"], **new["inputs"]},
        "tasks": {**old["tasks"], **new["tasks"]},
        "metrics": {**_by_task(old), **_by_task(new)},
    }


def _by_task(description: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the scores by task: of a model of one data set and task they stand by split."""
    tasks, known = list(description["tasks"]), description["metrics"]
    return {tasks[0]: known} if len(tasks) == 1 and not description["recipe"].get("sets") else dict(known)
