"""Trackers of a run beside TensorBoard: MLflow in a folder, the others by modules that keep what they hear."""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from common import CLI_IMAGE, CLI_SETTINGS, Run

import metatransformer as mt


class Heard:
    """What a tracker's package was told; stands for the package's run as well."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.lines: list[tuple[int | None, dict[str, float]]] = []
        self.summary: dict[str, float] = {}
        self.done = False

    def init(self, **settings: Any) -> "Heard":
        self.settings = settings
        return self

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self.lines.append((step, values))

    def finish(self) -> None:
        self.done = True


def heard_by(name: str, monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Puts a module in the place of the package."""
    heard, module = Heard(), ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.init = heard.init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    return heard


def words(pictures: Path, out: Path, *more: str) -> list[object]:
    return ["fit", pictures, *CLI_IMAGE, "--tune", "head", "--out", out, *CLI_SETTINGS, *more]


def test_mlflow_holds_settings_steps_and_scores_beside_the_run(pictures: Path, tmp_path: Path, call: Run):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    status, result, _ = call(words(pictures, tmp_path / "run", "log.to=[tensorboard,mlflow]", "log.project=leaves"))
    assert status == 0 and list((tmp_path / "run" / "tensorboard").iterdir())
    client: Any = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("leaves").experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert run.data.params["optim.lr"] == "0.001" and run.data.params["log.to"] == "['tensorboard', 'mlflow']"
    assert run.data.metrics["test/accuracy"] == result["metrics"]["test"]["accuracy"]
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    (name,) = {name for name in run.data.metrics if name.startswith("val") and "/" not in name} & {"val_loss"} or {""}
    assert name == "" or len(client.get_metric_history(run.info.run_id, name)) == len(lines)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_others_are_told_the_same_and_stay_offline(
    name: str, pictures: Path, tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    heard = heard_by(name, monkeypatch)
    status, result, _ = call(words(pictures, tmp_path / "run", f"log.to=[{name}]"))
    assert status == 0 and heard.done and not (tmp_path / "run" / "tensorboard").exists()
    config = heard.settings["config"]
    assert (
        config["encoder"] == "test" and config["head.read"] == [-1] and heard.settings["project"] == "metatransformer"
    )
    scores = heard.summary if name == "wandb" else heard.lines.pop()[1]
    assert scores["test/accuracy"] == result["metrics"]["test"]["accuracy"]
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert len(heard.lines) == len(lines) > 0 and all(type(step) is int and values for step, values in heard.lines)
    if name == "wandb":
        assert heard.settings["mode"] == "offline" and heard.settings["dir"] == str(tmp_path)
        assert heard.settings["id"].startswith("run-") and heard.settings["resume"] == "allow"


def test_a_missing_package_is_named_before_any_work(
    pictures: Path, tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch
):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else found(name, *rest)
    )
    status, _, said = call(words(pictures, tmp_path / "run", "log.to=[wandb]"))
    assert status == 2 and "pip install 'metatransformer[wandb]'" in said and not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused_and_so_is_one_without_a_run_folder(pictures: Path, tmp_path: Path, call: Run):
    status, _, said = call(words(pictures, tmp_path / "run", "log.to=[mlfow]"))
    assert status == 2 and "log.to" in said
    classifier = mt.Classifier("image", encoder="test", recipe={"log.to": ["wandb"], "input.size": 16})
    with pytest.raises(mt.UsageError, match="'log.to': must be left out where no run folder is written; found wandb"):
        classifier.fit(pictures)


def test_a_run_that_goes_on_may_be_told_to_others(pictures: Path, tmp_path: Path, call: Run, monkeypatch: Any):
    from metatransformer.fit.run import RunFolder
    from metatransformer.infer.loader import Place
    from metatransformer.recipe import make_recipe

    folder = RunFolder(tmp_path / "run", place=Place())
    first = make_recipe("image", base={}, overrides={"encoder": "test"})
    later = make_recipe("image", base={}, overrides={"encoder": "test", "log.to": []})
    folder.open(first, identity={}, source="", overwrite=False)
    assert folder.check(later, identity={}, overwrite=False)
