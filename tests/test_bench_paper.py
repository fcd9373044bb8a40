"""The paper's data sets: made folders in the official layouts are read with the official splits."""

import gzip
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from metatransformer.bench.datasets import DATA_SETS
from metatransformer.core.errors import DataError


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def found(name: str, root: Path) -> Counter:
    (fold,) = DATA_SETS[name].folds(root)
    return Counter((str(record.target), record.split) for record in fold)


def test_speech_commands_follow_the_official_lists(tmp_path: Path):
    folder = tmp_path / "speech_commands_v0.02"
    for word in ("yes", "no", "_background_noise_"):
        for number in range(3):
            touch(folder / word / f"{number}.wav")
    (folder / "validation_list.txt").write_text("yes/1.wav\n")
    with pytest.raises(DataError, match="testing_list.txt: must exist, as in the official archive"):
        found("speech-commands", tmp_path)
    (folder / "testing_list.txt").write_text("yes/2.wav\nno/0.wav\n")
    assert found("speech-commands", tmp_path) == {
        ("yes", "train"): 1,
        ("yes", "val"): 1,
        ("yes", "test"): 1,
        ("no", "test"): 1,
        ("no", "train"): 2,
    }


def test_modelnet_and_ucf_have_their_class_above_the_split(tmp_path: Path):
    for number in range(3):
        touch(tmp_path / "ModelNet40" / "bed" / "train" / f"bed_{number}.off")
    touch(tmp_path / "ModelNet40" / "sofa" / "test" / "sofa_9.off")
    assert found("modelnet40", tmp_path) == {("bed", "train"): 3, ("sofa", "test"): 1}
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "trainlist01.txt").write_text("Archery/v_Archery_g08_c01.avi 3\nArchery/v_Archery_g08_c02.avi 3\n")
    (lists / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\n")
    (fold,) = DATA_SETS["ucf101"].folds(tmp_path)
    assert [record.group for record in fold] == [f"Archery/v_Archery_g{group}" for group in ("08", "08", "01")]
    assert [record.split for record in fold] == ["train", "train", "test"]


def test_folders_and_tables_without_a_split_are_cut_by_digest(tmp_path: Path):
    rows = ["age;job;y", *(f"{20 + number};job{number % 3};{['no', 'yes'][number % 2]}" for number in range(97))]
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / "bank-full.csv").write_text("\n".join(rows) + "\n")
    counts = found("bank-marketing", tmp_path)
    share = sum(count for (_, split), count in counts.items() if split == "test") / 97
    assert 0.1 < share < 0.35 and found("bank-marketing", tmp_path) == counts
    rng = np.random.default_rng(0)
    for label in ("Normal", "Tuberculosis"):
        folder = tmp_path / "TB_Chest_Radiography_Database" / label
        folder.mkdir(parents=True)
        for number in range(11):
            Image.fromarray(rng.integers(0, 255, (7, 5), dtype=np.uint8)).save(folder / f"{label}-{number}.png")
    assert sum(found("tuberculosis", tmp_path).values()) == 22


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")  # MRPC begins with a byte order mark


def test_glue_is_read_as_it_is_written(tmp_path: Path):
    write(
        tmp_path / "MRPC" / "train.tsv",
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        '1\t7\t8\t"He said it .\tHe " said " so .',
        "0\t7\t9\ttoo few",
        "0\t7\t9\t\tno first text",
    )
    write(tmp_path / "MRPC" / "dev.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "0\t1\t2\ta b\tc d")
    (fold,) = DATA_SETS["mrpc"].folds(tmp_path)
    assert [(record.target, record.split) for record in fold] == [("1", "train"), ("0", "test")]
    assert fold[0].value == {"#1 String": '"He said it .', "#2 String": 'He " said " so .'}
    write(tmp_path / "QNLI" / "train.tsv", "index\tquestion\tanswer\tlabel", "0\ta\tb\tentailment")
    with pytest.raises(DataError, match="must have the columns question, sentence, label; found no sentence"):
        found("qnli", tmp_path)


@pytest.mark.parametrize("module", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_the_official_split_of_molecules_is_read_without_trusting_it(tmp_path: Path, module: bytes):
    folder = tmp_path / "pcqm4m-v2"
    rows = ["idx,smiles,homolumogap", *(f"{number},{'C' * (number + 1)},{number}.5" for number in range(5)), "5,CO,"]
    (folder / "raw").mkdir(parents=True)
    (folder / "raw" / "data.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    parts = {"train": np.array([0, 2]), "valid": np.array([4]), "test-dev": np.array([5])}
    torch.save(parts, folder / "new.pt")
    with zipfile.ZipFile(folder / "new.pt") as new, zipfile.ZipFile(folder / "split_dict.pt", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.multiarray", module))
    (fold,) = DATA_SETS["pcqm4m-v2"].folds(tmp_path)
    assert [(r.value["smiles"], r.target, r.split) for r in fold] == [
        ("C", 0.5, "train"),
        ("CCC", 2.5, "train"),
        ("CCCCC", 4.5, "test"),
    ]


def test_indian_pines_takes_its_maps_of_training_and_test_pixels(tmp_path: Path):
    rng = np.random.default_rng(0)
    train, test = np.zeros((2, 7, 6), dtype=np.uint8)
    train[1, 1:3], train[4, 2], test[2, 3:6], test[5, 0] = 1, 2, 1, 2
    (tmp_path / "IndianPine").mkdir()
    cube = rng.uniform(1.0, 2.0, (7, 6, 9))
    savemat(tmp_path / "IndianPine" / "IndianPine.mat", {"input": cube, "TR": train, "TE": test})
    counts = found("indian-pines-official", tmp_path)
    assert counts == {("1", "train"): 2, ("2", "train"): 1, ("1", "test"): 3, ("2", "test"): 1}


def test_the_series_are_cut_in_time(tmp_path: Path):
    names = ["date", *"0123456", "OT"]
    days = pd.date_range("1990-01-01", periods=1100, freq="D").strftime("%Y/%-m/%-d 0:00")
    cells = [[f"{0.5 + 0.001 * (row + place):.4f}" for place in range(8)] for row in range(len(days))]
    rows = [",".join([day, *values]) for day, values in zip(days, cells, strict=True)]
    write(tmp_path / "exchange_rate" / "exchange_rate.csv", ",".join(names), *rows)
    (fold,) = DATA_SETS["exchange"].folds(tmp_path)
    # 770 rows to train, 110 to choose, 220 to test; the windows of the latter two look back into the rows before.
    assert Counter(record.split for record in fold) == {
        "train": 8 * (770 - 191),
        "val": 8 * (110 - 95),
        "test": 8 * (220 - 95),
    }


def test_imagenet_scores_on_its_validation_pictures(tmp_path: Path):
    for split, count in (("train", 3), ("val", 2)):
        for number in range(count):
            for label in ("n01", "n02"):
                touch(tmp_path / "imagenet" / split / label / f"{number}.jpg")
    counts = found("imagenet-1k", tmp_path)
    assert counts == {(name, split): n for name in ("n01", "n02") for split, n in (("train", 3), ("test", 2))}
