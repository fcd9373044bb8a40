"""Numbers as people write them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatransformer.data.spelled import spelled_numbers


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1,5", "-2,25", "3"], [1.5, -2.25, 3]),
        (["1.234,5", "7"], [1234.5, 7]),
        (["1,234.5", "7"], [1234.5, 7]),
        (["1,234", "1,234,567"], [1234, 1234567]),
        (["1,234", "0,5"], [1.234, 0.5]),
        (["1,234", "12,5"], [1.234, 12.5]),
        (["$1234.50", "$ 5", "-$7"], [1234.5, 5, -7]),
        (["5 €", "1.000,25 €"], [5, 1000.25]),
        (["12 %", "3.5%"], [12, 3.5]),
        (["1 234,5", "1\u202f000"], [1234.5, 1000]),
        (["1'234.5"], [1234.5]),
        (["\u22125,5"], [-5.5]),
        (["1,234", "5,678"], None),
        (["007,5"], None),
        (["1,5", "many"], None),
        (["1,23,4"], None),
        ([], None),
    ],
)
def test_numbers_are_read_where_they_can_only_be_one(cells: list[str], values: list[float] | None):
    found = spelled_numbers(cells)
    assert found is None if values is None else found.tolist() == values


def test_gaps_stay_gaps():
    np.testing.assert_array_equal(spelled_numbers([None, "1,5", None]), [np.nan, 1.5, np.nan])
    assert spelled_numbers([None, None]) is None


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=13), st.sampled_from([",", "."]))
def test_what_python_formats_is_read_back(numbers: list[int], decimal: str):
    other = {",": ".", ".": ","}
    texts = [f"{number + 0.5:,.1f}" for number in numbers]
    texts = texts if decimal == "." else [text.translate(str.maketrans(other)) for text in texts]
    found = spelled_numbers(texts)
    assert found is not None and found.tolist() == [number + 0.5 for number in numbers]
