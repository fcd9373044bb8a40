"""From examples to batches: read once, cache, order by seed and epoch alone, pad as little as possible.

Nothing here keeps hidden state: the order of an epoch and every augmentation follow from ``(seed, epoch, index)``, so a
run that was killed continues with the very batches that it would have seen.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.batch import Batch, Target, collate
from metatransformer.core.errors import DataError
from metatransformer.core.samples import Sample, View
from metatransformer.core.task import Task
from metatransformer.data.examples import Examples
from metatransformer.data.records import Records
from metatransformer.infer.cut import cut_batches, lengths_of
from metatransformer.machine.console import Console
from metatransformer.machine.device import choose_device, choose_precision, processors
from metatransformer.pipeline import Pipeline, Route
from metatransformer.recipe import only

# Batches per window that is sorted by size before it is cut: large enough that batches are nearly of one length, small
# enough that an epoch stays random.
WINDOW = 16
WINDOW_BYTES = 256 * 2**20  # of transformed samples, where a window would hold more; two windows are in memory
AHEAD = 2  # batches prepared by a thread while the model computes

Batches = Generator[tuple[np.ndarray, Batch], None, None]  # close it before its end, and its threads end
Chunk = tuple[np.ndarray, list[Future[Sample]]]  # the indices of a batch, and its samples that are being read


@dataclass(frozen=True)
class Place:
    """Where this process stands among those that train together."""

    rank: int = 0
    world: int = 1


ALONE = Place()


def require_targets(task: Task, examples: Examples, *, name: str) -> None:
    """Raises DataError with the first sample whose target is none of the task, and how many there are."""
    refused: list[tuple[int, DataError]] = []
    for row in examples.known(name).tolist():
        try:
            task.check(examples.targets[name][row])
        except DataError as error:
            refused.append((row, error))
    if refused:
        row, error = refused[0]
        place = examples.keys[row]
        if place.isdigit():  # of a table
            paths = [record.path for column in examples.inputs.values() if (record := column[row]) and record.path]
            place = f"{paths[0] if paths else 'the table'}, row {place} (counted from 0)"
        found = error.found + (f", and {len(refused) - 1} more like it" if len(refused) > 1 else "")
        raise DataError(f"{place}: target", must=error.must, found=found, do=error.do)


class Loader:
    """The examples of one split as batches of transformed samples.

    The deterministic part of the work (reading, transform) is kept in memory up to ``cache_mb``; augmentation is drawn
    anew in each epoch. ``rows`` and ``encoded`` are by task: which samples have a known target, and what ``encode``
    made of these. ``workers`` is the number of threads that read, 0 = one for each processor that this process may use,
    where the modalities gain by it.
    """

    def __init__(
        self, route: Route, examples: Examples, *, cache_mb: int, tasks: Mapping[str, Task], workers: int = 0
    ) -> None:
        self.route = route
        self.examples = examples
        self.tasks = dict(tasks)
        # One thread where a modality's own Python does the work, which runs in one at a time.
        gains = all(reader.modality.threads for reader in route.values())
        self.workers = workers or (processors() if gains else 1)
        self.fields = {name: reader.modality.fields for name, reader in route.items()}
        self._cache: dict[int, Sample] = {}
        self._lock = Lock()  # of the cache
        self._left = cache_mb * 2**20
        self.sizes = np.zeros(len(examples))
        self.rows: dict[str, np.ndarray] = {}
        self.encoded: dict[str, Tensor] = {}
        for name, task in self.tasks.items():
            rows = examples.known(name)
            if len(rows):
                require_targets(task, examples, name=name)
                self.rows[name] = rows
                self.encoded[name] = task.encode([examples.targets[name][row] for row in rows])

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def records(self) -> Records:
        """The records of the one input."""
        return only(self.examples.inputs, what="input").records

    def view(self, index: int) -> View:
        """Returns the transformed view of the one input."""
        view = only(self.sample(index).views, what="input")
        assert view is not None, self.examples.keys[index]
        return view

    @property
    def target(self) -> Tensor | None:
        """The encoded targets of the one task, None where there is no task, or any of them is unknown."""
        name = next(iter(self.tasks), "")
        return self.encoded[name] if len(self.rows.get(name, ())) == len(self) else None

    @staticmethod
    def of_samples(route: Route, examples: Examples, samples: Sequence[Sample]) -> "Loader":
        """Returns a loader, without targets, of samples that were read elsewhere."""
        loader = Loader(route, examples, cache_mb=0, tasks={}, workers=1)
        loader._cache = dict(enumerate(samples))
        loader.sizes = np.array([sample.nbytes for sample in samples], dtype=float)
        return loader

    def of_task(self, name: str) -> "Loader":
        """Returns a loader of the samples whose target of this task is known, of all where none is."""
        rows = self.rows.get(name)
        if rows is None or len(rows) == len(self):
            return self if len(self.tasks) == 1 else self.part(range(len(self)), tasks={name: self.tasks[name]})
        return self.part(rows.tolist(), tasks={name: self.tasks[name]})

    def prepare(
        self, console: Console, *, title: str, stop: Callable[[int], bool] | None = None, place: Place = ALONE
    ) -> int:
        """Reads every sample once, of several processes each its share: errors show before anything is trained, later
        epochs need no disk. Returns how many were read: all, or those before ``stop`` said so.

        Raises:
            DataError: the first bad sample.
        """
        done, rows = 0, range(place.rank, len(self), place.world)
        with console.bar(f"reading {title}", total=len(self)) as bar, _threads(self.workers) as pool:
            for _, window in self._windows(pool, rows, count=2 * self.workers):
                bar.advance(len(window) * place.world)
                done += len(window)
                if stop is not None and stop(done):
                    return done
        return len(self)

    @property
    def mean_bytes(self) -> float:
        """How many bytes the samples that were read so far take in the mean, 0 before any."""
        known = self.sizes[self.sizes > 0]
        return float(known.mean()) if len(known) else 0.0

    def sample(self, index: int) -> Sample:
        """Returns one transformed sample."""
        if index in self._cache:
            return self._cache[index]
        records = {name: column[index] for name, column in self.examples.inputs.items()}
        views = {name: None if record is None else self.route[name].view(record) for name, record in records.items()}
        if not any(views.values()):
            must = f"have at least one of the inputs {', '.join(views)}"
            raise DataError(self.examples.keys[index], must=must, found="none")
        sample = Sample(self.examples.keys[index], views)
        self.sizes[index] = sample.nbytes
        with self._lock:
            if sample.nbytes <= self._left and index not in self._cache:
                self._left -= sample.nbytes
                self._cache[index] = sample
        return sample

    def part(self, places: Sequence[int], *, tasks: Mapping[str, Task]) -> "Loader":
        """Returns a loader of some of the samples and ``tasks``; what is in memory is shared."""
        part = Loader(self.route, self.examples.take(places), cache_mb=0, tasks=tasks, workers=self.workers)
        part.sizes = self.sizes[list(places)]
        part._cache = {new: self._cache[old] for new, old in enumerate(places) if old in self._cache}
        return part

    def in_order(self, *, batch_size: int) -> Batches:
        """Yields ``(indices, batch)`` over all samples, those of like shape together within windows of 16 batches."""
        with _threads(self.workers) as pool:
            yield from self._ahead(self._like_shapes(pool, batch_size=batch_size))

    def _like_shapes(self, pool: ThreadPoolExecutor, *, batch_size: int) -> Iterator[Chunk]:
        for first, window in self._windows(pool, range(len(self)), count=batch_size * WINDOW):
            lengths = lengths_of([future.result() for future in window], fields=self.fields)
            for places in cut_batches(lengths, batch_size=batch_size):
                yield first + places, [window[place] for place in places]

    def _windows(
        self, pool: ThreadPoolExecutor, rows: range, *, count: int
    ) -> Iterator[tuple[int, list[Future[Sample]]]]:
        """Yields of each window the place of its first row, and its samples, while the next one is read.

        A window has ``count`` samples, or fewer where they reach ``WINDOW_BYTES``.
        """
        waiting: deque[Future[Sample]] = deque()
        window: list[Future[Sample]] = []
        left, largest = WINDOW_BYTES, 0
        rest = iter(rows)
        for index in range(len(rows)):
            most = max(1, WINDOW_BYTES // largest) if largest else AHEAD  # until one was read each might be huge
            room = max(min(count, most) - len(waiting), 0)
            waiting.extend(pool.submit(self.sample, later) for later in islice(rest, room))
            window.append(waiting.popleft())
            size = window[-1].result().nbytes
            left, largest = left - size, max(largest, size)
            if len(window) == count or left <= 0 or index == len(rows) - 1:
                yield index + 1 - len(window), window
                window, left = [], WINDOW_BYTES

    def epoch(
        self, *, batch_size: int, seed: int, epoch: int, augment: bool, drop: float = 0.0, place: Place, skip: int
    ) -> Batches:
        """Yields the training batches of one epoch, the first ``skip`` left out (they were done before a kill).

        ``drop`` is how often a sample loses an input that it has, never the last one.
        """
        chunks = self.plan(batch_size=batch_size, seed=seed, epoch=epoch, place=place)
        key = (seed, epoch) if augment or drop else None
        with _threads(self.workers) as pool:
            submit = partial(pool.submit, partial(self._drawn, key=key, augment=augment, drop=drop))
            yield from self._ahead((chunk, [submit(index) for index in chunk.tolist()]) for chunk in chunks[skip:])

    def steps(self, *, batch_size: int, place: Place) -> int:
        """Returns how many batches an epoch has."""
        return len(self.plan(batch_size=batch_size, seed=0, epoch=0, place=place))

    def plan(self, *, batch_size: int, seed: int, epoch: int, place: Place) -> list[np.ndarray]:
        """Returns the indices of each batch of one epoch for one process; all processes get as many.

        The order is random; inside windows of 16 batches the samples are sorted by size, then the batches are shuffled.
        """
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(self))
        chunks: list[np.ndarray] = []
        for start in range(0, len(order), batch_size * WINDOW):
            window = order[start : start + batch_size * WINDOW]
            window = window[np.argsort(self.sizes[window], kind="stable")]
            chunks += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        rng.shuffle(chunks)
        return [_share(chunk, place) for chunk in chunks]

    def _ahead(self, chunks: Iterable[Chunk]) -> Batches:
        """Yields batches that a thread prepares while the caller computes."""
        with _threads(1) as pool:
            waiting: deque[tuple[np.ndarray, Future[Batch]]] = deque()
            for indices, samples in chunks:
                waiting.append((indices, pool.submit(self._batch, indices, samples)))
                if len(waiting) > AHEAD:
                    done, future = waiting.popleft()
                    yield done, future.result()
            for done, future in waiting:
                yield done, future.result()

    def _batch(self, indices: np.ndarray, samples: Sequence[Future[Sample]]) -> Batch:
        targets = {name: self._targets(name, indices) for name in self.encoded}
        found = {name: target for name, target in targets.items() if target is not None}
        batch = collate([future.result() for future in samples], fields=self.fields)
        return replace(batch, targets=found)

    def _drawn(self, index: int, *, key: tuple[int, int] | None, augment: bool, drop: float) -> Sample:
        """Returns one sample, changed at random by ``key`` (seed, epoch) and its index."""
        sample = self.sample(index)
        if key is None:
            return sample
        rng = np.random.default_rng([*key, index])
        views = dict(sample.views)
        if augment:
            views = {n: None if v is None else self.route[n].transform.augment(v, rng) for n, v in views.items()}
        there = [name for name, view in views.items() if view is not None]
        if drop and len(there) > 1:
            lost = rng.random(len(there)) < drop
            lost[rng.integers(len(there))] &= not lost.all()
            views |= {name: None for name, gone in zip(there, lost.tolist(), strict=True) if gone}
        return replace(sample, views=views)

    def _targets(self, name: str, indices: np.ndarray) -> Target | None:
        """Returns the targets of a batch, None where none is known."""
        rows, encoded = self.rows[name], self.encoded[name]
        if len(rows) == len(self):
            return Target(encoded[indices])
        places = np.searchsorted(rows, indices).clip(max=len(rows) - 1)
        known = rows[places] == indices
        return Target(encoded[places[known]], torch.from_numpy(np.flatnonzero(known))) if known.any() else None


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yields threads that end with the block; what they have not begun by then is dropped."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _share(chunk: np.ndarray, place: Place) -> np.ndarray:
    """Returns one process's part of a batch; one that would be left empty repeats a sample."""
    places = np.arange(place.rank, max(len(chunk), place.world), place.world)
    return chunk[places % len(chunk)]


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
