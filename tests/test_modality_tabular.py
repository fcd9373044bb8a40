"""The tabular modality: columns learned from training rows, one token a column."""

import json
import logging
import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

from metatransformer.core.batch import Part, stack_views
from metatransformer.core.errors import DataError, NotFittedError, UsageError
from metatransformer.core.modality import Stem
from metatransformer.core.samples import Record, View
from metatransformer.data.index import index_table
from metatransformer.data.records import Views, objects
from metatransformer.modalities.tabular import (
    COLUMN_STD,
    MODALITY,
    VALUE_STD,
    TabularOptions,
    TabularTokenizer,
    TabularTransform,
    draw,
    features,
    load,
    synthesize,
)

WIDTH = 13


def sample(row: dict, *, key: str = "row 0") -> View:
    return View(key, load(Record(key, value=row)))


def table(columns: dict[str, list]) -> list[View]:
    rows = zip(*columns.values(), strict=True)
    return [sample(dict(zip(columns, row, strict=True)), key=f"row {i}") for i, row in enumerate(rows)]


def fitted(columns: dict[str, list], **options: object) -> TabularTransform:
    transform = TabularTransform(TabularOptions(**options), Stem())
    transform.fit(table(columns))
    return transform


def tokenizer(transform: TabularTransform, *, width: int = WIDTH) -> TabularTokenizer:
    torch.manual_seed(0)
    return TabularTokenizer(transform.options, transform, width, Stem())


def batch(transform: TabularTransform, rows: list[dict]) -> Part:
    return stack_views([transform(sample(row)) for row in rows], fields=MODALITY.fields)


MIXED = {
    "age": [20.0, None, 40.0, 60.0, 30.0],
    "job": ["cook", "cook", "baker", None, " cook "],
    "member": [True, False, True, True, None],
    "code": ["1", "2", "3", "4", "5"],
}


def test_a_row_by_hand():
    transform = fitted(MIXED)
    cells = transform(sample({"age": 40, "job": "baker", "member": None, "code": "9"})).inputs["cells"]
    mean, scale = np.mean([20, 40, 60, 30]), np.std([20, 40, 60, 30])
    # words are sorted and start at index 2; code: mean 3, deviation sqrt(2).
    expected = [(40 - mean) / scale, 2, np.nan, (9 - 3) / math.sqrt(2)]
    np.testing.assert_allclose(cells, np.array(expected, dtype=np.float32), rtol=1e-6)
    assert [column.kind for column in transform.columns_] == [
        "number",
        "category",
        "category",
        "number",
    ]


def test_columns_are_found_by_name_and_others_noted_once(caplog: pytest.LogCaptureFixture):
    transform = fitted(MIXED)
    row = {"age": 25, "job": "cook", "member": True, "code": 2}
    mixed = dict(reversed(row.items())) | {"weather": "rain"}
    with caplog.at_level(logging.WARNING):
        first, again = transform(sample(mixed)), transform(sample(mixed))
    np.testing.assert_array_equal(first.inputs["cells"], transform(sample(row)).inputs["cells"])
    np.testing.assert_array_equal(first.inputs["cells"], again.inputs["cells"])
    assert [r.getMessage() for r in caplog.records] == [
        "columns not used, since training did not have them: ['weather']"
    ]


def test_a_column_that_numbers_the_rows_is_left_out_unless_it_is_all_there_is():
    rows = [View(str(i), {"row": {"id": i + 1, "age": (i * 7) % 40}}) for i in range(30)]
    transform = TabularTransform(TabularOptions(), Stem())
    transform.fit(rows)
    assert [column.name for column in transform.columns_] == ["age"]
    assert "column 'id' is left out: it only numbers the rows (input.numbers keeps it)" in transform.notes
    transform.fit([View(row.key, {"row": {"id": row.inputs["row"]["id"]}}) for row in rows])
    assert [column.name for column in transform.columns_] == ["id"]
    kept = TabularTransform(TabularOptions(numbers=("id",)), Stem())
    kept.fit(rows)
    assert [column.name for column in kept.columns_] == ["id", "age"]


def test_many_words_that_training_never_saw_are_told_once():
    transform = fitted(MIXED)
    row = {"age": 25, "job": "cook", "member": True, "code": 2}
    for number in range(10):
        transform(sample(row | {"job": "Cook" if number else "COOK", "member": None}))
    assert transform.doubts() == (
        "column 'job': 10 of 10 cells hold words that training never saw ('Cook', 'COOK'); they count as unknown",
    )
    for number in range(10):
        transform(sample(row | {"job": "Cook" if number == 0 else "cook"}))
    assert transform.doubts() == ()  # one in ten is what new data brings


def test_a_missing_column_is_named_with_the_nearest():
    transform = fitted(MIXED)
    with pytest.raises(DataError) as caught:
        transform(sample({"Age": 3, "member": True, "code": 1}, key="7"))
    text = str(caught.value)
    assert text.startswith("row 7: must have every column")
    assert "no column 'age' (missing: ['age', 'job'])" in text and "Did you mean 'Age'?" in text


def test_rare_unknown_and_missing_words_are_three_things():
    jobs = ["cook"] * 40 + ["smith"] * 40 + ["monk"] * 2
    transform = fitted({"job": jobs}, rare=0.1)
    found = [
        float(transform(sample({"job": word})).inputs["cells"][0])
        for word in ("never seen", "monk", "cook", "smith", None)
    ]
    assert found[:4] == [0, 1, 2, 3] and math.isnan(found[4])
    assert transform(sample({"job": "monk"})).inputs["choices"].tolist() == [4]


def test_what_tells_nothing_is_left_out_and_said():
    count = 23
    columns = {
        "x": list(range(count)),
        "country": ["de"] * count,
        "name": [f"person {i}" for i in range(count)],
        "empty": [None] * count,
        "note": ["a", "b"] * 11 + ["a"],
    }
    transform = fitted(columns, ignore=("note",))
    assert [column.name for column in transform.columns_] == ["x"]
    assert set(transform.dropped_) == {"country", "name", "empty", "note"}
    assert "column 'country' is left out: every training cell is the same" in transform.notes
    assert "an identifier" in transform.dropped_["name"]
    # Left-out columns may come or not at predict time.
    assert transform(sample({"x": 1})).inputs["cells"].shape == (1,)


def test_options_overrule_what_is_inferred():
    columns = {"zip": [10, 20, 10, 20], "day": ["2024-01-01", "2024-01-02"] * 2}
    transform = fitted(columns, categories=("zip", "day"))
    assert [column.words for column in transform.columns_][0] == ("10", "20")
    assert transform(sample({"zip": 20.0, "day": "2024-01-02"})).inputs["cells"].tolist() == [3, 3]


def test_a_table_is_learned_by_columns_as_it_is_by_rows():
    rng = np.random.default_rng(0)
    count = 211
    frame = pd.DataFrame(
        {
            "float": np.where(rng.random(count) < 0.1, np.nan, rng.normal(size=count)),
            "whole": rng.integers(0, 9, count),
            "number": np.arange(count) + 5,
            "word": rng.choice(["a", " b ", "?", "c d"], count),
            "truth": rng.random(count) < 0.5,
            "code": [f"{number:04}" for number in rng.integers(0, 50, count)],
            "name": [f"person {number}" for number in range(count)],
            "mixed": objects([1, True, 2.0, "1", None] * 42 + [3]),
            "same": 4,
        }
    )
    index = index_table(frame, target=None)
    rows = [View(record.key, load(record)) for record in index.records]
    states = []
    for samples in (Views(index.records, load=load), rows):
        transform = TabularTransform(TabularOptions(rare=0.02), Stem())
        transform.fit(samples)
        states.append(transform.state())
    assert states[0] == states[1]
    assert [c["name"] for c in states[0]["columns"]] == ["float", "whole", "word", "truth", "code", "mixed"]
    for bad in ({"float": math.inf}, {"mixed": [3]}, {"whole": -math.inf}):
        index = index_table(frame.astype(object).assign(**{name: [bad[name]] * count for name in bad}), target=None)
        with pytest.raises(DataError) as by_row:
            load(index.records[0])
        with pytest.raises(DataError) as by_column:
            TabularTransform(TabularOptions(), Stem()).fit(Views(index.records, load=load))
        assert str(by_column.value) == str(by_row.value)


def test_a_named_column_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="input.ignore: must name columns.*Did you mean 'age'"):
        fitted(MIXED, ignore=("agee",))


def test_no_column_left_is_refused():
    with pytest.raises(DataError, match="must have a column to learn from"):
        fitted({"a": [1, 1, 1]})


@pytest.mark.parametrize(("value", "found"), [("old", "'old'"), (math.inf, "inf"), ("inf", "inf"), ([3], "a list")])
def test_a_bad_cell_names_row_and_column(value: object, found: str):
    transform = fitted(MIXED)
    with pytest.raises(DataError) as caught:
        transform(sample({"age": value, "job": None, "member": True, "code": 1}, key="17"))
    assert str(caught.value).startswith("row 17: column 'age': must hold")
    assert f"found {found}" in str(caught.value)


@pytest.mark.parametrize("value", [None, {}, 3])
def test_no_row_is_refused(value: object):
    with pytest.raises(DataError, match="^row 3: must be a row of a table"):
        load(Record("row 3", value=value))


def test_an_extreme_number_neither_overflows_nor_moves_the_token():
    transform = fitted({"a": [0.0, 1e-9, 2e-9]})
    far = batch(transform, [{"a": 1e99}, {"a": 1.0}])
    assert far.inputs["cells"].isfinite().all()
    x = tokenizer(transform)(far.inputs, far.masks).x
    torch.testing.assert_close(x[0], x[1])


def test_transform_before_fit_is_refused():
    with pytest.raises(NotFittedError, match="Fit first"):
        TabularTransform(TabularOptions(), Stem())(sample({"a": 1}))


@pytest.mark.parametrize("option", [{"bins": 1}, {"rare": 1.0}, {"most_categories": 0}])
def test_options_are_checked(option: dict):
    with pytest.raises(UsageError, match=f"input.{next(iter(option))}: must"):
        TabularOptions(**option)


def test_state_survives_json():
    transform = fitted(MIXED, rare=0.3)
    again = TabularTransform(transform.options, Stem())
    again.load_state(json.loads(json.dumps(transform.state())))
    assert again.columns_ == transform.columns_ and again.notes_ == transform.notes_
    row = sample({"age": 33, "job": "baker", "member": False, "code": 3})
    np.testing.assert_array_equal(transform(row).inputs["cells"], again(row).inputs["cells"])


def test_tokens_by_hand():
    transform = fitted(MIXED)
    module = tokenizer(transform)
    rows = [
        {"age": 20, "job": "cook", "member": None, "code": 5},
        {"age": None, "job": "astronaut", "member": False, "code": 1},
    ]
    with torch.no_grad():
        module.missing.normal_()
    data = batch(transform, rows)
    tokens = module(data.inputs, data.masks)
    assert tokens.x.shape == (2, 5, WIDTH) and tokens.mask.all()
    assert tokens.spans[0].summary == 0 and tokens.spans[0].grid == ()
    torch.testing.assert_close(tokens.x[0, 0], module.summary.token)
    # "cook" is word 1 (index 3) of the first category column; its table starts at row 0.
    torch.testing.assert_close(tokens.x[0, 2], module.table[3] + module.column[1])
    torch.testing.assert_close(tokens.x[0, 3], module.missing[2] + module.column[2])
    torch.testing.assert_close(tokens.x[1, 1], module.missing[0] + module.column[0])
    # A word that training never saw is the bare column.
    torch.testing.assert_close(tokens.x[1, 2], module.column[1])
    # The least age lies at the lower edge of all bins: every component is -1 / sqrt(bins).
    bins = len(transform.columns_[0].edges) - 1
    expected = -module.number.weight[0, :bins].sum(dim=0) / math.sqrt(bins) + module.column[0]
    torch.testing.assert_close(tokens.x[0, 1], expected)


@pytest.mark.parametrize("numeric", ["piecewise", "periodic"])
@pytest.mark.parametrize("names", [["age", "code"], ["job", "member"], ["job", "age"]])
def test_tables_of_one_kind_and_every_parameter_learns(names: list[str], numeric: str):
    transform = fitted({name: MIXED[name] for name in names}, numeric=numeric)
    module = tokenizer(transform)
    data = batch(transform, [{name: MIXED[name][i] for name in names} for i in range(5)])
    x = module(data.inputs, data.masks).x
    x.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_tokens_start_at_the_size_of_native_ones():
    rng = np.random.default_rng(0)
    rows = [synthesize(rng, i % 2)["row"] for i in range(211)]
    transform = TabularTransform(TabularOptions(), Stem())
    transform.fit([sample(row) for row in rows])
    module = tokenizer(transform, width=1009)
    data = batch(transform, rows[:97])
    deviation = module(data.inputs, data.masks).x[:, 1:].std().item()
    # About 5 columns x 1,009 channels are drawn, and one cell in 25 is missing (column part only).
    assert deviation == pytest.approx(math.hypot(COLUMN_STD, VALUE_STD), rel=0.05)


def test_features_by_hand():
    transform = fitted({"age": [1.0, 3.0, None], "job": ["a", "b", None]})
    # number, flag; unknown, rare, a, b, missing
    assert features(transform(sample({"age": 3, "job": "b"}))).tolist() == [1, 0, 0, 0, 0, 1, 0]
    assert features(transform(sample({"age": None, "job": None}))).tolist() == [0, 1] + [0] * 4 + [1]
    assert features(transform(sample({"age": 1, "job": "z"}))).tolist() == [-1, 0, 1, 0, 0, 0, 0]


def test_draw_paints_one_bar_a_column():
    matplotlib.use("agg")
    from matplotlib.figure import Figure

    transform = fitted(MIXED)
    axes = Figure().add_subplot()
    draw(axes, transform(sample({"age": None, "job": "cook", "member": True, "code": 4})))
    assert len(axes.patches) == 4
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1])


def test_synthetic_rows_pass_their_own_declaration():
    rng = np.random.default_rng(0)
    samples = [View(str(i), synthesize(rng, i % 3)) for i in range(41)]
    transform = TabularTransform(TabularOptions(), Stem())
    transform.fit(samples)
    assert len(transform.columns_) == 5 and not transform.dropped_
    for one in samples:
        arrays = transform(one).inputs
        for name, field in MODALITY.fields.items():
            field.check(arrays[name], where=name)
