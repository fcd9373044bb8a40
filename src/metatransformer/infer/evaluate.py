"""Running a model over a split: outputs, pooled features, scores."""

import logging
from collections.abc import Callable
from contextlib import closing

import torch
from torch import Tensor

from metatransformer.core.batch import Batch
from metatransformer.core.errors import DataError
from metatransformer.core.readout import Readout
from metatransformer.infer.loader import Loader
from metatransformer.machine.console import Console
from metatransformer.machine.device import autocast, choose_device, choose_precision
from metatransformer.model import MetaTransformer
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import Recipe

_log = logging.getLogger(__name__)


@torch.no_grad()
def run_batches(
    compute: Callable[[Batch], Tensor], loader: Loader, recipe: Recipe, *, console: Console, title: str
) -> Tensor:
    """Returns ``compute`` of every batch as rows in the order of the loader's samples, float32 on the CPU.

    The modules behind ``compute`` are in evaluation mode and on the recipe's device.
    """
    device = choose_device(recipe.run.device)
    precision = choose_precision(recipe.run.precision, device=device)
    rows: Tensor | None = None
    with (
        console.bar(title, total=len(loader)) as bar,
        closing(loader.in_order(batch_size=recipe.data.batch_size)) as batches,
    ):
        for indices, batch in batches:
            with autocast(precision, device=device):
                out = compute(batch.to(device))
            if rows is None:
                rows = torch.empty(len(loader), *out.shape[1:])
            rows[torch.as_tensor(indices)] = out.float().cpu()
            bar.advance(len(indices))
    assert rows is not None, "no samples"
    return rows


def compute_outputs(pipeline: Pipeline, loader: Loader, *, console: Console, title: str) -> Tensor:
    """Returns the outputs ``[n, outputs]`` of the one task."""
    model, task = _ready(pipeline), pipeline.task_name

    def compute(batch: Batch) -> Tensor:
        return model(batch, task=task)

    outputs = run_batches(compute, loader, pipeline.recipe, console=console, title=title)
    for reader in pipeline.route.values():
        for doubt in reader.transform.doubts():
            _log.warning(doubt)
    return outputs


def compute_features(pipeline: Pipeline, loader: Loader, *, console: Console, title: str) -> Tensor:
    """Returns the features ``[n, F]`` that the head of the one task predicts from."""
    return read_out(pipeline, pipeline.head.readout, loader, console=console, title=title)


def read_out(pipeline: Pipeline, readout: Readout, loader: Loader, *, console: Console, title: str) -> Tensor:
    """Returns what a readout makes of the trunk's tokens."""
    model = _ready(pipeline)

    def compute(batch: Batch) -> Tensor:
        return model.read_out(batch, readout)

    return run_batches(compute, loader, pipeline.recipe, console=console, title=title)


def _ready(pipeline: Pipeline) -> MetaTransformer:
    pipeline.model.to(choose_device(pipeline.recipe.run.device)).eval()
    return pipeline.model


def score(pipeline: Pipeline, loader: Loader, *, console: Console, title: str) -> dict[str, float]:
    """Returns all metrics of the task on the loader's records.

    Raises:
        DataError: there are no records, or their targets are unknown.
    """
    outputs = compute_outputs(pipeline, loader, console=console, title=title)
    scores = score_outputs(pipeline, loader, outputs)
    assert loader.target is not None
    for doubt in pipeline.task.doubts(outputs, loader.target):
        console.warn(doubt)
    return scores


def score_outputs(pipeline: Pipeline, loader: Loader, outputs: Tensor) -> dict[str, float]:
    """Returns all metrics for outputs that were computed before.

    Raises:
        DataError: a sample's target is unknown.
    """
    if loader.target is None:
        raise DataError(
            "evaluation data",
            must="carry a label or target for every sample",
            found="samples without one",
            do="Put files into one folder per class, use a manifest with a label column, or run 'predict'.",
        )
    return pipeline.task.metrics(outputs, loader.target)
