"""A table of a million rows: read, indexed and split in seconds, within 1.5 GB. Run with ``pytest -m large``."""

import json

import numpy as np
import pandas as pd
import pytest
from common import run_alone

COUNT = 1_000_000
JOB = """
import json, resource, sys, time
start = time.monotonic()
from metatransformer.data.index import index_table, split_records
index = index_table(sys.argv[1], target="y")
index = split_records(index.records, stratify=True)
seconds, peak = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"seconds": seconds, "peak_gib": peak, "train": len(index.split("train"))}))
"""


def made_up() -> pd.DataFrame:
    """Returns 12 columns of numbers, categories and codes, some cells missing."""
    rng = np.random.default_rng(0)
    gaps = rng.random((3, COUNT)) < 0.05
    frame = {
        "age": rng.integers(17, 90, COUNT),
        "income": rng.lognormal(10, 1, COUNT).round(2),
        "score": rng.normal(size=COUNT),
        "hours": np.where(gaps[0], np.nan, rng.integers(0, 99, COUNT)),
        "ratio": np.where(gaps[1], np.nan, rng.random(COUNT)),
        "number": np.arange(COUNT) * 7 + 13,
        "job": rng.choice(["clerk", "cook", "driver", "nurse"], COUNT),
        "city": rng.choice([f"city {number}" for number in range(3000)], COUNT),
        "sex": rng.choice(["m", "f"], COUNT),
        "member": rng.choice([True, False], COUNT),
        "zip": [f"{number:05d}" for number in rng.integers(0, 99_999, COUNT)],
        "y": rng.choice(["less", "more"], COUNT, p=[0.7, 0.3]),
    }
    return pd.DataFrame(frame).mask(np.outer(gaps[2], np.array(list(frame)) == "job"))


@pytest.mark.large
@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_million_rows(tmp_path, name):
    frame = made_up()
    frame.to_csv(tmp_path / name, index=False) if name.endswith(".csv") else frame.to_parquet(tmp_path / name)
    done = run_alone(["-c", JOB, tmp_path / name])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(name, found)
    assert found["train"] == 0.7 * COUNT
    assert found["seconds"] < 15 and found["peak_gib"] < 1.4, found
