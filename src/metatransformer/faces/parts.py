"""Estimators whose answers are no column: classes of all places, objects, and what shows the same.

Labels lie in the data, as the pages of the tasks say (``docs/tasks``): X of ``fit`` and ``score`` is a folder, a
manifest or a file of labels; of ``predict`` it is what the modality reads.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from torch import Tensor

from metatransformer.core.errors import UsageError
from metatransformer.core.labels import PlaceLabels
from metatransformer.core.task import BoxTask, DenseTask
from metatransformer.data.examples import Examples
from metatransformer.faces.arguments import labelled
from metatransformer.faces.sklearn import _Estimator
from metatransformer.infer.dense import Keep
from metatransformer.infer.evaluate import compute_outputs, score_outputs
from metatransformer.infer.loader import Loader
from metatransformer.infer.predict import prediction_table, search_in
from metatransformer.infer.sources import Dataset

P = TypeVar("P", bound="_Parts")


class _Parts(_Estimator):
    """What these share: they are scored by the first score of their task, on whole splits."""

    def score(self, X: Any, y: Any = None) -> float:
        """Returns the task's first score on X: on its split ``test`` where it brings one, else on all of it."""
        examples, _ = self._scored(X, y)
        pipeline = self.pipeline_
        loader = Loader(pipeline.route, examples, cache_mb=0, tasks=pipeline.tasks)
        outputs = compute_outputs(pipeline, loader, console=self._console(), title="scoring")
        return score_outputs(pipeline, loader, outputs)[pipeline.task.primary]

    def _answers(self, examples: Examples, *, keep: Keep | None = None) -> Tensor:
        loader = Loader(self.pipeline_.route, examples, cache_mb=0, tasks={})
        return compute_outputs(self.pipeline_, loader, console=self._console(), title="predicting", keep=keep)


class Segmenter(_Parts):
    """A class for every pixel of a picture, or every point of a cloud, on one shared frozen trunk.

    ``y`` may be the labels of samples in memory: an array of whole numbers each, in the sample's own shape.
    """

    task_name = "segment"

    def fit(self, X: Any, y: Any = None, *, groups: Any = None) -> "Segmenter":
        """Trains on X and returns itself; see ``Classifier.fit``."""
        return super().fit(X, None if y is None else _labels(y), groups=groups)

    def predict(self, X: Any) -> list[np.ndarray]:
        """Returns for each sample the classes of its places, in its own shape, by the numbers that training labels
        have; ``classes_`` names them.
        """
        examples = self._examples(X, verb="predict")
        found: dict[int, np.ndarray] = {}
        self._answers(examples, keep=found.__setitem__)
        codes = np.array(self._task.codes)
        return [codes[found[row]] for row in range(len(examples))]

    def score(self, X: Any, y: Any = None) -> float:
        """Returns the mean IoU on X: on its split ``test`` where it brings one, else on all of it."""
        return super().score(X, None if y is None else _labels(y))

    @property
    def classes_(self) -> dict[int, str]:
        """The names of the classes by the numbers that labels have."""
        return dict(zip(self._task.codes, self._task.legend[0], strict=True))

    @property
    def _task(self) -> DenseTask:
        task = self.pipeline_.task
        assert isinstance(task, DenseTask)
        return task


def _labels(y: Sequence[Any]) -> np.ndarray:
    """Returns labels that are read from arrays in memory."""
    found = np.empty(len(y), dtype=object)
    for row, labels in enumerate(y):
        array = np.asarray(labels)
        if array.dtype.kind not in "biu":
            raise UsageError(f"y[{row}]", must="be whole numbers, one a place", found=str(array.dtype))
        found[row] = PlaceLabels(f"y[{row}]", partial(np.asarray, array.astype(np.int64)))
    return found


class Detector(_Parts):
    """The objects in pictures: a box, a category and a score each, on one shared frozen trunk."""

    task_name = "detect"

    def predict(self, X: Any) -> pd.DataFrame:
        """Returns ``key, class, id, score, x1, y1, x2, y2``: a row for each box that was found, the sure ones of each
        sample first, in its own pixels; those of a score of ``threshold_`` or more are what is shown to people.
        """
        examples = self._examples(X, verb="predict")
        outputs, task = self._answers(examples), self._task
        rows = [
            (key, task.legend[0][number], task.ids[number], float(score), *box)
            for key, answer in zip(examples.keys, outputs, strict=True)
            for box, score, number in zip(*task.found(answer), strict=True)
        ]
        return pd.DataFrame(rows, columns=["key", "class", "id", "score", "x1", "y1", "x2", "y2"])

    @property
    def threshold_(self) -> float:
        """The score from which on boxes are shown to people."""
        return self._task.threshold

    @property
    def _task(self) -> BoxTask:
        task = self.pipeline_.task
        assert isinstance(task, BoxTask)
        return task


class Retriever(_Parts):
    """Samples of the same identity, also of ones that training has never seen, on one shared frozen trunk."""

    task_name = "retrieve"

    def predict(self, X: Any, gallery: Any = None) -> pd.DataFrame:
        """Returns for each sample the identity of the nearest one of the gallery (``prediction``) and the nearest ones
        (``nearest_1, identity_1, similarity_1``, ...).

        ``gallery`` are samples with identities; by default those that training kept apart. It stays the gallery.
        """
        examples = self._examples(X, verb="predict")
        if gallery is not None:
            known: Dataset = labelled(gallery, None, recipe=self.pipeline_.recipe)
            search_in(self.pipeline_, known.examples, console=self._console())
        return prediction_table(self.pipeline_, examples, self._answers(examples), split="")
