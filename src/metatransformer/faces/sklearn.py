"""The scikit-learn face: one estimator a kind of answer.

Constructors only store; ``fit`` learns into names that end in ``_``. Wherever there is an ``X``, it is what a user has:
a folder, a manifest or table file, a list of paths, a list or array of samples (the first axis counts them), or a
DataFrame; where samples have several inputs, a DataFrame, a list of mappings, a table file, or a folder of train, val
and test tables, whose columns the inputs read. Labels stand in the data (class folders, the column ``label``, or the
column that ``target`` names) or in ``y``. Both work inside scikit-learn's pipelines, searches and cross-validation.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from torch import Tensor

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.examples import Examples
from metatransformer.data.kept import read_split, split_table, write_split
from metatransformer.data.records import listing
from metatransformer.data.write import write_json
from metatransformer.faces.arguments import flat_keys, keywords_of, labelled, not_fitted, recipe_of, unlabelled
from metatransformer.fit.fit import fit
from metatransformer.infer.embed import FEATURES, embed, embedding
from metatransformer.infer.evaluate import compute_outputs, doubt_gaps
from metatransformer.infer.loader import Loader
from metatransformer.infer.predict import arrange, prediction_table
from metatransformer.infer.sources import split_dataset
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import Recipe
from metatransformer.tasks import get_task

LABELS = "labels.json"  # beside model.json: the class labels in their own type; the task knows them as text
E = TypeVar("E", bound="_Estimator")


class _Estimator(BaseEstimator):
    """What classifier and regressor share."""

    task_name: ClassVar[str]

    def __init__(
        self,
        modality: str | Mapping[str, Any],
        *,
        encoder: str = "meta-b16",
        tune: str = "default",
        epochs: int | Literal["default", "auto"] = "default",
        target: str = "",
        metric: str = "",
        task: str = "",
        minutes: float = 0.0,
        seed: int = 0,
        device: str = "auto",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        recipe: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        """Stores the parameters.

        ``modality``: see ``metatransformer modalities``; of several inputs each by its name, as ``{"photo": "image",
        "rest": "tabular(age,dose)"}`` or ``("tabular", ["age", "dose"])``: an input reads the columns in brackets, else
        the one of its name; the rows of a table what is left. An empty cell is an absent input.
        ``encoder``: a name of ``list_encoders`` or a path. ``tune``: what learns; "default", also for ``epochs``, is
        the modality's own choice. ``target``: the column to learn of a table or manifest. ``metric`` chooses the best
        epoch; empty is the modality's own. ``task``: another one that has answers of this kind, as a package may bring
        it. ``minutes`` > 0: how long ``fit`` may take. ``recipe``: further settings by dotted key, for example
        ``{"optim.lr": 3e-4, "inputs.photo.size": 140}``. ``verbose``: notes and progress on standard error.
        """
        self.modality = modality
        self.encoder = encoder
        self.tune = tune
        self.epochs = epochs
        self.target = target
        self.metric = metric
        self.task = task
        self.minutes = minutes
        self.seed = seed
        self.device = device
        self.precision = precision
        self.recipe = recipe
        self.verbose = verbose

    def fit(self: E, X: Any, y: Any = None, *, groups: Any = None) -> E:
        """Trains on X and returns itself; learns ``pipeline_``, ``history_``, ``metrics_`` (by split) and ``split_``, a
        table of each sample's ``key`` and ``split``.

        Where X brings no split, a seeded part of it (``data.val_fraction``) chooses the best epoch, or folds of few
        samples the head (``optim.folds``), and nothing is kept for a test: that is what ``score`` on other data is for.
        ``groups`` names for each sample what must not be torn apart by that (a patient, a speaker, a place).

        Raises:
            MetaTransformerError: whatever the user must change: data, labels, settings, weights.
        """
        console = self._console()
        found = labelled(X, y, groups=groups, recipe=self._recipe())
        examples, recipe = split_dataset(found, console=console)
        (targets,) = examples.split("train").targets.values()
        labels = self._learn_labels(targets)
        fitted = fit(examples, recipe, console=console)
        for name, value in labels.items():
            setattr(self, name, value)
        self.pipeline_, self.history_, self.metrics_ = fitted.pipeline, fitted.history, fitted.metrics
        self.split_ = split_table(examples)
        if found.columns:
            self.n_features_in_ = len(found.columns)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Returns the features ``[n, F]`` that the head predicts from: the trunk's pooled tokens, float32."""
        examples = self._examples(X, verb="transform")
        return embed(embedding(self.pipeline_, pool=FEATURES), examples, console=self._console())

    def save(self, folder: str | os.PathLike[str], *, standalone: bool = False) -> None:
        """Writes a folder for ``load`` and the command line; ``standalone`` puts a frozen trunk into it as well."""
        if not self.__sklearn_is_fitted__():
            raise not_fitted(self, verb="save")
        self._save_labels(Path(folder))
        if self.split_ is not None:
            write_split(Path(folder), self.split_)
        self.pipeline_.save(Path(folder), metrics=self.metrics_, standalone=standalone)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "pipeline_")

    @classmethod
    def _arguments(cls, recipe: Recipe) -> dict[str, Any]:
        """Returns the arguments whose recipe this is."""
        arguments = keywords_of(recipe)
        return arguments | ({"task": ""} if arguments["task"] == cls.task_name else {})

    def _recipe(self) -> Recipe:
        defaults = {"data.test_fraction": 0.0}
        return recipe_of(self.modality, defaults=defaults, keywords=self._keywords(), given=self.recipe)

    def _keywords(self) -> dict[str, Any]:
        """Returns the recipe keys that have an argument of their own.

        Raises:
            UsageError: there is no such task, or its answers are of another kind.
        """
        name = self.task or self.task_name
        wanted = get_task(name).estimator
        if wanted not in [kind.__name__ for kind in type(self).__mro__]:
            do = "" if wanted else "Use 'metatransformer fit'."
            must, found = f"be learned by a {type(self).__name__}", f"'{name}', which {wanted or 'no estimator'} does"
            raise UsageError("task", must=must, found=found, do=do)
        keywords: dict[str, Any] = {
            "encoder": self.encoder,
            "task.name": name,
            "task.target": self.target,
            "task.metric": self.metric,
            "run.seed": self.seed,
            "run.device": self.device,
            "run.precision": self.precision,
            "run.minutes": self.minutes,
        }
        keywords |= {} if self.tune == "default" else {"tune": self.tune}
        keywords |= {} if self.epochs == "default" else {"optim.epochs": self.epochs}
        return keywords

    def _take(self, pipeline: Pipeline, folder: Path) -> None:
        """Takes over a saved model."""
        self.pipeline_, self.history_, self.split_ = pipeline, [], read_split(folder)
        metrics = json.loads((folder / "model.json").read_text(encoding="utf-8"))["metrics"]
        self.metrics_ = metrics.get(pipeline.task_name, metrics)  # of several tasks by task

    def _learn_labels(self, targets: Sequence[Any]) -> dict[str, Any]:
        """Returns, by attribute, what the task does not keep of the targets; a regression keeps all that is needed."""
        del targets
        return {}

    def _save_labels(self, folder: Path) -> None:
        """Writes what ``_learn_labels`` learned."""

    def _console(self) -> Console:
        return Console(quiet=not self.verbose)

    def _examples(self, X: Any, *, verb: str) -> Examples:
        if not self.__sklearn_is_fitted__():
            raise not_fitted(self, verb=verb)
        return unlabelled(X, recipe=self.pipeline_.recipe).examples

    def _scored(self, X: Any, y: Any) -> tuple[Examples, Sequence[Any]]:
        """Returns the samples to score, the split ``test`` where X brings one, else all, and their targets."""
        if not self.__sklearn_is_fitted__():
            raise not_fitted(self, verb="score")
        examples = labelled(X, y, recipe=self.pipeline_.recipe).examples
        examples = examples.split("test") if "test" in examples.splits else examples
        (targets,) = examples.targets.values()
        return examples, targets

    def _outputs(self, examples: Examples) -> Tensor:
        doubt_gaps(self.pipeline_, examples)
        # Without the task: a label in the data plays no part in a prediction, also not an unknown one.
        loader = Loader(self.pipeline_.route, examples, cache_mb=0, tasks={})
        return compute_outputs(self.pipeline_, loader, console=self._console(), title="predicting")


class Classifier(ClassifierMixin, _Estimator):
    """One of C classes a sample, from any modality, on one shared trunk."""

    task_name = "classify"

    def predict(self, X: Any) -> np.ndarray:
        """Returns the most probable class of each sample, ``[n]``, as ``fit`` was given it."""
        examples = self._examples(X, verb="predict")
        return self.classes_[self._probabilities(examples).argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns probabilities ``[n, C]``, the columns in the order of ``classes_``."""
        return self._probabilities(self._examples(X, verb="predict_proba"))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Returns the accuracy on X: on its split ``test`` where it brings one, else on all of it.

        Raises:
            DataError: no label is a class of the training.
        """
        (examples, truth), classes = self._scored(X, y), self.classes_.tolist()
        # As text where one side is text: the label 3 of an array is the folder '3'. Else 1, 1.0 and True are one.
        kind = str if any(isinstance(label, str) for label in (*truth, *classes)) else float
        known = np.array([kind(label) for label in classes])
        truth = [kind(label) for label in truth]
        if not set(truth) & set(known.tolist()):
            found = f"{truth[0]!r} among others" if len(set(truth)) > 1 else repr(truth[0])
            raise DataError("labels", must=f"be among the classes ({listing(map(repr, classes))})", found=found)
        guess = known[self._probabilities(examples).argmax(axis=1)]
        return float(accuracy_score(truth, guess, sample_weight=sample_weight))

    def _probabilities(self, examples: Examples) -> np.ndarray:
        columns = self.pipeline_.task.decode(self._outputs(examples))
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
        return self._values(self._examples(X, verb="predict"))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Returns R2 on X: on its split ``test`` where it brings one, else on all of it."""
        examples, targets = self._scored(X, y)
        truth = [float(target) for target in targets]
        return float(r2_score(truth, self._values(examples), sample_weight=sample_weight))

    def _values(self, examples: Examples) -> np.ndarray:
        return self.pipeline_.task.decode(self._outputs(examples))["prediction"]


class Forecaster(_Estimator):
    """The next values of series, from a table with timestamps, wide or long."""

    task_name = "forecast"

    def __init__(
        self,
        modality: str = "timeseries",
        *,
        horizon: int = 24,
        lookback: int = 96,
        encoder: str = "meta-b16",
        tune: str = "default",
        epochs: int | Literal["default", "auto"] = "default",
        target: str = "",
        metric: str = "",
        task: str = "",
        minutes: float = 0.0,
        seed: int = 0,
        device: str = "auto",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        recipe: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        """Stores the parameters.

        ``horizon`` and ``lookback``: rows forecast and rows seen. ``target``: the columns to forecast, with commas
        between them; empty = all. The others are those of ``Classifier``.
        """
        super().__init__(
            modality,
            encoder=encoder,
            tune=tune,
            epochs=epochs,
            target=target,
            metric=metric,
            task=task,
            minutes=minutes,
            seed=seed,
            device=device,
            precision=precision,
            recipe=recipe,
            verbose=verbose,
        )
        self.horizon = horizon
        self.lookback = lookback

    def predict(self, X: Any) -> pd.DataFrame:
        """Returns ``series``, ``timestamp``, ``prediction``: the ``horizon`` values behind the last row of each series
        of X, in its unit.
        """
        examples = self._examples(X, verb="predict")
        table = prediction_table(self.pipeline_, examples, self._outputs(examples), split="")
        return arrange(self.pipeline_, examples, table)

    def score(self, X: Any, y: Any = None) -> float:
        """Returns the negative mean squared error on X, standardised by each series' training rows: greater is better.

        X is cut into windows as ``fit`` does it; its last part in time (``input.rows``) is scored where it has one.
        """
        (examples, targets), task = self._scored(X, y), self.pipeline_.task
        return -task.metrics(self._outputs(examples), task.encode(targets))["mse"]

    @classmethod
    def _arguments(cls, recipe: Recipe) -> dict[str, Any]:
        arguments = super()._arguments(recipe)
        return arguments | {name: arguments["recipe"].pop(f"input.{name}") for name in ("horizon", "lookback")}

    def _recipe(self) -> Recipe:
        lengths = {"input.horizon": self.horizon, "input.lookback": self.lookback}
        given = flat_keys(self.recipe) if isinstance(self.recipe, Mapping) else {}
        if twice := [key for key in lengths if key in given]:
            where = f"recipe key '{twice[0]}'"
            raise UsageError(where, must=f"be given as the argument {twice[0][6:]}", found="both ways")
        defaults = {"input.rows": [0.85, 0.15, 0.0]}  # nothing is kept for a test: score on other rows
        keywords = self._keywords() | lengths
        return recipe_of(self.modality, defaults=defaults, keywords=keywords, given=self.recipe)
