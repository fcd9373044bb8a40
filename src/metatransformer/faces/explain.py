"""``explain``: what the answers of a trained model rest on."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metatransformer.core.errors import UsageError
from metatransformer.faces.arguments import not_fitted, unlabelled
from metatransformer.faces.embedder import is_single
from metatransformer.faces.sklearn import _Estimator
from metatransformer.infer.explain import PLACES, Explanation
from metatransformer.infer.explain import explain as explain_examples
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import Recipe
from metatransformer.saved import load_pipeline, saved_model


def explain(
    model: Any,
    x: Any,
    *,
    answer: str = "",
    places: int = PLACES,
    control: bool = False,
    task: str = "",
    encoder: str = "",
    device: str = "auto",
    verbose: bool = False,
) -> Explanation | list[Explanation]:
    """Returns what the model's answer to one sample rests on; a list of it for a list, folder, manifest or DataFrame.

    ``model`` is a run folder, a saved model, or a fitted estimator; ``task`` names one of several; ``encoder`` and
    ``device`` are those of ``load``. Each place of the sample (a cell of a picture, of time and frequency, a column, a
    word, an atom) is covered in turn, and its value is how far the score of the answer falls, in log odds of a class or
    in the unit of a number: positive values speak for the answer. ``answer`` asks for another class than the model's.
    ``places`` is about how many there are at most; each costs one answer of the model.

    Values tell what this model's answer changes with, not what causes what: two places that say the same are worth
    little each, and a covered sample is none that the model has learned from. ``control`` also asks the model with its
    head's weights shuffled (Adebayo et al. 2018): where ``Explanation.control``, the rank correlation of both, is near
    1, the places are those of the sample and not of the model.

    Raises:
        UsageError: an unknown answer or task, or a task whose answers are of places already.
        DataError: a bad sample, or no model.
    """
    pipeline = _pipeline(model, task=task, encoder=encoder, device=device)
    recipe = pipeline.recipe
    single = isinstance(x, Mapping) if recipe.joint else _one(x, recipe)
    examples = unlabelled([x] if single else x, recipe=recipe).examples
    console = Console(quiet=not verbose)
    found = list(explain_examples(pipeline, examples, answer=answer, places=places, control=control, console=console))
    return found[0] if single else found


def _pipeline(model: Any, *, task: str, encoder: str, device: str) -> Pipeline:
    if isinstance(model, str | os.PathLike):
        found = load_pipeline(saved_model(Path(model)), encoder=encoder, device=device)
    elif isinstance(model, _Estimator):
        if not model.__sklearn_is_fitted__():
            raise not_fitted(model, verb="explain")
        found = model.pipeline_
    else:
        must = "be a run folder, or a fitted Classifier, Regressor, Forecaster or Retriever"
        raise UsageError("model", must=must, found=f"a {type(model).__name__}")
    return one_task(found, task=task)


def one_task(pipeline: Pipeline, *, task: str) -> Pipeline:
    """Returns a pipeline as one of the task that is named, or of the only one.

    Raises:
        UsageError: there is no such task, or several and none is named.
    """
    if not task and len(pipeline.tasks) != 1:
        must = f"name one of {', '.join(pipeline.tasks)}" if pipeline.tasks else "be a task of the model"
        raise UsageError("task", must=must, found="none")
    return pipeline.asked(task).of_task(task or next(iter(pipeline.tasks)))


def _one(x: Any, recipe: Recipe) -> bool:
    """Returns whether ``x`` is one sample; so is a text or a SMILES that names no file."""
    modality = get_modality(recipe.modality)
    words = isinstance(x, str) and modality.source.kind == "table" and not os.path.exists(x)
    return words or is_single(x, modality)
