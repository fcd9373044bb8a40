"""The demo on the tests' trunk with few samples: its files, its table, and that it continues."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits

from metatransformer.core.errors import UsageError
from metatransformer.faces import demo
from metatransformer.machine.console import Console
from metatransformer.report import page as report

QUIET = Console(quiet=True)
DIGITS, CANCER = demo.PLANS
PLANS = (
    dataclasses.replace(DIGITS, counts=(53, 23, 29), overrides={"input.size": 8}),
    dataclasses.replace(CANCER, counts=(41, 19, 31), overrides={"optim.epochs": 1, "data.batch_size": 16}),
)


@pytest.fixture(scope="module", autouse=True)
def few_pictures() -> Iterator[None]:
    """Paints 2 samples a report instead of 12: painting is what takes the time here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "SAMPLES", 2)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, demo.run_demo(out, encoder="test", console=QUIET, plans=PLANS)


def test_demo_leaves_data_models_predictions_and_one_report(done: tuple[Path, dict[str, Any]]) -> None:
    out, result = done
    for name in ("digits", "breast_cancer"):
        assert (out / name / "model" / "model.json").is_file()
        assert (out / name / "predictions.parquet").is_file()
        scores = result["results"][name]
        assert set(scores["controls"]) == {"constant", "baseline", "random", "identity"}
        assert 0 <= scores["metrics"]["test"]["accuracy"] <= 1 and scores["trainable"] > 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<article>") == 2 and "105 of 1,797 digits" in page and "91 of 569 patients, 1 epochs" in page
    assert result["report"] == str(out / "report.html")
    assert not list((out / "data").glob(".*"))


def test_demo_again_gives_the_same_without_work(
    done: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, result = done
    monkeypatch.setattr(demo, "fit", None)
    assert demo.run_demo(out, encoder="test", console=QUIET, plans=PLANS) == result


def test_demo_continues_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, plans = tmp_path / "out", PLANS[:1]
    run_controls = demo.run_controls

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run_controls", stopped)
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(out, encoder="test", console=QUIET, plans=plans)
    monkeypatch.setattr(demo, "run_controls", run_controls)
    result = demo.run_demo(out, encoder="test", console=QUIET, plans=plans)
    assert set(result["results"]) == {"digits"} and (out / "report.html").is_file()


def test_demo_refuses_foreign_files_and_another_encoder(done: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="must be a new or empty folder; found other files in it"):
        demo.run_demo(tmp_path, encoder="test", console=QUIET, plans=PLANS)
    with pytest.raises(UsageError, match="must be a new or empty folder; found a file"):
        demo.run_demo(tmp_path / "mine.txt", encoder="test", console=QUIET, plans=PLANS)
    with pytest.raises(UsageError, match="must hold a demo with the encoder 'identity'; found one with 'test'"):
        demo.run_demo(done[0], encoder="identity", console=QUIET, plans=PLANS)


def test_digits_are_the_published_pixels_in_disjoint_splits(tmp_path: Path) -> None:
    demo.write_digits(tmp_path, (31, 13, 17))
    files = sorted(tmp_path.glob("*/*/*.png"))
    assert [len(list(tmp_path.glob(f"{s}/*/*.png"))) for s in ("train", "val", "test")] == [31, 13, 17]
    assert len({file.stem for file in files}) == 61
    digits = load_digits()
    for file in files[::7]:
        place = int(file.stem)
        assert int(file.parent.name) == digits.target[place]
        # 16 levels on 255 grey values: exact to half a grey value.
        np.testing.assert_allclose(np.asarray(Image.open(file)), digits.images[place] * 255 / 16, atol=0.5)


def test_breast_cancer_is_the_whole_published_table(tmp_path: Path) -> None:
    demo.write_breast_cancer(tmp_path / "data", CANCER.counts)
    parts = [pd.read_csv(tmp_path / "data" / f"{split}.csv") for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == list(CANCER.counts) and sum(CANCER.counts) == 569
    table = pd.concat(parts)
    assert table["diagnosis"].value_counts().to_dict() == {"benign": 357, "malignant": 212}
    # The sum of a column does not depend on the order of the rows; CSV keeps every digit.
    assert table["mean radius"].sum() == pytest.approx(load_breast_cancer().data[:, 0].sum(), rel=1e-12)
