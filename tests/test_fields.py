"""Fields: what is refused, and how samples of different size become one batch."""

import numpy as np
import pytest

from metatransformer.core.errors import DataError
from metatransformer.core.fields import Field

SERIES = Field("t* 3", unit="m", low=-5, high=5, pad=-1)


def test_good_arrays_come_back_as_they_are():
    array = np.zeros((7, 3), dtype=np.float32)
    assert SERIES.check(array, where="x") is array
    assert SERIES.names == ("t*", "3") and SERIES.ragged == (0,)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([[1.0]], "must be a numpy array; found a list"),
        (np.zeros((7, 3)), "must have dtype float32; found float64"),
        (np.zeros(7, dtype=np.float32), r"must have the axes \[t\*, 3\]; found an array of shape \(7,\)"),
        (np.zeros((7, 2), dtype=np.float32), "must have 3 entries on axis 1; found 2"),
        (np.zeros((0, 3), dtype=np.float32), "must have at least one entry on axis 't\\*'; found an empty array"),
        (np.full((1, 3), np.nan, dtype=np.float32), "must hold finite numbers; found 3 NaN or infinite values of 3"),
        (np.full((1, 3), 7, dtype=np.float32), r"must lie in \[-5, 5\] m; found values from 7 to 7"),
        (np.full((1, 3), -7, dtype=np.float32), r"must lie in \[-5, 5\] m; found values from -7 to -7"),
    ],
)
def test_bad_arrays_are_named(array: object, message: str):
    with pytest.raises(DataError, match=f"^a.csv: series: {message}"):
        SERIES.check(array, where="a.csv: series")


def test_missing_values_are_allowed_where_declared():
    field = Field("c", missing=True, high=2)
    array = np.array([1, np.nan], dtype=np.float32)
    assert field.check(array, where="x") is array
    assert field.check(array[1:], where="x").size == 1
    with pytest.raises(DataError, match="found 1 infinities of 2"):
        field.check(np.array([np.inf, np.nan], dtype=np.float32), where="x")


def test_a_batch_is_padded_and_masked():
    batch, mask = SERIES.stack([np.ones((2, 3), np.float32), np.full((1, 3), 4, np.float32)])
    np.testing.assert_array_equal(batch[:, :, 0], [[1, 1], [4, -1]])
    np.testing.assert_array_equal(mask, [[True, True], [True, False]])
    assert batch.dtype == np.float32


def test_fixed_axes_have_one_mask_entry_a_sample():
    batch, mask = Field("c", "int64").stack([np.arange(5), np.arange(5)])
    assert batch.shape == (2, 5) and mask.tolist() == [True, True]


def test_scalars_and_two_ragged_axes():
    batch, mask = Field("", "int64").stack([np.array(3), np.array(5)])
    assert batch.tolist() == [3, 5] and mask.shape == (2,)
    batch, mask = Field("h* 2 w*").stack([np.ones((3, 2, 5), np.float32), np.ones((7, 2, 1), np.float32)])
    assert batch.shape == (2, 7, 2, 5) and mask.shape == (2, 7, 5)
    assert mask.sum(axis=(1, 2)).tolist() == [15, 7]


def test_the_declaration_in_words():
    text = Field("t* c", unit="m/s2", low=0, missing=True, summary="acceleration").describe()
    assert text == "[t*, c] float32, m/s2, at least 0, NaN = missing: acceleration"
