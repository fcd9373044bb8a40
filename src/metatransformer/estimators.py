"""The scikit-learn face: ``Classifier`` and ``Regressor``, and ``load`` for what they and ``Embedder`` saved.

Constructors only store; ``fit`` learns into names that end in ``_``. Wherever there is an ``X``, it is what a user has:
a folder, a manifest or table file, a list of paths, a list or array of samples (the first axis counts them), or a
DataFrame. Labels stand in the data (class folders, the column ``label``, or the column that ``target`` names) or in
``y``. Both work inside scikit-learn's pipelines, searches and cross-validation.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from torch import Tensor

from metatransformer.arguments import keywords_of, labelled, not_fitted, recipe_of, unlabelled
from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.modality import Modality
from metatransformer.core.samples import Record
from metatransformer.embedder import Embedder, load_embedder
from metatransformer.engine.console import Console
from metatransformer.engine.data import Loader
from metatransformer.engine.evaluate import compute_features, compute_outputs
from metatransformer.engine.fit import fit
from metatransformer.engine.sources import saved_model, split_index
from metatransformer.io.write import write_json
from metatransformer.modalities import get_modality
from metatransformer.pipeline import Pipeline, load_pipeline
from metatransformer.recipe import Recipe

LABELS = "labels.json"  # beside model.json: the class labels in their own type; the task knows them as text
E = TypeVar("E", bound="_Estimator")


class _Estimator(BaseEstimator):
    """What classifier and regressor share."""

    task_name: ClassVar[str]

    def __init__(
        self,
        modality: str,
        *,
        encoder: str = "meta-b16",
        tune: str = "default",
        epochs: int | Literal["default", "auto"] = "default",
        target: str = "",
        metric: str = "",
        seed: int = 0,
        device: str = "auto",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        recipe: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        """Stores the parameters.

        ``modality``: see ``metatransformer modalities``. ``encoder``: a name of ``list_encoders`` or a path. ``tune``:
        what learns; "default", also for ``epochs``, is the modality's own choice. ``target``: the column to learn of a
        table or manifest. ``metric`` chooses the best epoch; empty is the modality's own. ``recipe``: further settings
        by dotted key, for example ``{"optim.lr": 3e-4, "task.class_weight": "balanced"}``. ``verbose``: notes and
        progress on standard error.
        """
        self.modality = modality
        self.encoder = encoder
        self.tune = tune
        self.epochs = epochs
        self.target = target
        self.metric = metric
        self.seed = seed
        self.device = device
        self.precision = precision
        self.recipe = recipe
        self.verbose = verbose

    def fit(self: E, X: Any, y: Any = None) -> E:
        """Trains on X and returns itself; learns ``pipeline_``, ``history_`` and ``metrics_`` (by split).

        Where X brings no split, a seeded part of it (``data.val_fraction``) chooses the best epoch and nothing is kept
        for a test: that is what ``score`` on other data is for.

        Raises:
            MetaTransformerError: whatever the user must change: data, labels, settings, weights.
        """
        modality, console = get_modality(self.modality), self._console()
        recipe = self._recipe(modality)
        found = labelled(modality, X, y, recipe=recipe)
        index = split_index(found, recipe, console=console)
        labels = self._learn_labels([record.target for record in index.records if record.split == "train"])
        fitted = fit(index.records, recipe, console=console)
        for name, value in labels.items():
            setattr(self, name, value)
        self.pipeline_, self.history_, self.metrics_ = fitted.pipeline, fitted.history, fitted.metrics
        if found.columns:
            self.n_features_in_ = len(found.columns)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Returns the features ``[n, F]`` that the head predicts from: the trunk's pooled tokens, float32."""
        loader = self._loader(self._records(X, verb="transform"))
        return compute_features(self.pipeline_, loader, console=self._console(), title="features").numpy()

    def save(self, folder: str | os.PathLike[str], *, standalone: bool = False) -> None:
        """Writes a folder for ``load`` and the command line; ``standalone`` puts a frozen trunk into it as well."""
        if not self.__sklearn_is_fitted__():
            raise not_fitted(self, verb="save")
        self._save_labels(Path(folder))
        self.pipeline_.save(Path(folder), metrics=self.metrics_, standalone=standalone)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "pipeline_")

    def _recipe(self, modality: Modality) -> Recipe:
        keywords: dict[str, Any] = {
            "encoder": self.encoder,
            "task.name": self.task_name,
            "task.target": self.target,
            "task.metric": self.metric,
            "run.seed": self.seed,
            "run.device": self.device,
            "run.precision": self.precision,
        }
        keywords |= {} if self.tune == "default" else {"tune": self.tune}
        keywords |= {} if self.epochs == "default" else {"optim.epochs": self.epochs}
        return recipe_of(modality, defaults={"data.test_fraction": 0.0}, keywords=keywords, given=self.recipe)

    def _take(self, pipeline: Pipeline, folder: Path) -> None:
        """Takes over a saved model."""
        self.pipeline_, self.history_ = pipeline, []
        self.metrics_ = json.loads((folder / "model.json").read_text(encoding="utf-8"))["metrics"]

    def _learn_labels(self, targets: Sequence[Any]) -> dict[str, Any]:
        """Returns, by attribute, what the task does not keep of the targets; a regression keeps all that is needed."""
        del targets
        return {}

    def _save_labels(self, folder: Path) -> None:
        """Writes what ``_learn_labels`` learned."""

    def _console(self) -> Console:
        return Console(quiet=not self.verbose)

    def _records(self, X: Any, *, verb: str) -> tuple[Record, ...]:
        if not self.__sklearn_is_fitted__():
            raise not_fitted(self, verb=verb)
        return unlabelled(self.pipeline_.modality, X, recipe=self.pipeline_.recipe).records

    def _scored(self, X: Any, y: Any) -> list[Record]:
        """Returns the records to score: the split ``test`` where X brings one, else all."""
        if not self.__sklearn_is_fitted__():
            raise not_fitted(self, verb="score")
        index = labelled(self.pipeline_.modality, X, y, recipe=self.pipeline_.recipe)
        return [record for record in index.records if record.split == "test"] or list(index.records)

    def _loader(self, records: Sequence[Record]) -> Loader:
        # Without the task: a label in the data plays no part in a prediction, also not an unknown one.
        return Loader(self.pipeline_.reader, records, cache_mb=0, task=None)

    def _outputs(self, records: Sequence[Record]) -> Tensor:
        return compute_outputs(self.pipeline_, self._loader(records), console=self._console(), title="predicting")


class Classifier(ClassifierMixin, _Estimator):
    """One of C classes a sample, from any modality, on one shared trunk."""

    task_name = "classify"

    def predict(self, X: Any) -> np.ndarray:
        """Returns the most probable class of each sample, ``[n]``, as ``fit`` was given it."""
        records = self._records(X, verb="predict")
        return self.classes_[self._probabilities(records).argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns probabilities ``[n, C]``, the columns in the order of ``classes_``."""
        return self._probabilities(self._records(X, verb="predict_proba"))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Returns the accuracy on X: on its split ``test`` where it brings one, else on all of it."""
        records = self._scored(X, y)
        guess = self.classes_[self._probabilities(records).argmax(axis=1)].tolist()
        # As text: the label 3 of an array is the folder '3'.
        truth = [str(record.target) for record in records]
        return float(accuracy_score(truth, [str(label) for label in guess], sample_weight=sample_weight))

    def _probabilities(self, records: Sequence[Record]) -> np.ndarray:
        columns = self.pipeline_.task.decode(self._outputs(records))
        return np.stack([columns[f"p({label})"] for label in self.classes_.tolist()], axis=1)

    def _learn_labels(self, targets: Sequence[Any]) -> dict[str, Any]:
        kinds = sorted({type(target).__name__ for target in targets})
        if len(kinds) > 1:
            raise DataError("labels", must="be of one type", found=" and ".join(kinds), do="Make all of them text.")
        return {"classes_": np.unique(np.asarray(targets))}

    def _save_labels(self, folder: Path) -> None:
        write_json(folder / LABELS, self.classes_.tolist())

    def _take(self, pipeline: Pipeline, folder: Path) -> None:
        super()._take(pipeline, folder)
        path = folder / LABELS  # absent where the command line trained: labels are text there
        labels = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else pipeline.task.state()["classes"]
        self.classes_ = np.unique(np.asarray(labels))


class Regressor(RegressorMixin, _Estimator):
    """One number a sample, from any modality, on one shared trunk."""

    task_name = "regress"

    def predict(self, X: Any) -> np.ndarray:
        """Returns the predicted value of each sample, ``[n]``, in the target's unit."""
        return self._values(self._records(X, verb="predict"))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Returns R2 on X: on its split ``test`` where it brings one, else on all of it."""
        records = self._scored(X, y)
        truth = [float(record.target) for record in records]
        return float(r2_score(truth, self._values(records), sample_weight=sample_weight))

    def _values(self, records: Sequence[Record]) -> np.ndarray:
        return self.pipeline_.task.decode(self._outputs(records))["prediction"]


_CLASSES: dict[str, type[Classifier] | type[Regressor]] = {"classify": Classifier, "regress": Regressor}


def load(folder: str | os.PathLike[str], *, encoder: str = "") -> Classifier | Regressor | Embedder:
    """Returns the fitted estimator that a run, the command line or ``save`` left in a folder.

    ``encoder`` names the place of the trunk where it is no longer the one of training.

    Raises:
        DataError: the folder holds no model, or a damaged one.
        WeightsError: the trunk found is not the one that the model was trained on.
    """
    place = saved_model(Path(folder))
    if (place / "embedder.json").is_file():
        return load_embedder(place, encoder=encoder)
    pipeline = load_pipeline(place, encoder=encoder)
    if pipeline.recipe.task.name not in _CLASSES:
        raise UsageError(
            folder,
            must="hold a classifier or a regressor to be loaded in Python",
            found=f"a model of the task '{pipeline.recipe.task.name}'",
            do="Use 'metatransformer predict' and 'evaluate' on the folder.",
        )
    keywords: dict[str, Any] = keywords_of(pipeline.recipe)
    if encoder:
        keywords["encoder"] = encoder
    estimator = _CLASSES[pipeline.recipe.task.name](keywords.pop("modality"), **keywords)
    estimator._take(pipeline, place)
    return estimator
