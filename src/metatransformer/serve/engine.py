"""The owner of the models: threads that answer samples of many requests together.

Each takes the oldest request, waits a few milliseconds for others of the same model, and answers up to a budget of
tokens at once. A request of more samples than that takes turns with others, so that nobody waits behind all of it.

On a CPU there are two, each with its share of the processors. One that computes by all of them waits at every layer for
the processor that a connection or a reader has taken; two do not wait for each other. OpenVINO, torch's compiler and
accelerators get one: they share out their work themselves, and are not called by two threads at once.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
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
from metatransformer.machine.device import choose_device
from metatransformer.nn.near import unit
from metatransformer.pipeline import Pipeline
from metatransformer.serve.hosted import Hosted
from metatransformer.serve.limits import Limits
from metatransformer.serve.metrics import Metrics
from metatransformer.trunk.backends import backend as computed_by

QUIET = Console(quiet=True)
OWNERS = 2  # threads that compute layers as they stand on a CPU
GUESS = 256  # tokens of a sample of a model that has answered none yet


class Found(NamedTuple):
    """Outputs of samples ``[n, ...]`` and, of a dense task, the numbers of the classes of each sample's places."""

    outputs: Tensor
    places: Sequence[np.ndarray] = ()

    def part(self, rows: slice) -> "Found":
        """Returns what was found for some of the samples."""
        return Found(self.outputs[rows], self.places[rows])


Outputs = Mapping[str, Found]  # by task, or under "" the vectors


@dataclass(eq=False)
class Work:
    """The samples of one request: for the tasks of a model, or with ``vectors`` for its vectors.

    The first ``taken`` samples are answered or about to be. ``gone`` is set by whoever no longer waits for ``future``.
    """

    hosted: Hosted
    samples: Sequence[Sample]
    vectors: bool
    future: "Future[Outputs]" = field(default_factory=Future)
    done: dict[int, Outputs] = field(default_factory=dict)  # by the first of their samples
    taken: int = 0
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

    def take(self, outputs: Outputs, rows: range) -> None:
        """Takes the outputs of some of its samples; with the last ones it is answered."""
        self.done[rows.start] = outputs
        self.answered += len(rows)
        if self.answered == len(self.samples) and not self.future.done():
            parts = [self.done[first] for first in sorted(self.done)]
            self.future.set_result({name: _together([part[name] for part in parts]) for name in outputs})

    def fail(self, error: BaseException) -> None:
        """Answers with an error, once."""
        if not self.future.done():
            self.future.set_exception(error)


def _together(parts: Sequence[Found]) -> Found:
    return Found(torch.cat([part.outputs for part in parts]), [own for part in parts for own in part.places])


Part = tuple[Work, range]  # of a request's samples


class Engine:
    """The queue, the threads that look at it, and for each of them one that owns the models."""

    def __init__(self, *, limits: Limits, metrics: Metrics, backend: str = "eager", owners: int = 1) -> None:
        self._limits, self._metrics, self._backend = limits, metrics, backend
        self._waiting: deque[Work] = deque()
        self._alone: deque[Callable[[], None]] = deque()  # the first stays until it is done
        self._changed = threading.Condition()  # guards all of these, and what works have been answered
        self._over = False
        self._busy = 0  # how many owners are at something
        self._owed = False  # whether requests come before what is done alone: it takes turns with them
        self._ratios: dict[str, float] = {}  # tokens a cell, by model
        self._threads = torch.get_num_threads()
        self._owners = ThreadPoolExecutor(owners, thread_name_prefix="model")
        self._askers = [threading.Thread(target=self._run, name="queue", daemon=True) for _ in range(owners)]

    def start(self) -> None:
        """Starts the threads."""
        for asker in self._askers:
            asker.start()

    @property
    def alive(self) -> bool:
        """Whether the queue is looked at."""
        return all(asker.is_alive() for asker in self._askers)

    def close(self) -> None:
        """Ends the threads when what they are at is done; what waits is given up."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        for asker in self._askers:
            asker.join()
        while self._alone:
            self._alone[0]()
        self._owners.shutdown()
        for work in self._waiting:
            work.future.cancel()
        torch.set_num_threads(self._threads)

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
        """Lets an owner do something else with the models while no other is at anything."""
        future: Future[Any] = Future()

        def job() -> None:
            done = self._owners.submit(call)
            error = done.exception()  # waits
            with self._changed:
                self._alone.popleft()
                self._owed = True
            if error is None:
                future.set_result(done.result())
            else:
                future.set_exception(error)

        with self._changed:
            self._alone.append(job)
            self._changed.notify_all()
        return future

    def _run(self) -> None:
        while job := self._next():
            try:
                job()
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()

    def _next(self) -> Callable[[], None] | None:
        """Returns what to do next, and counts who asks as busy; None when it is over."""
        with self._changed:
            while not self._over:
                job, patience = self._job()
                if job is not None:
                    self._busy += 1
                    return job
                self._changed.wait(patience)
        return None

    def _job(self) -> tuple[Callable[[], None] | None, float | None]:
        """Returns what may be done now, or how long it takes until something may; None: until something changes."""
        batch, full = self._batch()
        if self._alone and not (self._owed and batch):
            if self._busy:
                return None, None
            self._owed = False
            return self._alone[0], None
        if not batch:
            return None, None
        left = batch[0][0].arrived + self._limits.wait_s - time.monotonic()
        if not full and left > 0:
            return None, left
        self._owed = False
        for work, rows in batch:
            work.taken = rows.stop
            self._waiting.remove(work)
            if work.taken < len(work.samples):
                self._waiting.append(work)  # behind the others
        return partial(self._answer, batch), None

    def _batch(self) -> tuple[list[Part], bool]:
        """Returns as much of what waits for the oldest request's model as the budget holds, and whether it is used up.

        What was given up is dropped.
        """
        self._waiting = deque(work for work in self._waiting if not work.over)
        found: list[Part] = []
        left = self._limits.tokens / len(self._askers)
        for work in self._waiting:
            first = self._waiting[0]
            if (work.hosted.name, work.vectors) != (first.hosted.name, first.vectors):
                continue
            costs = self.tokens(work)[work.taken :].cumsum()
            count = int((costs <= left).sum()) or (0 if found else 1)
            if count:
                found.append((work, range(work.taken, work.taken + count)))
                left -= float(costs[count - 1])
            if count < len(costs):
                return found, True
        return found, False

    def _answer(self, batch: Sequence[Part]) -> None:
        """Answers a batch; where it fails, each request by itself, so that one does not spoil the others."""
        done = self._owners.submit(self._computed, batch)
        error = done.exception()  # waits
        if error is not None and len(batch) > 1:
            for part in batch:
                self._answer([part])
            return
        first = 0
        with self._changed:
            if error is not None:
                batch[0][0].fail(error)
                return
            for work, rows in batch:
                some = slice(first, first + len(rows))
                first += len(rows)
                work.take({name: found.part(some) for name, found in done.result().items()}, rows)

    def _computed(self, batch: Sequence[Part]) -> Outputs:
        """Returns the outputs of a batch, computed by this owner's share of the processors."""
        hosted, vectors = batch[0][0].hosted, batch[0][0].vectors
        torch.set_num_threads(max(1, self._threads // max(1, self._busy)))  # of this thread
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


def owners_of(hosted: Iterable[Hosted], backend: str) -> int:
    """Returns how many threads are to own models."""
    devices = {choose_device(one.pipeline.recipe.run.device).type for one in hosted}
    return min(OWNERS, torch.get_num_threads()) if backend == "eager" and devices == {"cpu"} else 1


def cells(hosted: Hosted, samples: Sequence[Sample]) -> np.ndarray:
    """Returns how many cells the ragged fields of each sample have together, 1 where it has none."""
    fields = {name: reader.modality.fields for name, reader in hosted.pipeline.route.items()}
    return np.maximum(1, sum(own.prod(axis=1) for own in lengths_of(samples, fields=fields)))


@contextmanager
def counted(hosted: Hosted) -> Iterator[list[int]]:
    """Counts the real tokens that a model's tokenizers make inside the block."""
    found, own = [0], threading.get_ident()

    def count(module: Any, given: Any, tokens: Any) -> None:
        if threading.get_ident() == own:  # another owner may be at the same model
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
