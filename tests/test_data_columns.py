"""Cells and columns: what is missing, a number, a category, or refused."""

import dataclasses
import datetime
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatransformer.core.errors import DataError
from metatransformer.data.columns import (
    Cells,
    Column,
    as_number,
    as_word,
    clean,
    column_from,
    column_kind,
    column_notes,
    common_words,
    is_code,
    parse_number,
)
from metatransformer.data.records import objects


def kind_of(name, cells, *, keys):
    return column_kind(name, Cells.of(objects(cells)), keys=keys)


def words_of(cells, *, share, most):
    return common_words(Cells.of(objects(cells)), share=share, most=most)


def keys(count: int) -> list[str]:
    return [f"row {i}" for i in range(count)]


@pytest.mark.parametrize(
    "value",
    [None, float("nan"), np.float32("nan"), "", "  ", "?", " NA ", "nan", pd.NA, pd.NaT]
    + [np.datetime64("NaT"), Decimal("NaN")],
)
def test_what_means_missing(value: object):
    assert clean(value, where="here") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" Private ", "Private"),
        ("None", "None"),
        (np.int64(7), 7),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_(" x"), "x"),
        (Decimal("1.25"), 1.25),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (np.datetime64("2024-02-29"), "2024-02-29"),
        (datetime.timedelta(minutes=2), 120.0),
    ],
)
def test_cells_become_plain_values(value: object, expected: object):
    found = clean(value, where="here")
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize("value", [float("inf"), -np.inf, 10**400, 1e200])
def test_an_infinity_is_refused_with_its_place(value: object):
    with pytest.raises(DataError, match="^row 3, age: must hold a finite number"):
        clean(value, where="row 3, age")


def test_a_list_in_a_cell_is_refused():
    with pytest.raises(DataError, match="must hold one number, text or truth value; found a list"):
        clean([1, 2], where="row 3")


@pytest.mark.parametrize(
    ("text", "number"),
    [("39", 39.0), ("-1.5e3", -1500.0), (".5", 0.5), ("5.", 5.0), ("0", 0.0), ("0.25", 0.25)]
    + [("007", None), ("1_000", None), ("1,5", None), ("abc", None), ("0x1", None)],
)
def test_texts_that_are_numbers(text: str, number: float | None):
    assert as_number(text, where="here") == number


@given(st.floats(-1e99, 1e99) | st.integers(-(10**18), 10**18))
def test_every_printed_number_reads_back(value: float):
    assert as_number(str(value), where="here") == float(value)


def test_the_text_of_an_infinity_is_refused():
    with pytest.raises(DataError, match="must hold a finite number"):
        as_number("-Infinity", where="here")


def test_words_of_equal_numbers_are_equal():
    assert as_word(3.0) == as_word(3) == "3"
    assert as_word(True) == "True" and as_word(2.5) == "2.5"


def test_codes():
    assert is_code("00412") and not is_code("0") and not is_code("0.5") and not is_code("412")


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([1, 2.5, None], "number"),
        (["1", "2", "30"], "number"),
        ([1, 1, None], "number"),
        ([True, False, None], "category"),
        (["a", "b", "a"], "category"),
        (["00412", "80331", "10115"], "category"),
        ([1, 2, "many"], "category"),
        ([None, None], "empty"),
        ([4, 4, 4], "constant"),
        (["same", "same"], "constant"),
    ],
)
def test_kinds(cells: list, kind: str):
    assert kind_of("c", cells, keys=keys(len(cells))) == kind


@pytest.mark.parametrize("column", [[3, 1, 3], [0.5, 2.0, 0.5], [True, False, True], [2.0, float("nan"), 1.0]])
def test_arrays_of_numbers_are_what_lists_of_them_are(column: list):
    one, two = Cells.of(np.array(column)), Cells.of(objects([None if x != x else x for x in column]))
    assert one.words == two.words and one.codes.tolist() == two.codes.tolist()
    assert one.different == two.different and one.counts.tolist() == two.counts.tolist()
    np.testing.assert_array_equal(one.numbers("abc", where="c"), two.numbers("abc", where="c"))


def test_true_and_one_are_different_cells():
    cells = Cells.of(objects([True, 1, None, 1.0, "1", True]))
    assert cells.codes.tolist() == [0, 1, -1, 2, 3, 0] and cells.words == ["True", "1", "1", "1"]


def test_texts_that_hardly_repeat_are_an_identifier_unless_they_are_few():
    names = [f"name {i}" for i in range(23)]
    assert kind_of("c", names, keys=keys(23)) == "identifier"
    assert kind_of("c", names[:19], keys=keys(19)) == "category"


def test_codes_and_numbers_that_only_tell_rows_apart():
    codes = [f"{i:06}" for i in range(23)]
    assert kind_of("c", codes, keys=keys(23)) == "identifier"
    assert kind_of("c", codes[:5] * 5, keys=keys(25)) == "category"
    rows = [7, 9, 12, *range(20, 40)]  # of the training split
    places = [f"train/{row}" for row in rows]
    assert kind_of("c", [row + 1 for row in rows], keys=places) == "numbering"
    assert kind_of("c", [str(row + 1) for row in rows], keys=places) == "numbering"
    assert kind_of("c", [row + (row > 30) for row in rows], keys=places) == "number"
    assert kind_of("c", rows, keys=[f"x{row}" for row in rows]) == "number"


def test_a_stray_text_among_numbers_is_refused_with_its_row():
    cells = [float(i) for i in range(30)] + ["12 years"]
    with pytest.raises(DataError) as caught:
        kind_of("age", cells, keys=keys(31))
    assert "column 'age': must hold numbers" in str(caught.value)
    assert "1 of 31 that are none, '12 years' in row row 30" in str(caught.value)


def test_common_and_rare_words():
    cells = ["b"] * 5 + ["a"] * 5 + ["c"] * 2 + ["d"] + [None] * 7
    assert words_of(cells, share=0.1, most=7) == (("a", "b", "c"), ("d",))
    assert words_of(cells, share=0.0, most=2) == (("a", "b"), ("c", "d"))
    assert words_of(cells[::-1], share=0.0, most=1) == (("a",), ("b", "c", "d"))


def test_a_number_that_is_none_names_row_and_column():
    assert parse_number(" 7".strip(), name="age", key="2") == 7.0
    with pytest.raises(DataError, match="^row 2: column 'age': must hold a number"):
        parse_number("old", name="age", key="2")


def test_a_column_survives_json():
    column = Column("y", "number", mean=0.1, scale=3.0, edges=(0.5, 1.5), words=(), rare=("c",))
    assert column_from(json.loads(json.dumps(dataclasses.asdict(column)))) == column


def test_notes_and_choices():
    columns = [Column("x", "number"), Column("y", "category", words=("a", "b"), rare=("c",))]
    assert [column.choices for column in columns] == [0, 4]
    notes = list(column_notes(columns, dropped={"id": "an identifier"}))
    assert notes[0] == "numbers: x; categories: y (2)"
    assert "column 'id' is left out: an identifier" in notes
    assert any("'y': rare categories pooled into one: 1" in note for note in notes)
