"""The benchmark: its figures by hand, its rows run, resumed, failed and refused as a user would see it."""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import make_records, run

from metatransformer.bench import strong, suite
from metatransformer.bench.datasets import DATA_SETS, DataSet, digest
from metatransformer.bench.paired import paired_error
from metatransformer.bench.processes import RowProcesses, termination_interrupts
from metatransformer.bench.row import Plan, Results, _alone, _fewer, run_row
from metatransformer.bench.strong import Seasonal, require_libraries
from metatransformer.bench.table import _modes, markdown, summarise
from metatransformer.bench.unet import PART, UNet, _part
from metatransformer.core.errors import MissingDependencyError, UsageError
from metatransformer.core.labels import PlaceLabels
from metatransformer.core.samples import Record
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality, modality_names

PARAMETERS = {"tokenizer": {"trainable": 1234}, "trunk": {"trainable": 0}, "head": {"trainable": 56}}
PLAN = Plan("test", seeds=1, trunks=2, quick=False)


def line(variant: str, score: float, *, fold: int = 0, seed: int = 0) -> dict:
    more = {"parameters": PARAMETERS, "samples": {"test": 7}, "tune": "head", "peak_mib": 5}
    if variant in ("constant", "baseline", "strong"):
        more = {"method": "by hand"}
    return {"variant": variant, "fold": fold, "seed": seed, "scores": {"rmse": score}, "seconds": 60.0, **more}


def test_means_ranges_and_gain_by_hand():
    lines = [line("pretrained", 1.0), line("pretrained", 2.0, fold=1), line("strong", 0.8), line("random", 2.5)]
    lines += [line("random", 3.5, fold=1), line("random#1", 2.0), line("random#1", 2.0, fold=1)]
    found = summarise(lines, metrics=("rmse",))
    assert found["scores"]["pretrained"]["rmse"] == {"mean": 1.5, "low": 1.0, "high": 2.0, "runs": 2}
    # Two trunks: their means over the folds are 3 and 2. Of an error less is better: the gain is positive.
    assert found["scores"]["random"]["rmse"] == {"mean": 2.5, "low": 2.0, "high": 3.0, "runs": 4}
    assert found["gains"]["random"]["rmse"] == {"mean": 1.0, "low": 0.5, "high": 1.5}
    assert (found["fit_seconds"], found["seconds"]) == (60.0, 420.0)
    row = {"name": "toys", "summary": "Toys", "modality": "image", "metrics": ["rmse"], "status": "done", "words": ""}
    row |= {"split": "", "licence": "free", "source": "here", "published": [], **found}
    text = markdown({"rows": [row], "machine": {"torch": "2"}, "command": "bench", "quick": False, "encoder": "e"})
    assert text.splitlines()[2] == (
        "| toys | rmse | 1.500 (1.000..2.000) | - | - | 0.800 | - | 2.500 (2.000..3.000) "
        "| +1.000 (+0.500..+1.500) | 1,234 / 0 / 56 | 1.0 | 5 |"
    )
    # Of errors e of n = 14 samples two standard errors are 2 sqrt((1.5^2 + 2.5^2) / 28) = 1.1: these say nothing.
    assert "| toys | rmse | not shown: random trunks are within the error | strong baseline (by hand): no clear" in text
    assert "(by hand): no clear difference |\n" in text
    cheap = row | {"spent": row["spent"] | {"strong": 29.0}}
    assert "(by hand): no clear difference, at less than half the cost |" in told([cheap])
    assert "both random trunks did worse: too few to say more | strong baseline (by hand): clearly better |" in told(
        [row | {"tested": 1400}]  # 0.11
    )
    assert "| yes: every random trunk is clearly worse | strong baseline" in told([row | {"tested": 1400, "trunks": 3}])
    few = summarise([x for x in lines if x["fold"] == 0 and x["variant"] != "random#1"], metrics=("rmse",))
    assert "the one random trunk did worse: too few to say more" in told([row | few | {"tested": 1400}])
    assert "| toys |" not in told([row | {"status": "failed", "words": "no memory"}])
    ranks = row | {"metrics": ["mse"], "trunks": 3}
    for part in ("scores", "gains"):
        ranks[part] = {name: {"mse": values["rmse"]} for name, values in row[part].items()}
    unknown = "by an error that is not known"
    cells = f"random trunks score worse, {unknown} | strong baseline (by hand): a better figure, {unknown} |"
    assert f"| toys | mse | {cells}" in told([ranks])


def test_methods_and_random_trunks_of_several_folds():
    each = [line(name, 1.0, fold=fold) for name in ("pretrained", "random", "strong") for fold in range(3)]
    found = summarise(each, metrics=("rmse",))
    assert (found["methods"]["strong"], found["trunks"]) == ("by hand", 3)  # one a fold
    each[-1]["method"] = "forest"
    assert summarise(each, metrics=("rmse",))["methods"]["strong"] == "by hand in 2 of 3 folds, forest in 1 of 3 folds"
    both = [*each, *(line("random#1", 1.0, fold=fold) for fold in range(3))]
    assert summarise(both, metrics=("rmse",))["trunks"] == 2


def test_modes_that_stayed_untuned_are_told():
    both = [line("pretrained", 1.0), *(line("tune:ends", 1.0, fold=fold) for fold in range(3))]
    row = {"name": "toys", "modality": "image", "status": "done", "metrics": ["rmse"], "published": []}
    assert "toys, ends" in (text := _modes([row | summarise(both, metrics=("rmse",))])[0]) and "untuned" not in text
    both[-1]["untuned"] = True
    text = _modes([row | summarise(both, metrics=("rmse",))])[0]
    assert text.endswith("; tuning was a gain on validation in 2 of 3, else untuned")


def test_a_torn_line_is_made_again(tmp_path: Path):
    results = Results(tmp_path / "row-toys.jsonl")
    results.add("pretrained", fold=0, seed=0, scores={"accuracy": 0.5}, more={})
    whole = results.path.read_bytes()
    results.path.write_bytes(whole + b'{"variant": "ident')
    again = Results(results.path)
    assert len(again.lines) == 1 and not again.has("identity", fold=0, seed=0)
    for variant in ("identity", "random"):
        again.add(variant, fold=0, seed=0, scores={"accuracy": 0.25}, more={})
    assert [x["variant"] for x in Results(results.path).lines] == ["pretrained", "identity", "random"]
    assert results.path.read_bytes().startswith(whole)


def told(rows: list[dict]) -> str:
    return markdown({"rows": rows, "machine": {}, "command": "bench", "quick": False, "encoder": "e"})


def test_a_baseline_stands_beside_every_seed():
    lines = [line("pretrained", 1.0), line("pretrained", 3.0, seed=1), line("strong", 1.5)]
    found = summarise([*lines, line("identity", 2.0), line("identity", 2.5, seed=1)], metrics=("rmse",))
    assert found["gains"]["strong"]["rmse"] == {"mean": -0.5, "low": -1.5, "high": 0.5}
    assert found["gains"]["identity"]["rmse"] == {"mean": 0.25, "low": -0.5, "high": 1.0}


def test_what_is_spent_is_what_the_first_fit_spent():
    lines = [line("pretrained", 1.0), line("pretrained", 1.0, fold=1) | {"seconds": 2.0, "peak_mib": 9}]
    found = summarise(lines, metrics=("rmse",))
    assert (found["fit_seconds"], found["peak_mib"], found["spent"]["pretrained"]) == (60.0, 5, 60.0)


def test_folds_are_pooled_by_their_counts():
    one = line("pretrained", 0.0) | {"confusion": [[3, 1], [0, 0]]}
    other = line("pretrained", 0.0, fold=1) | {"confusion": [[1, 0], [2, 2]]}
    found = summarise([one, other], metrics=("pooled_balanced_accuracy",))
    assert found["scores"]["pretrained"]["pooled_balanced_accuracy"]["mean"] == pytest.approx((4 / 5 + 2 / 4) / 2)


def test_the_error_of_a_paired_difference_by_hand():
    def answers(*hits: str, fold: int = 0, gain: float = 0.0) -> dict:
        scores = {"accuracy": gain, "balanced_accuracy": gain}
        return {"fold": fold, "seed": 0, "hits": list(hits), "scores": scores}

    # Differences 1, 0, 0, -1 and 1, 1: squares of 2 and 2, and of one more sample each, over 4 and 2 samples.
    ours, other = answers("1100", "11"), answers("0101", "00")
    accuracy = paired_error([ours], [other], metric="accuracy")
    assert accuracy == pytest.approx((5 / 7 / 6) ** 0.5)
    balanced = (3 / 5 / 4 + 3 / 3 / 2) ** 0.5 / 2
    assert paired_error([ours], [other], metric="balanced_accuracy") == pytest.approx(balanced)
    # Another trunk: its differences on the first class are 0, 1, -1, 0, and are averaged with those of the first.
    opposite = answers("1010", "00")
    assert paired_error([ours], [other, opposite], metric="accuracy") == pytest.approx(((4 / 4 + 2 + 1) / 7 / 6) ** 0.5)
    second = [answers("1100", "11", fold=1), answers("0101", "00", fold=1)]
    both = paired_error([ours, second[0]], [other, second[1]], metric="accuracy")
    assert both == pytest.approx(accuracy / 2**0.5)
    # One sample a class that both get right is no certainty; three folds scatter by themselves.
    assert paired_error([answers("1", "1")], [answers("1", "1")], metric="balanced_accuracy") == 0.5
    gains = (0.1, 0.5, 0.9)
    folds = [(answers("1" * 999, fold=i, gain=gain), answers("1" * 999, fold=i)) for i, gain in enumerate(gains)]
    assert paired_error(*zip(*folds, strict=True), metric="accuracy") == pytest.approx(np.std(gains, ddof=1) / 3**0.5)
    assert paired_error([ours], [other], metric="rmse") is None
    assert paired_error([ours], [{"fold": 0, "seed": 0, "scores": {}}], metric="accuracy") is None


def test_a_gain_that_pairs_show_is_told():
    def model(variant: str, hits: str) -> dict:
        score = hits.count("1") / len(hits)
        return line(variant, 0.0) | {"scores": {"accuracy": score}, "hits": [hits]}

    row = {"name": "toys", "summary": "Toys", "modality": "image", "metrics": ["accuracy"], "status": "done"}
    row |= {"words": "", "split": "", "licence": "free", "source": "here", "published": []}
    for other, sentence in (("1" * 60 + "0" * 40, "yes:"), ("0" * 30 + "1" * 60 + "0" * 10, "not shown:")):
        lines = [model(f"random#{trunk}", other) for trunk in range(3)] + [model("pretrained", "1" * 70 + "0" * 30)]
        found = row | summarise(lines, metrics=("accuracy",)) | {"tested": 100}
        text = markdown({"rows": [found], "machine": {}, "command": "bench", "quick": False, "encoder": "e"})
        assert f"| accuracy | {sentence}" in text  # both differ by 0.1; alone, two errors of it are 0.13


def test_every_registered_data_set_names_a_modality_and_its_source():
    for name, data_set in DATA_SETS.items():
        assert name == data_set.name and data_set.modality in modality_names()
        assert data_set.source.startswith("https://") and data_set.licence and data_set.metrics
        assert data_set.suite in suite.SUITES


def toys(root: Path) -> list[list]:
    del root
    return [make_records(get_modality("image"), train=17, val=7, test=11)]


TOY: DataSet = replace(
    DATA_SETS["cifar10"],
    name="toys",
    folds=toys,
    folder="",
    sha256="",
    strong="plain:logistic;plain:forest",
    overrides={"input.size": 16},
    modes=("lora:2",),
)


def test_a_row_runs_every_model_once_and_continues(tmp_path: Path):
    results = Results(tmp_path / "row-toys.jsonl")
    run_row(TOY, data=tmp_path, plan=PLAN, results=results, console=Console(quiet=True))
    names = [x["variant"] for x in results.lines]
    assert sorted(names) == sorted(
        ["pretrained", "constant", "baseline", "strong", "identity", "random", "random#1", "tune:lora:2"]
    )
    untuned = {x["variant"]: x["untuned"] for x in results.lines if "untuned" in x}
    assert not untuned["pretrained"] and isinstance(untuned["tune:lora:2"], bool)
    assert next(x for x in results.lines if x["variant"] == "strong")["method"].startswith("plain + ")
    kept = results.path.read_text().splitlines()
    results.path.write_text("\n".join(kept[:3] + kept[4:]) + "\n")  # one result is lost
    again = Results(results.path)
    run_row(TOY, data=tmp_path, plan=PLAN, results=again, console=Console(quiet=True))
    assert sorted(x["variant"] for x in again.lines) == sorted(names) and len(again.lines) == len(kept)


def discs(root: Path) -> list[list[Record]]:
    """Returns pictures of a bright disc on dark ground, with its pixels as class 1."""
    del root
    rng, found = np.random.default_rng(0), []
    for number in range(11):
        y, x = np.mgrid[:31, :37]
        mask = ((y - rng.uniform(9, 22)) ** 2 + (x - rng.uniform(9, 28)) ** 2 < 80).astype(np.int64)
        pixels = (60 + 130 * mask + rng.normal(0, 9, size=mask.shape)).clip(0, 255).astype(np.uint8)
        labels = PlaceLabels(f"{number}.png", partial(np.array, mask))
        split = "train" if number < 7 else "val" if number < 9 else "test"
        found.append(Record(f"{number}", value=pixels, target=labels, split=split))
    return [found]


def gratings(root: Path) -> list[list[Record]]:
    """Returns four noisy pictures of each of 13 identities, which differ in direction and colour."""
    del root
    rng, found = np.random.default_rng(0), []
    down, across = np.mgrid[:28, :28]
    for identity in range(13):
        angle, colour = rng.uniform(0, np.pi), rng.uniform(0.3, 1, size=3)
        for number in range(4):
            wave = np.sin(0.7 * (across * np.cos(angle) + down * np.sin(angle)) + rng.uniform(0, 6))
            pixels = (128 + 100 * wave[:, :, None] * colour).clip(0, 255).astype(np.uint8)
            split = "train" if identity < 7 else "val" if identity < 9 else "gallery" if number else "query"
            found.append(Record(f"{identity}-{number}", value=pixels, target=f"p{identity}", split=split))
    return [found]


SMALL = {"head.read": [-1], "task.places": 500, "input.size": 56}


@pytest.mark.parametrize(
    ("folds", "task", "metric", "spec", "methods"),
    [
        (
            discs,
            "segment",
            "mean_iou",
            "local:forest,boosting",
            {"baseline": "forest on local features", "strong": "local + "},
        ),
        (
            gratings,
            "retrieve",
            "r1",
            "plain:cosine,whitened,discriminants",
            {"baseline": "plain features, cosine", "strong": "plain + "},
        ),
    ],
)
def test_rows_of_other_tasks(tmp_path: Path, folds: Any, task: str, metric: str, spec: str, methods: dict[str, str]):
    overrides = {name: value for name, value in SMALL.items() if task == "segment" or name != "task.places"}
    own = {"metrics": (metric,), "strong": spec, "unet": task == "segment"}
    row = replace(TOY, folds=folds, task=task, **own, modes=(), overrides=overrides)
    for quick in (False, True):
        results = Results(tmp_path / f"row-{quick}.jsonl")
        plan = replace(PLAN, quick=quick, trunks=1)
        run_row(row, data=tmp_path, plan=plan, results=results, console=Console(quiet=True))
    found = {line["variant"]: line for line in results.lines}
    networks = {"unet"} if task == "segment" else set()
    assert set(found) == {"pretrained", "constant", "baseline", "strong", "identity", "random"} | networks
    assert all(found[name]["method"].startswith(methods[name]) for name in methods)
    for name in ("baseline", "strong"):
        assert found[name]["scores"][metric] > found["constant"]["scores"][metric]
    row_of = {"name": "toys", "summary": "", "modality": "image", "metrics": [metric], "status": "done", "words": ""}
    row_of |= {"split": "", "licence": "", "source": "", "published": [], **summarise(results.lines, metrics=(metric,))}
    text = told([row_of])
    assert f"| toys | {metric} |" in text
    assert ("A small U-Net from scratch" in text) == ("U-Net, " in text) == (task == "segment")


def test_a_unet_sees_parts_of_pictures_with_their_classes():
    net = UNet(3, 5).eval()
    assert net(torch.zeros(2, 3, 24, 40)).shape == (2, 5, 24, 40)
    across = torch.arange(300).repeat(200, 1)
    seen = set()
    for seed in range(20):
        pixels, classes = _part(across[None].half(), across.to(torch.int16), np.random.default_rng(seed))
        assert pixels.shape == (1, PART, PART) and torch.equal(pixels[0].round(), classes.half().float())
        seen.add(bool(classes[0, 0] > classes[0, 1]))
    assert seen == {True, False}  # mirrored or not
    pixels, classes = _part(across[None, :50, :60].half(), across[:50, :60].to(torch.int16), np.random.default_rng(0))
    assert pixels.shape == (1, PART, PART) and (classes == -1).sum() == PART**2 - 50 * 60


def test_a_season_comes_again():
    x = np.arange(10).reshape(2, 5)
    assert Seasonal(3, 7).fit(x, x).predict(x).tolist() == [[2, 3, 4, 2, 3, 4, 2], [7, 8, 9, 7, 8, 9, 7]]
    assert Seasonal(24, 2).fit(x, x).predict(x).tolist() == [[0, 1], [5, 6]]


def test_a_quick_run_keeps_identities_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("metatransformer.bench.row.QUICK_IDENTITIES", 3)
    kept = _fewer(gratings(Path())[0])
    assert len({r.target for r in kept}) == 6 and len(kept) == 24
    assert {r.target for r in kept if r.split == "query"} == {r.target for r in kept if r.split == "gallery"}


def test_few_samples_choose_by_cross_validation_unless_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def score(one: Any, fitted: Any) -> float:
        asked.append(one.words)
        return float("forest" in one.words)

    def folds(root: Path) -> list[list[Record]]:  # whose validation split is still to be drawn
        return [[replace(r, split="train") if r.split == "val" else r for r in fold] for fold in TOY.folds(root)]

    monkeypatch.setattr(strong, "_cross_validated", score)
    for quick, names in ((True, 0), (False, 5)):  # four lines and a forest
        results = Results(tmp_path / f"row-{quick}.jsonl")
        plan = replace(PLAN, quick=quick, trunks=1)
        toy = replace(TOY, modes=(), folds=folds)
        run_row(toy, data=tmp_path, plan=plan, results=results, console=Console(quiet=True))
        assert len(asked) == names
    assert next(x for x in results.lines if x["variant"] == "strong")["method"] == "plain + random forest of 500"


def test_a_failed_row_and_absent_data_are_reported_and_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "data" / "image" / "cifar10").mkdir(parents=True)  # there, but empty
    words = ["bench", "--data", tmp_path / "data", "--out", tmp_path / "out", "--only", "cifar10", "adult", "--quick"]
    status, result, err = run([*words, "--encoder", "test"], capsys)
    assert (status, result["rows"], result["failed"]) == (2, [], ["cifar10"])
    assert "cifar10: failed" in err and "adult: absent" in err
    assert "cifar10: begun\n" in err
    text = (tmp_path / "out" / "results.md").read_text()
    assert "* cifar10: failed. error: " in text and "adult is not there" in text
    assert json.loads((tmp_path / "out" / "results.json").read_text())["quick"] is True
    assert "Not run" in (tmp_path / "out" / "report.html").read_text()
    (tmp_path / "out" / "row-cifar10.jsonl").write_text(
        "{}\n"
    )  # one result: with none, another plan may have the folder
    status, _, err = run([*words, "--encoder", "focus-s14"], capsys)
    assert status == 2 and "must hold results of the same encoder ('focus-s14'); found 'test'." in " ".join(err.split())


def test_the_page_shows_what_the_rows_found(tmp_path: Path):
    run_row(TOY, data=tmp_path, plan=PLAN, results=Results(tmp_path / "row-toys.jsonl"), console=Console(quiet=True))
    outcome = suite.Outcome("toys", "done", "other files than the registered ones")
    results = suite.collect([TOY], out=tmp_path, outcomes=[outcome], command="bench", plan=PLAN)
    suite.write_page(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    more = "toys: other files than the registered ones"
    titles = ("Gain of the pretrained trunk", "Score against trainable parameters", "does the pretrained trunk help?")
    for words in (*titles, more):
        assert words in page


def test_rows_are_listed_without_data(capsys: pytest.CaptureFixture[str]):
    status, result, err = run(["bench", "--list"], capsys)
    assert status == 0 and "cifar10" in result["rows"] and "www.cs.toronto.edu" in err.replace("\n", "")


def test_an_unknown_row_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'cifar10'"):
        suite.choose("real12", only=["cifar"])
    with pytest.raises(UsageError, match="a row of 'metatransformer bench paper'"):
        suite.choose("real12", only=["imagenet-1k"])
    assert [row.name for row in suite.choose("real12", only=["fsdd", "esol", "fsdd"])] == ["fsdd", "esol"]
    with pytest.raises(UsageError, match="SUITE: must be one of real12, tasks, paper; found real13"):
        suite.choose("real13", only=[])


def test_a_digest_follows_names_and_contents(tmp_path: Path):
    (tmp_path / "a.txt").write_text("1")
    first = digest(tmp_path)
    (tmp_path / "README.md").write_text("about")
    assert digest(tmp_path) == first
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert digest(tmp_path) != first


def test_the_longest_rows_start_first_and_stand_in_their_own_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    started = []

    def ended(self: RowProcesses, row: DataSet) -> suite.Outcome:
        started.append(row.name)
        return suite.Outcome(row.name, "done")

    monkeypatch.setattr(RowProcesses, "run", ended)
    rows = [replace(TOY, name=name, minutes=minutes) for name, minutes in (("short", 1), ("long", 9), ("middle", 4))]
    console = Console(quiet=True)
    found = suite.run_suite(rows, data=tmp_path, out=tmp_path, plan=PLAN, jobs=1, command="bench", console=console)
    assert started == ["long", "middle", "short"]
    assert [row["name"] for row in found["rows"]] == ["short", "long", "middle"]


def test_rows_of_earlier_calls_stand_in_the_results_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    status = "done"

    def ended(self: RowProcesses, row: DataSet) -> suite.Outcome:
        return suite.Outcome(row.name, status, "of this call")

    monkeypatch.setattr(RowProcesses, "run", ended)
    for name in ("cifar10", "adult"):
        (tmp_path / DATA_SETS[name].folder).mkdir(parents=True)
    more = {"data": tmp_path, "out": tmp_path, "plan": PLAN, "jobs": 1, "command": "bench"}
    first = suite.run_suite([DATA_SETS["cifar10"]], console=Console(quiet=True), **more)
    assert first["call_minutes"] == pytest.approx(0.0, abs=1.0)
    second = suite.run_suite([DATA_SETS["adult"]], console=Console(quiet=True), **more)
    assert [row["name"] for row in second["rows"]] == ["cifar10", "adult"] and second["call_minutes"] is None
    assert [row["words"] for row in second["rows"]] == ["of this call"] * 2
    status = "absent"  # now
    third = suite.run_suite([DATA_SETS["adult"]], console=Console(quiet=True), **more)
    assert [row["status"] for row in third["rows"]] == ["done", "done"]
    assert "in several calls." in (tmp_path / "results.md").read_text()


def test_an_interrupted_call_ends_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(RowProcesses, "_command", lambda self, row: sleeper)
    running: list[RowProcesses] = []
    start = RowProcesses.__init__

    def noted(self: RowProcesses, **more: Any) -> None:
        running.append(self)
        start(self, **more)

    def interrupted(waiting: Any) -> Any:
        while not running[0]._running:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(RowProcesses, "__init__", noted)
    monkeypatch.setattr(suite, "as_completed", interrupted)
    rows = [replace(TOY, name=name) for name in ("one", "two", "three")]
    more = {"data": tmp_path, "out": tmp_path / "out", "plan": PLAN, "jobs": 1, "command": "bench"}
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        suite.run_suite(rows, console=Console(quiet=True), **more)
    assert time.monotonic() - began < 60 and not running[0]._running
    assert sorted(path.name for path in (tmp_path / "out").glob("*.log")) == ["row-one.log"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_terminated_call_ends_as_an_interrupted_one() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), termination_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_killed_row_is_told_and_one_in_use_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    processes = RowProcesses(data=tmp_path, out=tmp_path, plan=PLAN, jobs=1, console=Console(quiet=True))
    (tmp_path / "row-toys.log").write_text("an earlier call's last word\n")
    killed = [
        sys.executable,
        "-c",
        "import os, signal; print('busy', flush=True); os.kill(os.getpid(), signal.SIGKILL)",
    ]
    monkeypatch.setattr(RowProcesses, "_command", lambda self, row: killed)
    assert processes.run(TOY).words == f"ended by SIGKILL, perhaps for want of memory; see {tmp_path / 'row-toys.log'}"
    monkeypatch.setattr(RowProcesses, "_command", lambda self, row: [sys.executable, "-c", "raise SystemExit(2)"])
    assert processes.run(TOY).words.startswith("status 2; see ")
    with _alone(tmp_path / "row-toys.jsonl"):
        with pytest.raises(UsageError, match="must be written by one process; found another call's"):
            with _alone(tmp_path / "row-toys.jsonl"):
                pass


def test_wrong_places_are_refused_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["bench", "--data", tmp_path / "typo", "--out", tmp_path / "out", "--only", "cifar10"]
    status, _, err = run(words, capsys)
    assert status == 2 and "must hold data sets in image/cifar10; found none of them" in " ".join(err.split())
    (tmp_path / "typo" / "image" / "cifar10").mkdir(parents=True)
    (tmp_path / "file").touch()
    status, _, err = run([*words[:4], tmp_path / "file", *words[5:]], capsys)
    assert status == 2 and "must be a folder; found a file" in " ".join(err.split())
    assert not (tmp_path / "out").exists()
    status, _, err = run([*words, "--quick", "--seeds", "3"], capsys)
    assert status == 2 and "--quick: must go without --seeds and --trunks" in err
    status, _, err = run(["bench", *words[1:-1], "esol", "--trunks", "5"], capsys)
    assert status == 2 and "must go with --seeds 1 for esol" in " ".join(err.split())


def test_a_missing_library_is_named_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    require_libraries(["plain:svm", "plain:forest;tfidf:logistic"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"package 'aeon' installed.*metatransformer\[bench\]"):
        suite.run_suite(
            [replace(TOY, strong="plain:svm;minirocket:ridge")],
            data=tmp_path,
            out=tmp_path / "out",
            plan=PLAN,
            jobs=1,
            command="bench",
            console=Console(quiet=True),
        )
    assert not (tmp_path / "out").exists()


def test_minirocket_reads_recordings_of_one_length(tmp_path: Path):
    pytest.importorskip("aeon", reason="the extra 'bench'")
    records = make_records(get_modality("imu"), train=17, val=7, test=11)
    least = min(len(record.value["values"]) for record in records)
    same = [replace(one, value=one.value | {"values": one.value["values"][:least]}) for one in records]
    row = replace(TOY, modality="imu", strong="minirocket:ridge", overrides={}, modes=())
    results = Results(tmp_path / "row-toys.jsonl")
    console = Console(quiet=True)
    run_row(replace(row, folds=lambda root: [same]), data=tmp_path, plan=PLAN, results=results, console=console)
    strong = next(x for x in results.lines if x["variant"] == "strong")
    assert strong["method"].startswith("minirocket + ridge classifier")
    assert [len(hits) for hits in strong["hits"]] == np.sum(strong["confusion"], axis=1).tolist()
    other = Results(tmp_path / "row-others.jsonl")
    with pytest.raises(UsageError, match="strong baseline 'minirocket': must get recordings of one length"):
        run_row(replace(row, folds=lambda root: [records]), data=tmp_path, plan=PLAN, results=other, console=console)
