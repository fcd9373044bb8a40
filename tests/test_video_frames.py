"""Which videos data holds: films, folders of frames, manifests of both, and nothing that can mean two things."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metatransformer.core.errors import DataError
from metatransformer.data.records import Index
from metatransformer.modalities.video import VideoOptions
from metatransformer.modalities.video.frames import index_videos


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def index(data: object, *, labelled: bool = True, source: str = "auto", target: str = "") -> Index:
    return index_videos(data, target=target, labelled=labelled, header=True, options=VideoOptions(source=source))


def rows(found: Index) -> list[tuple[str, object, str | None]]:
    return [(record.key, record.target, record.split) for record in found.records]


def test_films_in_class_folders(tmp_path: Path):
    found = index(touch(tmp_path, "b/10.MP4", "b/9.gif", "a/x.mkv", "README.md"))
    assert rows(found) == [("a/x.mkv", "a", None), ("b/9.gif", "b", None), ("b/10.MP4", "b", None)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a/v2/1.png", "a/v10/1.png", "a/v10/2.png", "b/w/1.jpg"), ["a/v2", "a/v10", "b/w"]),
        (("train/a/v/1.png", "test/b/w/1.png", "train/b/u/1.png"), ["test/b/w", "train/a/v", "train/b/u"]),
    ],
)
def test_a_folder_with_pictures_is_one_video_of_the_class_above(tmp_path: Path, names: tuple[str, ...], expected):
    found = index(touch(tmp_path, *names))
    assert [record.key for record in found.records] == expected
    for record in found.records:
        assert record.path == tmp_path / record.key and record.target == record.key.split("/")[-2]
        assert record.split == (record.key.split("/")[0] if "train" in names[0] else None)
    assert f"{len(names)} frames in 3 folders, each of them one video" in found.notes


def test_without_labels_a_folder_of_frame_folders_and_one_alone_are_videos(tmp_path: Path):
    touch(tmp_path, "v/1.png", "v/2.png", "w/1.png")
    found = index(tmp_path, labelled=False)
    assert [record.key for record in found.records] == ["v", "w"]
    alone = index(tmp_path / "v", labelled=False)
    assert [(record.key, record.path) for record in alone.records] == [("v", tmp_path / "v")]


def test_a_list_of_films_and_frame_folders_keeps_its_order(tmp_path: Path):
    touch(tmp_path, "w/1.png", "v/1.png", "c.mp4", "more/a.mp4", "more/b.mp4")
    found = index([tmp_path / "w", tmp_path / "c.mp4", str(tmp_path / "v"), tmp_path / "more"], labelled=False)
    assert [record.key for record in found.records] == ["w", "c.mp4", "v", "more/a.mp4", "more/b.mp4"]
    with pytest.raises(DataError, match="bring a label for every item"):
        index([tmp_path / "w", tmp_path / "v"])
    with pytest.raises(DataError, match="must end in .mp4"):
        index([tmp_path / "w", touch(tmp_path, "x.txt") / "x.txt"], labelled=False)


def test_manifests_name_films_and_frame_folders(tmp_path: Path):
    touch(tmp_path, "films/c.mp4", "v/1.png")
    table = pd.DataFrame({"file": ["films/c.mp4", "v"], "kind": ["x", "y"], "source_group": ["p", "q"]})
    table.to_csv(tmp_path / "index.csv", index=False)
    found = index(tmp_path / "index.csv", target="kind")
    assert rows(found) == [("films/c.mp4", "x", None), ("v", "y", None)]
    assert [record.group for record in found.records] == ["p", "q"]
    assert "column 'file' taken as 'path'" in found.notes
    table.loc[1, "file"] = "no"
    table.to_csv(tmp_path / "index.csv", index=False)
    with pytest.raises(DataError, match="line 3, column 'path': must name a file; found 'no'"):
        index(tmp_path / "index.csv", target="kind")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a/1.mp4", "b/1.mp4", "b/cover.png"), r"1 picture \(a/1.mp4, b/cover.png\). Set input.source="),
        (("a/1.png", "b/1.png"), "must hold folders class/video/frame.*found pictures directly in a, b"),
        (("train/a/1.png", "test/b/1.png"), "found pictures directly in test/b, train/a"),
        (("1.png", "2.png"), "pictures directly in"),
        (("a/v/1.png", "a/v/masks/1.png"), "masks: must hold the only frames .*inside another, 'a/v'"),
        (("a/v/1.png", "1.png"), "a folder of pictures inside another"),
        (("a/1.txt",), "must hold files that end in .mp4"),
    ],
)
def test_layouts_that_can_mean_two_things_are_refused(tmp_path: Path, names: tuple[str, ...], words: str):
    with pytest.raises(DataError, match=words):
        index(touch(tmp_path, *names))


def test_source_says_what_a_mixed_folder_means(tmp_path: Path):
    touch(tmp_path, "a/1.mp4", "a/v/1.png", "b/2.mp4", "b/w/1.png")
    assert [record.key for record in index(tmp_path, source="files").records] == ["a/1.mp4", "b/2.mp4"]
    found = index(tmp_path, source="folders")
    assert rows(found) == [("a/v", "a", None), ("b/w", "b", None)]
    assert "2 films left out, as input.source=folders says" in found.notes
    touch(tmp_path / "films", "a/1.mp4")
    with pytest.raises(DataError, match="must hold folders of frames; found no picture"):
        index(tmp_path / "films", source="folders")


def test_arrays_in_memory_are_samples():
    found = index([np.zeros((2, 3, 4), np.uint8)], labelled=False)
    assert [record.key for record in found.records] == ["0"]


@pytest.mark.parametrize(
    ("name", "way_out"), [("a.mp3", "Convert it, or leave it out"), ("1.png", "Name the folder that holds it")]
)
def test_a_foreign_file_is_told_what_a_video_is(tmp_path: Path, name: str, way_out: str):
    path = touch(tmp_path, name) / name
    for data in (path, [path]):
        with pytest.raises(DataError, match=rf"be a film \(.mp4, .*\) or a folder of frames; found .*. {way_out}"):
            index(data, labelled=False)
