"""Which pairs a step sees: a function of seed and step, whatever the number of processes.

An epoch puts the shards in a random order and mixes the pairs of neighbouring shards, so that every pair comes once and
a disk reads long stretches. The end of an epoch that fills no batch is left to the next ones, which order anew.
"""

from dataclasses import dataclass, field

import numpy as np

from metatransformer.infer.loader import Place

WINDOW = 2**16  # pairs that are mixed at a time, at least


@dataclass
class Order:
    """The endless order of pairs; ``shards`` says of each pair where it lies, ``batch`` is that of all processes."""

    shards: np.ndarray
    batch: int
    seed: int
    window: int = WINDOW
    _epoch: int = -1
    _rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return len(self.shards) // self.batch

    def rows(self, step: int, place: Place) -> np.ndarray:
        """Returns the pairs of this process at a step; the processes' parts stand one behind the other."""
        epoch, number = divmod(step, self.steps)
        if epoch != self._epoch:
            self._rows, self._epoch = self._ordered(epoch), epoch
        size = self.batch // place.world
        start = number * self.batch + place.rank * size
        return self._rows[start : start + size]

    def _ordered(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        _, firsts = np.unique(self.shards, return_index=True)
        stretches = np.split(np.arange(len(self.shards)), np.sort(firsts)[1:])  # pairs of a shard lie together
        parts, some = [], []
        for number in rng.permutation(len(stretches)):
            some.append(stretches[number])
            if sum(map(len, some)) >= self.window:
                parts.append(rng.permutation(np.concatenate(some)))
                some = []
        if some:
            parts.append(rng.permutation(np.concatenate(some)))
        return np.concatenate(parts)
