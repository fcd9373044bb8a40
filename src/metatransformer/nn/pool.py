"""Pooling: from the tokens that the trunk returns to one vector a sample. No parameters, so results can be cached."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metatransformer.core.errors import UsageError
from metatransformer.core.tokens import Span, Tokens
from metatransformer.core.uniform import UNIFORM

POOLS = ("summary", "mean", "max", "both", "grid", "columns")


def mean_tokens(tokens: Tokens) -> Float[Tensor, "B D"]:
    """Returns the mean of the real tokens that are no summary; of the summaries where there is nothing else."""
    weights = _ordinary(tokens).to(tokens.x.dtype).unsqueeze(-1)  # [B, N, 1]
    return (tokens.x * weights).sum(dim=1) / weights.sum(dim=1)


def max_tokens(tokens: Tokens) -> Float[Tensor, "B D"]:
    """Returns the largest value of each feature over the tokens that ``mean_tokens`` averages."""
    return tokens.x.masked_fill(~_ordinary(tokens).unsqueeze(-1), -torch.inf).amax(dim=1)


def _ordinary(tokens: Tokens) -> Bool[Tensor, "B N"]:
    """Marks the real tokens that are no summary, all real ones where there is nothing else."""
    ordinary = tokens.mask & ~tokens.summaries()
    return ordinary | (tokens.mask & ~ordinary.any(dim=1, keepdim=True))


def summary_token(tokens: Tokens) -> Float[Tensor, "B D"]:
    """Returns the summary token; the mean of the real ones when several modalities were joined.

    Raises:
        UsageError: no span has a summary token.
    """
    marks = tokens.summaries()
    if all(span.summary is None for span in tokens.spans):
        raise UsageError("head.pool", must="be 'mean' for tokens without a summary", found="'summary'")
    weights = (tokens.mask & marks).to(tokens.x.dtype).unsqueeze(-1)
    return (tokens.x * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def grid_cells(tokens: Tokens, *, cells: int, every_axis: bool = True) -> Float[Tensor, "B F"]:
    """Returns the means of the tokens in ``cells`` equal parts of each axis of the grid, row-major, side by side; of
    the last axis only, over whole other axes, without ``every_axis``.

    Keeps roughly where (or when) something is, at ``cells ** axes`` times the width. The parts follow each sample's own
    extent, so padding changes nothing; where an axis has fewer tokens than parts, neighbouring parts share tokens.

    Raises:
        UsageError: the tokens come from several modalities, or lie on no grid of 1 to 3 axes.
    """
    if len(tokens.spans) != 1 or not 1 <= len(tokens.spans[0].grid) <= 3:
        found = [f"{span.modality} {span.grid}" for span in tokens.spans]
        raise UsageError(
            "head.pool",
            must="be summary, mean or both for tokens that lie on no single grid",
            found=f"'{'grid' if every_axis else 'columns'}' for {', '.join(found)}",
        )
    (span,) = tokens.spans
    x, mask = _on_grid(tokens, span)
    for axis, size in enumerate(span.grid):
        others = [1 + k for k in range(len(span.grid)) if k != axis]
        extent = mask.any(dim=others).sum(dim=1) if others else mask.sum(dim=1)  # [B]
        count = cells if every_axis or axis == len(span.grid) - 1 else 1
        parts = _parts(extent, cells=count, size=size).to(x.dtype)  # [B, cells, size]
        moved = x.movedim(1 + axis, 1)  # [B, size, ..., D]
        x = torch.einsum("bcs,bs...->bc...", parts, moved).movedim(1, 1 + axis)
    return x.flatten(1)


def _on_grid(tokens: Tokens, span: Span) -> tuple[Tensor, Tensor]:
    """Returns the span's ordinary tokens and their mask in the shape of its grid."""
    if span.summary in (None, span.start):
        first = span.start if span.summary is None else span.start + 1
        x, mask = tokens.x[:, first : span.stop], tokens.mask[:, first : span.stop]
    else:
        places = [i for i in range(span.start, span.stop) if i != span.summary]
        x, mask = tokens.x[:, places], tokens.mask[:, places]
    x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
    return x.unflatten(1, span.grid), mask.unflatten(1, span.grid)


def _parts(extent: Int[Tensor, " B"], *, cells: int, size: int) -> Float[Tensor, "B cells size"]:
    """Returns averaging weights: part c of an extent n covers floor(c n / cells) up to ceil((c + 1) n / cells)."""
    part = torch.arange(cells, device=extent.device)[None, :, None]
    place = torch.arange(size, device=extent.device)[None, None, :]
    n = extent[:, None, None]
    start = torch.div(part * n, cells, rounding_mode="floor")
    stop = torch.div((part + 1) * n + cells - 1, cells, rounding_mode="floor")
    inside = ((place >= start) & (place < stop)).float()
    return inside / inside.sum(dim=-1, keepdim=True)


def pooled_width(width: int, *, kind: str, cells: int, axes: int) -> int:
    """Returns how long the pooled vector of tokens of this width is, on a grid of ``axes`` axes."""
    return width * {"summary": 1, "mean": 1, "max": 1, "both": 2, "grid": cells**axes, "columns": cells}[kind]


def pool(tokens: Tokens, *, kind: str, cells: int) -> Float[Tensor, "B F"]:
    """Returns one vector a sample: ``summary``, ``mean``, ``both`` of these side by side, ``max`` (the largest value of
    each feature), the ``grid`` of ``cells`` an axis, or ``columns``: ``cells`` parts of the grid's last axis.

    Where a sample fills several rows of tokens, its vector is the mean of theirs.
    """
    assert kind in POOLS, kind
    if kind == "summary":
        vectors = summary_token(tokens)
    elif kind == "mean":
        vectors = mean_tokens(tokens)
    elif kind == "max":
        vectors = max_tokens(tokens)
    elif kind in ("grid", "columns"):
        vectors = grid_cells(tokens, cells=cells, every_axis=kind == "grid")
    else:
        vectors = torch.cat([summary_token(tokens), mean_tokens(tokens)], dim=-1)
    return vectors if tokens.samples is None else mean_rows(vectors, tokens.samples)


def mean_rows(vectors: Float[Tensor, "B F"], samples: Int[Tensor, " B"]) -> Float[Tensor, "S F"]:
    """Returns the mean of the rows that belong to each sample; ``samples`` counts up from 0 without a gap."""
    count = int(samples[-1]) + 1
    total = vectors.new_zeros(count, vectors.shape[1]).index_add(0, samples, vectors)
    return total / torch.bincount(samples, minlength=count).to(vectors.dtype).unsqueeze(-1)


def fold_rows(array: Tensor, mask: Bool[Tensor, "S W"]) -> tuple[Tensor, Int[Tensor, " B"]]:
    """Returns the real windows ``[B, ...]`` of a padded batch ``[S, W, ...]``, and the sample of each."""
    if UNIFORM.get():
        rows = array.flatten(0, 1)
        return rows, torch.arange(rows.shape[0], device=array.device) // mask.shape[1]
    samples = torch.arange(mask.shape[0], device=mask.device).unsqueeze(1).expand_as(mask)
    return array[mask], samples[mask]
