"""Segmentation: label maps, masks, tallies, and the whole way from pictures with masks to masks of new pictures."""

import base64
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from common import run, tiny_pipeline
from fastapi.testclient import TestClient
from PIL import Image
from sklearn.metrics import accuracy_score, jaccard_score, recall_score

import metatransformer as mt
from metatransformer import DataError
from metatransformer.core.batch import Part
from metatransformer.core.errors import UnlabelledError, UsageError
from metatransformer.core.labels import Legend, PlaceLabels
from metatransformer.core.modality import Answer, Cut
from metatransformer.core.samples import View
from metatransformer.data.legend import find_legend, read_legend
from metatransformer.fit.queries import MaskTrainer
from metatransformer.infer.dense import _joined
from metatransformer.machine.console import Console
from metatransformer.modalities._picture.coco import draw_shapes
from metatransformer.modalities._picture.local import local_pixels
from metatransformer.modalities._picture.masks import at_pixels, index_masks, paint_mask, read_mask, write_mask
from metatransformer.modalities._picture.tiles import cut_pixels
from metatransformer.modalities.image import MODALITY
from metatransformer.modalities.pointcloud import ROWS, VIEWS, load
from metatransformer.modalities.pointcloud.dense import (
    PLAIN,
    at_points,
    index_points,
    neighbourhoods,
    places_of,
    read_column,
    write_points,
)
from metatransformer.modalities.pointcloud.read import read_cloud
from metatransformer.nn.queries import Decoder
from metatransformer.nn.views import Dots, view_frames
from metatransformer.saved import load_pipeline
from metatransformer.serve.app import make_app
from metatransformer.serve.hosted import load_hosted
from metatransformer.serve.limits import Limits
from metatransformer.tasks.segment import Places, Segment, SegmentOptions
from metatransformer.trunk import load_encoder

ROAD, SKY = (128, 64, 128), (10, 20, 30)


def labels_of(codes, legend: Legend | None = None, where: str = "m.png") -> PlaceLabels:
    array = np.array(codes)
    return PlaceLabels(where, lambda: array, legend or Legend())


def save(path: Path, array, *, palette: list[int] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array))
    if palette:
        image.putpalette(palette)
    image.save(path)
    return path


def grey(h: int, w: int, value: int = 0) -> np.ndarray:
    return np.full((h, w), value, dtype=np.uint8)


# --- label maps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "names", "colours"),
    [
        ("labels.txt", "0 Sky\n1 Road works\n", {0: "Sky", 1: "Road works"}, {}),
        ("classes.txt", "Sky\nRoad\n", {0: "Sky", 1: "Road"}, {}),
        ("labels.txt", "# map\n3: Road\n\n", {3: "Road"}, {}),
        ("label_colors.txt", "128 64 128\tRoad\n", {0x804080: "Road"}, {0x804080: ROAD}),
        ("class_dict.csv", "name,r,g,b\nRoad,128,64,128\nSky,10,20,30\n", {0x804080: "Road", 0x0A141E: "Sky"}, None),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nRoad:128,64,128::\n", {0x804080: "Road"}, None),
        ("labels.txt", "3 Road 128 64 128\n", {3: "Road"}, {3: ROAD}),
        ("classes.json", '["Sky", "Road"]', {0: "Sky", 1: "Road"}, {}),
        ("classes.json", '{"3": "Road"}', {3: "Road"}, {}),
        ("classes.json", '{"Road": 3}', {3: "Road"}, {}),
    ],
)
def test_label_maps_as_people_spell_them(tmp_path: Path, name: str, text: str, names, colours):
    (tmp_path / name).write_text(text, encoding="utf-8")
    legend = find_legend(tmp_path)
    assert legend.names == names and legend.where == str(tmp_path / name)
    assert colours is None or legend.colours == colours


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("labels.txt", "1 Sky\n1 Road\n", "the code 1 ('Sky', 'Road') twice"),
        ("labels.txt", "1 Sky\n2 Sky\n", "'Sky' twice"),
        ("labels.txt", "\n", "name a class in each line"),
        ("labels.json", '{"a": "b"}', "names by code"),
        ("labels.json", "{", "must be JSON"),
    ],
)
def test_label_maps_that_say_nothing_or_two_things(tmp_path: Path, name: str, text: str, words: str):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(words)):
        read_legend(tmp_path / name)


def test_two_label_maps_are_refused(tmp_path: Path):
    for name in ("labels.txt", "classes.json"):
        (tmp_path / name).write_text("0 Sky", encoding="utf-8")
    with pytest.raises(DataError, match="one label map; found classes.json and labels.txt"):
        find_legend(tmp_path)


# --- masks ------------------------------------------------------------------------------------------------------------


def test_a_mask_holds_numbers_with_a_palette_or_without_or_colours(tmp_path: Path):
    codes = np.array([[0, 1, 1], [2, 0, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "grey.png", codes), {}), codes)
    palette = [0, 0, 0, *ROAD, *SKY]
    np.testing.assert_array_equal(read_mask(save(tmp_path / "p.png", codes % 3, palette=palette), {}), codes % 3)
    deep = save(tmp_path / "deep.png", codes.astype(np.uint16) * 100)
    np.testing.assert_array_equal(read_mask(deep, {}), codes.astype(int) * 100)
    three = save(tmp_path / "three.png", np.repeat(codes[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_mask(three, {}), codes)
    colours = save(tmp_path / "rgb.png", np.array([[ROAD, SKY]], dtype=np.uint8))
    assert read_mask(colours, {3: ROAD, 7: SKY}).tolist() == [[3, 7]]
    assert read_mask(save(tmp_path / "bool.png", codes > 0), {}).tolist() == [[0, 1, 1], [1, 0, 1]]
    # A palette whose colours the label map names by colour.
    by_colour = {0x804080: ROAD, 0x0A141E: SKY, 0: (0, 0, 0)}
    found = read_mask(tmp_path / "p.png", by_colour)
    assert found.tolist() == [[0, 0x804080, 0x804080], [0x0A141E, 0, 0]]


def test_an_unknown_colour_is_named(tmp_path: Path):
    path = save(tmp_path / "m.png", np.array([[ROAD, SKY, SKY]], dtype=np.uint8))
    with pytest.raises(
        DataError, match=r"m.png: must hold colours of the label map alone; found \(10, 20, 30\) on 2 p"
    ):
        read_mask(path, {3: ROAD})
    with pytest.raises(DataError, match=r"where no label map names colours; found 2 colours.*labels.txt"):
        read_mask(path, {})
    Image.fromarray(grey(9, 9)).save(tmp_path / "m.jpg")
    with pytest.raises(DataError, match="be a mask without loss"):
        read_mask(tmp_path / "m.jpg", {})


@pytest.mark.parametrize(
    ("pairs", "splits"),
    [
        ({"images/a.jpg": "masks/a.png", "images/b.jpg": "masks/b.png"}, [None, None]),
        ({"train/images/a.jpg": "train/labels/a.png", "val/images/a.jpg": "val/labels/a.png"}, ["train", "val"]),
        ({"images/train/a.jpg": "masks/train/a.png", "images/test/b.jpg": "masks/test/b.png"}, ["test", "train"]),
        ({"train/a.jpg": "trainannot/a.png", "val/a.jpg": "valannot/a.png"}, ["train", "val"]),
        ({"a.jpg": "a_mask.png", "b.jpg": "b_mask.png"}, [None, None]),
        ({"x/a.jpg": "x/a.png", "y/a.jpg": "y/a.png"}, [None, None]),
        ({"JPEGImages/a.jpg": "SegmentationClass/a.png"}, [None]),
        ({"images/a.png": "masks/a_gt.png"}, [None]),
    ],
)
def test_folders_pair_pictures_and_masks(tmp_path: Path, pairs: dict[str, str], splits: list[str | None]):
    for picture, mask in pairs.items():
        save(tmp_path / picture, grey(4, 5))
        save(tmp_path / mask, grey(4, 5))
    index = index_masks(tmp_path, suffixes=(".jpg", ".png"), options=None, labelled=True)
    found = {
        key: Path(str(t)).relative_to(tmp_path).as_posix()
        for key, t in zip(index.records.keys, index.records.targets, strict=True)
    }
    assert found == pairs and list(index.records.splits) == splits
    alone = index_masks(tmp_path, suffixes=(".jpg", ".png"), options=None, labelled=False)
    assert set(alone.records.keys) == set(pairs) and set(alone.records.targets) == {None}


def test_a_manifest_pairs_them_too(tmp_path: Path):
    save(tmp_path / "p" / "a.jpg", grey(4, 5))
    save(tmp_path / "q" / "b.png", grey(4, 5))
    for column in ("path", "image"):
        pd.DataFrame({column: ["p/a.jpg"], "mask": ["q/b.png"], "split": ["test"]}).to_csv(
            tmp_path / "m.csv", index=False
        )
        for data in (tmp_path / "m.csv", tmp_path):
            (record,) = index_masks(data, suffixes=(".jpg",), options=None, labelled=True).records
            assert (record.key, record.split, str(record.target)) == ("p/a.jpg", "test", str(tmp_path / "q" / "b.png"))
    (tmp_path / "q" / "b.png").unlink()
    with pytest.raises(DataError, match="row 1, column 'mask': must name the mask of its picture; found 'q/b.png'"):
        index_masks(tmp_path, suffixes=(".jpg",), options=None, labelled=True)


def test_missing_masks_and_two_of_one_picture(tmp_path: Path):
    save(tmp_path / "images" / "a.jpg", grey(4, 5))
    with pytest.raises(UnlabelledError, match="must hold a mask for each picture"):
        index_masks(tmp_path, suffixes=(".jpg",), options=None, labelled=True)
    save(tmp_path / "images" / "b.jpg", grey(4, 5))
    save(tmp_path / "masks" / "a.png", grey(4, 5))
    save(tmp_path / "masks" / "c.png", grey(4, 5))
    with pytest.raises(DataError, match="found 1 picture without one: images/b.jpg"):
        index_masks(tmp_path, suffixes=(".jpg",), options=None, labelled=True)
    save(tmp_path / "masks" / "b.png", grey(4, 5))
    index = index_masks(tmp_path, suffixes=(".jpg",), options=None, labelled=True)
    assert index.notes == ("1 mask without a picture left out: masks/c.png",)
    save(tmp_path / "masks" / "b_mask.png", grey(4, 5))
    with pytest.raises(DataError, match=r"one mask for each; found 'masks/b.png' and 'masks/b_mask.png'"):
        index_masks(tmp_path, suffixes=(".jpg",), options=None, labelled=True)


def test_coco_shapes_are_drawn_in_their_categories(tmp_path: Path):
    square, runs = [[1, 1, 3, 1, 3, 2, 1, 2]], {"size": [4, 6], "counts": [0, 4, 20]}
    content = {
        "images": [{"id": 9, "file_name": "a.jpg", "height": 4, "width": 6}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 0, "segmentation": square},
            {"id": 2, "image_id": 9, "category_id": 7, "segmentation": runs},
        ],
        "categories": [{"id": 0, "name": "cup"}, {"id": 7, "name": "hat"}],
    }
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content), encoding="utf-8")
    save(tmp_path / "val2017" / "a.jpg", grey(4, 6))
    for data in (tmp_path, path):
        (record,) = index_masks(data, suffixes=(".jpg",), options=None, labelled=True).records
        assert (record.key, record.split) == ("val2017/a.jpg", "val")
        assert isinstance(record.target, PlaceLabels)
        free = [7, -1, -1, -1, -1, -1]  # a run of four down the first column
        assert record.target.read().tolist() == [free, [7, 0, 0, 0, -1, -1], [7, 0, 0, 0, -1, -1], free]
        assert fitted(record.target).classes_ == ["background", "cup", "hat"]
    packed = "".join(chr(48 + number) for number in (0, 4)) + "d0"  # 20 is 20 + 32 (more follows), then 0
    assert (draw_shapes((4, 6), [(7, {"counts": packed})], "x") == draw_shapes((4, 6), [(7, runs)], "x")).all()
    for shape, words in (([[1, 1, 2]], "polygons"), ({"counts": [0, 4]}, "runs over 6 x 4 pixels; found 4 pixels")):
        with pytest.raises(DataError, match=words):
            draw_shapes((4, 6), [(7, shape)], "x")
    content["annotations"][0]["category_id"] = 5
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="found image 9, category 5 of annotation 1"):
        index_masks(path, suffixes=(".jpg",), options=None, labelled=True)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="must be a COCO file"):
        index_masks(path, suffixes=(".jpg",), options=None, labelled=True)


def test_written_masks_are_read_back(tmp_path: Path):
    numbers = np.array([[0, 1], [1, 0]])
    write_mask(tmp_path / "deep" / "m.png", lambda: View("m", {}), Answer(numbers, ["a", "b"], [SKY, ROAD], [0, 1]))
    with Image.open(tmp_path / "deep" / "m.png") as image:
        assert image.mode == "P" and image.convert("RGB").getpixel((1, 0)) == ROAD
    np.testing.assert_array_equal(read_mask(tmp_path / "deep" / "m.png", {}), numbers)
    many = Answer(numbers * 300, [str(n) for n in range(301)], [SKY] * 301, range(301))
    write_mask(tmp_path / "w.png", lambda: View("w", {}), many)
    np.testing.assert_array_equal(read_mask(tmp_path / "w.png", {}), numbers * 300)


def test_pixels_lie_between_the_middles_of_patches():
    values = torch.tensor([[[0.0], [8.0]]])  # one row of two tokens over 2 x 4 pixels: middles at 1 and 3
    whole = at_pixels(values, np.array([2, 4]), None)
    assert whole[:, 0].tolist() == [0, 2, 6, 8, 0, 2, 6, 8]
    torch.manual_seed(0)
    values, places = torch.randn(3, 5, 7), np.array([11, 13])
    chosen = np.array([0, 17, 142, 60])
    torch.testing.assert_close(at_pixels(values, places, chosen), at_pixels(values, places, None)[chosen])


# --- the task ---------------------------------------------------------------------------------------------------------


def fitted(*targets: PlaceLabels, ignore: tuple[str, ...] = ()) -> Segment:
    task = Segment(SegmentOptions("segment", ignore=ignore))
    task.fit(targets)
    return task


def test_classes_are_codes_and_what_is_not_labelled_counts_nowhere():
    legend = Legend({0: "Sky", 2: "Road", 3: "Unlabelled"}, {2: ROAD}, "labels.txt")
    labels = labels_of([[0, 2, 2], [3, 255, 0]], legend)
    task = fitted(labels)
    assert (task.classes_, task.codes_, task.counts_) == (["Sky", "Road"], [0, 2], [2, 2])
    assert task.colours_[1] == ROAD
    assert task.numbers(labels).tolist() == [[0, 1, 1], [-1, -1, 0]]
    assert task.encode([labels]).tolist() == [[2, 2]]
    again = Segment()
    again.load_state(task.state())
    assert again.numbers(labels).tolist() == task.numbers(labels).tolist() and again.state() == task.state()


def test_a_class_can_be_left_out_by_name_or_code():
    labels = labels_of([[0, 1, 2, 3]])
    assert fitted(labels, ignore=("3",)).classes_ == ["0", "1", "2"]
    named = labels_of([[0, 1, 2]], Legend({0: "a", 1: "b", 2: "c"}))
    assert fitted(named, ignore=("b",)).classes_ == ["a", "c"]


@pytest.mark.parametrize(
    ("codes", "binary"),
    [
        ([[0, 255]], True),
        ([[0] * 60 + [255] * 60 + [3, 130, 200]], True),
        ([[0] * 60 + [255] * 60 + [1, 2]], False),
        ([[0] * 60 + [255] * 2 + [1] * 60], False),
        ([[0, 1, 1]], False),
    ],
)
def test_black_and_white_masks_are_two_classes_with_blurred_edges(codes, binary: bool):
    task = fitted(labels_of(codes))
    assert task.binary_ == binary
    if binary:
        assert task.classes_ == ["background", "foreground"]
        assert task.numbers(labels_of([[0, 127, 128, 255]])).tolist() == [[0, 0, 1, 1]]


def test_what_cannot_be_learned_or_scored_is_refused():
    legend = Legend({0: "Sky", 1: "Road"}, {}, "labels.txt")
    with pytest.raises(DataError, match=r"m.png by labels.txt: .*label map; found the code 7 \(1 places\)"):
        fitted(labels_of([[0, 1, 7]], legend))
    with pytest.raises(DataError, match="at least 2 classes; found only"):
        fitted(labels_of([[0, 0]]))
    task = fitted(labels_of([[0, 1]], legend))
    with pytest.raises(DataError, match="n.png: must label a place with a class; found only the code 255, not scored"):
        task.encode([labels_of([[255]], legend, "n.png")])
    other = Legend({0: "Sky", 1: "Rode"}, {}, "other.txt")
    with pytest.raises(DataError, match=r"classes that training saw \(Sky, Road\); found 'Rode'. Did you mean 'Road'"):
        task.encode([labels_of([[0, 1]], other)])
    with pytest.raises(DataError, match="found the code 5"):
        task.encode([labels_of([[0, 5]])])
    with pytest.raises(DataError, match="must be a class for every place; found 'cat'"):
        task.check("cat")


def test_names_count_where_two_label_maps_number_them_differently():
    task = fitted(labels_of([[0, 1]], Legend({0: "Sky", 1: "Road"}, {}, "a")))
    assert task.numbers(labels_of([[5, 4]], Legend({4: "Sky", 5: "Road"}, {}, "b"))).tolist() == [[1, 0]]


def test_scores_are_those_of_all_pixels_together():
    rng = np.random.default_rng(0)
    truths = [rng.integers(-1, 3, size=(7, 11)), rng.integers(0, 3, size=(5, 3))]
    guesses = [rng.integers(0, 3, size=truth.shape) for truth in truths]
    labels = [labels_of(np.where(truth < 0, 255, truth)) for truth in truths]
    task = fitted(*labels)
    outputs = torch.stack([task.answer(guess, truth) for guess, truth in zip(guesses, truths, strict=True)]).float()
    scores = task.metrics(outputs, task.encode(labels))
    t, g = (np.concatenate([one.ravel() for one in parts]) for parts in (truths, guesses))
    t, g = t[t >= 0], g[t >= 0]
    each = jaccard_score(t, g, average=None)
    assert scores["mean_iou"] == pytest.approx(each.mean())
    assert [scores[f"iou({name})"] for name in "012"] == pytest.approx(list(each))
    assert scores["pixel_accuracy"] == pytest.approx(accuracy_score(t, g))
    assert scores["mean_accuracy"] == pytest.approx(recall_score(t, g, average="macro"))
    share = task.decode(outputs)["share(1)"]
    assert share == pytest.approx([(guess == 1).mean() for guess in guesses])
    constant = task.metrics(task.constant().expand(2, -1), task.encode(labels))
    assert constant["pixel_accuracy"] == pytest.approx(np.bincount(t).max() / len(t))


def test_a_class_that_does_not_occur_has_no_iou():
    task = fitted(labels_of([[0, 1, 2]]))
    labels = labels_of([[0, 0, 1, 1]])
    outputs = task.answer(np.array([[0, 1, 1, 2]]), np.array([[0, 0, 1, 1]]))[None]
    scores = task.metrics(outputs, task.encode([labels]))
    assert scores["mean_iou"] == pytest.approx((1 / 2 + 1 / 3) / 2) and "iou(2)" not in scores
    assert task.doubts(outputs, task.encode([labels])) == []


def test_places_weigh_by_the_cube_root_of_their_share_however_they_were_drawn():
    task = fitted(labels_of([[0] * 27 + [1]]))
    target = torch.tensor([0, 1, 1, 1])
    weights = Places(task).importance(target)
    assert float(weights.mean()) == pytest.approx(1)
    # Shares 27 to 1: together the first class counts three times as much as the second, whatever was drawn.
    assert float(weights[0] / weights[1:].sum()) == pytest.approx(3)


# --- the whole way ----------------------------------------------------------------------------------------------------


def discs(root: Path, *, count: int = 12) -> Path:
    """Writes pictures of a bright disc on dark ground, with masks: 0 ground, 1 disc, 255 the upper two rows."""
    rng = np.random.default_rng(0)
    for number in range(count):
        split = ("train", "val", "test")[max(0, number - count + 4) // 2 if number >= count - 4 else 0]
        split = "train" if number < count - 4 else "val" if number < count - 2 else "test"
        h, w = rng.integers(29, 41, size=2)
        y, x = np.mgrid[:h, :w]
        mask = ((y - h * rng.uniform(0.3, 0.7)) ** 2 + (x - w * rng.uniform(0.3, 0.7)) ** 2 < (h * 0.3) ** 2) * 1
        picture = np.where(mask, 190, 60) + rng.normal(0, 9, size=(h, w))
        mask[:2] = 255
        save(root / split / "images" / f"{number}.png", picture.clip(0, 255).astype(np.uint8))
        save(root / split / "masks" / f"{number}.png", mask.astype(np.uint8))
    (root / "labels.txt").write_text("0 ground\n1 disc 200 30 30\n", encoding="utf-8")
    return root


QUICK = ["input.size=64", "head.read=[1, -1]", "head.centres=0", "task.places=600", "run.device=cpu"]


def test_from_pictures_with_masks_to_masks_of_new_pictures(tmp_path: Path, capsys):
    data, out = discs(tmp_path / "data"), tmp_path / "run"
    words = ["--modality", "image", "--task", "segment"]
    status, told, err = run(["check", data, *words], capsys)
    assert status == 0 and told["samples"] == 12, err
    status, told, err = run(["fit", data, *words, "--encoder", "test", "--out", out, *QUICK], capsys)
    assert status == 0, err
    assert told["metrics"]["test"]["mean_iou"] > 0.8 and told["metrics"]["test"].keys() >= {"iou(ground)", "iou(disc)"}
    assert len(list((out / "masks" / "test").rglob("*.png"))) == 2
    assert len(list((out / "pictures" / "test").glob("*.png"))) == 2
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Image segmentation" in page and "mean IoU" in page
    status, scored, err = run(["evaluate", out], capsys)
    assert status == 0 and scored["metrics"] == told["metrics"]["test"], err
    status, told, err = run(["predict", out, data / "test" / "images", "--out", tmp_path / "p.csv"], capsys)
    assert status == 0, err
    table = pd.read_csv(tmp_path / "p.csv")
    assert list(table.columns) == ["key", "prediction", "file", "share(ground)", "share(disc)"]
    for key, file in zip(table["key"], table["file"], strict=True):
        with Image.open(data / "test" / "images" / key) as picture, Image.open(file) as mask:
            assert mask.size == picture.size and mask.mode == "P"
            assert mask.convert("RGB").getcolors()
        same = out / "masks" / "test" / "test" / "images" / key
        np.testing.assert_array_equal(read_mask(Path(file), {}), read_mask(same, {}))


def test_masks_are_served_as_predict_writes_them(tmp_path: Path, capsys):
    data, out = discs(tmp_path / "data"), tmp_path / "run"
    words = ["--modality", "image", "--task", "segment", "--encoder", "test", "--out", out]
    assert run(["fit", data, *words, *QUICK], capsys)[0] == 0
    hosted = load_hosted([f"discs={out}"], trunk="", encoder="", device="cpu", console=Console(quiet=True))
    pictures = sorted((data / "test" / "images").iterdir())
    with TestClient(make_app(hosted, limits=Limits(decoders=1))) as client:
        answer = client.post("/predict", files=[("files", (path.name, path.read_bytes())) for path in pictures])
    assert answer.status_code == 200, answer.text
    for path, one in zip(pictures, answer.json()["predictions"], strict=True):
        held = tmp_path / path.name
        held.write_bytes(base64.b64decode(one["places"]["png"]))
        expected = read_mask(out / "masks" / "test" / "test" / "images" / path.name, {})
        np.testing.assert_array_equal(read_mask(held, {}), expected)
        assert one["places"]["shape"] == list(expected.shape) and one["places"]["classes"] == ["ground", "disc"]
        with Image.open(held) as mask:
            palette = bytes(mask.getpalette()[:6])
        assert one["places"]["colours"] == [f"#{palette[first : first + 3].hex()}" for first in (0, 3)]


def test_a_segmenter_in_python_answers_as_the_command(tmp_path: Path, capsys):
    data = discs(tmp_path / "data")
    recipe = {"input.size": 64, "head.read": [1, -1], "head.centres": 0, "task.places": 600}
    own = mt.Segmenter("image", encoder="test", device="cpu", recipe=recipe).fit(data)
    assert own.classes_ == {0: "ground", 1: "disc"} and own.score(data) > 0.8
    own.save(tmp_path / "model")
    loaded = mt.load(tmp_path / "model", device="cpu")
    assert isinstance(loaded, mt.Segmenter)
    files = sorted((data / "test" / "images").iterdir())
    status, _, err = run(["predict", tmp_path / "model", *files, "--out", tmp_path / "p.csv"], capsys)
    assert status == 0, err
    written = [read_mask(Path(file), {}) for file in pd.read_csv(tmp_path / "p.csv")["file"]]
    for mine, theirs, command in zip(own.predict(files), loaded.predict(files), written, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(mine, command)
    pictures = [np.asarray(Image.open(path)) for path in sorted((data / "train" / "images").iterdir())]
    masks = [7 * (picture > 125) for picture in pictures]
    other = mt.Segmenter("image", encoder="test", device="cpu", recipe=recipe).fit(pictures, masks)
    assert other.classes_ == {0: "0", 7: "7"} and other.score(pictures, masks) > 0.8
    assert set(np.unique(other.predict(pictures[:1])[0])) <= {0, 7}
    with pytest.raises(UsageError, match=r"y\[0\]: must be whole numbers, one a place; found float64"):
        other.fit(pictures, [mask / 2 for mask in masks])
    with pytest.raises(DataError, match="must label .* as its sample has"):
        other.fit(pictures, [mask[1:] for mask in masks])


QUERIES = [*QUICK, "task.decoder=queries", "task.width=16", "optim.epochs=12", "optim.lr=1e-2", "data.batch_size=4"]


def test_padding_changes_no_mask():
    torch.manual_seed(0)
    net = Decoder(11, 3, width=16).eval()
    tokens = torch.randn(1, 5, 7, 11)
    wide, real = torch.randn(1, 8, 9, 11), torch.zeros(1, 8, 9, dtype=torch.bool)
    wide[:, :5, :7], real[:, :5, :7] = tokens, True
    with torch.no_grad():
        alone, padded = net(tokens, torch.ones(1, 5, 7, dtype=torch.bool)), net(wide, real)
    assert alone.shape == (1, 10, 14, 3)
    torch.testing.assert_close(padded[:, :10, :14], alone)


def test_a_mask_is_how_well_its_query_goes_with_the_tokens():
    """Without rounds and neighbours, by hand: the scalar product of each class's query with each finer token."""
    torch.manual_seed(0)
    net = Decoder(5, 3, width=8, depth=0).eval()
    tokens = torch.randn(2, 3, 2, 5)
    with torch.no_grad():
        found = net(tokens, torch.ones(2, 3, 2, dtype=torch.bool))
        four = net.finer(net.start(tokens))[1, 2, 0]  # of one token: its four parts, row by row
        parts = [torch.nn.functional.gelu(net.norm(part)) for part in four.reshape(4, 8)]
        masks = net.masks(net.queries)
    for place, part in zip(((4, 0), (4, 1), (5, 0), (5, 1)), parts, strict=True):
        torch.testing.assert_close(found[1, *place], (masks @ part) / 8**0.5)


def test_masks_from_queries_from_pictures_to_masks(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    data, words = discs(tmp_path / "data"), ["--modality", "image", "--task", "segment", "--encoder", "test"]
    status, whole, err = run(["fit", data, *words, "--out", tmp_path / "a", *QUERIES], capsys)
    assert status == 0 and "directions of a token keep" in err and "epoch 12/12" in err, err
    assert whole["metrics"]["test"]["mean_iou"] > 0.8
    status, scored, err = run(["evaluate", tmp_path / "a"], capsys)
    assert status == 0 and scored["metrics"] == pytest.approx(whole["metrics"]["test"], abs=1e-6), err
    status, _, err = run(["predict", tmp_path / "a", data / "test" / "images", "--out", tmp_path / "p.csv"], capsys)
    assert status == 0, err
    for file, key in zip(*pd.read_csv(tmp_path / "p.csv")[["file", "key"]].T.to_numpy(), strict=True):
        same = tmp_path / "a" / "masks" / "test" / "test" / "images" / key
        np.testing.assert_array_equal(read_mask(Path(file), {}), read_mask(same, {}))

    scores, calls = MaskTrainer._scores, []

    def stops(self):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return scores(self)

    monkeypatch.setattr(MaskTrainer, "_scores", stops)
    status, _, _ = run(["fit", data, *words, "--out", tmp_path / "b", *QUERIES], capsys)
    assert status != 0 and (tmp_path / "b" / "checkpoints" / "last.pt").is_file()
    monkeypatch.setattr(MaskTrainer, "_scores", scores)
    status, again, err = run(["fit", data, *words, "--out", tmp_path / "b", *QUERIES], capsys)
    assert status == 0 and "continuing after epoch 1" in err and "tokens, train:" not in err, err
    assert again["metrics"] == whole["metrics"]


def test_masks_from_queries_have_their_own_settings(tmp_path: Path, capsys):
    data = discs(tmp_path / "data")
    words = ["fit", data, "--modality", "image", "--task", "segment", "--encoder", "test", "--out", tmp_path / "run"]
    for setting, said in (
        ("head.centres=9", "'head.centres': must be 0 for the task 'segment', whose head is trained"),
        ("task.width=0", "'task.width': must be at least 1"),
        ("task.decoder=other", "task.decoder"),
    ):
        status, _, err = run([*words, *QUERIES, setting], capsys)
        assert status == 2 and said in err, err


def test_controls_stand_beside_a_dense_score(tmp_path: Path, capsys):
    data, words = discs(tmp_path / "data"), ["--modality", "image", "--task", "segment", "--controls"]
    status, told, err = run(["fit", data, *words, "--encoder", "test", "--out", tmp_path / "run", *QUICK], capsys)
    assert status == 0, err
    assert set(told["controls"]) == {"constant", "baseline", "random", "identity"}
    assert told["controls"]["constant"]["mean_iou"] < told["controls"]["baseline"]["mean_iou"]
    assert told["controls"]["baseline"]["mean_iou"] > 0.9  # the disc is bright


def test_ground_that_is_black_is_not_painted_over():
    shown: list[np.ndarray] = []
    axes = SimpleNamespace(imshow=shown.append, axis=lambda _: None)
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    paint_mask(axes, View("", {"pixels": picture}), np.array([[0, 1, 1], [-1, 0, 1]]), [(0, 0, 0), (255, 0, 0)])
    (found,) = shown
    grey = np.clip((picture.astype(float) - 2) / 196, 0, 1)  # from its first to its 99th percentile
    np.testing.assert_allclose(found[0, 0], grey[0, 0])
    np.testing.assert_allclose(found[1, :2], np.repeat(grey[1, :2, None], 3, axis=1), atol=1e-9)
    np.testing.assert_allclose(found[0, 1], 0.4 * grey[0, 1] + np.array([0.6, 0, 0]))


def test_a_plain_model_knows_a_pixel_by_its_place_its_values_and_filters_around_it():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, size=(7, 5, 3)).astype(np.uint8)
    nowhere = np.zeros(2)
    found = local_pixels(View("a", {"pixels": picture}), nowhere, None)
    assert found.shape == (35, 6 + 6 * 5) and np.isfinite(found).all()
    chosen = np.array([0, 13, 13, 34])
    np.testing.assert_array_equal(local_pixels(View("a", {"pixels": picture}), nowhere, chosen), found[chosen])
    y, x = divmod(13, 5)
    red, green, blue = picture[y, x].astype(float)
    light = picture.mean(axis=2)
    expected = [(y + 0.5) / 7, (x + 0.5) / 5, light[y, x], light[y, x] - np.median(light)]
    np.testing.assert_allclose(found[13, :6], [*expected, red - green, blue - (red + green) / 2], rtol=1e-5, atol=1e-4)
    # A wide filter of a constant picture sees nothing but it; grey has no colour; a gap is what most pixels are.
    flat = np.full((7, 5), 40, dtype=np.float32)
    flat[0, 0] = np.nan
    found = local_pixels(View("b", {"pixels": flat}), nowhere, None)
    widest = found[:, -6:]
    np.testing.assert_allclose(widest, [[40, 0, 0, 0, 0, 0]] * 35, atol=1e-2)


@pytest.mark.parametrize(("side", "across"), [(100, 1), (783, 1), (784, 2), (1120, 3), (1456, 4), (9000, 4)])
def test_pictures_much_larger_than_the_size_are_read_in_tiles(side: int, across: int):
    transform = MODALITY.transform(MODALITY.options(size=448, tiles="auto"), load_encoder("test").stem)
    transform.fit([View("a", {"pixels": grey(side, side)})] * 3)
    expected = {1: (448, 0), 2: (784, 448), 3: (1120, 448), 4: (1456, 448)}[across]
    assert (transform.side_, transform.tile_) == expected and bool(transform.notes) == (across > 1)
    again = MODALITY.transform(MODALITY.options(size=448, tiles="auto"), load_encoder("test").stem)
    again.load_state(transform.state())
    assert (again.side_, again.tile_) == expected


def test_tiles_cover_a_picture_and_overlap():
    pixels = torch.arange(14 * 5 * 14 * 11).reshape(1, 14 * 5, 14 * 11, 1)
    cuts = cut_pixels({"pixels": pixels}, tile=14 * 4, patch=14)
    assert {tuple(cut.inputs["pixels"].shape) for cut in cuts} == {(1, 56, 56, 1)}
    seen = torch.zeros(5, 11)
    for cut in cuts:
        seen[cut.where] += 1
        rows, columns = cut.where
        assert cut.inputs["pixels"][0, 0, 0, 0] == pixels[0, 14 * rows.start, 14 * columns.start, 0]
    assert seen.min() >= 1 and len(cuts) == 2 * 4  # 3 of 4 patches from one to the next at most


def test_what_tiles_say_of_a_token_is_averaged_and_counts_less_at_their_edges(monkeypatch: pytest.MonkeyPatch):
    cuts = [Cut((slice(0, 1), slice(0, 3)), {"pixels": torch.zeros(1, 4, 12, 1)})]
    cuts += [Cut((slice(0, 1), slice(2, 5)), {"pixels": torch.ones(1, 4, 12, 1)})]
    part = Part({}, {"pixels": torch.zeros(1, 4, 20)})

    def read(pipeline, batch):
        return None, batch.parts["image"].inputs["pixels"].float()[:, 0, :3].reshape(-1, 3, 1)

    monkeypatch.setattr("metatransformer.infer.dense._read", read)
    found = _joined(tiny_pipeline("image"), "image", part, cuts)
    assert found.flatten().tolist() == [0, 0, 0.5, 1, 1]


def test_a_run_in_tiles_from_pictures_to_masks(tmp_path: Path, capsys):
    data, out = discs(tmp_path / "data", count=8), tmp_path / "run"
    words = ["fit", data, "--modality", "image", "--task", "segment", "--encoder", "test", *QUICK[1:], "--out"]
    status, told, err = run([*words, out, "input.size=24", "input.tiles=3"], capsys)
    assert status == 0 and "in overlapping tiles of 24" in err.replace("\n", " "), err
    assert told["metrics"]["test"]["mean_iou"] > 0.8
    status, scored, err = run(["evaluate", out], capsys)
    assert status == 0 and scored["metrics"] == told["metrics"]["test"], err
    with pytest.raises(UsageError, match="input.tiles: must be left alone but for a task that answers for every place"):
        tiny_pipeline("image", {"input.tiles": 2})


def test_a_mask_of_another_size_is_named_by_check_and_fit(tmp_path: Path, capsys):
    data = discs(tmp_path / "data")
    bad = save(data / "train" / "masks" / "0.png", np.array([[0, 1, 1]], dtype=np.uint8))
    words = ["--modality", "image", "--task", "segment"]
    status, told, _ = run(["check", data, *words], capsys)
    assert status == 2 and told["bad"] == 1 and str(bad) in told["problems"][0]["problem"]
    status, _, err = run(["fit", data, *words, "--encoder", "test", "--out", tmp_path / "run", *QUICK], capsys)
    assert status == 2 and re.search(r"0.png: must label \d+ x \d+ pixels, as its sample has; found 3 x 1 pixels", err)
    assert not (tmp_path / "run").exists()


def test_settings_that_a_dense_task_has_no_use_for_are_refused(tmp_path: Path, capsys):
    data = discs(tmp_path / "data")
    words = ["fit", data, "--modality", "image", "--task", "segment", "--encoder", "test", "--out", tmp_path / "run"]
    for setting, said in (
        ("--tune=ends", "'tune': must be 'head'"),
        ("head.readout=pooled", "'head.readout': must be 'dense'"),
        ("--minutes=5", "'run.minutes': must be 0"),
        ("input.mirrored=true", "Set input.mirrored=false"),
    ):
        status, _, err = run([*words, setting, *QUICK], capsys)
        assert status == 2 and said in err, err
    status, _, err = run(["fit", data, "--modality", "text", "--task", "segment", "--out", tmp_path / "run"], capsys)
    assert status == 2 and "'segment' is of image" in err, err


def test_what_a_person_mistypes_is_named(tmp_path: Path, capsys):
    data = discs(tmp_path / "data")
    words = ["fit", data, "--modality", "image", "--task", "segment", "--encoder", "test", "--out", tmp_path / "run"]
    for setting, said in (
        (
            "task.ignore=[grond]",
            "'task.ignore': must name classes, or their codes; found 'grond'. Did you",
        ),
        ("task.labels=none.txt", "none.txt: must be a label map, a text in UTF-8; found 'No such file or directory'"),
        ("task.places=0", "'task.places': must be at least 1"),
    ):
        status, _, err = run([*words, *QUICK, setting], capsys)
        assert status == 2 and said in err, err
    table = tmp_path / "m.csv"
    table.write_text("path,mask\ndata/train/images/0.png,data/train/masks/0.png\ndata/train/images/1.png,\n")
    status, _, err = run(["fit", table, *words[2:], *QUICK], capsys)
    assert status == 2 and "m.csv, row 2, column 'mask': must name a file; found nothing in 1 row" in err, err


def test_modalities_that_have_places_have_all_of_it():
    assert MODALITY.dense is not None and MODALITY.dense.suffix == ".png"


# --- clouds -----------------------------------------------------------------------------------------------------------


def test_points_stand_where_the_views_draw_them():
    points = torch.tensor([[[0.3, -0.2, 0.5]]])
    frames = view_frames(VIEWS)
    dots = Dots(points, torch.ones(1, 1, dtype=torch.bool), frames=frames, side=101)
    places = places_of(points[0].repeat(12, 1).numpy(), frames=frames, rows=ROWS, sheets=1)[0, :-PLAIN].reshape(4, 2)
    for view in range(4):
        x = (view % 2 + dots.x[0, view, 0] / 100) / 2
        y = (view // 2 + dots.y[0, view, 0] / 100) / 2
        np.testing.assert_allclose(places[view], [2 * x - 1, 2 * y - 1], atol=0.011)  # a pixel
    # A token per view: a point gets the mean of the four.
    values = torch.tensor([[[1.0], [2.0]], [[3.0], [6.0]]])
    middles = np.zeros((1, 8 + PLAIN), dtype=np.float32)
    middles[0, :8] = [-0.5, -0.5, 0.5, -0.5, -0.5, 0.5, 0.5, 0.5]
    assert at_points(values, middles, None).tolist() == [[3.0]]


def test_a_neighbourhood_knows_a_plane_and_a_pole():
    rng = np.random.default_rng(0)
    plane = np.concatenate([rng.uniform(-1, 1, size=(400, 2)), np.zeros((400, 1))], axis=1)
    pole = np.stack([np.zeros(60), np.zeros(60), np.linspace(0.1, 1, 60)], axis=1)
    found = neighbourhoods(np.concatenate([plane, pole]))
    assert found.shape == (460, PLAIN) and np.isfinite(found).all()
    first = 1 + 4 * 3  # linearity, planarity, scattering of ten neighbours
    assert found[:400, first + 1].mean() > 0.4 and found[430:450, first].min() > 0.99
    assert found[450, 0] == pytest.approx(pole[50, 2], abs=1e-6)


def test_labels_of_points_are_a_column_or_folders_of_objects(tmp_path: Path):
    table = np.array([[0, 0, 0, 2], [0, 0, 1, 5]])
    lines = ["x y z label", *(" ".join(map(str, row)) for row in table)]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    (record,) = index_points(tmp_path / "a.txt", options=None, labelled=True).records
    assert record.target.read().tolist() == [2, 5]
    with pytest.raises(DataError, match="must have a column 'kind' behind x, y, z; found label"):
        read_column(tmp_path / "a.txt", "kind")
    (tmp_path / "b.txt").write_text("x y z label\n0 0 0 1.5\n", encoding="utf-8")
    with pytest.raises(DataError, match="column 'label': must hold whole numbers"):
        read_column(tmp_path / "b.txt", "")
    for room, files in (("Area_1/hall", {"wall_1": 2, "chair_1": 1}), ("Area_2/hall", {"wall_1": 1, "wall_2": 1})):
        for name, count in files.items():
            file = tmp_path / "rooms" / room / "Annotations" / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"{n} 0 {count} 9 8 7\n" for n in range(count)), encoding="utf-8")
    index = index_points(tmp_path / "rooms", options=None, labelled=True)
    assert list(index.records.keys) == ["Area_1/hall", "Area_2/hall"]
    first = index.records[0]
    assert first.target.read().tolist() == [0, 1, 1] and first.target.legend.names == {0: "chair", 1: "wall"}
    assert load(first)["points"].tolist() == [[0, 0, 1], [0, 0, 2], [1, 0, 2]]
    manifest = tmp_path / "rooms" / "split.csv"
    pd.DataFrame({"path": ["Area_1/hall"], "split": ["test"]}).to_csv(manifest, index=False)
    (record,) = index_points(manifest, options=None, labelled=True).records
    assert (record.key, record.split) == ("Area_1/hall", "test")


def test_from_clouds_with_labels_to_labelled_clouds(tmp_path: Path, capsys):
    rng = np.random.default_rng(0)
    for number in range(7):
        ground = np.concatenate([rng.uniform(-5, 5, size=(260, 2)), rng.normal(0, 0.05, size=(260, 1))], axis=1)
        tree = rng.normal(0, 0.5, size=(140, 3)) + [*rng.uniform(-3, 3, size=2), 3]
        table = np.concatenate([np.concatenate([ground, tree]), np.repeat([[0], [4]], (260, 140), axis=0)], axis=1)
        split = "train" if number < 4 else "val" if number < 5 else "test"
        (tmp_path / "data" / split).mkdir(parents=True, exist_ok=True)
        np.savetxt(tmp_path / "data" / split / f"{number}.txt", table, header="x y z label", comments="", fmt="%.4f")
    (tmp_path / "data" / "labels.json").write_text('{"0": "ground", "4": "tree"}', encoding="utf-8")
    out, words = tmp_path / "run", ["--modality", "pointcloud", "--task", "segment"]
    small = [
        "input.side=2",
        "input.points=256",
        "head.read=[-1]",
        "head.centres=64",
        "task.places=400",
        "run.device=cpu",
    ]
    status, told, err = run(["fit", tmp_path / "data", *words, "--encoder", "test", "--out", out, *small], capsys)
    assert status == 0, err
    assert told["metrics"]["test"]["mean_iou"] > 0.9
    head = load_pipeline(out / "model").head
    centres, own = head.net[-1].centres.float(), head.readout.direct  # standardised features of training points
    squares = centres.square().mean(dim=0)
    assert own == PLAIN and squares[-own:].sum() / squares[:-own].sum() == pytest.approx(10, rel=0.35)  # head.direct
    asked = ["fit", tmp_path / "data", *words, "--encoder", "test", "--out", tmp_path / "other", *small]
    status, _, err = run([*asked, "head.centres=0", "task.decoder=queries"], capsys)
    assert status == 2 and "'task.decoder': must be 'solved' but for pictures" in err, err
    status, _, err = run(["predict", out, tmp_path / "data" / "test" / "5.txt", "--out", tmp_path / "p.csv"], capsys)
    assert status == 0, err
    cloud = read_cloud(pd.read_csv(tmp_path / "p.csv")["file"][0])
    truth = read_cloud(tmp_path / "data" / "test" / "5.txt")
    np.testing.assert_allclose(cloud.points, truth.points)
    label = cloud.extras[:, cloud.names.index("label")]
    assert (label == (truth.extras[:, 0] == 4)).mean() > 0.9


def las_of(path: Path, points: np.ndarray, codes: np.ndarray, *, form: int = 3) -> Path:
    laspy = pytest.importorskip("laspy")
    las = laspy.create(point_format=form)
    las.header.scales = [0.001] * 3
    las.x, las.y, las.z = points.T
    las.classification, las.gps_time = codes, np.arange(len(codes)) / 7
    path.parent.mkdir(parents=True, exist_ok=True)
    las.write(path)
    return path


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_a_las_file_is_answered_by_a_copy_with_classes(tmp_path: Path, suffix: str):
    laspy = pytest.importorskip("laspy")
    rng = np.random.default_rng(0)
    points, codes = rng.uniform(0, 50, size=(23, 3)).round(3), rng.choice([2, 5], size=23)
    source = las_of(tmp_path / f"plot{suffix}", points, codes)
    assert read_column(source, "").tolist() == codes.tolist()
    cloud, numbers = read_cloud(source), rng.integers(0, 2, size=23)
    answer = Answer(numbers, ["ground", "gro\u00dfer Baum im Wald"], [SKY, ROAD], [2, 200], source)
    path = write_points(tmp_path / "out" / "plot.ply", lambda: View("plot", {"points": cloud.points}), answer)
    assert path == tmp_path / "out" / f"plot{suffix}" and not (tmp_path / "out" / "plot.ply").exists()
    found = laspy.read(path)
    np.testing.assert_array_equal(found.classification, np.array([2, 200])[numbers])
    np.testing.assert_allclose(np.stack([found.x, found.y, found.z], axis=1), points)
    np.testing.assert_allclose(found.gps_time, np.arange(23) / 7)  # what else the file has stays
    (lookup,) = found.vlrs.get("ClassificationLookupVlr")
    assert lookup[2] == "ground" and len(lookup[200]) <= 15
    # Of a thinned file the points that were read; codes as they were where no label map names them.
    some = Answer(numbers[:11], ["2", "5"], [SKY, ROAD], [2, 5], source)
    path = write_points(tmp_path / "some.ply", lambda: View("plot", {"points": cloud.points[:11]}), some)
    found = laspy.read(path)
    np.testing.assert_allclose(np.stack([found.x, found.y, found.z], axis=1), points[:11])
    np.testing.assert_array_equal(found.classification, np.array([2, 5])[numbers[:11]])
    assert not found.vlrs.get("ClassificationLookupVlr")
    with pytest.raises(DataError, match="codes up to 255 for LAS; found 300"):
        write_points(
            tmp_path / "x.ply", lambda: View("plot", {"points": cloud.points}), answer._replace(codes=[2, 300])
        )


def test_answers_never_overwrite_the_data(tmp_path: Path, capsys):
    data, out = discs(tmp_path / "data", count=8), tmp_path / "run"
    words = ["fit", data, "--modality", "image", "--task", "segment", "--encoder", "test", "--out", out, *QUICK]
    assert run(words, capsys)[0] == 0
    pictures = data / "test" / "images"
    before = {path: path.read_bytes() for path in data.rglob("*.png")}
    for asked, table in ((pictures, data / "test" / "images.csv"), (pictures / "7.png", tmp_path / "data.csv")):
        status, _, err = run(["predict", out, asked, "--out", table], capsys)
        assert status == 2 and "--out" in err and "must write apart from the data" in err, err
        assert not table.exists()
    assert before == {path: path.read_bytes() for path in data.rglob("*.png")}
