"""Controls: what a score has to be compared with.

The majority or mean, a plain baseline on raw features by scikit-learn, the same recipe on a random trunk, and the same
recipe with no trunk. "The frozen pretrained trunk helps" is the difference, also where there is none.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from metatransformer.core.errors import UsageError
from metatransformer.core.samples import Counts
from metatransformer.core.task import Baseline, Task
from metatransformer.fit.fit import fit
from metatransformer.fit.fitted import Fitted, refits
from metatransformer.infer.loader import Loader
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import Recipe, tune_mode
from metatransformer.report.objects import forest_boxes
from metatransformer.report.places import forest_answers

CONTROLS = ("constant", "baseline", "random", "identity")
FORESTS = {"dense": forest_answers, "boxed": forest_boxes}  # plain baselines, by what a task needs of a modality
MAX_FEATURES = 200  # beyond it principal components are taken

PENALTIES = np.logspace(-1, 5, 13)  # of ridge regression, chosen by leaving single samples out


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
        if name in ("random", "identity"):
            results[name] = _other_trunk(fitted, name, console).metrics[split]
        else:
            answers = partial(control_outputs, fitted, name, console=console)
            results[name] = scores_beside(fitted, answers, split=split)[0]
    return results


def scores_beside(
    fitted: Fitted, answers: Callable[[str], torch.Tensor], *, split: str
) -> tuple[dict[str, float], torch.Tensor]:
    """Returns the scores of what another model answers to a split, and the answers: what a task learns from answers to
    the validation split is learned from the other model's.
    """
    task, outputs = copy.deepcopy(fitted.pipeline.task), answers(split)
    target, held_out = fitted.loaders[split].target, fitted.loaders["val"].target
    assert target is not None and held_out is not None
    if task.calibrated:
        task.calibrate(outputs if split == "val" else answers("val"), held_out)
    return task.metrics(outputs, target), outputs


def control_outputs(fitted: Fitted, name: str, split: str, *, console: Console) -> torch.Tensor:
    """Returns what the constant answer or the plain baseline answers to ``split``, as a head's outputs
    ``[n, outputs]``.
    """
    if name == "constant":
        return fitted.pipeline.task.constant().expand(len(fitted.loaders[split]), -1)
    kit = fitted.pipeline.task.kit
    return FORESTS[kit](fitted, split, console=console) if kit else _baseline(fitted, split)


def _baseline(fitted: Fitted, split: str) -> torch.Tensor:
    """Fits scikit-learn on raw features of the splits that the model's last fit sees."""
    task, kind = fitted.pipeline.task, baseline_kind(fitted.pipeline)
    known = [fitted.loaders[name] for name in known_splits(fitted.pipeline)]
    x, raw = _raw_features(known, fitted.loaders[split], sparse_rows=kind == "sparse")
    if task.baseline.kind == "vectors":
        return torch.from_numpy(np.asarray(raw.toarray() if kind == "sparse" else raw)).float()
    y = np.concatenate([plain_target(loader, task) for loader in known])
    model = suited(_estimator(task.baseline, kind=kind, shape=x.shape), task)
    fit_weighed(model, x, y, weight=np.concatenate([weights(loader, task) for loader in known]))
    return as_outputs(model, task, raw)


def baseline_kind(pipeline: Pipeline) -> str:
    """Returns the kind of the plain baseline: the modality's own; a forest for inputs that differ in it."""
    kinds = {reader.modality.baseline for reader in pipeline.route.values()}
    return kinds.pop() if len(kinds) == 1 else "forest"


def baseline_words(pipeline: Pipeline) -> str:
    """Returns what the plain baseline is, in words."""
    if pipeline.task.kit:
        return "forest on local features" + ", regions and peaks" * (pipeline.task.kit == "boxed")
    return "plain features, cosine" if pipeline.task.baseline.kind == "vectors" else baseline_kind(pipeline)


def known_splits(pipeline: Pipeline) -> tuple[str, ...]:
    """Returns the splits that a chosen baseline is fitted on: both where the model's head is fitted again on both."""
    return ("train", "val") if refits(pipeline) else ("train",)


def plain_target(loader: Loader, task: Task) -> np.ndarray:
    """Returns what an estimator of scikit-learn is fitted on."""
    assert loader.target is not None
    if task.baseline.kind not in ("numbers", "vectors"):
        return loader.target.numpy()
    return task.goal(loader.target).squeeze(1).numpy()  # one column is handed over flat, as scikit-learn has it


def weights(loader: Loader, task: Task) -> np.ndarray:
    """Returns how much each sample counts for a baseline, ones where all count alike."""
    assert loader.target is not None
    return task.importance(loader.target).double().numpy() if task.baseline.weighed else np.ones(len(loader))


def suited(model: Any, task: Task) -> Any:
    """Returns an estimator as it learns the task: where there are labels, one for each."""
    return PerLabel(model) if task.baseline.kind == "labels" else model


def fit_weighed(model: Any, x: Any, y: np.ndarray, *, weight: np.ndarray) -> None:
    """Fits a pipeline in place; samples are weighed only where weights differ, for not every estimator can."""
    if (weight == weight[0]).all():
        model.fit(x, y)
    else:
        model.fit(x, y, **{f"{model.steps[-1][0]}__sample_weight": weight})


class PerLabel(BaseEstimator):
    """One classifier a label, fitted where the label is known; ``predict`` gives log odds ``[n, labels]``."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, x: Any, y: np.ndarray) -> "PerLabel":
        """Learns from answers ``[n, labels]``, NaN where unknown; a label of one answer keeps its rate."""
        self.models_, self.rates_ = [], []
        for column in y.T:
            known = ~np.isnan(column)
            answers = column[known].astype(int)
            several = len(np.unique(answers)) > 1
            model: Any = clone(self.estimator)
            self.models_.append(model.fit(x[known], answers) if several else None)
            self.rates_.append(answers.mean() if known.any() else 0.5)
        return self

    def predict(self, x: Any) -> np.ndarray:
        """Returns the log odds of each label."""
        pairs = zip(self.models_, self.rates_, strict=True)
        columns = [np.full(x.shape[0], rate) if m is None else m.predict_proba(x)[:, 1] for m, rate in pairs]
        chance = np.clip(np.stack(columns, axis=1), 1e-12, 1 - 1e-12)
        return np.log(chance / (1 - chance))


def plain_features(loader: Loader, index: int, name: str) -> np.ndarray | Counts | None:
    """Returns a modality's plain vector ``[F]`` of one input of a sample, None where the sample lacks it."""
    reader, record = loader.route[name], loader.examples.inputs[name][index]
    if record is None:
        return None
    modality = reader.modality
    view = reader.raw(record) if modality.raw_features else loader.sample(index).views[name]
    assert view is not None
    return modality.features(view) if view.plain is None else view.plain


def _raw_features(known: Sequence[Loader], scored: Loader, *, sparse_rows: bool) -> tuple[Any, Any]:
    """Returns the plain baseline's features ``[n, F]`` of the known samples and of those to be scored.

    The inputs stand side by side, with 0 for what a sample lacks; a sparse matrix where nearly all are 0.
    """
    loaders = [*known, scored]
    columns = []
    for name in scored.route:
        vectors = [[plain_features(loader, i, name) for i in range(len(loader))] for loader in loaders]
        columns.append(_columns(vectors, sparse_rows=sparse_rows))
    beside: Callable[[Any], Any] = (lambda parts: sparse.hstack(parts, format="csr")) if sparse_rows else np.hstack
    tables: list[Any] = [beside([column[place] for column in columns]) for place in range(len(loaders))]
    whole = sparse.vstack(tables[:-1], format="csr") if sparse_rows else np.concatenate(tables[:-1])
    return whole, tables[-1]


def _columns(parts: Sequence[Sequence[np.ndarray | Counts | None]], *, sparse_rows: bool) -> list[Any]:
    """Returns the vectors of one input as a table a part."""
    first = next(row for part in parts for row in part if row is not None)
    width = first.size
    if sparse_rows:
        return [sparse.vstack([_sparse_row(row, width=width) for row in part], format="csr") for part in parts]
    tables = [[np.zeros(width) if row is None else dense_row(row) for row in part] for part in parts]
    return [np.stack(table) for table in tables]


def _sparse_row(row: np.ndarray | Counts | None, *, width: int) -> sparse.csr_matrix:
    if isinstance(row, Counts):
        return sparse.csr_matrix((row.values, (np.zeros(len(row.places), dtype=int), row.places)), shape=(1, width))
    return sparse.csr_matrix(np.zeros(width) if row is None else row)


def dense_row(row: np.ndarray | Counts) -> np.ndarray:
    """Returns a plain vector with all its zeros."""
    if not isinstance(row, Counts):
        return row
    dense = np.zeros(row.size)
    dense[row.places] = row.values
    return dense


def _estimator(learns: Baseline, *, kind: str, shape: tuple[int, ...]) -> Any:
    classify = learns.kind != "numbers"
    if kind == "boosting":
        return (
            HistGradientBoostingClassifier(random_state=0)
            if classify
            else HistGradientBoostingRegressor(random_state=0)
        )
    if kind == "forest":
        forest = RandomForestClassifier if classify else RandomForestRegressor
        return forest(500, random_state=0)
    if kind == "sparse":
        # A weak penalty, because weighed counts are far below 1. With the usual tolerance rounding decides where the
        # solver stops: on SST-2 at 0.778 or 0.783, by machine and number of threads.
        line = LogisticRegression(C=10, max_iter=2000, tol=1e-8) if classify else RidgeCV(PENALTIES)
        return make_pipeline(TfidfTransformer(), line)
    steps: list[Any] = [StandardScaler()]
    rows, features = shape
    if features > MAX_FEATURES and not learns.whole:
        steps.append(PCA(min(MAX_FEATURES, rows), random_state=0))  # not scaled again: that would blow up noise
    weight = "balanced" if learns.balanced else None
    steps.append(LogisticRegression(max_iter=2000, class_weight=weight) if classify else RidgeCV(PENALTIES))
    return make_pipeline(*steps)


def as_outputs(model: Any, task: Task, x: Any) -> torch.Tensor:
    """Returns scikit-learn's answers in the form of a head's outputs: log probabilities, log odds, or numbers."""
    if task.baseline.kind != "classes":
        return torch.from_numpy(np.asarray(model.predict(x))).float().reshape(x.shape[0], -1)
    if not hasattr(model, "predict_proba"):  # a support vector machine: its decision values rank the classes
        margins = model.decision_function(x)
        margins = np.stack([-margins, margins], axis=1) if margins.ndim == 1 else margins
        every = np.full((x.shape[0], task.outputs), margins.min() - 1)  # a class that it never saw is never its answer
        every[:, model.classes_] = margins
        return torch.from_numpy(every)
    probability = np.full((x.shape[0], task.outputs), 1e-12)
    probability[:, model.classes_] = np.maximum(model.predict_proba(x), 1e-12)
    return torch.from_numpy(np.log(probability))


def _other_trunk(fitted: Fitted, kind: str, console: Console) -> Fitted:
    """Trains the same recipe on a random trunk or on none, with the pretrained trunk's own front end."""
    recipe = fitted.pipeline.recipe
    changed = with_random_trunk(recipe, seed=recipe.run.seed) if kind == "random" else without_trunk(recipe)
    return fit(fitted.examples, changed, console=console)


def with_random_trunk(recipe: Recipe, *, seed: int) -> Recipe:
    """Returns the recipe on blocks that ``seed`` draws anew, behind the trunk's own front end."""
    return dataclasses.replace(recipe, encoder=f"random:{seed}:{recipe.encoder}")


def without_trunk(recipe: Recipe) -> Recipe:
    """Returns the recipe on no blocks, behind the trunk's own front end."""
    head, tune = recipe.head, recipe.tune
    if head.pool == "summary":
        # Without a trunk the summary token sees nothing of the sample: its score would be the constant answer's.
        head = dataclasses.replace(head, pool="mean")
    if tune_mode(tune)[0] in ("lora", "last"):
        tune = "ends"  # without blocks there is nothing between the ends to adapt
    return dataclasses.replace(recipe, encoder=f"identity:{recipe.encoder}", head=head, tune=tune)
