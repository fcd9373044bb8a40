"""Whatever type the cells of a table have, in whatever column: it is read, or refused in words; never a traceback."""

import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metatransformer.core.errors import MetaTransformerError
from metatransformer.infer.sources import read_index
from metatransformer.modalities import get_modality

ROWS = 23
DAY, NOON = datetime.date(2024, 5, 1), datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC)
CELLS = {
    "lists": pa.array([[1.0, 2.0]] * ROWS),
    "empty lists": pa.array([[]] * ROWS, pa.list_(pa.float64())),
    "nested lists": pa.array([[[1], [2, 3]]] * ROWS),
    "structures": pa.array([{"a": 1}] * ROWS),
    "mappings": pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string(), pa.int32())),
    "bytes": pa.array([b"\xff\x00"] * ROWS),
    "nothing": pa.nulls(ROWS),
    "hours": pa.array([datetime.time(0, 0, n) for n in range(ROWS)]),
    "dates": pa.array([DAY + datetime.timedelta(n) for n in range(ROWS)]),
    "spans": pa.array([datetime.timedelta(seconds=n) for n in range(ROWS)]),
    "moments": pa.array([NOON + datetime.timedelta(hours=n) for n in range(ROWS)]),
    "late moments": pa.array([datetime.datetime(9999, 1, 1) + datetime.timedelta(hours=n) for n in range(ROWS)]),
    "decimals": pa.array([Decimal(n) for n in range(ROWS)]),
    "half floats": pa.array(np.arange(ROWS).astype(np.float16)),
    "large numbers": pa.array([2**64 - 1 - n for n in range(ROWS)], pa.uint64()),
    "numbers with gaps": pa.array([None if n == 3 else n for n in range(ROWS)]),
    "truth with gaps": pa.array([None if n == 3 else n % 2 == 0 for n in range(ROWS)]),
    "numbers as text": pa.array([str(n) for n in range(ROWS)]),
    "coded text": pa.array(["a" if n % 2 else "b" for n in range(ROWS)]).dictionary_encode(),
}
TIMES = pa.array([datetime.datetime(2024, 5, 1) + datetime.timedelta(hours=n) for n in range(ROWS)])
NUMBERS = pa.array(np.random.default_rng(0).normal(size=ROWS))
TABLES = {
    "timeseries": ({"time": TIMES, "y": NUMBERS}, ("time", "y", "split", "id", "other"), "y"),
    "imu": ({"time_s": pa.array(np.arange(ROWS) / 50), "x": NUMBERS}, ("time_s", "x", "label", "subject"), "label"),
    "graph": ({"smiles": pa.array(["CCO"] * ROWS), "y": NUMBERS}, ("smiles", "y", "other"), "y"),
    "tabular": ({"a": NUMBERS, "y": NUMBERS}, ("a", "y", "split"), "y"),
    "text": ({"text": pa.array(["two words"] * ROWS)}, ("text", "label", "split", "group"), "label"),
}


@pytest.mark.parametrize("cells", CELLS)
@pytest.mark.parametrize("name", TABLES)
def test_no_type_of_cell_ends_the_program(name: str, cells: str, tmp_path: Path):
    modality, (columns, places, target) = get_modality(name), TABLES[name]
    options = modality.options(lookback=6, horizon=2) if name == "timeseries" else modality.options()
    for place in places:
        path = tmp_path / f"{place}.parquet"
        pq.write_table(pa.table({**columns, place: CELLS[cells]}), path)
        for labelled in (True, False):
            wanted = target if labelled else ""
            try:
                index = read_index(modality, path, options=options, target=wanted, labelled=labelled, header=True)
                for record in index.records[:3]:
                    modality.load(record)
            except MetaTransformerError as error:
                assert error.must and error.found
