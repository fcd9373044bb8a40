"""The report: one file, the numbers beside their controls, a sentence that does not flatter."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from common import make_records, tiny_recipe

from metatransformer.core.errors import DataError
from metatransformer.core.figures import Confusion, Scatter
from metatransformer.core.task import TaskOptions
from metatransformer.fit.fit import fit
from metatransformer.fit.fitted import Fitted
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.report import figures
from metatransformer.report.page import Summary, choose_samples, join_reports, write_report
from metatransformer.report.verdict import compare, independent, is_pretrained, margin, verdict
from metatransformer.tasks.classify import Classify, ClassifyOptions
from metatransformer.tasks.forecast import Forecast
from metatransformer.tasks.multilabel import Multilabel
from metatransformer.tasks.regress import Regress

QUIET = Console(quiet=True)
CONTROLS = {"constant": {"accuracy": 0.5}, "baseline": {"accuracy": 0.9}, "random": {"accuracy": 0.6}}


def fitted_image(overrides: dict[str, object] | None = None) -> Fitted:
    modality = get_modality("image")
    records = make_records(modality, train=11, val=5, test=7)
    awkward = {"a": "one $x$ & <two>", "b": "a very long name of a class, longer than any label"}
    records = [dataclasses.replace(record, target=awkward[record.target]) for record in records]
    return fit(records, tiny_recipe(modality, overrides), console=QUIET)


def fitted_table() -> Fitted:
    modality = get_modality("tabular")
    records = make_records(modality, train=23, val=7, test=5)
    records = [dataclasses.replace(record, target=0.5 * i) for i, record in enumerate(records)]
    given = {"task.name": "regress", "task.target": "price", "optim.epochs": 2}
    return fit(records, tiny_recipe(modality, given), console=QUIET)


def texts(page: str) -> str:
    return re.sub(r"data:image/png;base64,[\w+/=]+", "PICTURE", page)


@pytest.fixture(scope="module")
def image() -> Fitted:
    return fitted_image()


def test_report_of_a_classification_is_one_file_with_everything(image: Fitted, tmp_path: Path) -> None:
    write_report(image, tmp_path / "run" / "report.html", controls=CONTROLS)
    page = texts((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert page.count('src="PICTURE"') == 2 + 7  # curve, confusions, all 7 test samples
    assert "src=" not in page.replace('src="PICTURE"', "") and "http" not in page and "<script" not in page
    assert "one $x$ &amp; &lt;two&gt;" in page and "<two>" not in page
    score = image.metrics["test"]["accuracy"]
    assert f'<div class="number">{score:.3f}</div>' in page
    for text in ("11 train / 5 val / 7 test", "same recipe, random trunk", "0.600", "plain baseline", "encoder: test"):
        assert text in page
    assert f"metatransformer predict {tmp_path / 'run'} new.jpg --out predictions.csv" in re.sub(r"</?span>", "", page)


def test_report_without_controls_says_that_it_has_none(image: Fitted, tmp_path: Path) -> None:
    write_report(image, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Add --controls" in page and "same recipe, random trunk" not in page


def test_report_of_a_regression_has_a_scatter_and_two_curves(tmp_path: Path) -> None:
    write_report(fitted_table(), tmp_path / "report.html", controls={"constant": {"rmse": 3.25, "mae": 2.0, "r2": 0.0}})
    page = texts((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Predicted against true" in page and "Confusions" not in page and "lower is better" in page
    assert "3.250" in page and "price" in page and "the largest errors" in page and "new.csv" in page


def test_report_is_the_same_for_every_name_of_a_trunk_mode(tmp_path: Path) -> None:
    write_report(fitted_image({"tune": "all", "optim.epochs": 1}), tmp_path / "report.html")
    assert "tokenizer, trunk and head learned" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("kept", "words"), [(0, "the untuned model was kept"), (1, "fitted on the tuned features")])
def test_report_says_what_training_through_a_narrow_head_came_to(tmp_path: Path, kept: int, words: str) -> None:
    fitted = fitted_image({"tune": "ends", "optim.epochs": 1})
    fitted.outcome.kept = kept
    write_report(fitted, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "the small linear head that was used during training" in page and words in page


def test_join_reports_holds_both_and_refuses_other_files(image: Fitted, tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_report(image, tmp_path / name / "report.html", controls=CONTROLS)
    summary = Summary("Two <runs>", "lead", ["data", "ours"], [("first", "0.5")], [("first", "helps")], ["note"], "cmd")
    places = [tmp_path / name / "report.html" for name in ("first", "second")]
    join_reports(places, tmp_path / "both.html", summary=summary)
    page = texts((tmp_path / "both.html").read_text(encoding="utf-8"))
    assert page.count("<article>") == 2 and page.count("<html") == 1 and "Two &lt;runs&gt;" in page
    (tmp_path / "other.html").write_text("nothing", encoding="utf-8")
    with pytest.raises(DataError, match="must be a report of a run"):
        join_reports([tmp_path / "other.html"], tmp_path / "both.html", summary=summary)


def test_choose_samples_takes_the_surest_mistakes_first() -> None:
    table = {"prediction": np.array(list("aabbabab")), "confidence": np.linspace(0.5, 0.9, 8)}
    chosen = choose_samples(Classify().cards(table, list("abbababa")))
    # Wrong are the places 1, 3 (b for a), 4, 5, 6 and 7; the last is the surest.
    assert chosen == [(place, place not in (0, 2)) for place in (7, 6, 5, 4, 3, 1, 0, 2)]
    assert choose_samples(Classify().cards(table, list("aabbabab"))) == [(place, False) for place in range(8)]


def test_choose_samples_takes_the_largest_errors_first() -> None:
    table = {"prediction": np.arange(17.0)}
    targets = [float(i) for i in range(17)]
    targets[5], targets[11] = 7.0, 1.0
    chosen = choose_samples(Regress().cards(table, targets))
    assert [place for place, _ in chosen[:2]] == [11, 5] and [marked for _, marked in chosen] == [True] * 6 + [
        False
    ] * 6


def test_margin_by_hand() -> None:
    shares, distances, explained = Classify.scores["accuracy"], Regress.scores["rmse"], Regress.scores["r2"]
    # (0.5 n + 1) / (n + 2) = 0.5 for any n, and 2 sqrt(2 x 0.25 / 98) = 1 / 7.
    assert margin(shares, 0.5, 0.5, samples=98) == pytest.approx(2 / 14)
    # 2 sqrt((9 + 16) / (2 x 50)) = 1.
    assert margin(distances, 3.0, 4.0, samples=50) == pytest.approx(1.0)
    # A mean of squares: 2 sqrt(2 (9 + 16) / 50) = 2.
    assert margin(Forecast.scores["mse"], 3.0, 4.0, samples=50) == pytest.approx(2.0)
    # 1 - R2 is an error as well: 2 sqrt(2 (0.36 + 0.64) / 50) = 0.4.
    assert margin(explained, 0.4, 0.2, samples=50) == pytest.approx(0.4)
    assert margin(Classify.scores["log_loss"], 0.1, 0.2, samples=50) is None
    assert margin(shares, 1.0, 1.0, samples=7) > 0


def test_compare_follows_the_direction_of_the_metric() -> None:
    assert compare(Classify(), 0.9, 0.5, samples=100) == 1
    assert compare(Classify(), 0.90, 0.91, samples=100) == 0
    assert compare(Regress(), 1.0, 9.0, samples=100) == 1
    assert compare(Regress(TaskOptions(metric="r2")), 0.1, 0.8, samples=100) == -1
    assert compare(scored("log_loss"), 0.1, 0.9, samples=100) == 0  # no error is known


def scored(metric: str) -> Classify:
    return Classify(ClassifyOptions(metric=metric))


def test_independent_answers_by_hand() -> None:
    target = torch.tensor([0] * 10 + [1] * 40)
    assert Classify().independent(target) == 50
    assert scored("auroc").independent(target) == 10
    assert scored("balanced_accuracy").independent(target) == 32  # 4 / (1/10 + 1/40)
    assert Regress().independent(torch.zeros(50)) == 50
    labels = torch.tensor([[1.0, 0.0, 1.0]] * 3 + [[0.0, 0.0, torch.nan]] * 20)
    assert Multilabel().independent(labels) == 3
    forecast = Forecast()
    forecast.horizon_ = 24
    assert forecast.independent(torch.zeros(100, 26)) == 4


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ({"random": 0.5, "identity": 0.4, "baseline": 0.6}, "trunk helps; the model beats a plain baseline: accuracy"),
        (
            {"random": 0.9, "identity": 0.9, "baseline": 0.9},
            "these samples show no gain by the frozen pretrained trunk; a plain",
        ),
        ({"random": 0.99, "identity": 0.9}, "does harm: it is clearly worse than a random one"),
        ({"random": 0.5, "identity": 0.9}, "helps against a random one, but not clearly against none at all"),
        ({"baseline": 0.99}, "nothing was run without the frozen pretrained trunk; a plain baseline is better"),
        ({"constant": 0.9}, "the model is not clearly better than a constant answer"),
        ({}, "No controls were run"),
    ],
)
def test_verdict_says_what_the_numbers_say(scores: dict[str, float], text: str) -> None:
    controls = {name: {"accuracy": score} for name, score in scores.items()}
    said = verdict(Classify(), {"accuracy": 0.9}, controls, samples=997, encoder="focus-s14", frozen=True)
    assert text in said


def test_verdict_claims_nothing_for_a_trunk_that_was_never_trained() -> None:
    said = verdict(Classify(), {"accuracy": 0.9}, CONTROLS, samples=97, encoder="random:3:focus-s14", frozen=True)
    assert "says nothing about pretraining" in said
    assert is_pretrained("focus-s14") and not is_pretrained("identity")


@pytest.mark.parametrize("classes", [2, 11, 31, 53])
def test_confusions_of_few_and_many_classes(classes: int) -> None:
    counts = np.eye(classes, dtype=int) * 3
    counts[0, 1] = 2
    picture = figures.picture_of(Confusion(counts, [f"class {i} $" for i in range(classes)]))
    assert picture.address.startswith("data:image/png;base64,iVBOR") and 300 < picture.width < 700


def test_pictures_leave_matplotlib_as_it_was() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    history = [{"epoch": e, "step": e, "train_loss": 1.0 / e, "val_accuracy": 0.5} for e in (1, 2, 3)]
    figures.learning_curves(history, metric="accuracy", words="accuracy", best=0)
    figures.learning_curves(history[:1], metric="accuracy", words="accuracy", best=0)
    figures.picture_of(Scatter(np.ones(3), np.ones(3)))
    assert dict(matplotlib.rcParams) == before


def test_answers_that_err_by_groups_count_less() -> None:
    task = Classify()
    task.fit(["a", "b"])
    target, right = torch.zeros(20, dtype=torch.int64), torch.arange(20) % 4 < 2
    outputs = torch.stack([right.float(), 1 - right.float()], dim=1)
    by_four = [f"person {place % 4}" for place in range(20)]  # two of whom are always right
    # Errors of +-1/2: the sums of groups have squares of 25 in all, times 4 / 3, where single ones have 5.
    assert independent(task, outputs, target, groups=by_four) == round(20 / (100 / 3 / 5))
    assert independent(task, outputs, target, groups=[None] * 20) == 20
    assert independent(task, outputs, target, groups=["one"] * 20) == 1
    even = [f"pair {place // 4}" for place in range(20)]  # as many right in each
    assert independent(task, outputs, target, groups=even) == 20
    assert independent(task, outputs[right], target[right], groups=even[:10]) == 3
