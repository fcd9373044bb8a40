"""Records by columns: what is made of them one by one is what went in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatransformer.core.samples import Record
from metatransformer.data.records import Records, Table, natural_key, natural_order, objects

COLUMNS = {
    "n": np.array([3, 5, 7]),
    "x": np.array([0.5, np.nan, -1.0]),
    "t": objects(["a", None, ["b", "c"]]),
    "b": np.array([True, False, True]),
}


def test_rows_of_a_table_are_plain_values():
    table = Table(COLUMNS)
    assert list(table) == [
        {"n": 3, "x": 0.5, "t": "a", "b": True},
        {"n": 5, "x": None, "t": None, "b": False},
        {"n": 7, "x": -1.0, "t": ["b", "c"], "b": True},
    ]
    assert [type(value) for value in table[0].values()] == [int, float, str, bool]
    assert table.take([2, 0]).take([1]).column("n").tolist() == [3]
    assert list(table[1:].select({"b": "c"})) == [{"c": False}, {"c": True}]


def test_cells_of_joined_tables_keep_their_types():
    below = {"b": np.array([1]), "a": np.array([2.0])}
    joined = Table.joined([Table({"a": np.array([1]), "b": np.array([2.5])}), Table(below)])
    assert [(type(row["a"]), type(row["b"])) for row in joined] == [(int, float), (float, int)]


def test_records_come_back_as_they_were():
    some = [
        Record("a", value=np.zeros(2), target=(1, None), split="val", drawn=True),
        Record("b", part=3, target="x", split="train", group="g"),
    ]
    records = Records.of(some)
    assert [records[0], records[-1]] == some and records[1:] == some[1:] and records != some[1:]
    assert records.drawn == {"val"} and records.table is None and Records.of(records) is records
    assert records.take(np.array([1, 0])).keys == ["b", "a"]
    assert list(records.in_split("val")) == some[:1]
    assert Records.joined([records[1:], records[:1]]).targets == ["x", (1, None)]
    changed = records.replace(targets=[1, 2], splits=["val", "val"])
    assert changed.targets == [1, 2] and changed[1].drawn and records[1].target == "x"
    with pytest.raises(IndexError):
        records[2]


def test_records_of_a_table_stay_one_when_joined():
    records = Records(["0", "1", "2"], values=Table(COLUMNS))
    both = Records.joined([records.take([2]), records])
    assert both.table is not None and both.table.column("n").tolist() == [7, 3, 5, 7]
    assert both[1].value == {"n": 3, "x": 0.5, "t": "a", "b": True}


KEYS = st.from_regex(r"([aAb]{0,2}0?[0-9]{0,2}/){0,2}(0{0,1}[0-9]{1,2}|a1)", fullmatch=True)


@given(st.lists(KEYS, unique=True, max_size=9) | st.lists(st.integers(0, 10**19).map(str), unique=True, max_size=9))
def test_natural_order_is_that_of_the_natural_key(keys):
    assert [keys[place] for place in natural_order(keys)] == sorted(keys, key=natural_key)
