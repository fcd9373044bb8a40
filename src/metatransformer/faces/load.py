"""``load``: what estimators and the command line left in a folder, as the estimator that it is."""

import os
from pathlib import Path

from metatransformer.core.errors import UsageError
from metatransformer.faces.embedder import Embedder, embedder_of
from metatransformer.faces.parts import Detector, Retriever, Segmenter
from metatransformer.faces.sklearn import Classifier, Forecaster, Regressor
from metatransformer.saved import load_pipeline, saved_model

KINDS = {kind.__name__: kind for kind in (Classifier, Regressor, Forecaster, Segmenter, Detector, Retriever)}


def load(
    folder: str | os.PathLike[str], *, task: str = "", encoder: str = "", device: str = "auto"
) -> Classifier | Regressor | Forecaster | Segmenter | Detector | Retriever | Embedder:
    """Returns the fitted estimator that a run, the command line or ``save`` left in a folder.

    ``task`` names one of a model of several. ``encoder`` names the place of the trunk where it is no longer the one of
    training; ``device`` is where it will run, whatever it was trained on.

    Raises:
        DataError: the folder holds no model, or a damaged one.
        WeightsError: the trunk found is not the one that the model was trained on.
    """
    place = saved_model(Path(folder))
    pipeline = load_pipeline(place, encoder=encoder, device=device).asked(task)
    pipeline = pipeline.of_task(task) if task else pipeline
    if not pipeline.tasks:
        return embedder_of(pipeline)
    if pipeline.task.estimator not in KINDS:
        raise UsageError(
            folder,
            must="hold a model of a task that has an estimator, to be loaded in Python",
            found=f"one of the task '{pipeline.task.name}'",
            do="Use 'metatransformer predict' and 'evaluate' on the folder.",
        )
    kind = KINDS[pipeline.task.estimator]
    arguments = kind._arguments(pipeline.recipe)
    if encoder:
        arguments["encoder"] = encoder
    estimator = kind(**arguments)
    estimator._take(pipeline, place)
    return estimator
