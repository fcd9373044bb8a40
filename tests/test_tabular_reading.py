"""Columns of a table that are numbers or dates, although no parser takes them as they stand."""

import datetime
import json
import math

import numpy as np
import pytest

from metatransformer.core.errors import DataError
from metatransformer.core.modality import Stem
from metatransformer.core.samples import View
from metatransformer.modalities.tabular import TabularOptions, TabularTransform


def fitted(cells: dict[str, list], **options) -> TabularTransform:
    rows = zip(*cells.values(), strict=True)
    views = [View(f"train/{i}", {"row": dict(zip(cells, row, strict=True))}) for i, row in enumerate(rows)]
    transform = TabularTransform(TabularOptions(**options), Stem())
    transform.fit(views)
    again = TabularTransform(TabularOptions(**options), Stem())
    again.load_state(json.loads(json.dumps(transform.state())))
    return again


def value(transform: TabularTransform, cell: object, *, name: str = "x", place: int = 0) -> float:
    """Returns a cell as the column's number, before it was standardised."""
    column = transform.columns_[place]
    row = dict.fromkeys(one.name for one in transform.columns_) | {name: cell}
    return float(transform(View("9", {"row": row})).inputs["cells"][place]) * column.scale + column.mean


NUMBERS = [3.5, 1234.25, 0.75, 12.0, 7.25, 90.5]


@pytest.mark.parametrize(
    ("write", "style"),
    [
        (lambda n: f"{n:.2f}".replace(".", ","), "comma"),
        (lambda n: f"{n:,.2f}".translate(str.maketrans(",.", ".,")), "comma"),
        (lambda n: f"{n:,.2f}", "point"),
        (lambda n: f"${n:,.2f}", "point"),
        (lambda n: f"{n:.2f} €".replace(".", ","), "comma"),
        (lambda n: f"{n:.2f} %", "point"),
        (lambda n: f"{n:,.2f}".replace(",", " "), "point"),
    ],
)
def test_numbers_as_people_write_them_are_numbers(write, style: str):
    transform = fitted({"x": [write(n) for n in NUMBERS], "y": list("ababab")})
    column = transform.columns_[0]
    assert (column.kind, column.style) == ("number", style)
    assert column.mean == pytest.approx(np.mean(NUMBERS)) and column.scale == pytest.approx(np.std(NUMBERS))
    assert value(transform, write(61.5)) == pytest.approx(61.5) and value(transform, 61.5) == pytest.approx(61.5)
    assert f"column 'x' holds numbers with a decimal {style}" in transform.notes[-1]


def test_what_could_be_two_numbers_goes_by_the_other_columns_and_is_said():
    cells = ["1,234", "2,345", "12,000", "7,125"]
    alone = fitted({"x": cells})
    assert value(alone, "5,000") == pytest.approx(5000) and "'1,234' is 1234" in alone.notes[-1]
    beside = fitted({"x": cells, "y": ["0,5", "1,5", "2,25", "7"]})
    assert value(beside, "5,000") == pytest.approx(5) and any("'1,234' is 1.234" in note for note in beside.notes)


@pytest.mark.parametrize("word", ["-", "None", "n.a.", "unknown", "#DIV/0!"])
@pytest.mark.parametrize("every", [50, 12, 3])
def test_words_for_missing_among_numbers_are_missing(word: str, every: int):
    cells = [word if i % every == 0 else f"{i * 1.5}" for i in range(100)]
    transform = fitted({"x": cells})
    known = [float(cell) for cell in cells if cell != word]
    assert transform.columns_[0].mean == pytest.approx(np.mean(known))
    assert math.isnan(value(transform, word)) and value(transform, "61.5") == pytest.approx(61.5)
    assert f"'{word}' ({sum(cell == word for cell in cells)} cells) taken for missing" in transform.notes[-1]


def test_words_for_missing_among_words_stay_words():
    transform = fitted({"garage": ["None", "Attached", "-", "None", "Detached"]})
    assert transform.columns_[0].words == ("-", "Attached", "Detached", "None")


DAYS = [datetime.datetime(2023, 1, 2) + datetime.timedelta(days=37 * n) for n in range(23)]


@pytest.mark.parametrize(
    "style",
    ["%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d %b %Y", "%B %d, %Y", "%Y%m%d", "%Y/%m/%d", "%d-%b-%Y"],
)
def test_dates_in_any_common_form_are_dates(style: str):
    texts = [day.strftime(style) for day in DAYS]
    transform = fitted({"x": [int(text) if style == "%Y%m%d" else text for text in texts]})
    assert [column.part for column in transform.columns_] == ["year", "month", "day", "weekday", "elapsed"]
    wanted = datetime.datetime(2024, 7, 31)
    cell = wanted.strftime(style)
    expected = (2024, 7, 31, 2, (wanted - datetime.datetime(1970, 1, 1)).days)  # a Wednesday
    for place, number in enumerate(expected):
        assert value(transform, cell, place=place) == pytest.approx(number, abs=1e-2)  # float32 of 20,000 days
    assert math.isnan(value(transform, None))
    assert "read as year, month, day, weekday, elapsed" in transform.notes[-1]
    with pytest.raises(DataError, match="row 9: column 'x': must hold a date as in the training rows"):
        value(transform, "soon")


def test_moments_and_quarters_are_dates():
    hours = fitted({"x": [f"2024-05-01T{hour:02}:30:00Z" for hour in range(0, 24, 5)]})
    assert [column.part for column in hours.columns_] == ["hour", "elapsed"]
    assert value(hours, "2024-05-01 09:00+02:00") == pytest.approx(7)
    quarters = fitted({"x": ["2023-Q1", "2023-Q4", "2024-Q2"]})
    assert value(quarters, "2024-Q3", place=1) == pytest.approx(7)


def test_a_date_that_may_be_two_is_refused_with_the_way_out():
    cells = ["01/02/2024", "03/04/2024", "05/06/2024"]
    with pytest.raises(DataError, match="can only mean one day each.*Set input.style to %d/%m/%Y or %m/%d/%Y"):
        fitted({"x": cells})
    transform = fitted({"x": cells}, style="%m/%d/%Y")
    assert value(transform, "07/02/2024", place=0) == pytest.approx(7)
    assert fitted({"x": cells}, categories=("x",)).columns_[0].kind == "category"


@pytest.mark.parametrize("cells", [["1.2.10", "1.3.0", "2.0.12"], ["a", "b", "a"], ["007", "008", "009"]])
def test_what_only_looks_like_a_date_or_a_number_stays_a_word(cells: list[str]):
    assert fitted({"x": cells}).columns_[0].kind == "category"


@pytest.mark.parametrize("words", [(True, False), ("True", "False"), ("yes", "no"), ("Y", "N"), ("TRUE", "FALSE")])
@pytest.mark.parametrize(
    "spelled", [(True, False), ("TRUE", "FALSE"), ("true", "false"), (1, 0), ("1", "0"), ("t", "f")]
)
def test_truth_is_one_thing_however_it_is_written(words: tuple, spelled: tuple):
    transform = fitted({"x": [words[i % 2] for i in range(6)]})
    for one, other in zip(words, spelled, strict=True):
        cells = [transform(View("9", {"row": {"x": cell}})).inputs["cells"].tolist() for cell in (one, other)]
        assert cells[0] == cells[1] != [0]
    assert transform.doubts() == ()
    numbers = fitted({"x": [0, 1, 1, 0]})
    assert value(numbers, spelled[0] if spelled[0] != "t" else 1) == pytest.approx(1)
