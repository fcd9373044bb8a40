"""From records to batches: read once, cache, order by seed and epoch alone, pad as little as possible.

Nothing here keeps hidden state: the order of an epoch and every augmentation follow from ``(seed, epoch, index)``, so a
run that was killed continues with the very batches that it would have seen.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from metatransformer.core.batch import Batch, collate
from metatransformer.core.errors import DataError
from metatransformer.core.samples import Record, View
from metatransformer.core.task import Task
from metatransformer.data.records import Records
from metatransformer.machine.console import Console
from metatransformer.pipeline import Reader

# Batches per window that is sorted by size before it is cut: large enough that batches are nearly of one length, small
# enough that an epoch stays random.
WINDOW = 16
AHEAD = 2  # batches prepared by a thread while the model computes


@dataclass(frozen=True)
class Place:
    """Where this process stands among those that train together."""

    rank: int = 0
    world: int = 1


def require_targets(task: Task, records: Records) -> None:
    """Raises DataError with the first record whose target is none of the task, and how many there are."""
    refused: list[tuple[int, DataError]] = []
    for row, target in enumerate(records.targets):
        if target is not None:
            try:
                task.check(target)
            except DataError as error:
                refused.append((row, error))
    if refused:
        row, error = refused[0]
        place = records.keys[row]
        if place.isdigit():  # of a table
            place = f"{records.paths[row] or 'the table'}, row {place} (counted from 0)"
        found = error.found + (f", and {len(refused) - 1} more like it" if len(refused) > 1 else "")
        raise DataError(f"{place}: target", must=error.must, found=found, do=error.do)


class Loader:
    """The records of one split as batches of transformed samples.

    The deterministic part of the work (reading, transform) is kept in memory up to ``cache_mb``; augmentation is drawn
    anew in each epoch. ``target`` holds the task's encoded targets, None without a task or where any is unknown.
    """

    def __init__(self, reader: Reader, records: Sequence[Record], *, cache_mb: int, task: Task | None) -> None:
        self.reader = reader
        self.records = Records.of(records)
        self._cache: dict[int, View] = {}
        self._left = cache_mb * 2**20
        self._sizes = np.zeros(len(self.records))
        self.target: Tensor | None = None
        if task is not None and all(target is not None for target in self.records.targets):
            require_targets(task, self.records)
            self.target = task.encode(self.records.targets)

    def __len__(self) -> int:
        return len(self.records)

    def prepare(self, console: Console, *, title: str) -> None:
        """Reads every sample once: errors show before anything is trained, later epochs need no disk.

        Raises:
            DataError: the first bad sample.
        """
        with console.bar(f"reading {title}", total=len(self)) as bar:
            for index in range(len(self)):
                self.sample(index)
                bar.advance()

    def sample(self, index: int) -> View:
        """Returns one transformed sample."""
        if index in self._cache:
            return self._cache[index]
        sample = self.reader.sample(self.records[index])
        size = sample.nbytes
        self._sizes[index] = size
        if size <= self._left:
            self._left -= size
            self._cache[index] = sample
        return sample

    def part(self, places: Sequence[int]) -> "Loader":
        """Returns a loader, without targets, of some of the records; what is in memory is shared."""
        part = Loader(self.reader, self.records.take(places), cache_mb=0, task=None)
        part._sizes = self._sizes[list(places)]
        part._cache = {new: self._cache[old] for new, old in enumerate(places) if old in self._cache}
        return part

    def in_order(self, *, batch_size: int, view: tuple[int, int] | None = None) -> Iterator[tuple[np.ndarray, Batch]]:
        """Yields ``(indices, batch)`` over all samples, similar sizes together.

        ``view`` None gives the samples as they are, ``(seed, number)`` one augmented copy of each.
        """
        order = np.argsort(self._sizes, kind="stable")
        chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        yield from self._ahead([(chunk, view) for chunk in chunks])

    def epoch(
        self, *, batch_size: int, seed: int, epoch: int, augment: bool, place: Place, skip: int
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        """Yields the training batches of one epoch, the first ``skip`` left out (they were done before a kill)."""
        chunks = self.plan(batch_size=batch_size, seed=seed, epoch=epoch, place=place)
        key = (seed, epoch) if augment else None
        yield from self._ahead([(chunk, key) for chunk in chunks[skip:]])

    def plan(self, *, batch_size: int, seed: int, epoch: int, place: Place) -> list[np.ndarray]:
        """Returns the indices of each batch of one epoch for one process; all processes get as many.

        The order is random; inside windows of 16 batches the samples are sorted by size, then the batches are shuffled.
        """
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(self))
        chunks: list[np.ndarray] = []
        for start in range(0, len(order), batch_size * WINDOW):
            window = order[start : start + batch_size * WINDOW]
            window = window[np.argsort(self._sizes[window], kind="stable")]
            chunks += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        rng.shuffle(chunks)
        return [_share(chunk, place) for chunk in chunks]

    def _ahead(self, work: Sequence[tuple[np.ndarray, tuple[int, int] | None]]) -> Iterator[tuple[np.ndarray, Batch]]:
        """Yields batches that a thread prepares while the caller computes."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting: list[tuple[np.ndarray, Future[Batch]]] = []
            for indices, key in work:
                waiting.append((indices, pool.submit(self._batch, indices, key)))
                if len(waiting) > AHEAD:
                    done, future = waiting.pop(0)
                    yield done, future.result()
            for done, future in waiting:
                yield done, future.result()

    def _batch(self, indices: np.ndarray, key: tuple[int, int] | None) -> Batch:
        samples = [self.sample(int(index)) for index in indices]
        if key is not None:
            samples = [
                self.reader.transform.augment(sample, np.random.default_rng([*key, int(index)]))
                for sample, index in zip(samples, indices, strict=True)
            ]
        target = None if self.target is None else self.target[indices]
        return collate(samples, fields=self.reader.modality.fields, target=target)


def _share(chunk: np.ndarray, place: Place) -> np.ndarray:
    """Returns one process's part of a batch; one that would be left empty repeats a sample."""
    places = np.arange(place.rank, max(len(chunk), place.world), place.world)
    return chunk[places % len(chunk)]
