"""From Python arguments to recipes and records: what ``Classifier``, ``Regressor`` and ``Embedder`` share."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn.exceptions

from metatransformer.core import errors
from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.modality import Modality
from metatransformer.data.index import Index
from metatransformer.infer.sources import read_index, read_unlabelled, with_targets
from metatransformer.recipe import Recipe, make_recipe, to_dict

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


def recipe_of(modality: Modality, *, defaults: Mapping[str, Any], keywords: Mapping[str, Any], given: Any) -> Recipe:
    """Returns the recipe of an estimator: ``keywords`` by dotted key, ``given`` the argument ``recipe=``.

    Raises:
        UsageError: ``given`` is no mapping, sets what has a keyword of its own, or holds an unknown key or a bad value.
    """
    if given is not None and not isinstance(given, Mapping):
        raise UsageError("recipe", must="be a mapping of dotted keys", found=f"a {type(given).__name__}")
    given = given or {}
    for key in flat_keys(given):
        if key in KEYWORDS:
            raise UsageError(f"recipe key '{key}'", must=f"be given as the argument {KEYWORDS[key]}", found="both ways")
    return make_recipe(modality.name, base=given, overrides=keywords, defaults=defaults)


def keywords_of(recipe: Recipe) -> dict[str, Any]:
    """Returns the arguments, ``recipe`` among them, whose ``recipe_of`` is this recipe."""
    flat = flat_keys(to_dict(recipe))
    keywords = {KEYWORDS[key]: flat.pop(key) for key in KEYWORDS}
    return {**keywords, "recipe": flat}


def labelled(modality: Modality, X: Any, y: Any, *, recipe: Recipe) -> Index:
    """Returns the records of X with targets: from ``y`` where it is given, else from X itself.

    Raises:
        UsageError: ``y`` beside a path or a target column, or neither for a table; another number of labels.
        DataError: a missing label, or what reading X raises.
    """
    target, header = recipe.task.target, recipe.data.header
    if y is None:
        # A modality with an index of its own may find labels in folders and says itself what it misses.
        if modality.source.kind == "table" and modality.source.index is None and not target:
            raise UsageError("target", must="name the column to learn, or y be given", found="neither")
        return read_index(modality, X, options=recipe.input, target=target, labelled=True, header=header)
    if target:
        raise UsageError("y", must="be left out where target= names a column", found="both")
    if isinstance(X, str | os.PathLike):
        raise UsageError(
            "y", must="be left out where X is a path", found="both", do="Hand in a list of files, or a manifest."
        )
    index = read_index(modality, X, options=recipe.input, labelled=False, header=header)
    return with_targets(index, _plain_labels(y))


def grouped(index: Index, groups: Any) -> Index:
    """Returns the index with groups that were handed in beside the data, a text or a number a sample.

    Raises:
        UsageError: another number of them, a missing one, or data that brings its own.
    """
    names, count = pd.Series(groups), len(index.records)
    if len(names) != count:
        raise UsageError("groups", must=f"have one entry for each of the {count} samples", found=str(len(names)))
    if any(group is not None for group in index.records.groups):
        raise UsageError("groups", must="be left out where the data brings its own", found="both")
    if names.isna().any():
        raise UsageError("groups", must="be known for every sample", found=f"none for [{int(names.isna().argmax())}]")
    return replace(index, records=index.records.replace(groups=names.astype(str).tolist()))


def unlabelled(modality: Modality, X: Any, *, recipe: Recipe) -> Index:
    """Returns the records of X; labels and the target column that it may bring play no part.

    A list may name a file several times, as the rows of a table that share a picture do.
    """
    once = _without_repetition(X, modality=modality)
    index = read_unlabelled(recipe, once or X)
    if once:
        place = {name: number for number, name in enumerate(once)}
        index = replace(index, records=index.records.take([place[str(item)] for item in X]))
    return index


def _without_repetition(X: Any, *, modality: Modality) -> list[str]:
    """Returns a list of files with each once; nothing where none repeats, or one may stand for several samples."""
    listed = isinstance(X, list | tuple | np.ndarray | pd.Series) and modality.source.kind == "files"
    if not listed or modality.source.parts or not all(isinstance(item, str | os.PathLike) for item in X):
        return []
    once = list(dict.fromkeys(map(str, X)))
    return once if len(once) < len(X) and not any(Path(name).is_dir() for name in once) else []


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
