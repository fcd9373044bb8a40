"""Embedding shards: contents, going on after a kill, refusal of another run's folder."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.shards import WHOLE, EmbeddingShards, Part, open_shards, parse_part

IDS = [f"a/{i}.png" for i in range(11)]
VECTORS = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)


def start(out, *, ids=tuple(IDS), encoder="test", rows=5, part=WHOLE, **more: str) -> EmbeddingShards:
    return open_shards(
        out,
        ids=ids,
        paths=[None, *ids[1:]],
        modality="image",
        width=3,
        metadata={"encoder": encoder, "pooling": "mean", **more},
        shard_rows=rows,
        part=part,
    )


def write(shards: EmbeddingShards, shard: int) -> None:
    rows = shards.rows(shard)
    shards.write(shard, found=VECTORS[rows.start : rows.stop])


@pytest.mark.parametrize("name", ["emb", "emb.parquet"])
def test_vectors_come_back_in_order(tmp_path, name):
    shards = start(tmp_path / name)
    assert [len(shards.rows(shard)) for shard in shards.pending()] == [5, 5, 1]
    for shard in reversed(shards.pending()):  # the order of writing does not matter
        write(shards, shard)
    out = shards.finish()
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]
    files = [out] if out.is_file() else sorted(out.glob("part-*-of-00003.parquet"))
    table = pa.concat_tables([pq.ParquetFile(file).read() for file in files])
    assert table.column("id").to_pylist() == IDS
    assert table.column("path").to_pylist() == [None, *IDS[1:]]
    assert set(table.column("modality").to_pylist()) == {"image"}
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 3)
    np.testing.assert_array_equal(np.stack(table.column("embedding").to_numpy()), VECTORS)
    metadata = pq.read_schema(files[0]).metadata
    assert metadata[b"metatransformer.encoder"] == b"test"
    assert json.loads(metadata[b"metatransformer.manifest"])["rows"] == 11


@pytest.mark.parametrize("name", ["emb", "emb.parquet"])
def test_second_run_goes_on_and_a_third_has_nothing_to_do(tmp_path, name):
    first = start(tmp_path / name)
    write(first, 1)
    (first.folder / ".part-torn.tmp.parquet").write_bytes(b"half")
    second = start(tmp_path / name)
    assert second.pending() == (0, 2)
    assert not list(second.folder.glob(".*"))
    write(second, 0)
    write(second, 2)
    second.finish()
    third = start(tmp_path / name)
    assert third.pending() == ()
    assert third.finish() == tmp_path / name


@pytest.mark.parametrize("name", ["emb", "emb.parquet"])
@pytest.mark.parametrize("done", [False, True])
def test_other_run_is_refused(tmp_path, name, done):
    first = start(tmp_path / name)
    write(first, 0)
    if done:
        for shard in first.pending():
            write(first, shard)
        first.finish()
    with pytest.raises(UsageError, match=r"encoder other \(there: test\).*Choose another --out"):
        start(tmp_path / name, encoder="other")
    with pytest.raises(UsageError, match="continue the same run; this one has other items, or the same in another"):
        start(tmp_path / name, ids=["b", *IDS[1:]])


def test_a_run_goes_on_where_another_processor_measured_another_fingerprint(tmp_path):
    write(start(tmp_path / "emb", fingerprint="0.1"), 0)
    assert start(tmp_path / "emb", fingerprint="0.100001").pending() == (1, 2)


@pytest.mark.parametrize("name", ["emb", "emb.parquet"])
def test_a_run_without_a_shard_gives_way_to_another(tmp_path, name):
    start(tmp_path / name)  # killed before its first shard, or stopped by a bad file that was removed since
    second = start(tmp_path / name, ids=IDS[1:])
    assert second.pending() == (0, 1)
    second.abandon()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    third = start(tmp_path / name)
    write(third, 2)
    third.abandon()  # a finished shard stays
    assert start(tmp_path / name).pending() == (0, 1)


def test_another_kind_of_file_is_no_folder_of_shards(tmp_path):
    with pytest.raises(UsageError, match=r"emb.csv: must end in .parquet, or be a folder for shards"):
        start(tmp_path / "emb.csv")
    assert not any(tmp_path.iterdir()) and start(tmp_path / "emb.v2").pending()


def test_foreign_places_are_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="found other files"):
        start(tmp_path / "full")
    (tmp_path / "a.parquet").write_text("mine")
    with pytest.raises(UsageError, match="found another file"):
        start(tmp_path / "a.parquet")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


def test_damaged_shard_is_named_and_ids_must_differ(tmp_path):
    shards = start(tmp_path / "emb.parquet")
    for shard in shards.pending():
        write(shards, shard)
    shards.path(1).write_bytes(b"damaged bytes")
    with pytest.raises(DataError, match="part-00001-of-00003.parquet: must be a whole Parquet"):
        shards.finish()
    assert shards.path(0).is_file() and not shards.out.exists()
    with pytest.raises(DataError, match="unique ids; found 'x' more than once"):
        start(tmp_path / "b", ids=["x", "y", "x"])


@pytest.mark.parametrize("name", ["emb", "emb.parquet"])
def test_processes_make_each_shard_once_and_a_last_call_completes(tmp_path, name):
    parts = [start(tmp_path / name, rows=2, part=Part(number, 3)) for number in (1, 2, 3)]
    assert sorted(shard for part in parts for shard in part.pending()) == list(range(parts[0].count))
    torn = parts[0].folder / ".part-00001-of-00006.parquet.tmp.1"
    torn.write_bytes(b"half")  # which another process is writing
    for part in parts[1:]:
        for shard in part.pending():
            write(part, shard)
    assert start(tmp_path / name, rows=2, part=Part(2, 3)).missing() == parts[0].pending() and torn.exists()
    last = start(tmp_path / name, rows=2)
    assert last.pending() == parts[0].pending() and not torn.exists()  # killed, or never begun: it is made now
    for shard in last.pending():
        write(last, shard)
    out = last.finish()
    files = [out] if out.is_file() else sorted(out.glob("part-*"))
    assert [row for file in files for row in pd.read_parquet(file)["id"]] == IDS


@pytest.mark.parametrize("text", ["", "3", "0/3", "4/3", "1/0", "-1/3", "a/b", "1/3/5"])
def test_a_part_is_one_of_as_many(text):
    assert parse_part("3/3") == Part(3, 3)
    with pytest.raises(UsageError, match="--shard: must be I/N with 1 <= I <= N, as 3/8; found"):
        parse_part(text)
