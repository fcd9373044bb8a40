"""Batches: samples side by side, each input padded and masked as its modality's fields declare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.fields import Field
from metatransformer.core.samples import Counts, Sample, View


@dataclass(frozen=True)
class Part:
    """One input of a batch.

    ``inputs[name]`` is ``[R, *axes]``, ``masks[name]`` is ``[R, *ragged axes]`` (True = real). ``rows`` [R] are the
    places of the samples that have this input, in rising order; None where all have it. ``plain`` [R, P] are the
    plain features, where a head reads them; sparse (COO) where nearly all of them are 0. ``places`` are those of each
    row's view, where a task answers for each place.
    """

    inputs: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    rows: Tensor | None = None
    plain: Tensor | None = None
    places: Sequence[np.ndarray | None] = ()

    def to(self, device: torch.device) -> "Part":
        """Returns the part on another device."""
        move = {name: x.to(device, non_blocking=True) for name, x in self.inputs.items()}
        masks = {name: x.to(device, non_blocking=True) for name, x in self.masks.items()}
        rows, plain = (None if x is None else x.to(device, non_blocking=True) for x in (self.rows, self.plain))
        return Part(move, masks, rows, plain, self.places)

    def take(self, samples: Tensor, *, count: int) -> "Part | None":
        """Returns the part of some of ``count`` samples, None where none of them has this input."""
        own = torch.arange(count, device=samples.device) if self.rows is None else self.rows
        place = torch.full((count,), -1, device=samples.device).index_put(
            (own,), torch.arange(len(own), device=own.device)
        )
        rows = place[samples]
        kept = rows[rows >= 0]
        if not len(kept):
            return None
        inputs, masks = ({name: x[kept] for name, x in group.items()} for group in (self.inputs, self.masks))
        plain = None if self.plain is None else self.plain.index_select(0, kept)
        return Part(inputs, masks, None if len(kept) == len(samples) else (rows >= 0).nonzero().flatten(), plain)


@dataclass(frozen=True)
class Target:
    """What a task's ``encode`` made of the labels of a batch: ``values`` of the samples at ``rows``, None = of all."""

    values: Tensor
    rows: Tensor | None = None

    def to(self, device: torch.device) -> "Target":
        """Returns the target on another device."""
        rows = None if self.rows is None else self.rows.to(device, non_blocking=True)
        return Target(self.values.to(device, non_blocking=True), rows)


@dataclass(frozen=True)
class Batch:
    """Tensors for the tokenizers, with the keys of their samples.

    ``parts`` are by input, ``targets`` by task; an input or a target that no sample of the batch has is left out.
    """

    keys: tuple[str, ...]
    parts: Mapping[str, Part]
    targets: Mapping[str, Target] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def lacks(self, name: str) -> Tensor:
        """Returns which samples ``[S]`` are without an input."""
        part = self.parts.get(name)
        if part is not None and part.rows is None:
            return torch.zeros(len(self), dtype=torch.bool)
        absent = torch.ones(len(self), dtype=torch.bool)
        if part is not None and part.rows is not None:
            absent[part.rows.cpu()] = False
        return absent

    def plain(self, name: str, *, size: int) -> Tensor:
        """Returns the plain features ``[S, size]`` of an input: NaN for samples without it, no count where they are
        sparse.
        """
        part = self.parts.get(name)
        if part is None:
            return torch.full((len(self), size), torch.nan)
        assert part.plain is not None, f"no plain features of '{name}' were read"
        if part.rows is None:
            return part.plain
        if part.plain.is_sparse:
            known = part.plain.coalesce()
            (rows, places), values = known.indices(), known.values()
            return torch.sparse_coo_tensor(
                torch.stack([part.rows[rows], places]), values, (len(self), size), check_invariants=False
            ).coalesce()
        return part.plain.new_full((len(self), size), torch.nan).index_copy(0, part.rows, part.plain)

    def take(self, samples: Tensor) -> "Batch":
        """Returns some of the samples without targets."""
        parts = {name: part.take(samples, count=len(self)) for name, part in self.parts.items()}
        found = {name: part for name, part in parts.items() if part is not None}
        return Batch(tuple(self.keys[place] for place in samples.tolist()), found)

    def to(self, device: torch.device) -> "Batch":
        """Returns the batch on another device."""
        return replace(
            self,
            parts={name: part.to(device) for name, part in self.parts.items()},
            targets={name: target.to(device) for name, target in self.targets.items()},
        )


def stack_views(views: Sequence[View], *, fields: Mapping[str, Field], rows: Tensor | None = None) -> Part:
    """Returns transformed views of one modality, whose ``fields`` these are, as one part of a batch."""
    inputs, masks = {}, {}
    for name, declared in fields.items():
        array, mask = declared.stack([view.inputs[name] for view in views])
        inputs[name], masks[name] = torch.from_numpy(array), torch.from_numpy(mask)
    plain = None if views[0].plain is None else _stack_plain([view.plain for view in views])
    return Part(inputs, masks, rows, plain, tuple(view.places for view in views))


def _stack_plain(vectors: Sequence[np.ndarray | Counts | None]) -> Tensor | None:
    """Returns plain features as rows, None where none were asked for."""
    counts = [vector for vector in vectors if isinstance(vector, Counts)]
    if counts:
        owners = np.repeat(np.arange(len(counts)), [len(vector.places) for vector in counts])
        where = np.stack([owners, np.concatenate([vector.places for vector in counts])]).astype(np.int64)
        values = torch.from_numpy(np.concatenate([vector.values for vector in counts]).astype(np.float32))
        shape = (len(counts), counts[0].size)
        return torch.sparse_coo_tensor(
            torch.from_numpy(where), values, shape, is_coalesced=True, check_invariants=False
        )
    found = [np.asarray(vector, dtype=np.float32) for vector in vectors if isinstance(vector, np.ndarray)]
    return torch.from_numpy(np.stack(found)) if len(found) == len(vectors) else None


def collate(samples: Sequence[Sample], *, fields: Mapping[str, Mapping[str, Field]]) -> Batch:
    """Returns transformed samples as one batch without targets; ``fields`` are those of each input's modality."""
    parts = {}
    for name, declared in fields.items():
        found = [(row, view) for row, sample in enumerate(samples) if (view := sample.views[name]) is not None]
        if found:
            rows = None if len(found) == len(samples) else torch.tensor([row for row, _ in found])
            parts[name] = stack_views([view for _, view in found], fields=declared, rows=rows)
    return Batch(tuple(sample.key for sample in samples), parts)
