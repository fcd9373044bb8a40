"""Whether data is still that of an earlier call: every value counts, in memory as in files."""

import os
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from common import run_alone

from metatransformer.core.errors import DataError
from metatransformer.core.samples import Record
from metatransformer.data.identity import data_identity
from metatransformer.data.index import index_table


@dataclass(frozen=True)
class Piece:
    whole: np.ndarray
    start: int


def identity_of(value: object) -> str:
    return data_identity([Record("a", value=value, target=1)])


ARRAY = np.zeros(2000, dtype=np.float32)


def changed(array: np.ndarray) -> np.ndarray:
    other = array.copy()
    other[1234] = 1
    return other


@pytest.mark.parametrize(
    "wrap",
    [
        lambda array: array,
        lambda array: {"values": array, "rate_hz": 8},
        lambda array: [[array], "x"],
        lambda array: Piece(array, 3),
        lambda array: pd.DataFrame({"x": array, "t": "a"}),
        lambda array: pd.Series(array),
        lambda array: pd.to_datetime(pd.Series(array), unit="s"),
        lambda array: nx.path_graph(array.size if array[1234] else 3),
    ],
)
def test_every_number_counts(wrap):
    assert identity_of(wrap(ARRAY)) == identity_of(wrap(ARRAY.copy()))
    assert identity_of(wrap(ARRAY)) != identity_of(wrap(changed(ARRAY)))


def test_shape_type_place_and_target_count():
    others = [ARRAY.reshape(2, 1000), ARRAY.astype(np.float64), ARRAY.view(np.int32), None, {"a": ARRAY}]
    found = {identity_of(value) for value in (ARRAY, *others)}
    assert len(found) == 6
    record = Record("a", value=ARRAY, target=ARRAY, split="train", group="g")
    changes = [{"key": "b"}, {"split": "val"}, {"group": "h"}, {"part": 1}, {"target": changed(ARRAY)}]
    assert len({data_identity([replace(record, **change)]) for change in ({}, *changes)}) == 6
    assert data_identity([record, replace(record, key="b")]) != data_identity([replace(record, key="b"), record])


def test_cells_of_a_table_count():
    frame = pd.DataFrame({"x": np.arange(3000.0), "t": ["a", "b", None] * 1000, "y": 0})
    tables = [frame, frame.assign(x=frame["x"].where(frame.index != 1500)), frame.assign(t="a"), frame.rename(
        columns={"x": "z"})]  # fmt: skip
    found = [data_identity(index_table(table, target="y").records) for table in (*tables, frame.copy())]
    assert len(set(found)) == 4 and found[0] == found[-1]
    records = index_table(frame, target="y").records
    assert data_identity(list(records)) != data_identity(list(index_table(tables[1], target="y").records))


def test_size_and_time_of_a_file_count(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,2\n")
    records = index_table(path, target="y").records
    before = data_identity(records)
    assert data_identity(records) == before == data_identity(list(records))
    os.utime(path, ns=(1, 1))
    assert data_identity(records) != before
    path.unlink()
    with pytest.raises(DataError, match="a.csv: must be a file; found 'No such file"):
        data_identity(records)


def test_another_process_finds_the_same():
    code = """
import numpy as np, networkx as nx
from metatransformer.core.samples import Record
from metatransformer.data.identity import data_identity
graph = nx.Graph([("a", "b"), ("b", "c")])
print(data_identity([Record("a", value={"x": np.arange(5), "graph": graph}, target="t")]))
"""
    one, two = (run_alone(["-c", code], env={"PYTHONHASHSEED": seed}) for seed in ("1", "2"))
    assert one.returncode == 0 and one.stdout == two.stdout, one.stderr
