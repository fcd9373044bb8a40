"""Numbers as vectors: edges, piecewise-linear and periodic codes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metatransformer.nn.numeric import Periodic, PiecewiseLinear, bin_edges


def test_few_distinct_values_are_all_edges():
    assert bin_edges(np.array([3.0, 1.0, 1.0, 7.0]), bins=5) == [1.0, 3.0, 7.0]


def test_one_distinct_value_gets_a_second_edge_however_large_it_is():
    assert bin_edges(np.array([0.0, 0.0]), bins=3) == [0.0, 1.0]
    low, high = bin_edges(np.array([3e9]), bins=3)
    assert np.float32(low) < np.float32(high)


def test_a_dominant_value_does_not_swallow_the_edges_of_the_others():
    values = np.concatenate([np.zeros(910), np.arange(1.0, 91.0)])
    plain = np.unique(np.quantile(values, np.linspace(0, 1, 12)))
    edges = bin_edges(values, bins=11)
    assert len(plain) <= 3 and len(edges) == 12
    assert edges[0] == 0.0 and edges[-1] == 90.0


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=97),
    st.integers(2, 13),
)
def test_edges_ascend_and_span_the_values(values: list[float], bins: int):
    edges = bin_edges(np.array(values), bins=bins)
    assert (np.diff(np.array(edges, dtype=np.float32)) > 0).all()
    if len(set(values)) > 1:
        assert edges[0] == min(values) and edges[-1] == max(values)
    assert 2 <= len(edges) <= bins + 1


def test_the_thermometer_code_by_hand():
    code = PiecewiseLinear([[0.0, 1.0, 3.0, 7.0], [0.0, 2.0]], width=5, std=0.1).encode(
        torch.tensor([[2.0, 0.5], [-9.0, 99.0]])
    )
    # Column 1 has three bins: full, half, empty. Column 2 has one, a quarter full: -1 + 2 * 0.25.
    expected = torch.tensor(
        [
            [[1.0, 0.0, -1.0], [-0.5 * math.sqrt(3), 0.0, 0.0]],
            [[-1.0, -1.0, -1.0], [1.0 * math.sqrt(3), 0.0, 0.0]],
        ]
    ) / math.sqrt(3)
    torch.testing.assert_close(code, expected)


def test_columns_do_not_share_weights_or_bins():
    torch.manual_seed(0)
    both = PiecewiseLinear([[0.0, 1.0, 2.0], [0.0, 5.0]], width=7, std=1.0)
    one = PiecewiseLinear([[0.0, 5.0]], width=7, std=1.0)
    with torch.no_grad():
        one.weight.copy_(both.weight[1:, :1])
    x = torch.tensor([[1.3, 4.0], [0.1, -2.0], [9.0, 2.5]])
    torch.testing.assert_close(both(x)[:, 1:], one(x[:, 1:]))


@pytest.mark.parametrize("value", [-3.0, 0.0, 0.4, 1.1, 55.0])
def test_every_number_starts_with_the_stated_deviation(value: float):
    torch.manual_seed(0)
    width = 4001
    edges = [[i / 53 for i in range(54)]]
    x = torch.tensor([[value]])
    piecewise = PiecewiseLinear(edges, width=width, std=0.08)(x)
    periodic = Periodic(1, components=46, sigma=0.3, width=width, std=0.08)(x)
    # 4,001 draws estimate a deviation to 1.1 %; the one bin that is partly full takes off 1 % more.
    assert piecewise.std().item() == pytest.approx(0.08, rel=0.06)
    assert periodic.std().item() == pytest.approx(0.08, rel=0.06)


def test_periodic_code_by_hand():
    module = Periodic(2, components=4, sigma=1.0, width=3, std=0.1)
    with torch.no_grad():
        module.frequency.copy_(torch.tensor([[0.25, 1.0], [0.5, 2.0]]))
    code = module.encode(torch.tensor([[1.0, 0.5]]))
    # sin and cos of 2 pi f x, over sqrt(2): quarter turn and full turn; quarter turn and full turn.
    expected = torch.tensor([[[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]]]) / math.sqrt(2)
    torch.testing.assert_close(code, expected, atol=1e-6, rtol=0)


def test_an_extreme_number_stays_finite():
    module = PiecewiseLinear([[0.0, 1.0]], width=3, std=0.1)
    x = torch.tensor([[1e30], [-1e30], [1.0], [0.0]])
    out = module(x)
    assert out.isfinite().all()
    torch.testing.assert_close(out[:2], out[2:])
