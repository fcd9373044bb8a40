"""Running a model over a split: outputs, pooled features, scores."""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import NamedTuple

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


class Features(NamedTuple):
    """What heads are solved on: the ``trunk``'s features ``[n, F]``, and ``plain`` ones ``[n, P]`` (sparse where nearly
    all are 0) where a head may read them.
    """

    trunk: Tensor
    plain: Tensor | None = None

    def take(self, places: Tensor) -> "Features":
        """Returns the features of some samples."""
        plain = None if self.plain is None else self.plain.index_select(0, places)
        return Features(self.trunk.index_select(0, places), plain)

    @staticmethod
    def cat(parts: "Sequence[Features]") -> "Features":
        """Returns samples one behind the other."""
        trunk = torch.cat([part.trunk for part in parts])
        plain = [part.plain for part in parts if part.plain is not None]
        return Features(trunk, torch.cat(plain) if plain else None)


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


def compute_features(pipeline: Pipeline, loader: Loader, *, console: Console, title: str) -> Features:
    """Returns the features that the head of the one task can predict from."""
    model, readout = pipeline.model, pipeline.head.readout
    found: list[Features] = []
    keys: list[str] = []

    def compute(batch: Batch) -> Tensor:
        trunk = model.read_out(batch, readout)
        keys.extend(batch.keys)
        found.append(Features(trunk.float().cpu(), batch.plain.cpu() if beside else None))
        return trunk[:, :0]

    beside = any(reader.plain for reader in loader.route.values())
    run_batches(compute, pipeline, loader, console=console, title=title)
    places = {key: place for place, key in enumerate(keys)}
    return Features.cat(found).take(torch.tensor([places[key] for key in loader.examples.keys]))


def read_out(pipeline: Pipeline, readout: Readout, loader: Loader, *, console: Console, title: str) -> Tensor:
    """Returns what a readout makes of the trunk's tokens."""
    compute = partial(pipeline.model.read_out, readout=readout)
    return run_batches(compute, pipeline, loader, console=console, title=title)


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
