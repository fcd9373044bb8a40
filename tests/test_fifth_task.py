"""A task of somebody else's package: one module and one entry point, and everything works with it."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from common import run, words_of
from sklearn.base import clone

import metatransformer as mt
from metatransformer.tasks import get_task, known_score, task_names

COUNTS = '''"""Counts: how often something happens, by the likelihood of Poisson."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from metatransformer.core.errors import DataError
from metatransformer.core.figures import Cards, Lines, Rows, Scatter, Section
from metatransformer.core.task import Score, Task, TaskOptions


@dataclass(frozen=True)
class CountsOptions(TaskOptions):
    whole: bool = False


class Counts(Task):
    name = "counts"
    title = "counts"
    scores = {"deviance": Score(higher=False), "mae": Score(higher=False, error="distance", words="MAE")}
    options = CountsOptions
    constant_words = "mean rate"
    estimator = "Regressor"

    def __init__(self, options=None):
        super().__init__(options)
        self.whole = options is not None and options.whole
        self.rate_ = 1.0

    def check(self, target):
        if not (isinstance(target, int | float) and target >= 0 and target == int(target)):
            raise DataError("counts", must="be whole numbers from 0", found=repr(target))

    def fit(self, targets):
        self.rate_ = float(np.mean(targets))

    @property
    def outputs(self):
        return 1

    def encode(self, targets):
        return torch.tensor([float(target) for target in targets])

    def goal(self, target):
        return (target + 0.5).log()[:, None]

    def loss(self, outputs, target):
        return F.poisson_nll_loss(outputs[:, 0], target)

    def constant(self):
        return torch.tensor([self.rate_]).log()

    def metrics(self, outputs, target):
        rate, y = outputs[:, 0].double().exp(), target.double()
        deviance = 2 * (torch.xlogy(y, y / rate) - y + rate).mean()
        return {"deviance": float(deviance), "mae": float((rate - y).abs().mean())}

    def decode(self, outputs):
        rate = outputs[:, 0].double().exp().numpy()
        return {"prediction": rate.round() if self.whole else rate}

    def figures(self, outputs, target):
        rate, y = self.decode(outputs)["prediction"], target.numpy()
        course = Lines({"mean": np.array([rate[y == n].mean() for n in np.unique(y)])}, across="place", up="mean rate")
        rows = Rows(("count", "samples", "share"), [("0", int((y == 0).sum()), float((y == 0).mean()))])
        return (Section("Rates", (Scatter(y, rate), rows, "In words.")), Section("Course", (course,)))

    def cards(self, table, targets):
        rates = table["prediction"]
        off = np.abs(rates - np.array(targets))
        return Cards([f"{rate:.1f}" for rate in rates], [str(n) for n in targets], off, worst="the farthest")

    def state(self):
        return {"rate": self.rate_}

    def load_state(self, state):
        self.rate_ = float(state["rate"])


TASK = Counts
'''
SMALL = {"head.read": [-1], "run.device": "cpu", "run.precision": "float32", "optim.lr": 1e-2}


@pytest.fixture
def counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Installs a package with one task in a folder of its own, and returns its module."""
    module = tmp_path / "site" / "their_counts.py"
    about = module.parent / "their_counts-1.0.dist-info"
    about.mkdir(parents=True)
    module.write_text(COUNTS, encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-counts\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text("[metatransformer.tasks]\ncounts = their_counts\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(module.parent))
    importlib.invalidate_caches()
    yield module
    sys.modules.pop("their_counts", None)


def visits(rows: int) -> pd.DataFrame:
    """Returns a table of counts whose rate grows with a number and with a word."""
    rng = np.random.default_rng(0)
    hours, place = rng.uniform(0, 2, size=rows).round(3), rng.integers(0, 2, size=rows)
    rates = np.exp(hours + place)
    return pd.DataFrame({"hours": hours, "place": np.array(["inn", "port"])[place], "visits": rng.poisson(rates)})


@pytest.mark.parametrize("tune", ["head", "ends"])
def test_the_command_line_learns_scores_and_predicts_it(counts: Path, tmp_path: Path, capsys, tune: str):
    table, out = tmp_path / "visits.csv", tmp_path / "run"
    visits(97).to_csv(table, index=False)
    words = ["fit", table, "--modality", "tabular", "--encoder", "test", "--out", out, "--target", "visits"]
    words += ["--task", "counts", "--tune", tune, "--controls", *(["--epochs", 30] if tune == "ends" else [])]
    status, result, err = run([*words, *words_of(SMALL)], capsys)
    assert status == 0, err
    assert "counts" in task_names() and "mean rate" in err
    controls = {name: scores["deviance"] for name, scores in result["controls"].items()}
    assert result["metrics"]["test"]["deviance"] < controls["constant"] / 2
    assert controls["baseline"] < controls["constant"] and {"random", "identity"} < controls.keys()
    page = re.sub(r"</?\w[^>]*>", "", (out / "report.html").read_text(encoding="utf-8"))
    for text in ("Tabular counts", "Rates", "Course", "In words.", "mean rate", "From the test split: the farthest"):
        assert text in page
    status, scored, err = run(["evaluate", out, table], capsys)
    assert status == 0 and scored["metrics"].keys() == {"deviance", "mae"}, err
    status, _, err = run(["predict", out, table, "--out", tmp_path / "rates.csv"], capsys)
    assert status == 0, err
    rates = pd.read_csv(tmp_path / "rates.csv")["prediction"]
    loaded = mt.load(out)
    assert isinstance(loaded, mt.Regressor) and loaded.task == "counts"
    np.testing.assert_allclose(loaded.predict(table), rates, rtol=1e-6)


def test_an_estimator_learns_saves_and_loads_it(counts: Path, tmp_path: Path):
    frame = visits(61)
    given = {**SMALL, "task.whole": True}
    settings = {key: value for key, value in given.items() if not key.startswith("run.")}
    model = mt.Regressor("tabular", encoder="test", task="counts", metric="mae", epochs=5, recipe=settings)
    model = clone(model).fit(frame.drop(columns="visits"), frame["visits"])
    rates = model.predict(frame.drop(columns="visits"))
    assert (rates == rates.round()).all() and model.metrics_["val"].keys() == {"deviance", "mae"}
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(mt.load(tmp_path / "model").predict(frame.drop(columns="visits")), rates)
    with pytest.raises(mt.UsageError, match="task: must be learned by a Classifier; found 'counts', which Regressor"):
        mt.Classifier("tabular", task="counts").fit(frame.drop(columns="visits"), frame["visits"])
    with pytest.raises(mt.UsageError, match="must be learned by a Regressor; found 'multilabel', which no estimator"):
        mt.Regressor("tabular", task="multilabel").fit(frame.drop(columns="visits"), frame["visits"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["task.hole=true"], r"recipe key 'task.hole': must be a setting; .* Did you mean 'task.whole'\?"),
        (["task.metric=rmse"], "task.metric: must be a score of 'counts'; found rmse. .*Valid: deviance, mae"),
        (["--task", "count"], r"task: must be a known one; found 'count'. Did you mean 'counts'\?"),
        (["--task", "classify", "task.whole=true"], "recipe key 'task.whole': must be a setting"),
        ([], r"visits.csv, row 1 \(counted from 0\): target: must be whole numbers from 0; found -1"),
    ],
)
def test_what_is_wrong_is_said(counts: Path, tmp_path: Path, capsys, more: list[str], message: str):
    (tmp_path / "visits.csv").write_text("hours,visits\n1.5,2\n2.5,-1\n" + "3.5,4\n" * 30, encoding="utf-8")
    words = ["fit", tmp_path / "visits.csv", "--modality", "tabular", "--encoder", "test", "--out", tmp_path / "run"]
    status, _, err = run([*words, "--target", "visits", "--task", "counts", *more], capsys)
    assert status == 2 and re.search(message, err), err


def test_it_is_listed_and_its_scores_are_known(counts: Path, capsys):
    with pytest.raises(SystemExit):
        run(["fit", "--help"], capsys)
    assert "classify, counts, detect, forecast, multilabel, regress" in " ".join(capsys.readouterr().out.split())
    assert not known_score("deviance").higher and known_score("of nobody").higher


@pytest.mark.parametrize("broken", ["import no_such_library\n", "TASK = 7\n", COUNTS + "TASK = Counts()\n"])
def test_a_broken_one_is_told_and_stops_nothing_else(counts: Path, caplog, broken: str):
    counts.write_text(broken, encoding="utf-8")
    assert "counts" in task_names() and not known_score("rmse").higher
    message = (
        "no_such_library.*Mend or uninstall|must define a TASK named 'counts', as it is announced; found (7|<their_)"
    )
    assert known_score("deviance").higher and re.search(message, caplog.text)
    with pytest.raises(mt.UsageError, match=message):
        get_task("counts")
