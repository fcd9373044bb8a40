"""Rows of which each of several processes holds a share: how many all are, what is summed and what is gathered.

Of ``count`` rows process r of w holds r, r + w, r + 2 w, ... Sums are in float64, as those of one process are.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from metatransformer.infer.evaluate import Features, compute_outputs
from metatransformer.infer.loader import Loader, Place
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline


@dataclass(frozen=True)
class Held:
    """The ``places`` [n] among ``count`` rows that the process at ``place`` holds; each row is held once."""

    places: Tensor
    count: int
    place: Place

    @classmethod
    def of(cls, count: int, place: Place) -> "Held":
        """Returns the share of one process."""
        return cls(torch.arange(place.rank, count, place.world), count, place)

    def behind(self, other: "Held") -> "Held":
        """Returns the share of these rows and of others that stand behind them."""
        return Held(torch.cat([self.places, other.places + self.count]), self.count + other.count, self.place)

    def total(self, x: Tensor) -> Tensor:
        """Returns the sum over all processes, float64."""
        x = x.double()
        dist.all_reduce(x)
        return x

    def whole(self, rows: Tensor) -> Tensor:
        """Returns all rows ``[count, ...]``, of which this process has ``rows`` [n, ...]."""
        if rows.is_sparse:
            return self._whole_sparse(rows)
        found = rows.new_zeros(self.count, *rows.shape[1:])
        found[self.places] = rows
        dist.all_reduce(found)  # each row is a sum of itself and zeros: exact
        return found

    def _whole_sparse(self, rows: Tensor) -> Tensor:
        parts: list[tuple[Tensor, Tensor] | None] = [None] * self.place.world
        dist.all_gather_object(parts, (self.places, rows))
        told = [part for part in parts if part is not None]
        order = torch.argsort(torch.cat([places for places, _ in told]))
        return torch.cat([x for _, x in told]).index_select(0, order).coalesce()

    def some(self, rows: Tensor, wanted: Tensor) -> Tensor:
        """Returns the rows at ``wanted`` places among all, ``[k, ...]``."""
        found = rows.new_zeros(len(wanted), *rows.shape[1:])
        own = torch.isin(wanted, self.places)
        found[own] = rows[torch.searchsorted(self.places, wanted[own])]
        dist.all_reduce(found)
        return found

    def features(self, own: Features) -> Features:
        """Returns the features of all samples."""
        return Features(self.whole(own.trunk), {name: self.whole(x) for name, x in own.plain.items()}, own.columns)


def are_shared(count: int, place: Place) -> bool:
    """Returns whether so many samples are shared among processes; of fewer than these each computes all."""
    return place.world > 1 and count >= place.world


def shared_outputs(pipeline: Pipeline, loader: Loader, *, place: Place, console: Console, title: str) -> Tensor:
    """Returns ``compute_outputs`` of all samples, of which each process computes a share."""
    if pipeline.task.kit or not are_shared(len(loader), place):
        return compute_outputs(pipeline, loader, console=console, title=title)
    share = Held.of(len(loader), place)
    own = loader.part(share.places.tolist(), tasks=loader.tasks)
    return share.whole(compute_outputs(pipeline, own, console=console, title=title))


def share_sizes(loader: Loader) -> None:
    """Lets every process know how large the samples are that others have read."""
    dist.all_reduce(torch.from_numpy(loader.sizes))  # in place: the array is the tensor's memory
