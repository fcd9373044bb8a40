"""Running a model over a split: outputs, pooled features, scores."""

import logging
from collections.abc import Callable
from contextlib import closing
from functools import partial

import torch
from torch import Tensor

from metatransformer.core.batch import Batch
from metatransformer.core.errors import DataError
from metatransformer.core.readout import Readout
from metatransformer.infer.loader import Loader
from metatransformer.machine.console import Console
from metatransformer.machine.device import choose_device, choose_precision
from metatransformer.pipeline import Pipeline

_log = logging.getLogger(__name__)


@torch.no_grad()
def run_batches(
    compute: Callable[[Batch], Tensor], pipeline: Pipeline, loader: Loader, *, console: Console, title: str
) -> Tensor:
    """Returns ``compute``, by the pipeline's model, of every batch as rows in the order of the loader's samples,
    float32 on the CPU.
    """
    device = choose_device(pipeline.recipe.run.device)
    precision = choose_precision(pipeline.recipe.run.precision, device=device)
    pipeline.model.to(device).eval()
    rows: Tensor | None = None
    with (
        console.bar(title, total=len(loader)) as bar,
        closing(loader.in_order(batch_size=pipeline.recipe.data.batch_size)) as batches,
    ):
        for indices, batch in batches:
            with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
                out = compute(batch.to(device))
            if rows is None:
                rows = torch.empty(len(loader), *out.shape[1:])
            rows[torch.as_tensor(indices)] = out.float().cpu()
            bar.advance(len(indices))
    assert rows is not None, "no samples"
    return rows


def compute_outputs(pipeline: Pipeline, loader: Loader, *, console: Console, title: str) -> Tensor:
    """Returns the outputs ``[n, outputs]`` of the one task."""
    compute = partial(pipeline.model, task=pipeline.task_name)
    outputs = run_batches(compute, pipeline, loader, console=console, title=title)
    for reader in pipeline.route.values():
        for doubt in reader.transform.doubts():
            _log.warning(doubt)
    return outputs


def compute_features(pipeline: Pipeline, loader: Loader, *, console: Console, title: str) -> Tensor:
    """Returns the features ``[n, F]`` that the head of the one task predicts from."""
    return read_out(pipeline, pipeline.head.readout, loader, console=console, title=title)


def read_out(pipeline: Pipeline, readout: Readout, loader: Loader, *, console: Console, title: str) -> Tensor:
    """Returns what a readout makes of the trunk's tokens."""
    compute = partial(pipeline.model.read_out, readout=readout)
    return run_batches(compute, pipeline, loader, console=console, title=title)


def score(pipeline: Pipeline, loader: Loader, *, console: Console, title: str) -> dict[str, float]:
    """Returns all metrics of the task on the loader's records.

    Raises:
        DataError: there are no records, or their targets are unknown.
    """
    return score_outputs(pipeline, loader, compute_outputs(pipeline, loader, console=console, title=title))


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
