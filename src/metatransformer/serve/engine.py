"""The one owner of the models: a thread that answers samples of many requests together.

It takes the oldest request, waits a few milliseconds for others of the same model, and answers up to a budget of tokens
at once. A request of more samples than that is answered in several turns, so that nobody waits behind all of it.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.samples import Sample
from metatransformer.core.task import DenseTask
from metatransformer.data.examples import Column, Examples
from metatransformer.data.records import Records
from metatransformer.infer.cut import lengths_of
from metatransformer.infer.embed import OUTPUTS, Embedding
from metatransformer.infer.evaluate import compute_outputs, read_out
from metatransformer.infer.loader import Loader
from metatransformer.machine.console import Console
from metatransformer.nn.near import unit
from metatransformer.pipeline import Pipeline
from metatransformer.serve.hosted import Hosted
from metatransformer.serve.limits import Limits
from metatransformer.serve.metrics import Metrics
from metatransformer.trunk.backends import backend as computed_by

QUIET = Console(quiet=True)
GUESS = 256  # tokens of a sample of a model that has answered none yet


class Found(NamedTuple):
    """Outputs of samples ``[n, ...]`` and, of a dense task, the numbers of the classes of each sample's places."""

    outputs: Tensor
    places: Sequence[np.ndarray] = ()

    def part(self, rows: slice) -> "Found":
        """Returns what was found for some of the samples."""
        return Found(self.outputs[rows], self.places[rows])


Outputs = Mapping[str, Found]  # by task, or under "" the vectors


@dataclass
class Work:
    """The samples of one request: for the tasks of a model, or with ``vectors`` for its vectors.

    ``gone`` is set by whoever no longer waits for ``future``.
    """

    hosted: Hosted
    samples: Sequence[Sample]
    vectors: bool
    future: "Future[Outputs]" = field(default_factory=Future)
    done: list[Outputs] = field(default_factory=list)
    answered: int = 0
    gone: bool = False
    arrived: float = field(default_factory=time.monotonic)
    cells: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.cells = cells(self.hosted, self.samples)

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.gone or self.future.done()

    def take(self, outputs: Outputs, count: int) -> None:
        """Takes the outputs of its next samples; with the last ones it is answered."""
        self.done.append(outputs)
        self.answered += count
        if self.answered == len(self.samples):
            self.future.set_result({name: _together([part[name] for part in self.done]) for name in outputs})


def _together(parts: Sequence[Found]) -> Found:
    return Found(torch.cat([part.outputs for part in parts]), [own for part in parts for own in part.places])


Part = tuple[Work, range]  # of a request's samples


class Engine:
    """The queue, the thread that looks at it, and the one that owns the models."""

    def __init__(self, *, limits: Limits, metrics: Metrics, backend: str = "eager") -> None:
        self._limits, self._metrics, self._backend = limits, metrics, backend
        self._waiting: deque[Work] = deque()
        self._changed = threading.Condition()
        self._over = False
        self._ratios: dict[str, float] = {}  # tokens a cell, by model
        self._owner = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)

    def start(self) -> None:
        """Starts the threads."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the queue is looked at."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends the threads when what they are at is done; what waits is given up."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join()
        self._owner.shutdown()
        for work in self._waiting:
            work.future.cancel()

    def submit(self, work: Work) -> None:
        """Puts a request's samples into the queue."""
        with self._changed:
            self._waiting.append(work)
            self._changed.notify_all()

    def tokens(self, work: Work) -> np.ndarray:
        """Returns about how many tokens each sample of a request is, as those before were."""
        ratio = self._ratios.get(work.hosted.name)
        return np.full(len(work.samples), GUESS) if ratio is None else np.maximum(1, ratio * work.cells)

    def run_alone(self, call: Callable[[], Any]) -> "Future[Any]":
        """Lets the owner of the models do something else between two batches."""
        return self._owner.submit(call)

    def _run(self) -> None:
        while not self._over:
            if batch := self._next():
                self._answer(batch)

    def _next(self) -> list[Part]:
        """Returns what is answered together; nothing when it is over, or when nobody waits any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            if self._waiting:
                left = self._waiting[0].arrived + self._limits.wait_s - time.monotonic()
                self._changed.wait_for(lambda: self._over or self._batch()[1], timeout=max(0.0, left))
            return [] if self._over else self._batch()[0]

    def _batch(self) -> tuple[list[Part], bool]:
        """Returns as much of what waits for the oldest request's model as the budget holds, and whether it is used up.

        What was given up is dropped.
        """
        self._waiting = deque(work for work in self._waiting if not work.over)
        found: list[Part] = []
        left = float(self._limits.tokens)
        for work in self._waiting:
            first = self._waiting[0]
            if (work.hosted.name, work.vectors) != (first.hosted.name, first.vectors):
                continue
            costs = self.tokens(work)[work.answered :].cumsum()
            count = int((costs <= left).sum()) or (0 if found else 1)
            if count:
                found.append((work, range(work.answered, work.answered + count)))
                left -= float(costs[count - 1])
            if count < len(costs):
                return found, True
        return found, False

    def _answer(self, batch: Sequence[Part]) -> None:
        """Answers a batch; where it fails, each request by itself, so that one does not spoil the others."""
        done = self._owner.submit(self._computed, batch)
        error = done.exception()  # waits
        if error is None:
            first = 0
            for work, rows in batch:
                some = slice(first, first + len(rows))
                own = {name: found.part(some) for name, found in done.result().items()}
                first += len(rows)
                work.take(own, len(rows))
        elif len(batch) == 1:
            batch[0][0].future.set_exception(error)
        else:
            for part in batch:
                self._answer([part])

    def _computed(self, batch: Sequence[Part]) -> Outputs:
        """Returns the outputs of a batch; only the owner's thread calls it."""
        hosted, vectors = batch[0][0].hosted, batch[0][0].vectors
        # Keys of several requests may be equal.
        each = [(number, work, row) for number, (work, rows) in enumerate(batch) for row in rows]
        samples = [replace(work.samples[row], key=f"{number}/{row}") for number, work, row in each]
        begun = time.monotonic()
        with counted(hosted) as tokens, computed_by(self._backend):
            outputs = compute(hosted, samples, vectors=vectors)
        self._metrics.model.observe(time.monotonic() - begun)
        self._metrics.batches.observe(len(samples))
        self._metrics.samples.labels(hosted.name).inc(len(samples))
        self._metrics.tokens.labels(hosted.name).inc(tokens[0])
        self._ratios[hosted.name] = tokens[0] / max(
            1.0, float(sum(work.cells[rows.start : rows.stop].sum() for work, rows in batch))
        )
        return outputs


def cells(hosted: Hosted, samples: Sequence[Sample]) -> np.ndarray:
    """Returns how many cells the ragged fields of each sample have together, 1 where it has none."""
    fields = {name: reader.modality.fields for name, reader in hosted.pipeline.route.items()}
    return np.maximum(1, sum(own.prod(axis=1) for own in lengths_of(samples, fields=fields)))


@contextmanager
def counted(hosted: Hosted) -> Iterator[list[int]]:
    """Counts the real tokens that a model's tokenizers make inside the block."""
    found = [0]

    def count(module: Any, given: Any, tokens: Any) -> None:
        found[0] += int(tokens.mask.sum())

    model = hosted.pipeline.model
    hooks = [model.tokenizer(name).register_forward_hook(count) for name in hosted.pipeline.route]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def compute(hosted: Hosted, samples: Sequence[Sample], *, vectors: bool) -> Outputs:
    """Returns the outputs of every task, or the vectors, of samples that were read."""
    pipeline = hosted.pipeline
    if vectors:
        return {"": Found(_vectors(hosted.vectors, _loader(hosted.vectors.pipeline.route, samples)))}
    return {name: _answered(pipeline.of_task(name), samples) for name in pipeline.tasks}


def _answered(pipeline: Pipeline, samples: Sequence[Sample]) -> Found:
    """Returns what the one task answers."""
    places: dict[int, np.ndarray] = {}

    def keep(row: int, numbers: np.ndarray) -> None:
        places[row] = numbers.astype(np.uint16)

    dense = isinstance(pipeline.task, DenseTask)  # boxes are outputs
    loader = _loader(pipeline.route, samples)
    outputs = compute_outputs(pipeline, loader, console=QUIET, title="", keep=keep if dense else None)
    return Found(outputs, [places[row] for row in sorted(places)])


def _vectors(model: Embedding, loader: Loader) -> Tensor:
    if model.pool == OUTPUTS:
        return unit(compute_outputs(model.pipeline, loader, console=QUIET, title=""))
    return read_out(model.pipeline, model.readout, loader, console=QUIET, title="")


def _loader(route: Mapping[str, Any], samples: Sequence[Sample]) -> Loader:
    """Returns a loader that has all its samples and reads none."""
    keys = [sample.key for sample in samples]
    nothing = [None] * len(keys)
    examples = Examples(keys, {name: Column(Records(keys)) for name in route}, {}, nothing, nothing)
    return Loader.of_samples(route, examples, samples)
