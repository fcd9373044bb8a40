"""From Python arguments to recipes and records: what ``Classifier``, ``Regressor`` and ``Embedder`` share."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import sklearn.exceptions

from metatransformer.core import errors
from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.modality import Modality
from metatransformer.infer.joined import read_dataset
from metatransformer.infer.sources import Dataset
from metatransformer.modalities import get_modality
from metatransformer.recipe import Recipe, make_recipe, merged, parse_inputs, to_dict

# Recipe keys that have a keyword of their own: given twice, one of the two would silently lose.
KEYWORDS = {
    "modality": "modality",
    "encoder": "encoder",
    "tune": "tune",
    "optim.epochs": "epochs",
    "task.name": "task",
    "task.target": "target",
    "task.metric": "metric",
    "run.seed": "seed",
    "run.device": "device",
    "run.precision": "precision",
    "run.minutes": "minutes",
}


class NotFittedError(errors.NotFittedError, sklearn.exceptions.NotFittedError):
    """The package's own error, which code written for scikit-learn catches as well."""


def not_fitted(estimator: object, *, verb: str) -> NotFittedError:
    """Returns the error of a method that was called before ``fit``."""
    return NotFittedError(
        f"{type(estimator).__name__}.{verb}", must="be called on a fitted estimator", found="no fit", do="Call fit."
    )


def recipe_of(
    modality: str | Mapping[str, Any], *, defaults: Mapping[str, Any], keywords: Mapping[str, Any], given: Any
) -> Recipe:
    """Returns the recipe of an estimator: ``keywords`` by dotted key, ``given`` the argument ``recipe=``.

    Raises:
        UsageError: ``given`` is no mapping, sets what has a keyword of its own, or holds an unknown key or a bad value.
    """
    if given is not None and not isinstance(given, Mapping):
        raise UsageError("recipe", must="be a mapping of dotted keys", found=f"a {type(given).__name__}")
    given = given or {}
    for key in flat_keys(given):
        own = "modality" if key.startswith("inputs.") and key.endswith((".modality", ".from")) else KEYWORDS.get(key)
        if own:
            raise UsageError(f"recipe key '{key}'", must=f"be given as the argument {own}", found="both ways")
    if isinstance(modality, str):
        return make_recipe(get_modality(modality).name, base=given, overrides=keywords, defaults=defaults)
    base = merged({"inputs": parse_inputs(modality)}, given)
    return make_recipe(base=base, overrides=keywords, defaults=defaults)


def keywords_of(recipe: Recipe) -> dict[str, Any]:
    """Returns the arguments, ``recipe`` among them, whose ``recipe_of`` is this recipe, under the usual names."""
    inputs, only = recipe.inputs, recipe.task
    if not recipe.joint:
        inputs = {one.modality: one for one in inputs.values()}
    tasks = {only.name: replace(only, inputs=() if len(inputs) == 1 else only.inputs)}
    flat = flat_keys(to_dict(replace(recipe, inputs=inputs, tasks=tasks)))
    if recipe.joint or "modality" not in flat:
        flat = {key: value for key, value in flat.items() if not key.endswith((".modality", ".from"))}
        inputs = recipe.inputs.items()
        flat["modality"] = {
            name: (one.modality, list(one.columns)) if one.columns else one.modality for name, one in inputs
        }
    keywords = {KEYWORDS[key]: flat.pop(key) for key in KEYWORDS}
    return {**keywords, "recipe": flat}


def labelled(X: Any, y: Any, *, groups: Any = None, recipe: Recipe) -> Dataset:
    """Returns the samples of X with targets: from ``y`` where it is given, else from X itself.

    Raises:
        UsageError: ``y`` beside a path or a target column, or neither for a table; another number of labels or groups.
        DataError: a missing label, or what reading X raises.
    """
    if y is None:
        # A modality with an index of its own may find labels in folders and says itself what it misses.
        rows = recipe.joint or get_modality(recipe.modality).source.rows
        if rows and not recipe.task.target:
            raise UsageError("target", must="name the column to learn, or y be given", found="neither")
        found = read_dataset(X, recipe, labelled=True)
    else:
        if recipe.task.target:
            raise UsageError("y", must="be left out where target= names a column", found="both")
        if isinstance(X, str | os.PathLike):
            do = "Hand in a list of files, or a manifest."
            raise UsageError("y", must="be left out where X is a path", found="both", do=do)
        found = read_dataset(X, recipe, labelled=False).with_targets(_plain_labels(y))
    return found if groups is None else _grouped(found, groups)


def _grouped(data: Dataset, groups: Any) -> Dataset:
    """Returns the samples with groups that were handed in beside them, a text or a number a sample.

    Raises:
        UsageError: another number of them, a missing one, or data that brings its own.
    """
    names, count = pd.Series(groups), len(data.examples)
    if len(names) != count:
        raise UsageError("groups", must=f"have one entry for each of the {count} samples", found=str(len(names)))
    if any(group is not None for group in data.examples.groups):
        raise UsageError("groups", must="be left out where the data brings its own", found="both")
    if names.isna().any():
        raise UsageError("groups", must="be known for every sample", found=f"none for [{int(names.isna().argmax())}]")
    return replace(data, examples=replace(data.examples, groups=names.astype(str).tolist()))


def unlabelled(X: Any, *, recipe: Recipe) -> Dataset:
    """Returns the samples of X; labels and the target column that it may bring play no part.

    A list may name a file several times, as the rows of a table that share a picture do.
    """
    once = [] if recipe.joint else _without_repetition(X, modality=get_modality(recipe.modality))
    found = read_dataset(once or X, recipe, labelled=False)
    if not once:
        return found
    place = {name: number for number, name in enumerate(once)}
    return replace(found, examples=found.examples.take([place[str(item)] for item in X]))


def _without_repetition(X: Any, *, modality: Modality) -> list[str]:
    """Returns a list of files with each once; nothing where none repeats, or one may stand for several samples."""
    listed = isinstance(X, list | tuple | np.ndarray | pd.Series) and modality.source.kind == "files"
    if not listed or modality.source.parts or not all(isinstance(item, str | os.PathLike) for item in X):
        return []
    once = list(dict.fromkeys(map(str, X)))
    return once if len(once) < len(X) and not any(map(os.path.isdir, once)) else []


def _plain_labels(y: Any) -> list[Any]:
    """Returns one-dimensional labels as Python values."""
    array = np.asarray(y)
    if array.ndim != 1:
        raise UsageError("y", must="have one axis", found=f"the shape {array.shape}")
    missing = np.flatnonzero(pd.isna(array))
    if missing.size:
        raise DataError(f"y[{missing[0]}]", must="hold a label or number", found=f"{array[missing[0]]}")
    return array.tolist()


def flat_keys(tree: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Returns nested keys as dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flat_keys(value, prefix=f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
