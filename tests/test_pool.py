"""Pooling: values by hand, and what is never pooled."""

from dataclasses import replace

import pytest
import torch

from metatransformer.core.errors import UsageError
from metatransformer.core.tokens import Span, Tokens
from metatransformer.nn.pool import fold_rows, grid_cells, max_tokens, mean_tokens, pool, pooled_width, summary_token


def tokens(*, summary: int | None = 0) -> Tokens:
    x = torch.tensor([[[1.0, 10], [2, 20], [4, 40], [99, 99]], [[1, 1], [2, 2], [3, 3], [7, 7]]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    return Tokens(x, mask, (Span("a", 0, 4, summary=summary),))


def test_values_by_hand():
    assert summary_token(tokens()).tolist() == [[1, 10], [1, 1]]
    assert mean_tokens(tokens()).tolist() == [[3, 30], [4, 4]]
    assert pool(tokens(), kind="both", cells=2).tolist() == [[1, 10, 3, 30], [1, 1, 4, 4]]
    assert pool(tokens(), kind="mean", cells=2).tolist() == mean_tokens(tokens()).tolist()
    assert pool(tokens(), kind="max", cells=2).tolist() == max_tokens(tokens()).tolist() == [[4, 40], [7, 7]]


def test_the_largest_value_may_be_below_zero():
    negative = replace(tokens(), x=-tokens().x)
    assert max_tokens(negative).tolist() == [[-2, -20], [-2, -2]]


def test_padding_is_never_pooled():
    padded = tokens()
    other = padded.x.clone()
    other[~padded.mask] = 1e6
    for kind in ("summary", "mean", "max", "both"):
        assert torch.equal(pool(padded, kind=kind, cells=2), pool(replace(padded, x=other), kind=kind, cells=2))


def grid(*sizes: int, real: tuple[int, ...] = ()) -> Tokens:
    """Returns one sample whose token at each place of the grid holds its row-major number, behind a summary token."""
    count = int(torch.tensor(sizes).prod())
    x = torch.arange(count, dtype=torch.float32)
    mask = torch.ones(sizes, dtype=torch.bool)
    for axis, size in enumerate(real):
        mask &= (torch.arange(sizes[axis]) < size).reshape([-1 if k == axis else 1 for k in range(len(sizes))])
    x = torch.cat([torch.tensor([-7.0]), x])[None, :, None]
    mask = torch.cat([torch.ones(1, dtype=torch.bool), mask.flatten()])[None]
    return Tokens(x, mask, (Span("a", 0, count + 1, summary=0, grid=sizes),))


def test_cells_of_a_grid_by_hand():
    assert grid_cells(grid(4), cells=2).tolist() == [[0.5, 2.5]]
    # Three places in two parts: both hold the middle one.
    assert grid_cells(grid(3), cells=2).tolist() == [[0.5, 1.5]]
    assert grid_cells(grid(1), cells=3).tolist() == [[0, 0, 0]]
    # [[0, 1, 2, 3], [4, 5, 6, 7]]: columns 0-1 and 2-3 of rows 0 and 1.
    assert grid_cells(grid(2, 4), cells=2).tolist() == [[0.5, 2.5, 4.5, 6.5]]
    assert grid_cells(grid(2, 2, 2), cells=1).tolist() == [[3.5]]
    # The same two rows: columns 0-1 and 2-3 over both.
    assert grid_cells(grid(2, 4), cells=2, every_axis=False).tolist() == [[2.5, 4.5]]
    assert pool(grid(2, 4), kind="columns", cells=2).tolist() == [[2.5, 4.5]]


@pytest.mark.parametrize("real", [(3, 5), (2, 1), (7, 3)])
def test_cells_follow_the_samples_own_extent(real: tuple[int, int]):
    padded = grid(7, 5, real=real)
    numbers = torch.arange(35.0).reshape(7, 5)[: real[0], : real[1]]
    alone = torch.cat([torch.tensor([-7.0]), numbers.flatten()])[None, :, None]
    mask = torch.ones(1, alone.shape[1], dtype=torch.bool)
    tokens = Tokens(alone, mask, (Span("a", 0, alone.shape[1], summary=0, grid=real),))
    torch.testing.assert_close(grid_cells(padded, cells=2), grid_cells(tokens, cells=2))


def test_the_rows_of_a_sample_are_averaged_and_padding_makes_no_row():
    windows = torch.arange(24.0).reshape(2, 3, 4)  # 2 samples, up to 3 windows of 4 values
    rows, samples = fold_rows(windows, torch.tensor([[True, True, True], [True, False, False]]))
    assert rows.tolist() == windows.flatten(0, 1)[:4].tolist() and samples.tolist() == [0, 0, 0, 1]
    several = Tokens(rows[:, :, None], torch.ones(4, 4, dtype=torch.bool), (Span("a", 0, 4),), samples)
    # Windows of mean 1.5, 5.5, 9.5 for the first sample, 13.5 for the second.
    assert pool(several, kind="mean", cells=2).tolist() == [[5.5], [13.5]]


@pytest.mark.parametrize(("kind", "width"), [("summary", 5), ("mean", 5), ("max", 5), ("both", 10), ("grid", 45)])
def test_the_pooled_width_is_known_before(kind: str, width: int):
    assert pooled_width(5, kind=kind, cells=3, axes=2) == width


def test_tokens_without_a_grid_have_no_cells():
    with pytest.raises(UsageError, match="head.pool: must be summary, mean or both for tokens that lie on no single"):
        pool(tokens(), kind="grid", cells=2)


def test_the_summary_stands_in_where_there_is_nothing_else():
    only = Tokens(torch.full((1, 2, 3), 5.0), torch.tensor([[True, False]]), (Span("a", 0, 2, summary=0),))
    assert mean_tokens(only).tolist() == max_tokens(only).tolist() == [[5, 5, 5]]


def test_several_summaries_are_averaged():
    joined = Tokens.cat([tokens(), tokens()])
    assert torch.equal(summary_token(joined), summary_token(tokens()))


def test_tokens_without_summary_are_refused():
    with pytest.raises(UsageError, match="head.pool: must be 'mean' for tokens without a summary"):
        pool(tokens(summary=None), kind="both", cells=2)
