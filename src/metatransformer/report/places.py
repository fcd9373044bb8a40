"""The plain baseline of a dense task: a forest on what is known of each place by itself, such as colours and filters.

It learns from the places that the model's head is solved on, weighed alike.
"""

from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from metatransformer.core.modality import Dense
from metatransformer.core.task import DenseTask
from metatransformer.fit.fitted import Fitted, refits
from metatransformer.infer.dense import choose_places, dense_task, raw_view
from metatransformer.infer.kits import kit_of
from metatransformer.machine.console import Console

TREES = 100
AT_ONCE = 2**20  # places that are answered at a time


def forest_answers(fitted: Fitted, split: str, *, console: Console) -> Tensor:
    """Returns what the plain baseline answers to a split, in the form of the task's ``answer``."""
    splits = ("train", "val") if refits(fitted.pipeline) else ("train",)
    x, y = known_places(fitted, splits, console=console)
    model = fit_on_places(plain_forest(), dense_task(fitted.pipeline), x, y)
    return answers_of(model, fitted, split, console=console)


def plain_forest() -> RandomForestClassifier:
    """Returns the forest, to be fitted."""
    return RandomForestClassifier(TREES, min_samples_leaf=2, random_state=0, n_jobs=-1)


def fit_on_places(model: Any, task: DenseTask, x: np.ndarray, classes: np.ndarray) -> Any:
    """Returns the estimator, fitted on places that count as they do for a head."""
    weights = task.places.importance(torch.from_numpy(classes)).double().numpy()
    return model.fit(x, classes, sample_weight=weights)


def known_places(fitted: Fitted, splits: tuple[str, ...], *, console: Console) -> tuple[np.ndarray, np.ndarray]:
    """Returns local features ``[m, F]`` of the places that a head is solved on, and the numbers of their classes."""
    pipeline, loaders = fitted.pipeline, fitted.loaders
    task, seed, features, classes = dense_task(pipeline), pipeline.recipe.run.seed, [], []
    count = max(1, task.drawn // len(loaders["train"]))
    for split in splits:
        with console.bar(f"local features, {split}", total=len(loaders[split])) as bar:
            for row, labels in enumerate(loaders[split].examples.targets[pipeline.task_name]):
                chosen, known = choose_places(task, labels, count=count, balanced=split == "train", seed=(seed, row))
                features.append(_local(fitted, split, row, chosen))
                classes.append(known)
                bar.advance()
    return np.concatenate(features), np.concatenate(classes)


def answers_of(model: Any, fitted: Fitted, split: str, *, console: Console) -> Tensor:
    """Returns what an estimator of scikit-learn answers to every place of a split's samples, as the task keeps it."""
    loader, task, answers = fitted.loaders[split], dense_task(fitted.pipeline), []
    with console.bar(f"answers of the plain baseline, {split}", total=len(loader)) as bar:
        for row, labels in enumerate(loader.examples.targets[fitted.pipeline.task_name]):
            truth = task.numbers(labels)
            parts = np.array_split(np.arange(truth.size), -(-truth.size // AT_ONCE))
            numbers = np.concatenate([model.predict(_local(fitted, split, row, part)) for part in parts])
            answers.append(task.answer(numbers.reshape(truth.shape), truth))
            bar.advance()
    return torch.stack(answers).float()


def _local(fitted: Fitted, split: str, row: int, chosen: np.ndarray) -> np.ndarray:
    pipeline, loader = fitted.pipeline, fitted.loaders[split]
    places = loader.view(row).places
    assert places is not None, loader.examples.keys[row]
    return kit_of(pipeline, Dense).local(raw_view(pipeline, loader, row), places, chosen)
