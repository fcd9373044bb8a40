"""Running a model over a split: outputs, pooled features, scores."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from metatransformer.core.batch import Batch, Part
from metatransformer.core.errors import DataError
from metatransformer.core.readout import Readout
from metatransformer.core.task import BoxTask, DenseTask
from metatransformer.data.examples import Examples
from metatransformer.infer.boxes import answer_boxes
from metatransformer.infer.dense import Keep, answer_places
from metatransformer.infer.loader import Loader, run_batches
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline

CPU = torch.device("cpu")

_log = logging.getLogger(__name__)


class Features(NamedTuple):
    """What heads are solved on: the ``trunk``'s features ``[n, F]``, and by input ``plain`` ones ``[n, P]``, sparse
    where nearly all are 0, where a head may read them; NaN where a sample lacks the input.

    ``columns`` says of several inputs which of the trunk's features are theirs.
    """

    trunk: Tensor
    plain: Mapping[str, Tensor] = MappingProxyType({})
    columns: Mapping[str, Tensor] = MappingProxyType({})

    def take(self, places: Tensor) -> "Features":
        """Returns the features of some samples."""
        plain = {name: x.index_select(0, places) for name, x in self.plain.items()}
        return Features(self.trunk.index_select(0, places), plain, self.columns)

    def lacks(self, name: str) -> Tensor:
        """Returns which samples ``[n]`` are without an input."""
        return self.trunk[:, self.columns[name][0]].isnan()

    def without(self, name: str) -> "Features":
        """Returns the features as if every sample lacked an input."""
        trunk, plain = self.trunk.clone(), dict(self.plain)
        trunk[:, self.columns[name]] = torch.nan
        if name in plain:
            x = plain[name]
            plain[name] = torch.zeros_like(x) if x.is_sparse else torch.full_like(x, torch.nan)
        return Features(trunk, plain, self.columns)

    @staticmethod
    def cat(parts: "Sequence[Features]") -> "Features":
        """Returns samples one behind the other."""
        plain = {name: torch.cat([part.plain[name] for part in parts]) for name in parts[0].plain}
        return Features(torch.cat([part.trunk for part in parts]), plain, parts[0].columns)


def doubt_gaps(pipeline: Pipeline, examples: Examples) -> None:
    """Warns of inputs that samples lack and training samples always had."""
    for name, column in examples.inputs.items():
        gaps = 0 if column.places is None else int((column.places < 0).sum())
        if gaps and pipeline.route[name].always:
            known = f"input '{name}' is absent in {gaps:,} of {len(column):,} samples, in training never"
            _log.warning(f"{known}: their predictions rest on the other inputs alone")


def compute_outputs(
    pipeline: Pipeline, loader: Loader, *, console: Console, title: str, keep: Keep | None = None
) -> Tensor:
    """Returns the outputs ``[n, outputs]`` of the one task; of one that answers for parts of samples its answers, and
    ``keep`` is given each.
    """
    if isinstance(pipeline.task, DenseTask):
        outputs = answer_places(pipeline, loader, console=console, title=title, keep=keep)
    elif isinstance(pipeline.task, BoxTask):
        outputs = answer_boxes(pipeline, loader, console=console, title=title, keep=keep)
    else:
        compute = partial(pipeline.model, task=pipeline.task_name)
        outputs = run_batches(compute, pipeline, loader, console=console, title=title)
    _tell_doubts(pipeline)
    return outputs


def _tell_doubts(pipeline: Pipeline) -> None:
    for reader in pipeline.route.values():
        for doubt in reader.transform.doubts():
            _log.warning(doubt)


def compute_features(pipeline: Pipeline, loader: Loader, *, console: Console, title: str) -> Features:
    """Returns the features that the head of the one task can predict from."""
    model, head = pipeline.model, pipeline.head
    plain: dict[str, list[Part]] = {name: [] for name in head.readout.facts.axes if loader.route[name].plain}
    counts: list[int] = []
    keys: list[str] = []

    def compute(batch: Batch) -> Tensor:
        keys.extend(batch.keys)
        for name in plain:
            if part := batch.parts.get(name):
                rows = torch.arange(len(batch)) if part.rows is None else part.rows.cpu()
                plain[name].append(replace(part, inputs={}, masks={}, rows=rows + sum(counts)).to(CPU))
        counts.append(len(batch))
        return model.read_out(batch, head.readout)

    found = run_batches(compute, pipeline, loader, console=console, title=title)
    if not found.isfinite().all():
        do = "Use run.precision=float32."
        raise DataError("features", must="be finite", found="NaN or infinity from the trunk", do=do)
    places = {key: place for place, key in enumerate(keys)}
    order = torch.tensor([places[key] for key in loader.examples.keys])
    beside = {name: _whole(parts, count=len(keys)).index_select(0, order) for name, parts in plain.items() if parts}
    return Features(head.readout.gaps(found), beside, columns_of(pipeline))


def columns_of(pipeline: Pipeline) -> dict[str, Tensor]:
    """Returns by input which of the features are its own, where there are several."""
    head = pipeline.head
    return {} if head.readout.owners is None else {name: head.columns(name) for name in head.readout.facts.axes}


def _whole(parts: Sequence[Part], *, count: int) -> Tensor:
    """Returns plain features ``[count, P]`` of parts whose ``rows`` are places among all samples."""
    tables = [part.plain for part in parts if part.plain is not None]
    rows = torch.cat([part.rows for part in parts if part.rows is not None])
    whole = Batch(("",) * count, {"": Part({}, {}, rows, torch.cat(tables))}, {})
    return whole.plain("", size=tables[0].shape[1])


def read_out(pipeline: Pipeline, readout: Readout, loader: Loader, *, console: Console, title: str) -> Tensor:
    """Returns what a readout makes of the trunk's tokens."""
    compute = partial(pipeline.model.read_out, readout=readout)
    found = run_batches(compute, pipeline, loader, console=console, title=title)
    _tell_doubts(pipeline)
    return found


def score(pipeline: Pipeline, loader: Loader, *, console: Console, title: str) -> dict[str, float]:
    """Returns all metrics of the task on the loader's records.

    Raises:
        DataError: there are no records, or their targets are unknown.
    """
    doubt_gaps(pipeline, loader.examples)
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
