"""Sources and targets behind a URL: what is there is read as a local folder is, and written whole or not at all."""

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
from common import run

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.remote import Mirror, Store, is_url, mirrored
from metatransformer.data.shards import Part, open_shards

EMBED = ["--modality", "image", "--encoder", "test", "input.size=16"]


@pytest.fixture
def bucket(pictures: Path) -> Iterator[str]:
    """Returns a URL in memory with the pictures below it."""
    fs = fsspec.filesystem("memory")
    fs.put(f"{pictures}/", "/bucket/pictures/", recursive=True)
    yield "memory://bucket/pictures"
    fs.rm("/bucket", recursive=True)


def test_urls_are_told_from_paths():
    assert is_url("s3://bucket/x") and is_url("memory://x") and not is_url("C:/x") and not is_url("a/b.csv")


def test_a_mirror_has_names_sizes_and_times(bucket: str, tmp_path: Path, pictures: Path):
    mirror = Mirror(bucket, tmp_path)
    found = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    real = sorted(path for path in pictures.rglob("*") if path.is_file())
    assert [path.relative_to(tmp_path) for path in found] == [path.relative_to(pictures) for path in real]
    assert [path.stat().st_size for path in found] == [path.stat().st_size for path in real]
    assert mirror.url_of(found[0]) == f"{bucket}/{found[0].relative_to(tmp_path).as_posix()}"
    assert not any(found[0].read_bytes())
    with mirror.local(found[0]) as path:
        assert path.read_bytes() == real[0].read_bytes()
    assert not path.exists()


def test_files_of_one_name_come_together_and_errors_name_the_url(tmp_path: Path):
    fs = fsspec.filesystem("memory")
    for name in ("a.hdr", "a.img", "b.img", "c/0.png", "c/1.png"):
        fs.pipe_file(f"/pairs/{name}", name.encode())
    mirror = Mirror("memory://pairs", tmp_path)
    with mirror.local(tmp_path / "a.hdr") as path:
        assert sorted(other.name for other in path.parent.iterdir()) == ["a.hdr", "a.img"]
    with mirror.local(tmp_path / "c") as path:
        assert sorted(other.name for other in path.iterdir()) == ["0.png", "1.png"]
    with pytest.raises(DataError, match=r"memory://pairs/b.img: must be good; found bad"):
        with mirror.local(tmp_path / "b.img") as path:
            raise DataError(path, must="be good", found="bad")
    fs.rm("/pairs", recursive=True)


def test_a_table_behind_a_url_is_there(tmp_path: Path):
    fsspec.filesystem("memory").pipe_file("/tables/some.csv", b"x\n1\n")
    with mirrored(["memory://tables/some.csv", "local.csv"]) as (paths, mirrors):
        assert Path(paths[0]).read_text(encoding="utf-8") == "x\n1\n" and paths[1] == "local.csv" and len(mirrors) == 1
    assert not Path(paths[0]).exists()


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [("nosuch://x", UsageError, "Protocol not known"), ("memory://not/there", DataError, "nothing there")],
)
def test_what_is_no_place_is_refused(url: str, kind: type[Exception], words: str, tmp_path: Path):
    with pytest.raises(kind, match=words):
        Mirror(url, tmp_path)


def test_vectors_from_and_to_a_url_are_those_of_files(bucket: str, pictures: Path, tmp_path: Path, capsys):
    out = bucket.replace("pictures", "vectors")
    told = run(["embed", bucket, *EMBED, "--out", out], capsys)
    run(["embed", pictures, *EMBED, "--out", tmp_path / "v.parquet"], capsys)
    (name,) = [name for name in Store.of(out).names() if name.startswith("part-")]
    with fsspec.open(f"{out}/{name}") as file:
        found = pd.read_parquet(file)
    alone = pd.read_parquet(tmp_path / "v.parquet")
    assert told[1]["rows"] == 24 and list(found.id) == list(alone.id) and found.path[0].startswith(f"{bucket}/")
    assert np.array_equal(np.stack(found.embedding), np.stack(alone.embedding))
    again = run(["embed", bucket, *EMBED, "--out", out], capsys)
    assert again[1]["done_before"] == 24


def test_shards_behind_a_url_go_on_where_they_stopped():
    facts = {"ids": list("abcde"), "paths": [None] * 5, "modality": "image", "width": 2, "shard_rows": 2}
    shards = open_shards("memory://s/v", **facts, metadata={"model": "m"}, part=Part(1, 2))
    shards.write(0, found=np.zeros((2, 2), dtype=np.float32))
    shards.write(2, found=np.zeros((0, 2), dtype=np.float32), errors={4: "no picture"})
    again = open_shards("memory://s/v", **facts, metadata={"model": "m"})
    assert again.pending() == (1,) == again.missing()
    again.write(1, found=np.ones((2, 2), dtype=np.float32))
    again.finish()
    with fsspec.open("memory://s/v/errors.parquet") as file:
        errors = pd.read_parquet(file)
    assert list(errors.id) == ["e"] and list(errors.error) == ["no picture"] and errors.path.isna().all()
    with pytest.raises(UsageError, match="another model"):
        open_shards("memory://s/v", **facts, metadata={"model": "n"})
    with pytest.raises(UsageError, match="name a folder for shards"):
        open_shards("memory://s/v.parquet", **facts, metadata={"model": "m"})
    manifest = json.loads(fsspec.filesystem("memory").cat_file("/s/v/manifest.json"))
    assert manifest["rows"] == 5 and manifest["shard_rows"] == 2
    fsspec.filesystem("memory").rm("/s", recursive=True)
