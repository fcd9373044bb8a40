"""Tokens: the only thing that crosses the borders between tokenizer, encoder and head.

Axes: B batch, N tokens, D width. Masks say True = real token, False = padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metatransformer.core.errors import UsageError


@dataclass(frozen=True)
class Span:
    """The stretch ``[start, stop)`` of the token axis that one input fills.

    ``summary`` is the absolute position of its summary (class) token, None when it has none. ``grid`` is how
    the other tokens lie, row-major: ``()`` unordered, ``(t,)``, ``(h, w)``, ``(t, h, w)``; in a padded batch
    it is the padded grid. ``input`` is the name of the model's input, empty before a model has given it.
    """

    modality: str
    start: int
    stop: int
    summary: int | None = None
    grid: tuple[int, ...] = ()
    input: str = ""

    def shift(self, offset: int) -> "Span":
        """Returns the same span ``offset`` tokens further on."""
        summary = None if self.summary is None else self.summary + offset
        return replace(self, start=self.start + offset, stop=self.stop + offset, summary=summary)


@dataclass(frozen=True)
class Tokens:
    """A batch of token sequences with its mask and the spans that say what stands where.

    A sample may fill several rows that do not attend to each other: the windows of a long text, the clips of a video,
    a picture and its mirror image. Then ``samples`` holds the number of the sample that each row belongs to (0, 1, ...
    in rising order, none left out), and pooling averages over a sample's rows; None means one row a sample.

    ``direct`` are features of each sample that go to the head beside the trunk (the window of a series, which a
    forecast must continue exactly); they are part of every control as well, so that a trunk is credited with its own
    share only.
    """

    x: Float[Tensor, "B N D"]
    mask: Bool[Tensor, "B N"]
    spans: tuple[Span, ...]
    samples: Int[Tensor, " B"] | None = None
    direct: Float[Tensor, "S F"] | None = None

    def __post_init__(self) -> None:
        assert self.x.shape[:2] == self.mask.shape, (self.x.shape, self.mask.shape)
        assert self.samples is None or self.samples.shape == self.mask.shape[:1], self.samples
        assert self.spans and self.spans[-1].stop == self.x.shape[1], (self.spans, self.x.shape)

    @property
    def count(self) -> int:
        """How many samples there are."""
        return self.x.shape[0] if self.samples is None else int(self.samples[-1]) + 1

    def named(self, name: str) -> "Tokens":
        """Returns the same tokens as those of the model's input ``name``."""
        return replace(self, spans=tuple(replace(span, input=name) for span in self.spans))

    def part(self, name: str) -> "Tokens | None":
        """Returns the tokens of one input of the model without ``direct``, None where no sample has it."""
        for span in self.spans:
            if span.input == name:
                stretch = slice(span.start, span.stop)
                return Tokens(self.x[:, stretch], self.mask[:, stretch], (span.shift(-span.start),), self.samples)
        return None

    def rows(self, kept: Bool[Tensor, " B"]) -> "Tokens":
        """Returns the tokens of some rows without ``direct``; samples are counted anew."""
        samples = None if self.samples is None else torch.unique(self.samples[kept], return_inverse=True)[1]
        return Tokens(self.x[kept], self.mask[kept], self.spans, samples)

    def spread(self, places: Int[Tensor, " R"], *, count: int) -> "Tokens":
        """Returns these samples as those at ``places`` (rising) of ``count``.

        The others get one row without real tokens, and ``direct`` of 0.
        """
        own = places if self.samples is None else places[self.samples]
        absent = torch.ones(count, dtype=torch.bool, device=own.device)
        absent[places] = False
        owners, order = torch.sort(torch.cat([own, absent.nonzero().flatten()]), stable=True)
        gaps = int(absent.sum())
        x = torch.cat([self.x, self.x.new_zeros(gaps, *self.x.shape[1:])])[order]
        mask = torch.cat([self.mask, self.mask.new_zeros(gaps, self.mask.shape[1])])[order]
        direct = None
        if self.direct is not None:
            direct = self.direct.new_zeros(count, self.direct.shape[1]).index_copy(0, places, self.direct)
        return Tokens(x, mask, self.spans, None if self.samples is None else owners, direct)

    @staticmethod
    def cat(parts: Sequence["Tokens"]) -> "Tokens":
        """Returns the inputs of the same samples side by side on the token axis.

        Where a sample fills several rows, the parts take turns until all have come round together: so the mean over its
        rows counts every row of a part alike.

        Raises:
            UsageError: no part, or parts of different width.
        """
        widths = {part.x.shape[-1] for part in parts}
        if len(widths) != 1:
            raise UsageError("Tokens.cat", must="get parts of one width", found=f"widths {sorted(widths)}")
        if len(parts) == 1:
            return parts[0]
        direct = [part.direct for part in parts if part.direct is not None]
        spans: list[Span] = []
        offset = 0
        for part in parts:
            spans += [span.shift(offset) for span in part.spans]
            offset += part.x.shape[1]
        samples, rows = _pairings(parts)
        return Tokens(
            x=torch.cat([part.x if row is None else part.x[row] for part, row in zip(parts, rows, strict=True)], dim=1),
            mask=torch.cat(
                [part.mask if row is None else part.mask[row] for part, row in zip(parts, rows, strict=True)], dim=1
            ),
            spans=tuple(spans),
            samples=samples,
            direct=torch.cat(direct, dim=1) if direct else None,
        )

    def summaries(self) -> Bool[Tensor, " N"]:
        """Returns which positions hold a summary token."""
        marks = torch.zeros(self.x.shape[1], dtype=torch.bool, device=self.x.device)
        for span in self.spans:
            if span.summary is not None:
                marks[span.summary] = True
        return marks


def _pairings(parts: Sequence[Tokens]) -> tuple[Tensor | None, list[Tensor | None]]:
    """Returns the sample of each joint row, and which row of each part stands in it; None for "as they are".

    A sample has as many joint rows as the least common multiple of its parts' rows, each part taking turns: two mirror
    images of one picture stand beside the two of another, not each beside both.
    """
    if all(part.samples is None for part in parts):
        return None, [None] * len(parts)
    device, count = parts[0].x.device, parts[0].count
    owners = [torch.arange(count, device=device) if part.samples is None else part.samples for part in parts]
    sizes = [torch.bincount(owner, minlength=count) for owner in owners]
    joint = sizes[0]
    for size in sizes[1:]:
        joint = torch.lcm(joint, size)
    samples = torch.repeat_interleave(torch.arange(count, device=device), joint)
    turn = torch.arange(len(samples), device=device) - (joint.cumsum(0) - joint)[samples]
    return samples, [(size.cumsum(0) - size)[samples] + turn % size[samples] for size in sizes]
