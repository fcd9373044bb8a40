"""Controls: what a score has to be compared with.

The majority or mean, a plain baseline on raw features by scikit-learn, the same recipe on a random trunk, and the same
recipe with no trunk. "The frozen pretrained trunk helps" is the difference, also where there is none.
"""

import dataclasses
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from metatransformer.core.errors import UsageError
from metatransformer.engine.console import Console
from metatransformer.engine.data import Loader
from metatransformer.engine.fit import Fitted, fit
from metatransformer.recipe import tune_mode
from metatransformer.tasks import Task

CONTROLS = ("constant", "baseline", "random", "identity")
MAX_FEATURES = 200  # beyond it principal components are taken, as the baselines of the data sets were


def run_controls(
    fitted: Fitted, names: tuple[str, ...], *, split: str, console: Console
) -> dict[str, dict[str, float]]:
    """Returns the metrics of each named control on ``split``, trained on what ``fitted`` was trained on.

    Raises:
        UsageError: an unknown name, or a split without targets.
    """
    if bad := [name for name in names if name not in CONTROLS]:
        raise UsageError("controls", must=f"be among {', '.join(CONTROLS)}", found=bad[0])
    if split not in fitted.metrics:
        raise UsageError("controls", must="be scored on a split with targets", found=repr(split))
    results = {}
    for name in names:
        console.note(f"control '{name}'")
        if name == "constant":
            results[name] = _constant(fitted, split)
        elif name == "baseline":
            results[name] = _baseline(fitted, split)
        else:
            results[name] = _other_trunk(fitted, name, split, console)
    return results


def _constant(fitted: Fitted, split: str) -> dict[str, float]:
    loader, task = fitted.loaders[split], fitted.pipeline.task
    assert loader.target is not None
    outputs = task.constant().expand(len(loader), -1)
    return task.metrics(outputs, loader.target)


def _baseline(fitted: Fitted, split: str) -> dict[str, float]:
    """Fits scikit-learn on raw features of the training and validation splits together: it needs no validation."""
    modality, task = fitted.pipeline.modality, fitted.pipeline.task
    known = [fitted.loaders[name] for name in ("train", "val")]
    x = np.concatenate([_raw_features(loader) for loader in known])
    y = np.concatenate([_targets(loader) for loader in known])
    model = _estimator(task, kind=modality.baseline, shape=x.shape)
    model.fit(x, y)
    loader = fitted.loaders[split]
    outputs = _as_outputs(model, task, _raw_features(loader))
    assert loader.target is not None
    return task.metrics(outputs, loader.target)


def _raw_features(loader: Loader) -> np.ndarray:
    feature = loader.reader.modality.features
    return np.stack([feature(loader.sample(i)) for i in range(len(loader))])


def _targets(loader: Loader) -> np.ndarray:
    assert loader.target is not None
    return loader.target.numpy()


def _estimator(task: Task, *, kind: str, shape: tuple[int, ...]) -> Any:
    classify = task.name == "classify"
    if kind == "boosting":
        return (
            HistGradientBoostingClassifier(random_state=0)
            if classify
            else HistGradientBoostingRegressor(random_state=0)
        )
    steps: list[Any] = [StandardScaler()]
    rows, features = shape
    if features > MAX_FEATURES:
        steps = [PCA(min(MAX_FEATURES, rows), random_state=0), StandardScaler()]
    steps.append(LogisticRegression(max_iter=2000) if classify else Ridge())
    return make_pipeline(*steps)


def _as_outputs(model: Any, task: Task, x: np.ndarray) -> torch.Tensor:
    """Returns scikit-learn's answers in the form of a head's outputs: log probabilities, or standardised values."""
    if task.name != "classify":
        return torch.from_numpy(np.asarray(model.predict(x))).float().reshape(len(x), -1)
    probability = np.full((len(x), task.outputs), 1e-12)
    probability[:, model.classes_] = np.maximum(model.predict_proba(x), 1e-12)
    return torch.from_numpy(np.log(probability))


def _other_trunk(fitted: Fitted, kind: str, split: str, console: Console) -> dict[str, float]:
    """Trains the same recipe on a random trunk or on none, with the pretrained trunk's own front end."""
    recipe = fitted.pipeline.recipe
    base = fitted.pipeline.trunk.name
    name = f"random:{recipe.run.seed}:{base}" if kind == "random" else f"identity:{base}"
    head = recipe.head
    if kind == "identity" and head.pool == "summary":
        # Without a trunk the summary token sees nothing of the sample: its score would be the constant answer's.
        head = dataclasses.replace(head, pool="mean")
    # Without blocks there is nothing between the ends to adapt.
    tune = "ends" if kind == "identity" and tune_mode(recipe.tune)[0] in ("lora", "last") else recipe.tune
    records = [record for loader in fitted.loaders.values() for record in loader.records]
    other = fit(records, dataclasses.replace(recipe, encoder=name, head=head, tune=tune), console=console)
    return other.metrics[split]
