"""The paper's data sets: made folders in the official layouts are read with the official splits."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def test_imagenet_scores_on_its_validation_pictures(tmp_path: Path):
    for split, count in (("train", 3), ("val", 2)):
        for number in range(count):
            for label in ("n01", "n02"):
                touch(tmp_path / "imagenet" / split / label / f"{number}.jpg")
    counts = found("imagenet-1k", tmp_path)
    assert counts == {(name, split): n for name in ("n01", "n02") for split, n in (("train", 3), ("test", 2))}
