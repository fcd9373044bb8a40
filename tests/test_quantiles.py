"""Quantiles of forecasts: by hand, by scikit-learn, and in tables, pictures and pages."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from common import run, words_of
from sklearn.metrics import mean_pinball_loss

from metatransformer.core.errors import UsageError
from metatransformer.fit.fitted import Fitted
from metatransformer.recipe import make_recipe
from metatransformer.report.controls import scores_beside
from metatransformer.tasks.forecast import Forecast, ForecastOptions

LEVELS = (0.1, 0.5, 0.9)


def calibrated(windows: int) -> tuple[Forecast, torch.Tensor, torch.Tensor]:
    """Returns a task with known quantiles, and outputs and targets of three steps that it has not seen."""
    task, rng = Forecast(ForecastOptions(name="forecast", quantiles=LEVELS)), torch.Generator().manual_seed(0)
    task.horizon_ = 3
    spread = torch.rand(windows + 7, 2, generator=rng) + 0.5
    outputs = torch.randn(windows + 7, 3, generator=rng)
    goal = outputs + torch.randn(windows + 7, 3, generator=rng) * torch.tensor([1.0, 2.0, 4.0])
    target = torch.cat([goal, spread], dim=1)
    task.calibrate(outputs[:windows], target[:windows])
    return task, outputs[windows:], target[windows:]


def test_offsets_are_quantiles_of_what_was_missing_and_never_cross():
    task, outputs, target = calibrated(101)
    goal = torch.cat([target[:, :3]])
    assert task.offsets_.shape == (3, 3) and (task.offsets_.diff(dim=0) > 0).all()
    table = task.decode(outputs)
    assert list(table) == ["prediction", "quantile_0.1", "quantile_0.5", "quantile_0.9"]
    low, high = (np.stack(list(table[name])) for name in ("quantile_0.1", "quantile_0.9"))
    assert (low < high).all()
    scores = task.metrics(outputs, target)
    inside = (low <= goal.numpy()) & (goal.numpy() <= high)
    assert scores["coverage"] == pytest.approx(inside.mean())


def test_the_pinball_loss_is_scikit_learns():
    task, outputs, target = calibrated(101)
    table, unit = task.decode(outputs), target[:, -2:-1].double().numpy()
    losses = [
        mean_pinball_loss(
            target[:, :3].double().numpy() * unit, np.stack(list(table[f"quantile_{q:g}"])) * unit, alpha=q
        )
        for q in LEVELS
    ]
    assert task.metrics(outputs, target)["pinball"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_another_model_has_quantiles_of_its_own():
    task, outputs, target = calibrated(4001)
    rng = torch.Generator().manual_seed(1)
    known = {"val": task.goal(target), "test": task.goal(target)}
    known = {split: goal + 50 + torch.randn(goal.shape, generator=rng) for split, goal in known.items()}
    loaders = {split: SimpleNamespace(target=target) for split in known}
    fitted: Any = object.__new__(Fitted)
    fitted.pipeline, fitted.loaders = SimpleNamespace(task=task), loaders
    before = task.offsets_.clone()
    scores, answers = scores_beside(fitted, known.__getitem__, split="test")
    assert answers is known["test"] and torch.equal(task.offsets_, before)
    assert scores["coverage"] > 0.5 > task.metrics(known["test"], target)["coverage"] == 0


def test_a_saved_task_keeps_them_and_few_windows_are_told():
    task, outputs, target = calibrated(101)
    other = Forecast(ForecastOptions(name="forecast", quantiles=LEVELS))
    other.load_state(task.state())
    assert other.metrics(outputs, target) == pytest.approx(task.metrics(outputs, target))
    assert not task.doubts(outputs, target)
    few, outputs, target = calibrated(9)
    assert few.doubts(outputs, target) == [
        "quantiles rest on 9 validation windows; 10 are the fewest that can tell them"
    ]
    plain = Forecast()
    plain.load_state({"horizon": 3})  # of an older revision
    assert list(plain.decode(outputs)) == ["prediction"] and "pinball" not in plain.metrics(outputs, target)


@pytest.mark.parametrize(
    ("given", "message"),
    [([0.5, 0.1], "'task.quantiles': must rise"), ([0.0, 0.5], "'task.quantiles': must lie between 0 and 1")],
)
def test_what_is_wrong_is_said(given: list[float], message: str):
    with pytest.raises(UsageError, match=message):
        make_recipe("timeseries", overrides={"task.quantiles": given})


def test_tables_pictures_and_the_page_have_them(tmp_path: Path, capsys):
    rng, rows = np.random.default_rng(0), 400
    load = 5 + np.sin(np.arange(rows) * 2 * np.pi / 24) + rng.normal(0, 0.3, size=rows)
    times = pd.date_range("2024-01-01", periods=rows, freq="h")
    pd.DataFrame({"time": times, "load": load}).to_csv(tmp_path / "load.csv", index=False)
    words = ["fit", tmp_path / "load.csv", "--modality", "timeseries", "--encoder", "test", "--out", tmp_path / "run"]
    settings = {"head.read": [-1], "run.device": "cpu", "input.horizon": 6, "input.lookback": 48}
    words += ["--target", "load", "task.quantiles=[0.1,0.5,0.9]", *words_of(settings)]
    status, result, err = run(words, capsys)
    assert status == 0, err
    scores = result["metrics"]["test"]
    assert 0.5 < scores["coverage"] <= 1 and scores["pinball"] > 0
    stored = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    names = ["quantile_0.1", "quantile_0.5", "quantile_0.9"]
    assert list(stored.columns)[-5:] == ["prediction", *names, "target"]
    test = stored[stored["split"] == "test"]
    inside = test["target"].between(test["quantile_0.1"], test["quantile_0.9"])
    assert inside.mean() == pytest.approx(scores["coverage"])
    page = re.sub(r"</?\w[^>]*>", "", (tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert "true values below it" in page
    status, result, err = run(["predict", tmp_path / "run", tmp_path / "load.csv", "--out", tmp_path / "f.csv"], capsys)
    assert status == 0, err
    made = pd.read_csv(tmp_path / "f.csv")
    assert list(made.columns) == ["series", "timestamp", "prediction", *names] and len(result["pictures"]) == 1
    assert (made["quantile_0.1"] < made["quantile_0.9"]).all()
