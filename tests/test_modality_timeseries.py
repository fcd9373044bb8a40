"""Forecasting from end to end: windows, the page of lines, the direct path, the task, files and the estimator."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from common import FIXTURES, SMALL, run, settings_of, words_of

import metatransformer as mt
from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.modality import Stem
from metatransformer.core.samples import Record, View
from metatransformer.fit.closed_form import Basis, fit_probes
from metatransformer.fit.fit import fit
from metatransformer.machine.console import Console
from metatransformer.modalities.timeseries import (
    MODALITY,
    TimeseriesOptions,
    TimeseriesTokenizer,
    TimeseriesTransform,
    draw,
    index,
    load,
)
from metatransformer.modalities.timeseries.forecasts import _picture
from metatransformer.nn.curves import draw_curves
from metatransformer.recipe import make_recipe
from metatransformer.report.controls import run_controls
from metatransformer.tasks.forecast import Forecast, ForecastOptions

FOLDER = FIXTURES / "timeseries"
STEM = Stem()
SHORT = {"input.lookback": 48, "input.horizon": 5}
QUIET = Console(quiet=True)


def options(lookback: int = 48, horizon: int = 5) -> TimeseriesOptions:
    return TimeseriesOptions(lookback=lookback, horizon=horizon)


def windows_of(data: object = FOLDER / "good.csv", *, labelled: bool = True, target: str = "", **settings):
    chosen = TimeseriesOptions(**{"lookback": 48, "horizon": 5, **settings})
    return index(data, target=target, labelled=labelled, header=True, options=chosen).records


def sample_of(record: Record) -> View:
    return View(record.key, load(record))


def waves(rows: int = 400, *, seed: int = 0) -> pd.DataFrame:
    """Returns two series that repeat every 24 rows, one of them noisy."""
    rng = np.random.default_rng(seed)
    hours = np.arange(rows)
    calm = 5 + np.sin(2 * np.pi * hours / 24)
    noisy = 100 + 30 * np.sin(2 * np.pi * hours / 24 + 1) + rng.normal(0, 3, size=rows)
    return pd.DataFrame({"time": pd.date_range("2024-01-01", periods=rows, freq="h"), "calm": calm, "noisy": noisy})


# --- the transform


def test_a_window_becomes_the_lines_of_its_cycles_and_its_numbers():
    records = windows_of()
    transform = TimeseriesTransform(options(), STEM)
    transform.fit(sample_of(record) for record in records if record.split == "train")
    ready = transform(sample_of(records[0])).inputs
    window = records[0].value
    past = window.series.values[:48]
    level, spread = past[-1], np.hypot(past.std(), 0.1 * window.spread)
    assert ready["lines"].shape == (2, 64) and ready["direct"].shape == (49,)
    np.testing.assert_allclose(ready["direct"][:48], (past - level) / spread, rtol=1e-6, atol=1e-6)  # float32
    train = window.series.values[:79]  # 0.7 of 113 rows
    np.testing.assert_allclose(ready["direct"][48], (train.mean() - level) / spread, rtol=1e-5)
    # 64 columns over 24 rows: the ends are the rows' own values.
    np.testing.assert_allclose(ready["lines"][1, -1], (past[-1] - past.mean()) / spread, rtol=1e-5)
    np.testing.assert_allclose(ready["lines"][0, 0], (past[0] - past.mean()) / spread, rtol=1e-5)
    assert transform.notes == ("a look-back is drawn as 2 lines",)


def test_scale_and_level_of_a_series_change_nothing():
    frame = waves()
    other = frame.assign(calm=frame["calm"] * 1000 - 7, noisy=frame["noisy"] * 0.01)
    for one, two in zip(windows_of(frame)[::97], windows_of(other)[::97], strict=True):
        transform = TimeseriesTransform(options(), STEM)
        a, b = transform(sample_of(one)).inputs, transform(sample_of(two)).inputs
        for name in ("lines", "direct"):
            np.testing.assert_allclose(a[name], b[name], atol=1e-4)  # float32 behind a factor of 1000
        encoded = [Forecast() for _ in "ab"]
        for task, record in zip(encoded, (one, two), strict=True):
            task.fit([record.target])
        first, second = (task.encode([r.target]) for task, r in zip(encoded, (one, two), strict=True))
        torch.testing.assert_close(first[:, :-1], second[:, :-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("period", "lookback", "lines"), [(24, 96, 4), (24, 100, 4), (7, 96, 6), ("auto", 72, 3), (1, 50, 4), (40, 48, 4)]
)
def test_long_look_backs_share_lines_and_short_ones_are_quartered(period: int | str, lookback: int, lines: int):
    records = windows_of(waves(), lookback=lookback)
    transform = TimeseriesTransform(TimeseriesOptions(lookback=lookback, horizon=5, period=period), STEM)
    assert len(transform(sample_of(records[0])).inputs["lines"]) == lines


def test_covariates_are_drawn_below_and_their_known_future_is_a_number():
    records = windows_of(FOLDER / "known.csv", known=("plan",))
    transform = TimeseriesTransform(TimeseriesOptions(lookback=48, horizon=5, known=("plan",)), STEM)
    transform.fit(map(sample_of, records))
    ready = transform(sample_of(records[3])).inputs
    assert len(ready["lines"]) == 4 and len(ready["direct"]) == 48 + 48 + 5 + 1
    plan = records[3].value.series.known[:, 0]
    past = plan[3:51]
    np.testing.assert_allclose(ready["direct"][96:101], (plan[51:56] - past[-1]) / past.std(), rtol=1e-4)
    with pytest.raises(DataError, match="must have the covariates of training: plan; found none"):
        transform(sample_of(windows_of(FOLDER / "good.csv")[0]))


def test_covariates_go_by_their_names_and_not_by_their_places():
    frame = waves().assign(heat=lambda f: f["noisy"].cumsum())
    moved = frame[["heat", "time", "noisy", "calm"]]
    transform = TimeseriesTransform(options(), STEM)
    transform.fit(map(sample_of, windows_of(frame, target="calm")[:7]))
    again = TimeseriesTransform(options(), STEM)
    again.load_state(transform.state())
    for one, two in zip(windows_of(frame, target="calm")[::97], windows_of(moved, target="calm")[::97], strict=True):
        for name in ("lines", "direct"):
            np.testing.assert_array_equal(transform(sample_of(one)).inputs[name], again(sample_of(two)).inputs[name])
    other = windows_of(frame.rename(columns={"heat": "cold"}), target="calm")[0]
    with pytest.raises(
        DataError, match="series 'calm': must have the covariates of training: noisy, heat; found noisy, c"
    ):
        again(sample_of(other))


def test_other_steps_and_still_series_are_refused():
    transform = TimeseriesTransform(options(), STEM)
    transform.fit(map(sample_of, windows_of(waves())[:7]))
    rare = waves().assign(time=pd.date_range("2024-01-01", periods=400, freq="2h"))
    with pytest.raises(DataError, match="must fill 2 lines, .*; found 4: its step .* input.period when fitting"):
        transform(sample_of(windows_of(rare)[0]))
    still = windows_of(waves().assign(calm=3.0), target="calm")
    with pytest.raises(DataError, match="must change over time in its training rows; found the same value"):
        TimeseriesTransform(options(), STEM).fit(map(sample_of, still))


@pytest.mark.parametrize("rows", [(0.9, 0.2, 0.2), (0.7, 0.15, 30)])
def test_shares_of_rows_are_at_most_all(rows: tuple[float, ...]):
    with pytest.raises(UsageError, match="input.rows: must be shares with a sum of at most 1, or whole numbers"):
        TimeseriesOptions(rows=rows)
    assert TimeseriesOptions(rows=(700, 150, 150)).rows == (700, 150, 150)


@pytest.mark.parametrize("freq", ["h", "ME"])
def test_a_forecast_is_drawn_with_its_dates(freq: str):
    frame = waves().assign(time=pd.date_range("1990-01-01", periods=400, freq=freq))
    window = windows_of(frame, target="calm", labelled=False, period=24)[0].value
    (axes,) = _picture(window, np.zeros(5)).axes
    assert axes.get_title(loc="left") == f"calm, from {window.times[0]}" and axes.get_ylabel() == "calm"
    dates = axes.xaxis.get_major_formatter()
    said = [*dates.format_ticks(axes.get_xticks()), dates.get_offset()]
    assert any(str(window.times[0].year) in text for text in said)


def test_a_flat_look_back_stays_finite():
    frame = waves().assign(calm=3.0)
    for record in windows_of(frame, target="calm")[:3]:
        ready = TimeseriesTransform(options(), STEM)(sample_of(record)).inputs
        assert np.abs(ready["lines"][:2]).max() == 0 and np.isfinite(ready["direct"]).all()


@pytest.mark.parametrize(
    "wrong",
    [{"lookback": 3}, {"horizon": 0}, {"rows": (0.5, 0.5)}, {"rows": (0, 0.5, 0.5)}]
    + [{"windows": (0, 1, 1)}, {"period": 0}],
)
def test_options_are_checked(wrong: dict):
    (name,) = wrong
    with pytest.raises(UsageError, match=f"input.{name}: must"):
        TimeseriesOptions(**wrong)


# --- tokens


def test_the_page_is_cut_line_by_line_and_the_window_goes_beside():
    records = windows_of()
    transform = TimeseriesTransform(options(), STEM)
    transform.fit(map(sample_of, records))
    tokenizer = TimeseriesTokenizer(options(), transform, 32, STEM)
    inputs = {
        name: torch.from_numpy(np.stack([transform(sample_of(record)).inputs[name] for record in records[:3]]))
        for name in ("lines", "direct")
    }
    tokens = tokenizer(inputs, {})
    assert tokens.x.shape == (3, 1 + 2 * 4, 32) and tokens.spans[0].grid == (2, 4)
    assert tokenizer.direct == 49 and torch.equal(tokens.direct, inputs["direct"])
    picture = draw_curves(inputs["lines"].transpose(1, 2), bands=((0,), (1,)), height=16)[:, :1]
    patch = picture[1, 0, 16:32, 16:32]  # the second line's second quarter
    expected = (tokenizer.patches.weight[:, 0] * patch).sum(dim=(1, 2)) + tokenizer.patches.bias
    positions = tokenizer.positions(torch.ones(1, 2, 4, dtype=torch.bool))[0, 1, 1]
    torch.testing.assert_close(tokens.x[1, 1 + 5], expected + positions, atol=1e-5, rtol=1e-5)


# --- the task


def test_scores_are_of_standardised_values():
    records = windows_of()
    task = Forecast()
    task.fit([record.target for record in records])
    target = task.encode([record.target for record in records])
    outputs = torch.randn(len(records), 5, generator=torch.Generator().manual_seed(0))
    scores = task.metrics(outputs, target)
    errors, own = [], []
    for record, out in zip(records, outputs.double().numpy(), strict=True):
        level, spread = record.value.scale
        error = level + spread * out - record.target.values
        own.append(error)
        errors.append(error / record.value.spread)
    assert scores["mse"] == pytest.approx(np.mean(np.square(errors)), rel=1e-5)  # targets are float32
    assert scores["mae"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-5)
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(own))), rel=1e-5)
    np.testing.assert_allclose(task.errors_by_step(outputs, target).mean(), scores["mse"])
    repeated = np.mean([np.square(r.target.values - r.value.scale[0]) / r.value.spread**2 for r in records])
    constant = task.constant().expand(len(records), -1)
    assert task.metrics(constant, target)["mse"] == pytest.approx(repeated, rel=1e-5)
    assert task.outputs == 5 and not task.is_better(1.0, 0.5)


def test_windows_count_by_their_spread():
    records = windows_of()
    task = Forecast()
    task.fit([record.target for record in records])
    target = task.encode([record.target for record in records])
    spreads = np.array([record.value.scale[1] / record.value.spread for record in records])
    np.testing.assert_allclose(task.importance(target), spreads / spreads.mean(), rtol=1e-5)
    outputs = torch.randn(len(records), 5, generator=torch.Generator().manual_seed(2))
    squares = (outputs - target[:, :5]).square().mean(dim=1).double().numpy()
    assert float(task.loss(outputs, target)) == pytest.approx((spreads * squares).mean(), rel=1e-5)


def test_targets_that_are_no_future_are_refused():
    with pytest.raises(DataError, match="must be the future of a series.*found 'a'.*sample=file"):
        Forecast().fit(["a", "b"])
    with pytest.raises(UsageError, match="must be a score of 'forecast'"):
        Forecast(ForecastOptions(metric="accuracy"))
    task = Forecast()
    task.fit([windows_of()[0].target])
    with pytest.raises(DataError, match="must be 5 steps long; found 7 steps"):
        task.encode([windows_of(horizon=7)[0].target])


def test_direct_features_are_penalised_less():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(211, 5, generator=generator)
    target = torch.cat([x @ torch.randn(5, 3, generator=generator), torch.ones(211, 2)], dim=1)
    task = Forecast()
    task.load_state({"horizon": 3})
    (plain,) = fit_probes(task, features=x, target=target, l2=[0.5], solver="squares")
    basis = Basis.of(x, direct=2, weight_of_direct=7.0)
    (some,) = fit_probes(task, features=x, target=target, l2=[0.5], solver="squares", basis=basis)
    # By hand: ridge with the penalty of the last two columns divided by 49.
    z = ((x - x.mean(dim=0)) / x.std(dim=0, correction=0)).double()
    goal = target[:, :3].double()
    penalty = torch.tensor([1.0, 1, 1, 1 / 49, 1 / 49]).double() * 0.5 * 211 * 3 / 2
    weight = torch.linalg.solve(z.T @ z + torch.diag(penalty), z.T @ (goal - goal.mean(dim=0)))
    expected = z @ weight + goal.mean(dim=0)
    torch.testing.assert_close(some.outputs(x).double(), expected, atol=1e-4, rtol=1e-4)  # float32 weights
    assert not torch.allclose(plain.outputs(x), some.outputs(x), atol=1e-2)


# --- from end to end


def tiny(**more):
    settings = {**SMALL, **SHORT, "task.name": "forecast", **more}
    return make_recipe("timeseries", base={}, overrides=settings)


def test_a_series_that_repeats_is_continued_and_controls_keep_the_direct_path():
    records = windows_of(waves(), target="calm")
    fitted = fit(records, tiny(**{"task.target": "calm"}), console=QUIET)
    # A sine is a linear function of two of its values; what is left is the penalty's doing.
    assert fitted.metrics["test"]["mse"] < 1e-3
    controls = run_controls(fitted, ("constant", "baseline", "identity"), split="test", console=QUIET)
    assert controls["constant"]["mse"] > 0.1
    assert controls["baseline"]["mse"] < 1e-3 and controls["identity"]["mse"] < 1e-3


@pytest.mark.parametrize("tune", ["head", "ends"])
def test_the_command_line_writes_what_comes_next(tmp_path: Path, capsys, tune: str):
    settings = {key: value for key, value in SMALL.items() if key not in ("encoder", "task.name")} | SHORT
    words = ["fit", FOLDER / "good.csv", "--modality", "timeseries", "--encoder", "test", "--out", tmp_path / "run"]
    words += ["--tune", tune, "--target", "load", *(["--epochs", 2] if tune == "ends" else [])]
    status, result, err = run([*words, *words_of(settings)], capsys)
    assert status == 0, err
    assert result["metrics"]["test"].keys() == {"mse", "mae", "rmse"} and "windows in order of time" in err
    assert "Error by step ahead" in (tmp_path / "run" / "report.html").read_text()
    stored = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert list(stored.columns) == ["split", "series", "timestamp", "step", "prediction", "target"]
    status, scored, err = run(["evaluate", tmp_path / "run", FOLDER / "good.csv"], capsys)
    assert status == 0 and scored["metrics"]["mse"] == pytest.approx(result["metrics"]["test"]["mse"], rel=1e-6), err
    table = pd.read_csv(FOLDER / "good.csv")
    status, result, err = run(["predict", tmp_path / "run", FOLDER / "good.csv", "--out", tmp_path / "f.csv"], capsys)
    assert status == 0, err
    made = pd.read_csv(tmp_path / "f.csv")
    assert list(made.columns) == ["series", "timestamp", "prediction"] and set(made["series"]) == {"load"}
    assert list(made["timestamp"]) == [f"2024-03-08 {hour}:00:00" for hour in range(17, 22)]
    assert made["prediction"].between(table["load"].min() - 10, table["load"].max() + 10).all()
    assert len(result["pictures"]) == 1 and Path(result["pictures"][0]).read_bytes()[:4] == b"\x89PNG"


def test_the_estimator_forecasts_saves_and_scores(tmp_path: Path):
    frame = waves(150)
    settings = settings_of("timeseries", {"input.sample": "window"})
    forecaster = mt.Forecaster(horizon=7, lookback=48, encoder="test", precision="float32", recipe=settings)
    made = forecaster.fit(frame).predict(frame)
    assert list(made.columns) == ["series", "timestamp", "prediction"] and len(made) == 14
    assert made["timestamp"][0] == pd.Timestamp("2024-01-07 06:00")
    ahead = waves(157)
    np.testing.assert_allclose(made["prediction"][:7], ahead["calm"][150:], atol=0.2)  # the wave goes from 4 to 6
    assert -0.3 < forecaster.score(frame) < 0
    forecaster.save(tmp_path / "model")
    again = mt.load(tmp_path / "model")
    assert (again.horizon, again.lookback) == (7, 48)
    pd.testing.assert_frame_equal(again.predict(frame), made)
    short = frame.iloc[-48:]
    np.testing.assert_allclose(again.predict(short)["prediction"], made["prediction"], rtol=2e-2)
    with pytest.raises(UsageError, match="'input.horizon': must be given as the argument horizon"):
        mt.Forecaster(recipe={"input": {"horizon": 3}}).fit(frame)


def test_arrays_have_steps_instead_of_times():
    settings = settings_of("timeseries", {"input.sample": "window", "input.period": 24})
    forecaster = mt.Forecaster(horizon=3, lookback=48, encoder="test", precision="float32", recipe=settings)
    values = waves(150)[["calm", "noisy"]].to_numpy()
    made = forecaster.fit(values).predict(values)
    assert list(made["series"]) == ["series_1"] * 3 + ["series_2"] * 3
    assert list(made["timestamp"]) == [150, 151, 152] * 2


def test_labels_need_whole_files_and_say_so(tmp_path: Path, capsys):
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "one.csv").write_bytes((FOLDER / "good.csv").read_bytes())
    words = ["fit", tmp_path / "data", "--modality", "timeseries", "--encoder", "test", "--out", tmp_path / "run"]
    status, _, err = run([*words, "--task", "classify"], capsys)
    assert status == 2 and "set --task classify input.sample=file" in err
    words[1] = FOLDER / "good.csv"
    status, _, err = run([*words, "--task", "classify", *words_of(SHORT)], capsys)
    assert status == 2 and "must have a word or a number as its class; found a Future" in err


def test_a_plan_for_the_future_is_used(tmp_path: Path, capsys):
    rng = np.random.default_rng(0)
    plan = rng.normal(size=307)
    load = 3 * plan + rng.normal(0, 0.01, size=307)
    frame = pd.DataFrame({"ds": pd.date_range("2024-01-01", periods=307, freq="h"), "load": load, "plan": plan})
    frame.loc[300:, "load"] = np.nan
    frame.to_csv(tmp_path / "known.csv", index=False)
    settings = {key: value for key, value in SMALL.items() if key not in ("encoder", "task.name")} | SHORT
    words = ["fit", tmp_path / "known.csv", "--modality", "timeseries", "--encoder", "test", "--target", "load"]
    words += ["--out", tmp_path / "run", *words_of(settings | {"input.known": ["plan"], "head.direct": 100.0})]
    status, result, err = run(words, capsys)
    assert status == 0 and result["metrics"]["test"]["mse"] < 0.05, err  # noise without the plan: 1
    status, _, err = run(["predict", tmp_path / "run", tmp_path / "known.csv", "--out", tmp_path / "f.csv"], capsys)
    assert status == 0, err
    made = pd.read_csv(tmp_path / "f.csv")["prediction"]
    assert np.corrcoef(made, load[300:305])[0, 1] > 0.95


def test_the_picture_has_a_line_a_cycle():
    class Axes:
        def __init__(self):
            self.lines = []

        def plot(self, line, **_):
            self.lines.append(line)

        def set_yticks(self, ticks):
            assert ticks == []

        def set(self, **labels):
            assert labels["xlabel"] == "one cycle"

    axes = Axes()
    draw(axes, TimeseriesTransform(options(), STEM)(sample_of(windows_of()[0])))
    assert len(axes.lines) == 2 and MODALITY.task == "forecast"
