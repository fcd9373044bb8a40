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
    """The stretch ``[start, stop)`` of the token axis that one modality fills.

    ``summary`` is the absolute position of its summary (class) token, None when it has none. ``grid`` is how
    the other tokens lie, row-major: ``()`` unordered, ``(t,)``, ``(h, w)``, ``(t, h, w)``; in a padded batch
    it is the padded grid.
    """

    modality: str
    start: int
    stop: int
    summary: int | None = None
    grid: tuple[int, ...] = ()

    def shift(self, offset: int) -> "Span":
        """Returns the same span ``offset`` tokens further on."""
        summary = None if self.summary is None else self.summary + offset
        return replace(self, start=self.start + offset, stop=self.stop + offset, summary=summary)


@dataclass(frozen=True)
class Tokens:
    """A batch of token sequences with its mask and the spans that say what stands where.

    A sample may fill several rows that do not attend to each other: the windows of a long text, the clips of a video,
    the views of a shape. Then ``samples`` holds the number of the sample that each row belongs to (0, 1, ... in rising
    order, none left out), and pooling averages over a sample's rows; None means one row a sample.

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
    def width(self) -> int:
        """The width D of a token."""
        return self.x.shape[-1]

    def with_x(self, x: Float[Tensor, "B N D"]) -> "Tokens":
        """Returns the same layout with other embeddings."""
        return replace(self, x=x)

    @staticmethod
    def cat(parts: Sequence["Tokens"]) -> "Tokens":
        """Returns the modalities of one sample side by side on the token axis.

        Raises:
            UsageError: no part, parts of different width, or one of several rows a sample beside another.
        """
        widths = {part.width for part in parts}
        if len(widths) != 1:
            raise UsageError("Tokens.cat", must="get parts of one width", found=f"widths {sorted(widths)}")
        if len(parts) == 1:
            return parts[0]
        if any(part.samples is not None for part in parts):
            raise UsageError(
                "Tokens.cat",
                must="get one row of tokens a sample from each modality",
                found="several rows a sample",
                do="Give the modality one window, clip or view a sample.",
            )
        direct = [part.direct for part in parts if part.direct is not None]
        spans: list[Span] = []
        offset = 0
        for part in parts:
            spans += [span.shift(offset) for span in part.spans]
            offset += part.x.shape[1]
        return Tokens(
            x=torch.cat([part.x for part in parts], dim=1),
            mask=torch.cat([part.mask for part in parts], dim=1),
            spans=tuple(spans),
            direct=torch.cat(direct, dim=1) if direct else None,
        )

    def summaries(self) -> Bool[Tensor, " N"]:
        """Returns which positions hold a summary token."""
        marks = torch.zeros(self.x.shape[1], dtype=torch.bool, device=self.x.device)
        for span in self.spans:
            if span.summary is not None:
                marks[span.summary] = True
        return marks
