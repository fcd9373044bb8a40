"""Detection: boxes of COCO, VOC and YOLO, what stays of them, and the whole way from pictures to COCO's results."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from common import run
from fastapi.testclient import TestClient
from faster_coco_eval import COCO, COCOeval_faster
from PIL import Image

import metatransformer as mt
from metatransformer import DataError
from metatransformer.bench.datasets import DATA_SETS
from metatransformer.bench.row import Plan, Results, run_row
from metatransformer.bench.table import markdown, summarise
from metatransformer.core.boxes import BoxLabels, named_ids
from metatransformer.core.errors import UnlabelledError, UsageError
from metatransformer.fit.boxes import change_of
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.nn.boxes import generous_overlap, overlap, suppress
from metatransformer.nn.detector import Cells, Detector, Truth, assign, loss_of
from metatransformer.nn.grid import Directions
from metatransformer.report.objects import PEAKS, boxes_of, pixel_classes
from metatransformer.serve.app import make_app
from metatransformer.serve.hosted import load_hosted
from metatransformer.serve.limits import Limits
from metatransformer.tasks.detect import Detect, DetectOptions

W, H = 64, 48
INDEX = get_modality("image").boxed


def index(data, *, labelled: bool = True):
    assert INDEX is not None
    return INDEX.index(data, options=None, labelled=labelled)


def picture(path: Path, *, size: tuple[int, int] = (W, H), turned: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", size)
    exif = image.getexif()
    if turned:
        exif[0x0112] = turned
    image.save(path, exif=exif)
    return path


def coco(
    path: Path, boxes, *, images=((7, "a.jpg"), (9, "b.jpg")), categories=((0, "cup"), (5, "hat")), **more
) -> Path:
    content = {
        "images": [{"id": number, "file_name": name, "width": W, "height": H} for number, name in images],
        "annotations": [
            {"id": row, "image_id": image, "category_id": category, "bbox": box}
            for row, (image, category, box) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": number, "name": name} for number, name in categories],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | more), encoding="utf-8")
    return path


BOXES = [(7, 0, [10, 20, 30, 10]), (7, 5, [1, 2, 3, 4])]


def labels(boxes, categories, *, crowd=None, image: int | str = 1, names=None) -> BoxLabels:
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    areas = (array[:, 2:] - array[:, :2]).prod(axis=1)
    flags = np.zeros(len(array), dtype=bool) if crowd is None else np.array(crowd)
    return BoxLabels("x", array, np.array(categories, dtype=int), areas, flags, image, (H, W), names or {})


def fitted(*targets: BoxLabels, **options) -> Detect:
    task = Detect(DetectOptions("detect", **options))
    task.fit(targets)
    return task


def found(task: Detect, rows) -> torch.Tensor:
    """Returns outputs of one sample from rows of x1, y1, x2, y2, score, class."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return task.answer(table[:, :4], table[:, 4], table[:, 5].long())


# --- boxes that people have -------------------------------------------------------------------------------------------


def test_coco_keeps_ids_of_pictures_and_categories_and_pictures_without_boxes(tmp_path: Path):
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / name)
    file = coco(tmp_path / "instances_val2017.json", BOXES)
    for data in (file, tmp_path):
        told = index(data)
        first, second = told.records
        assert (first.key, first.split, second.key) == ("a.jpg", "val", "b.jpg")
        assert first.target.boxes.tolist() == [[10, 20, 40, 30], [1, 2, 4, 6]]
        assert first.target.categories.tolist() == [0, 5] and first.target.areas.tolist() == [300, 12]
        assert (first.target.image, second.target.image, len(second.target.boxes)) == (7, 9, 0)
        assert first.target.names == {0: "cup", 5: "hat"} and first.target.size == (H, W)
        assert told.notes[0] == "2 boxes in 2 pictures, 1 of them without any"


def test_splits_come_from_names_of_files_and_folders(tmp_path: Path):
    for split in ("train", "valid", "test"):
        picture(tmp_path / split / f"{split}.jpg")
        coco(tmp_path / split / "_annotations.coco.json", [(0, 5, [1, 1, 5, 5])], images=((0, f"{split}.jpg"),))
    records = index(tmp_path).records
    assert sorted(zip(records.keys, records.splits, strict=True)) == [
        ("test/test.jpg", "test"),
        ("train/train.jpg", "train"),
        ("valid/valid.jpg", "val"),
    ]


def test_the_three_formats_say_the_same(tmp_path: Path):
    for place in ("coco", "voc/JPEGImages", "yolo/images/train"):
        picture(tmp_path / place / "a_1.jpg")
        picture(tmp_path / place / "b_2.jpg")
    coco(
        tmp_path / "coco" / "i.json",
        BOXES,
        images=((1, "a_1.jpg"), (2, "b_2.jpg")),
        categories=((0, "cup"), (5, "hat")),
        annotations=[{"id": 1, "image_id": 1, "category_id": 0, "bbox": [10, 20, 30, 10]}],
    )
    xml = "<annotation><filename>a_1</filename><size><width>64</width><height>48</height></size>{}</annotation>"
    box = "<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
    (tmp_path / "voc" / "Annotations").mkdir()
    (tmp_path / "voc" / "Annotations" / "a_1.xml").write_text(xml.format(f"<object><name>cup</name>{box}</object>"))
    (tmp_path / "voc" / "Annotations" / "b_2.xml").write_text(xml.format(""))
    (tmp_path / "voc" / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "voc" / "ImageSets" / "Main" / "train.txt").write_text("a_1\nb_2\n")
    (tmp_path / "yolo" / "labels" / "train").mkdir(parents=True)
    (tmp_path / "yolo" / "labels" / "train" / "a_1.txt").write_text(f"0 {25 / W} {25 / H} {30 / W} {10 / H}\n")
    (tmp_path / "yolo" / "data.yaml").write_text("names: {0: cup, 1: hat}\n")
    for kind, ids, split in (("coco", 0, None), ("voc", 1, "train"), ("yolo", 0, "train")):
        told = index(tmp_path / kind)
        first, second = told.records
        np.testing.assert_allclose(first.target.boxes, [[10, 20, 40, 30]])
        assert first.target.categories.tolist() == [ids] and first.target.names[ids] == "cup"
        assert (first.target.image, second.target.image) == (1, 2) and len(second.target.boxes) == 0
        assert (first.split, second.split) == (split, split)


def test_a_box_over_the_edge_is_cut_and_one_without_an_area_left_out_and_both_are_told(tmp_path: Path):
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / name)
    boxes = [(7, 0, [-5, 10, 20, 10]), (7, 5, [60, 40, 4.5, 8.5]), (9, 0, [3, 3, 0, 5])]
    told = index(coco(tmp_path / "i.json", boxes))
    assert told.records[0].target.boxes.tolist() == [[0, 10, 15, 20], [60, 40, 64, 48]]
    assert len(told.records[1].target.boxes) == 0
    assert "1 box cut at the edge of the picture: a.jpg" in told.notes
    assert "1 box without an area left out: b.jpg" in told.notes


def test_ids_of_pictures_without_any_are_their_numbers_or_names():
    assert named_ids(["x/a_003.jpg", "x/b_4.jpg"]) == [3, 4]
    assert named_ids(["a_1.jpg", "b_1.jpg"]) == ["a_1", "b_1"]
    assert named_ids(["x/a.jpg", "y/a.jpg"]) == ["x/a.jpg", "y/a.jpg"]


def test_a_picture_on_its_side_is_measured_as_it_is_shown(tmp_path: Path):
    picture(tmp_path / "images" / "a.jpg", turned=6)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    assert index(tmp_path).records[0].target.boxes.tolist() == [[0, 0, H, W]]


@pytest.mark.parametrize(
    ("boxes", "more", "words"),
    [
        ([(7, 0, [70, 10, 5, 5])], {}, "annotation|a.jpg, box 1: must lie in the picture of 64 x 48 pixels"),
        ([(7, 0, [10, 10, -5, 5])], {}, "a.jpg, box 1: must have sides of at least 0; found x 10 to 5"),
        ([(7, 0, [10, 10, float("nan"), 5])], {}, "a.jpg, box 1: must be of finite numbers"),
        ([(7, 3, [1, 1, 5, 5])], {}, r"annotation 1: must be of a category that is listed \(0 cup, 5 hat\); found 3"),
        ([(8, 0, [1, 1, 5, 5])], {}, "annotation 1: must be of a picture that is listed; found the image_id 8"),
        ([(7, 0, [1, 1, 5])], {}, "must have a bbox of four numbers"),
        ([(7, 0, [1, 1, 5, 5])], {"images": ((7, "a.jpg"), (7, "b.jpg"))}, "an id of its own; found 7 twice"),
        ([(7, 0, [1, 1, 5, 5])], {"images": ((7, "a.jpg"), (8, "a.jpg"))}, "must name every item once"),
        ([(7, 0, [1, 1, 5, 5])], {"images": ((7, "c.jpg"),)}, "pictures that are there; found 'c.jpg'"),
        ([], {}, "annotations in at least one; found 2 and 0"),
        ([(7, 0, [1, 1, 0, 5])], {}, "must hold boxes; found none in 2 pictures"),
        ([(7, 0, [1, 1, 5, 5])], {"categories": (("a", "cup"),)}, "must have a whole number as category id"),
    ],
)
def test_damaged_coco_files_get_one_message(tmp_path: Path, boxes, more, words: str):
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / name)
    with pytest.raises(DataError, match=words):
        index(coco(tmp_path / "i.json", boxes, **more))


@pytest.mark.parametrize("content", ["{", "[]", '{"images": [], "annotations": 3, "categories": []}'])
def test_what_is_no_coco_file_is_named(tmp_path: Path, content: str):
    (tmp_path / "i.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="i.json: must be a COCO file"):
        index(tmp_path / "i.json")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("3 0.5 0.5 0.1 0.1", "line 1: must name one of the 2 classes of .*classes.txt; found 3"),
        ("0 30 20 10 10", "must hold shares of the picture, 0 to 1; found '0 30 20 10 10'. Divide x and width"),
        ("cup 0.5 0.5 0.1 0.1", "must begin with the number of a class"),
        ("0 0.5 0.5", "must be class x y width height"),
        ("0 a b c d", "must hold numbers"),
        ("0 0.5 nan 0.1 0.1", "must be of finite numbers"),
        ("9" * 5000 + " 0.5 0.5 0.1 0.1", "must begin with the number of a class"),
        ("\u00b2 0.5 0.5 0.1 0.1", "must begin with the number of a class"),
        ("0 0.5 0.5 -0.1 0.1", "must have sides of at least 0"),
    ],
)
def test_damaged_yolo_lines_get_one_message(tmp_path: Path, line: str, words: str):
    picture(tmp_path / "a.jpg")
    (tmp_path / "classes.txt").write_text("cup\nhat\n")
    (tmp_path / "a.txt").write_text(line)
    with pytest.raises(DataError, match=words):
        index(tmp_path)


def test_a_yolo_polygon_is_its_box(tmp_path: Path):
    picture(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("4 0.25 0.5 0.5 0.75 0.375 0.5\n")
    (record,) = index(tmp_path).records
    assert record.target.boxes.tolist() == [[16, 24, 32, 36]] and record.target.names == {4: "4"}


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("<annotation>", "must be an XML file of Pascal VOC"),
        ("<html></html>", "found <html>"),
        ("<annotation><size><width>64</width></size></annotation>", "size/height"),
        ("<annotation><size><width>64</width><height>\u00b2</height></size></annotation>", "size/height"),
        (
            "<annotation><size><width>64</width><height>48</height></size><object><name>a</name></object></annotation>",
            "object 1: must have a bndbox",
        ),
    ],
)
def test_damaged_voc_files_get_one_message(tmp_path: Path, inside: str, words: str):
    picture(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text(inside)
    with pytest.raises(DataError, match=words):
        index(tmp_path)


def test_pictures_without_labels_are_read_where_none_are_asked_for(tmp_path: Path):
    picture(tmp_path / "a.jpg")
    assert list(index(tmp_path, labelled=False).records.keys) == ["a.jpg"]
    with pytest.raises(UnlabelledError, match="COCO file"):
        index(tmp_path)
    coco(tmp_path / "i.json", [], images=((3, "a.jpg"),))
    (record,) = index(tmp_path / "i.json", labelled=False).records
    assert record.target.image == 3


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_overlaps_by_hand():
    a, b, c = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [4, 0, 6, 2]])
    assert float(overlap(a, b)) == pytest.approx(1 / 7)
    assert float(generous_overlap(a, b)) == pytest.approx(1 / 7 - 2 / 9)
    assert float(overlap(a, c)) == 0 and float(generous_overlap(a, c)) == pytest.approx(-4 / 12)
    assert float(overlap(a, a)) == float(generous_overlap(a, a)) == 1


def test_suppression_equals_the_plain_algorithm():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(61, 2, generator=generator) * 8
    boxes = torch.cat([corner, corner + 1 + 4 * torch.rand(61, 2, generator=generator)], dim=1)
    scores, classes = torch.rand(61, generator=generator), torch.randint(0, 2, (61,), generator=generator)
    left, expected = sorted(range(61), key=lambda i: -float(scores[i])), []
    while left:
        best, *left = left
        expected.append(best)
        left = [i for i in left if classes[i] != classes[best] or float(overlap(boxes[i], boxes[best])) <= 0.4]
    kept, told = suppress(boxes, scores, classes, most=100, above=0.4)
    assert kept.tolist() == expected and torch.equal(told, scores[kept])
    assert suppress(boxes, scores, classes, most=3, above=0.4)[0].tolist() == expected[:3]
    both = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]])
    kept, told = suppress(both, torch.tensor([0.5, 0.8]), torch.zeros(2).long(), most=9, above=0.5, soft=True)
    assert kept.tolist() == [1, 0] and told.tolist() == pytest.approx([0.8, 0.5 * np.exp(-2)])
    none = suppress(both[:0], scores[:0], classes[:0], most=9, above=0.5)
    assert none[0].shape == (0,) and none[1].shape == (0,)


def test_a_part_and_a_mirror_image_move_boxes_with_the_pixels():
    for copy in range(4):
        change = change_of("a", (31, 43), copy=copy, flips=True, seed=0)
        pixels = np.zeros((31, 43), dtype=np.uint8)
        pixels[10:17, 20:33] = 1
        rows, columns = np.nonzero(change.pixels(pixels))
        box, left = change.boxes(np.array([[20.0, 10, 33, 17]]))
        assert left[0] == pytest.approx(len(rows) / (7 * 13))
        if len(rows):
            assert box[0].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert change_of("a", (31, 43), copy=0, flips=True, seed=0).boxes(np.ones((1, 4)))[0].tolist() == [[1, 1, 1, 1]]
    assert not change_of("a", (31, 43), copy=1, flips=False, seed=0).mirrored


# --- the plain baseline ----------------------------------------------------------------------------------------------


def test_a_pixel_is_of_the_smallest_box_in_whose_ellipse_it_lies():
    truth = labels([[0, 0, 8, 8], [2, 2, 4, 4], [0, 8, 12, 20]], [5, 0, 5], crowd=[False, False, True])
    truth = replace(truth, size=(20, 12))
    found = pixel_classes(truth, np.array([1, 0, 1]), (20, 12), ground=2)
    assert found[3, 3] == found[2, 2] == 0 and found[5, 5] == 1  # the corner of the small box is within its ellipse
    assert found[0, 0] == 2 and found[14, 6] == -1 and found[8, 0] == 2
    small = pixel_classes(truth, np.array([1, 0, 1]), (10, 6), ground=2)
    assert small[1, 1] == 0 and small[7, 3] == -1


def test_objects_are_regions_or_peaks_by_hand():
    chance = np.zeros((10, 20))
    chance[2:5, 3:7], chance[8, 8:11] = 0.8, 0.9
    chance[3, 4] = 1.0
    found = boxes_of(chance, np.array([2.0, 3.0]), size=np.array([8.0, 9.0]), way=0.5)
    assert found.boxes.tolist() == [[6, 6, 14, 15]]  # the other one has but three pixels
    assert found.scores == pytest.approx([(11 * 0.8 + 1) / 12])
    peaks = boxes_of(chance, np.array([2.0, 3.0]), size=np.array([8.0, 9.0]), way=PEAKS)
    assert [9.0, 10.5] in ((peaks.boxes[:, :2] + peaks.boxes[:, 2:]) / 2).tolist()
    assert (peaks.boxes[:, 2:] - peaks.boxes[:, :2] == [8, 9]).all()
    nothing = boxes_of(np.zeros((3, 4)), np.ones(2), size=np.ones(2), way=0.5)
    assert nothing.boxes.shape == (0, 4) and nothing.scores.shape == (0,)


# --- the detector -----------------------------------------------------------------------------------------------------


def test_padding_changes_no_answer():
    torch.manual_seed(0)
    net = Detector(11, 3, width=14).eval()
    tokens = torch.randn(1, 5, 7, 11)
    wide, real = torch.randn(1, 8, 9, 11), torch.zeros(1, 8, 9, dtype=torch.bool)
    wide[:, :5, :7], real[:, :5, :7] = tokens, True
    with torch.no_grad():
        alone, padded = net(tokens, torch.ones(1, 5, 7, dtype=torch.bool)), net(wide, real)
    there = padded.real[0]
    assert int(there.sum()) == alone.logits.shape[1] == 10 * 14 + 35 + 3 * 4 + 2 * 2
    torch.testing.assert_close(padded.logits[0, there], alone.logits[0])
    torch.testing.assert_close(padded.boxes[0, there], alone.boxes[0])
    torch.testing.assert_close(padded.middles[there], alone.middles)


def test_cells_learn_the_object_that_they_answer_best():
    middles = torch.tensor([[1.0, 1], [3, 1], [9, 9]])
    boxes = torch.tensor([[[0.0, 0, 2, 2], [2, 0, 4, 2], [0, 0, 2, 2]]])
    cells = Cells(torch.zeros(1, 3, 2), boxes, torch.ones(1, 3, dtype=torch.bool), middles, torch.ones(3))
    truth = Truth(torch.tensor([[0.0, 0, 2, 2], [2, 0, 4, 4]]), torch.tensor([1, 0]), torch.zeros(0, 4))
    scores = torch.full((3, 2), 0.5)
    owner, sure = assign(scores, boxes[0], cells, truth, cells.real[0])
    assert owner.tolist() == [0, 1, -1]  # the third overlaps the first object, and does not lie in it
    assert sure.tolist() == [1, 0.5, 0]
    hidden = Truth(truth.boxes[:1] + 0.1, truth.classes[:1], truth.unknown)
    tiny = Truth(torch.tensor([[2.1, 0.4, 2.2, 0.5]]), torch.tensor([0]), truth.unknown)
    assert assign(scores, boxes[0], cells, hidden, cells.real[0])[0].tolist() == [0, -1, -1]
    assert (assign(scores, boxes[0], cells, tiny, cells.real[0])[0] >= 0).sum() == 1


def test_a_region_of_which_nothing_is_known_costs_nothing():
    torch.manual_seed(0)
    net = Detector(5, 2, width=8).eval()
    cells = net(torch.randn(1, 4, 4, 5), torch.ones(1, 4, 4, dtype=torch.bool))
    none = torch.zeros(0, 4)
    whole = Truth(none, torch.zeros(0, dtype=torch.long), torch.tensor([[0.0, 0, 4, 4]]))
    assert float(loss_of(cells, [whole]).detach()) == 0
    assert float(loss_of(cells, [Truth(none, whole.classes, none)]).detach()) > 0


def test_directions_are_those_of_the_most_variance():
    torch.manual_seed(0)
    x = torch.randn(500, 3) * torch.tensor([5.0, 0.1, 2.0]) + 7
    part = Directions(3, kept=2)
    assert part.learn(x) == pytest.approx(1 - 0.01 / 29.01, abs=1e-3)
    out = part(x)
    torch.testing.assert_close(out.T @ out / 500, torch.eye(2), atol=1e-3, rtol=0)
    assert abs(float(torch.corrcoef(torch.stack([out[:, 0], x[:, 0]]))[0, 1])) > 0.99


# --- the task ---------------------------------------------------------------------------------------------------------


def test_ids_are_the_users_in_what_is_learned_and_written():
    task = fitted(labels([[0, 0, 9, 9], [5, 5, 8, 9]], [7, 0], names={0: "cup", 3: "none of it", 7: "hat"}))
    assert (task.classes_, task.ids_, task.outputs) == (["cup", "hat"], [0, 7], 2)
    listed = task.results(torch.stack([found(task, [[1, 2, 4, 8, 0.5, 1], [0, 0, 2, 2, 0.25, 0]])]), [42])
    assert listed == [
        {"image_id": 42, "category_id": 7, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.5},
        {"image_id": 42, "category_id": 0, "bbox": [0.0, 0.0, 2.0, 2.0], "score": 0.25},
    ]
    again = Detect()
    again.load_state(json.loads(json.dumps(task.state())))
    assert again.state() == task.state() and again.ids_ == [0, 7]
    other = labels([[0, 0, 9, 9]], [1], names={1: "hat"})  # the same category under another id
    assert task.numbers(other).tolist() == [1]
    with pytest.raises(DataError, match=r"categories that training saw \(cup, hat\); found 'cap' \(id 1\)"):
        task.numbers(labels([[0, 0, 9, 9]], [1], names={1: "cap"}))
    assert fitted(labels([[0, 0, 9, 9], [5, 5, 8, 9]], [7, 0]), ignore=("7",)).ids_ == [0]
    with pytest.raises(DataError, match="training labels: must hold boxes"):
        fitted(labels([], []))


def average_precision(boxes, truths, threshold: float) -> float:
    """COCO's average precision of one class, by its definition."""
    rows = sorted(((score, image, box) for image, box, score in boxes), key=lambda row: -row[0])
    free = {image: list(range(len(own))) for image, own in truths.items()}
    hits = []
    for _, image, box in rows:
        ious = {k: float(overlap(torch.tensor(box), torch.tensor(truths[image][k]))) for k in free.get(image, [])}
        best = max(ious, key=lambda k: ious[k], default=None)
        hit = best is not None and ious[best] >= threshold
        if hit:
            free[image].remove(best)
        hits.append(hit)
    total, right = sum(map(len, truths.values())), np.cumsum(hits)
    recall, precision = right / total, right / np.arange(1, len(hits) + 1)
    return float(np.mean([max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)]))


def test_scores_equal_the_definition_and_what_an_evaluator_says_of_the_written_file(tmp_path: Path):
    rng = np.random.default_rng(0)
    targets, outputs, guesses = [], [], []
    for image in range(6):
        corner = rng.uniform(0, 40, size=(4, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(12, 20, size=(4, 2))], axis=1)
        targets.append(labels(boxes, [3, 3, 8, 3], image=image + 10, names={3: "a", 8: "b"}))
        guess = np.repeat(boxes, 2, axis=0) + rng.normal(0, 1.5, size=(8, 4))
        guesses.append((guess, rng.permutation(8) / 10 + 0.05 + image / 1000, rng.random(8) < 0.2))
    task = fitted(*targets)
    for (guess, scores, wrong), target in zip(guesses, targets, strict=True):
        classes = task.numbers(target).repeat(2) ^ wrong
        order = np.argsort(-scores)
        outputs.append(found(task, np.column_stack([guess, scores, classes])[order].tolist()))
    scores = task.metrics(torch.stack(outputs), task.encode(targets))
    each = {name: [] for name in "ab"}
    for number, name in enumerate("ab"):
        known = {row: one.boxes[task.numbers(one) == number].tolist() for row, one in enumerate(targets)}
        told = [
            (row, box, score)
            for row, out in enumerate(outputs)
            for box, score, own in zip(*(part.tolist() for part in task.found(out)), strict=True)
            if own == number
        ]
        each[name] = [average_precision(told, known, threshold) for threshold in np.linspace(0.5, 0.95, 10)]
        assert scores[f"ap50({name})"] == pytest.approx(each[name][0], abs=1e-6)
        assert scores[f"ap({name})"] == pytest.approx(np.mean(each[name]), abs=1e-6)
    assert scores["ap"] == pytest.approx(np.mean([*each.values()]), abs=1e-6)
    file = coco(
        tmp_path / "i.json",
        [
            (one.image, int(category), [x1, y1, x2 - x1, y2 - y1])
            for one in targets
            for category, (x1, y1, x2, y2) in zip(one.categories, one.boxes.tolist(), strict=True)
        ],
        images=[(one.image, f"{one.image}.jpg") for one in targets],
        categories=((3, "a"), (8, "b")),
    )
    content = json.loads(file.read_text())
    for one in content["annotations"]:
        one |= {"area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0}
    truth = COCO(content)
    (tmp_path / "results.json").write_text(json.dumps(task.results(torch.stack(outputs), [t.image for t in targets])))
    judge = COCOeval_faster(
        truth, truth.loadRes(str(tmp_path / "results.json")), "bbox", print_function=lambda *_: None
    )
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert judge.stats[:2] == pytest.approx([scores["ap"], scores["ap50"]], abs=0.01)  # boxes are rounded


def test_a_crowd_is_neither_missed_nor_wrongly_found():
    target = labels([[0, 0, 9, 9], [20, 0, 60, 40]], [1, 1], crowd=[False, True], names={1: "a"})
    task = fitted(target)
    assert task.counts_ == [1]
    out = found(task, [[25, 5, 35, 15, 0.9, 0], [0, 0, 9, 9, 0.8, 0]])[None]
    scores = task.metrics(out, task.encode([target]))
    assert scores["ap"] == 1 and task.errors(out, task.encode([target])).tolist() == [0]
    nothing = task.constant()[None]
    assert task.metrics(nothing, task.encode([target]))["ap"] == 0
    assert task.errors(nothing, task.encode([target])).tolist() == [1]
    assert any("never found: a" in doubt for doubt in task.doubts(nothing, task.encode([target])))
    with pytest.raises(DataError, match="must hold boxes, to score detection"):
        task.metrics(out, task.encode([labels([], [])]))


def test_what_is_shown_is_where_f1_is_best():
    target = labels([[0, 0, 9, 9], [20, 0, 30, 9]], [1, 1], names={1: "a"})
    task = fitted(target)
    out = found(task, [[0, 0, 9, 9, 0.9, 0], [20, 0, 30, 9, 0.6, 0], [40, 0, 50, 9, 0.5, 0]])[None]
    task.calibrate(out, task.encode([target]))
    assert task.threshold == 0.6
    table = task.decode(out)
    assert table["prediction"].tolist() == ["2 a"] and table["count(a)"].tolist() == [2]
    assert task.readable([target, labels([], [])]) == ["2 a", "nothing"]
    asked = fitted(target, shown=0.55)
    asked.calibrate(out, task.encode([target]))
    assert asked.threshold == 0.55
    with pytest.raises(UsageError, match="task.overlap"):
        DetectOptions("detect", overlap=2.0)


# --- the whole way ----------------------------------------------------------------------------------------------------

QUICK = ["input.size=64", "head.read=[1, -1]", "optim.epochs=2", "run.device=cpu", "task.width=16"]


def cells(root: Path, *, count: int = 8) -> Path:
    """Makes pictures with bright and dark squares in a COCO file a split, categories 0 and 4, ids from 50."""
    rng = np.random.default_rng(0)
    for split, some in (
        ("train", range(count)),
        ("val", range(count, count + 3)),
        ("test", range(count + 3, count + 6)),
    ):
        boxes = []
        for number in some:
            array = rng.normal(110, 6, size=(46, 60))
            for category, value in ((0, 250), (4, 10)) if number % 4 else ():
                x, y, side = (int(v) for v in rng.integers([2, 2, 14], [36, 22, 20]))
                array[y : y + side, x : x + side] = value
                boxes.append((50 + number, category, [x, y, side, side]))
            (root / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{number}.png")
        content = json.loads(
            coco(
                root / f"instances_{split}.json",
                boxes,
                images=[(50 + number, f"images/{number}.png") for number in some],
                categories=((0, "bright"), (4, "dark"), (9, "none")),
            ).read_text()
        )
        for one in content["images"]:
            one |= {"width": 60, "height": 46}
        (root / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def test_from_pictures_with_boxes_to_results_that_evaluators_load(tmp_path: Path, capsys):
    data, out = cells(tmp_path / "data"), tmp_path / "run"
    words = ["--modality", "image", "--task", "detect"]
    status, told, err = run(["check", data, *words], capsys)
    assert status == 0 and told["samples"] == 14, err
    status, told, err = run(["fit", data, *words, "--encoder", "test", "--out", out, *QUICK, "task.copies=2"], capsys)
    assert status == 0, err
    assert {"ap", "ap50", "ap(bright)", "ap50(dark)"} <= told["metrics"]["test"].keys()
    assert len(list((out / "pictures" / "test").glob("*.png"))) == 3
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Image detection" in page and "AP50" in page and not (out / "checkpoints").exists()
    status, scored, err = run(["evaluate", out], capsys)
    assert status == 0 and scored["metrics"] == pytest.approx(told["metrics"]["test"], abs=1e-3), err
    test = data / "instances_test.json"
    status, _, err = run(["predict", out, test, "--out", tmp_path / "p.csv"], capsys)
    assert status == 0, err
    table = pd.read_csv(tmp_path / "p.csv")
    assert list(table.columns) == ["key", "target", "prediction", "count(bright)", "count(dark)"]
    listed = json.loads((tmp_path / "p.json").read_text())
    assert listed == json.loads((out / "boxes" / "test.json").read_text())
    assert {one["image_id"] for one in listed} <= {61, 62, 63} and {one["category_id"] for one in listed} <= {0, 4}
    status, _, err = run(["predict", out, data / "images", "--out", tmp_path / "q.json"], capsys)
    assert status == 0 and not (tmp_path / "q.csv").exists(), err
    assert {one["image_id"] for one in json.loads((tmp_path / "q.json").read_text())} <= set(range(14))
    truth = COCO(str(test))
    truth.loadRes(str(tmp_path / "p.json"))


def test_a_detector_in_python_answers_as_the_command(tmp_path: Path, capsys):
    data = cells(tmp_path / "data", count=4)
    given = dict(setting.split("=") for setting in QUICK if "=" in setting)
    recipe = {key: yaml.safe_load(value) for key, value in given.items() if key.split(".")[0] != "run"}
    epochs = recipe.pop("optim.epochs")
    own = mt.Detector("image", encoder="test", device="cpu", epochs=epochs, recipe=recipe).fit(data)
    assert own.score(data) == pytest.approx(own.metrics_["val"]["ap"] if "test" not in own.metrics_ else
                                            own.metrics_["test"]["ap"], abs=1e-3)  # fmt: skip
    own.save(tmp_path / "model")
    loaded = mt.load(tmp_path / "model", device="cpu")
    assert isinstance(loaded, mt.Detector) and loaded.threshold_ == own.threshold_
    pictures = sorted((data / "images").iterdir())[:3]
    status, _, err = run(["predict", tmp_path / "model", *pictures, "--out", tmp_path / "p.json"], capsys)
    assert status == 0, err
    listed, table = json.loads((tmp_path / "p.json").read_text()), loaded.predict(pictures)
    pd.testing.assert_frame_equal(table, own.predict(pictures))
    assert table["id"].tolist() == [one["category_id"] for one in listed] and set(table["class"]) <= {"bright", "dark"}
    boxes = np.array([one["bbox"] for one in listed])
    np.testing.assert_allclose(table[["x1", "y1"]], boxes[:, :2], atol=0.01)
    np.testing.assert_allclose(table[["x2", "y2"]], boxes[:, :2] + boxes[:, 2:], atol=0.01)


def test_a_killed_run_continues_with_the_same_result(tmp_path: Path, capsys, monkeypatch):
    data, words = cells(tmp_path / "data", count=4), ["--modality", "image", "--task", "detect", "--encoder", "test"]
    status, whole, err = run(["fit", data, *words, "--out", tmp_path / "a", *QUICK], capsys)
    assert status == 0, err
    from metatransformer.fit.boxes import BoxTrainer

    scores, calls = BoxTrainer._scores, []

    def stops(self):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return scores(self)

    monkeypatch.setattr(BoxTrainer, "_scores", stops)
    status, _, _ = run(["fit", data, *words, "--out", tmp_path / "b", *QUICK], capsys)
    assert status != 0 and (tmp_path / "b" / "checkpoints" / "last.pt").is_file()
    monkeypatch.setattr(BoxTrainer, "_scores", scores)
    status, again, err = run(["fit", data, *words, "--out", tmp_path / "b", *QUICK], capsys)
    assert status == 0 and "continuing after epoch 1" in err and "tokens, train:" not in err, err
    assert again["metrics"] == whole["metrics"]


def test_boxes_are_served_as_predict_tells_them(tmp_path: Path, capsys):
    data, words = cells(tmp_path / "data", count=4), ["--modality", "image", "--task", "detect", "--encoder", "test"]
    status, _, err = run(["fit", data, *words, "--out", tmp_path / "run", *QUICK], capsys)
    assert status == 0, err
    picture = data / "images" / "0.png"
    status, _, err = run(["predict", tmp_path / "run", picture, "--out", tmp_path / "p.csv"], capsys)
    assert status == 0, err
    hosted = load_hosted([f"cells={tmp_path / 'run'}"], trunk="", encoder="", device="cpu", console=Console(quiet=True))
    with TestClient(make_app(hosted, limits=Limits(decoders=1))) as client:
        answer = client.post("/predict", files=[("files", (picture.name, picture.read_bytes()))])
    assert answer.status_code == 200, answer.text
    (found,), (expected,) = answer.json()["predictions"], pd.read_csv(tmp_path / "p.csv").to_dict("records")
    assert found["prediction"] == expected["prediction"] and "places" not in found


def test_controls_stand_beside_a_detection(tmp_path: Path, capsys):
    data, words = cells(tmp_path / "data", count=4), ["--modality", "image", "--task", "detect", "--controls"]
    status, told, err = run(["fit", data, *words, "--encoder", "test", "--out", tmp_path / "run", *QUICK], capsys)
    assert status == 0, err
    assert set(told["controls"]) == {"constant", "baseline", "random", "identity"}
    assert told["controls"]["constant"]["ap"] == 0 and told["controls"]["baseline"]["ap50"] > 0.5


def test_a_picture_of_another_size_is_named_by_check_and_fit(tmp_path: Path, capsys):
    data = cells(tmp_path / "data", count=4)
    Image.new("L", (46, 60)).save(data / "images" / "0.png")
    words = ["--modality", "image", "--task", "detect"]
    status, told, _ = run(["check", data, *words], capsys)
    assert status == 2 and "of 46 x 60 pixels, as the picture; found 60 x 46" in told["problems"][0]["problem"]
    status, _, err = run(["fit", data, *words, "--encoder", "test", "--out", tmp_path / "run", *QUICK], capsys)
    assert status == 2 and "may have been turned" in err and not (tmp_path / "run").exists()


def test_settings_that_detection_has_no_use_for_are_refused(tmp_path: Path, capsys):
    data = cells(tmp_path / "data", count=4)
    words = ["fit", data, "--modality", "image", "--task", "detect", "--encoder", "test", "--out", tmp_path / "run"]
    for setting, said in (
        ("--tune=ends", "'tune': must be 'head'"),
        ("head.readout=pooled", "'head.readout': must be 'dense'"),
        ("head.centres=9", "'head.centres': must be 0"),
        ("--minutes=5", "'run.minutes': must be 0"),
        ("task.least=0", "task.least"),
        (
            "task.ignore=[brigt]",
            "'task.ignore': must name classes, or their codes; found 'brigt'. Did you",
        ),
        ("input.mirrored=true", "Set input.mirrored=false"),
    ):
        status, _, err = run([*words, *QUICK, setting], capsys)
        assert status == 2 and said in err, err
    (data / "instances_train.json").write_text("")
    status, _, err = run([*words, *QUICK], capsys)
    assert status == 2 and "instances_train.json: must be a COCO file, in JSON" in err, err
    status, _, err = run(["fit", data, "--modality", "text", "--task", "detect", "--out", tmp_path / "run"], capsys)
    assert status == 2 and re.search("'detect' is of image, infrared, xray", err), err


@pytest.mark.parametrize("modality", ["infrared", "xray"])
def test_other_pictures_are_learned_alike(tmp_path: Path, capsys, modality: str):
    data = cells(tmp_path / "data", count=4)
    words = ["fit", data, "--modality", modality, "--task", "detect", "--encoder", "test", "--out", tmp_path / "run"]
    status, told, err = run([*words, *QUICK], capsys)
    assert status == 0 and "ap" in told["metrics"]["test"], err


def test_a_benchmark_row_has_controls_and_a_plain_baseline(tmp_path: Path):
    data = cells(tmp_path / "data", count=4)
    small = {**dict(setting.split("=") for setting in QUICK[2:]), "input.size": 64}
    row = replace(DATA_SETS["bccd"], folds=lambda root: [list(index(root).records)], sha256="", overrides=small)
    plan = Plan("test", 1, 1, quick=False, overrides=("head.read=[1]",))
    results = Results(tmp_path / "row.jsonl")
    run_row(row, data=data, plan=plan, results=results, console=Console(quiet=True))
    assert [line["variant"] for line in results.lines] == ["pretrained", "identity", "constant", "baseline", "random"]
    assert results.lines[3]["method"] == "forest on local features, regions and peaks"
    found = summarise(results.lines, metrics=row.metrics)
    about = {"name": "bccd", "summary": "", "modality": "image", "metrics": ["ap"], "status": "done", "words": ""}
    about |= {"split": "", "licence": "", "source": "", "published": [], "tested": 3}
    text = markdown({"rows": [about | found], "machine": {}, "command": "", "quick": False, "encoder": "test"})
    assert "random" in text
