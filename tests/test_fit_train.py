"""The training loop: its schedule, its choices, and that neither a kill nor a second process changes the result."""

import json
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import loader_of, make_records, run, run_alone, tiny_pipeline, tiny_recipe, words_of
from PIL import Image
from safetensors.torch import load_file

import metatransformer as mt
import metatransformer.fit.by_epochs as by_epochs_module
import metatransformer.fit.train as train_module
from metatransformer.core.errors import DataError, UsageError
from metatransformer.fit.context import Context
from metatransformer.fit.fit import fit
from metatransformer.fit.objective import Supervised
from metatransformer.fit.run import RunFolder
from metatransformer.fit.solve import choose_head
from metatransformer.fit.train import Trainer
from metatransformer.infer.evaluate import compute_outputs
from metatransformer.infer.loader import Place
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality

QUIET = Console(quiet=True)
ALONE = Context(run=None, place=Place(), memo=None, console=QUIET)
SETTINGS = {"tune": "ends", "data.batch_size": 4, "optim.lr": 1e-2}


def make_trainer(settings: Mapping[str, Any], *, count: int = 12, start_loss: float | None = None) -> Trainer:
    pipeline = tiny_pipeline("image", {**SETTINGS, **settings})
    loaders = {}
    for split, seed in (("train", 0), ("val", 1)):
        loaders[split] = loader_of(pipeline, make_records(pipeline.modality, train=count, seed=seed))
        loaders[split].prepare(QUIET, title=split)
    return Trainer(pipeline, Supervised(pipeline.tasks), **loaders, start_loss=start_loss, context=ALONE)


# --- schedule, groups, choice -----------------------------------------------------------------------------------------


def test_the_schedule_by_hand():
    # 12 samples in batches of 4: 3 steps an epoch, 30 in all, a tenth of them warm-up.
    trainer = make_trainer({"optim.epochs": 10})
    found = [trainer._schedule(step) for step in range(31)]
    cosine = [0.5 * (1 + np.cos(np.pi * k / 27)) for k in range(28)]
    assert found == pytest.approx([1 / 3, 2 / 3, 1, *cosine])
    assert found[3] == 1 and found[30] == pytest.approx(0)


@pytest.mark.parametrize(("steps", "epochs"), [(1, 40), (25, 40), (109, 9), (250, 4), (4000, 4)])
def test_epochs_make_about_a_thousand_steps(steps: int, epochs: int):
    assert train_module.choose_epochs("auto", steps=steps) == epochs
    assert train_module.choose_epochs(3, steps=steps) == 3


def test_vectors_are_not_decayed():
    trainer = make_trainer({"tune": "all", "optim.weight_decay": 0.1})
    for group in trainer.optimizer.param_groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] == 0.1) for p in group["params"])


@pytest.mark.parametrize(
    ("tune", "start_loss", "expected"),
    [
        ("all", None, {"encoder": 1e-5, "tokenizers": 1e-5, "heads": 1e-2}),
        ("all", 0.7, {"encoder": 1e-5, "tokenizers": 1e-5, "heads": 1e-3}),  # solved before
        ("norm", 0.7, {"encoder": 1e-2, "tokenizers": 1e-5, "heads": 1e-3}),
        ("lora:2", 0.7, {"adapters": 1e-3, "tokenizers": 1e-5, "heads": 1e-3}),
    ],
)
def test_what_was_learned_before_learns_slower(tune: str, start_loss: float | None, expected: dict[str, float]):
    trainer = make_trainer({"tune": tune, "optim.lr": 1e-2, "optim.trunk_lr": 1e-5}, start_loss=start_loss)
    rates = {id(p): group["base"] for group in trainer.optimizer.param_groups for p in group["params"]}
    found = {(name.split(".")[0], rates[id(p)]) for name, p in trainer.learning.items()}
    assert found == set(expected.items())


def test_random_tokenizers_learn_at_the_whole_rate():
    pipeline = tiny_pipeline("tabular", {"tune": "ends"})
    loader = loader_of(pipeline, make_records(pipeline.modality, train=6))
    objective = Supervised(pipeline.tasks)
    trainer = Trainer(pipeline, objective, train=loader, val=loader, start_loss=None, context=ALONE)
    assert {group["base"] for group in trainer.optimizer.param_groups} == {pipeline.recipe.optim.lr}


# --- heads that are solved before and after training ------------------------------------------------------------------


@pytest.fixture
def noise():
    return make_records(get_modality("image"), train=16, val=8, test=4)


def image_recipe(settings: Mapping[str, Any]) -> Any:
    return tiny_recipe(get_modality("image"), {**SETTINGS, "optim.epochs": 1, **settings})


@pytest.mark.parametrize("tune", ["ends", "lora:2", "all"])
def test_a_model_that_tuning_leaves_as_it_is_is_that_of_mode_head(noise, tune: str):
    still = {"optim.lr": 1e-30, "optim.trunk_lr": 0.0}
    tuned = fit(noise, image_recipe({**still, "tune": tune}), console=QUIET)
    head = fit(noise, image_recipe({"tune": "head", "optim.epochs": "auto"}), console=QUIET)
    assert [line["epoch"] for line in tuned.history] == [0, 1] and tuned.kept == 0
    torch.testing.assert_close(tuned.outputs["test"], head.outputs["test"])
    assert tuned.pipeline.head.centres == head.pipeline.head.centres > 0


def test_training_goes_through_a_narrow_solved_head(noise, monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []

    def watched(trainer: Trainer):
        seen.append((trainer.pipeline.head, trainer.start_loss))
        assert trainer.pipeline.model.head("classify") is trainer.pipeline.head
        return fit_all(trainer)

    fit_all = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", watched)
    fitted = fit(noise, image_recipe({"head.pool": "grid", "head.cells": 2}), console=QUIET)
    ((narrow, loss),) = seen
    own = fitted.pipeline.head.readout
    assert (narrow.readout.facts.pool, narrow.centres, own.facts.pool) == ("both", 0, "grid")
    assert narrow.readout.features < own.features
    assert 0 < loss < np.log(2)  # better than guessing: it is solved
    assert fitted.pipeline.head is fitted.pipeline.model.head("classify")


@pytest.mark.parametrize(
    ("accuracy", "loss", "kept"), [(0.8, 0.6, 1), (0.8, 0.7, 1), (0.2, 0.6, 0), (0.5, 0.6, 0), (0.8, 0.71, 0)]
)
def test_what_training_changed_is_kept_where_validation_gains(
    noise, monkeypatch: pytest.MonkeyPatch, accuracy: float, loss: float, kept: int
):
    """Training here is one known change of the tokenizer, and the heads' scores are told."""
    same = (0.5, 0.7)
    told = iter([same, same, (accuracy, loss), same])  # untuned, narrow, tuned; and once more where untuned is kept

    def choose(fitted, lessons, context, *, by_split=False):
        choice = choose_head(fitted, lessons, context, by_split=by_split)
        accuracy, loss = next(told)
        return replace(choice, scores={**choice.scores, "accuracy": accuracy}, loss=loss)

    def train(trainer: Trainer):
        with torch.no_grad():
            trainer.model.tokenizer("image").patches.weight.add_(1.0)
        trainer.progress.kept, trainer.progress.history = 1, [{"epoch": 0}, {"epoch": 1}]
        return trainer.progress

    monkeypatch.setattr(by_epochs_module, "choose_head", choose)
    monkeypatch.setattr(Trainer, "fit", train)
    fitted = fit(noise, image_recipe({}), console=QUIET)
    before = tiny_pipeline("image", SETTINGS).model.tokenizer("image").patches.weight
    after = fitted.pipeline.model.tokenizer("image").patches.weight
    torch.testing.assert_close(after, before + kept)
    assert fitted.kept == kept
    answers = compute_outputs(fitted.pipeline, fitted.loaders["test"], console=QUIET, title="")
    torch.testing.assert_close(answers, fitted.outputs["test"], atol=1e-4, rtol=1e-4)


def test_a_head_with_a_hidden_layer_and_random_tokens_start_fresh(noise):
    assert [line["epoch"] for line in fit(noise, image_recipe({"head.hidden": 5}), console=QUIET).history] == [1]
    modality = get_modality("tabular")
    rows = make_records(modality, train=12, val=6)
    recipe = tiny_recipe(modality, {"tune": "ends", "optim.epochs": 1})
    assert [line["epoch"] for line in fit(rows, recipe, console=QUIET).history] == [1]


def test_the_best_epoch_is_kept(monkeypatch: pytest.MonkeyPatch):
    trainer = make_trainer({"optim.epochs": 4})
    seen: list[torch.Tensor] = []

    def scores():
        seen.append(trainer.pipeline.head.net[-1].weight.detach().clone())
        return {"accuracy": [0.2, 0.8, 0.8, 0.6][len(seen) - 1], "log_loss": 0.5}

    monkeypatch.setattr(trainer, "_scores", scores)
    history = trainer.fit().history
    assert [line["val_accuracy"] for line in history] == [0.2, 0.8, 0.8, 0.6]
    assert torch.equal(trainer.pipeline.head.net[-1].weight, seen[1])  # the first of equals


@pytest.mark.parametrize(
    ("accuracy", "loss", "kept"),
    [
        ((0.30, 0.70, 0.69), (0.9, 0.6, 0.5), 2),  # too close to tell: the lesser loss
        ((0.30, 0.70, 0.69), (0.9, 0.5, 0.6), 1),
        ((0.69, 0.70, 0.10), (0.5, 0.6, 0.4), 0),
        ((0.30, 0.70, 0.10), (0.4, 0.6, 0.3), 1),  # clearly worse ones are never kept
    ],
)
def test_of_epochs_that_cannot_be_told_apart_the_one_of_least_loss_is_kept(
    accuracy: tuple[float, ...], loss: tuple[float, ...], kept: int, monkeypatch: pytest.MonkeyPatch
):
    trainer = make_trainer({"optim.epochs": 3})
    answers = iter(zip(accuracy, loss, strict=True))
    monkeypatch.setattr(trainer, "_scores", lambda: dict(zip(("accuracy", "log_loss"), next(answers), strict=True)))
    assert trainer.fit().kept == kept


def test_dropout_follows_from_seed_and_step_and_leaves_the_callers_numbers_alone():
    torch.manual_seed(5)
    expected = torch.get_rng_state()
    first, second = (make_trainer({"optim.epochs": 1, "head.dropout": 0.5, "head.hidden": 7}) for _ in range(2))
    torch.manual_seed(5)
    first.fit()
    assert torch.equal(torch.get_rng_state(), expected)
    torch.manual_seed(99)
    second.fit()
    for name, weights in first.progress.weights.items():
        assert torch.equal(weights, second.progress.weights[name]), name


def test_the_average_follows_closely_at_first():
    trainer = make_trainer({"optim.average": 0.9})
    (name, parameter), start = next(iter(trainer.learning.items())), 3.0
    with torch.no_grad():
        parameter.fill_(start)
        trainer.average[name].zero_()
    expected = 0.0
    for step in range(20):
        trainer.progress.step = step
        trainer._update_average()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * start
    torch.testing.assert_close(trainer.average[name], torch.full_like(parameter, expected))


def test_without_an_average_the_weights_themselves_are_kept():
    trainer = make_trainer({"optim.average": 0.0, "optim.epochs": 1})
    trainer.fit()
    assert all(torch.equal(trainer.average[name], p) for name, p in trainer.learning.items())


def test_a_loss_that_is_not_finite_is_said(monkeypatch: pytest.MonkeyPatch):
    trainer = make_trainer({})
    monkeypatch.setattr(trainer.pipeline.task, "loss", lambda outputs, target: outputs.sum() * float("nan"))
    with pytest.raises(UsageError, match="training step 0: must have a finite loss; found nan. Lower optim.lr"):
        trainer.fit()


def test_gradients_are_clipped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train_module, "CLIP", 0.1)
    trainer = make_trainer({"optim.epochs": 1})
    norms: list[float] = []
    step = trainer.optimizer.step

    def spy():
        norms.append(float(torch.stack([p.grad.norm() for p in trainer.learning.values()]).norm()))
        return step()

    monkeypatch.setattr(trainer.optimizer, "step", spy)
    trainer.fit()
    assert norms and max(norms) <= 0.1 + 1e-6


def test_the_whole_model_learns_in_mode_all():
    modality = get_modality("image")
    # A hidden layer: a solved start might be better than what two epochs make of noise, and be kept.
    settings = {**SETTINGS, "tune": "all", "optim.epochs": 2, "optim.trunk_lr": 1e-3, "head.hidden": 5}
    recipe = tiny_recipe(modality, settings)
    fitted = fit(make_records(modality, train=8, val=4), recipe, console=QUIET)
    assert fitted.pipeline.model.encoder.bytes_hash() != tiny_pipeline("image").model.encoder.bytes_hash()


# --- the run folder ---------------------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_named(tmp_path: Path):
    folder = RunFolder(tmp_path, place=Place())
    folder.save_checkpoint({"a": torch.ones(3)})
    assert torch.equal(folder.load_checkpoint()["a"], torch.ones(3))
    folder.checkpoint.write_bytes(folder.checkpoint.read_bytes()[:100])
    with pytest.raises(DataError, match="last.pt: must be a checkpoint of this run.*--overwrite"):
        folder.load_checkpoint()


@pytest.mark.parametrize("damage", [b"", b"x" * 99, b"PK\x03\x04 half of one"])
def test_damaged_features_are_computed_again(tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]):
    modality = get_modality("image")
    records, recipe = make_records(modality, train=8, val=4, test=3), tiny_recipe(modality, {"tune": "head"})
    whole = fit(records, recipe, console=QUIET)
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "finish", _interrupted)
        fit(records, recipe, out=tmp_path / "run", console=QUIET)
    files = sorted((tmp_path / "run" / "checkpoints").glob("features-*.pt"))
    assert [file.name for file in files] == [f"features-classify-{split}.pt" for split in ("test", "train", "val")]
    files[1].write_bytes(damage)
    again = fit(records, recipe, out=tmp_path / "run", console=Console())
    assert f"{files[1]} is damaged: computed again" in capsys.readouterr().err
    assert torch.equal(again.outputs["test"], whole.outputs["test"]) and again.history == whole.history


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


# --- a kill, and a second process -------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from metatransformer.faces.cli import main
from metatransformer.fit.train import Trainer
step, left = Trainer._step, [int(sys.argv[1])]
def watched(self, batch):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return step(self, batch)
Trainer._step = watched
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 24 pictures of two classes, with splits."""
    root = tmp_path_factory.mktemp("pictures")
    modality = get_modality("image")
    for split, seed in (("train", 0), ("val", 1)):
        for record in make_records(modality, train=16 if split == "train" else 8, seed=seed):
            place = root / split / record.target
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(record.value).save(place / f"{record.key}.png")
    return root


def command(data: Path, out: Path) -> list[object]:
    settings = {
        "data.batch_size": 4,
        "head.read": [1, -1],
        "head.hidden": 13,
        "head.dropout": 0.2,
        "optim.average": 0.9,
        "input.size": 16,
        "run.device": "cpu",
        "run.precision": "float32",
        "run.checkpoint_minutes": 0,
    }
    words = ["fit", data, "--modality", "image", "--encoder", "test", "--tune", "ends", "--epochs", 3, "--out", out]
    return [*words, *words_of(settings)]


def weights_of(run_folder: Path) -> dict[str, torch.Tensor]:
    files = sorted((run_folder / "model").rglob("*.safetensors"))
    assert len(files) == 2
    return {f"{file.parent.name}.{name}": x for file in files for name, x in load_file(file).items()}


@pytest.mark.parametrize("solved", [False, True])
def test_a_killed_run_continues_to_the_same_bytes(pictures: Path, tmp_path: Path, solved: bool):
    more = words_of({"head.hidden": 0, "head.pool": "grid", "optim.trunk_lr": 1e-2}) if solved else []
    # 4 batches an epoch: the kill comes inside the second of three epochs. Every run has a process of its own, for
    # libraries that other tests load change the last bit of sums (numba does).
    done = run_alone(["-c", KILLED, 6, *command(pictures, tmp_path / "killed"), *more])
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "killed" / "model").exists()
    again = [["-c", KILLED, -1, *command(pictures, tmp_path / name), *more] for name in ("killed", "whole")]
    killed, whole = (run_alone(words) for words in again)
    assert killed.returncode == 0 and "continuing after epoch 1, step 6" in killed.stderr, killed.stderr
    assert whole.returncode == 0, whole.stderr
    metrics = [json.loads(done.stdout.splitlines()[-1])["metrics"] for done in (killed, whole)]
    assert metrics[0] == metrics[1]
    one, two = weights_of(tmp_path / "killed"), weights_of(tmp_path / "whole")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("killed", "whole")
    ]
    assert logs[0] == logs[1] and [line["epoch"] for line in logs[0]] == [0, 1, 2, 3][not solved :]


@pytest.mark.parametrize("hidden", [13, 0])
def test_two_processes_give_the_result_of_one(pictures: Path, tmp_path: Path, capsys, hidden: int):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "metatransformer"]
    settings = words_of({"head.dropout": 0.0, "optim.average": 0.0, "head.hidden": hidden, "optim.trunk_lr": 1e-3})
    done = run_alone([*launch, *command(pictures, tmp_path / "two"), *settings])
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1, done.stdout  # one JSON line, from the first process
    status, _, _ = run([*command(pictures, tmp_path / "one"), *settings], capsys)
    assert status == 0
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    logs = [
        [
            json.loads(line)["val_log_loss"]
            for line in (tmp_path / name / "log.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for name in ("one", "two")
    ]
    assert len(logs[0]) == 3 + (not hidden)  # the solved start first
    torch.testing.assert_close(*logs, atol=1e-3, rtol=1e-3)
    for name in one:
        # The mean of two halves is summed in another order: 1e-7 a step, which AdamW's division can make 1e-4 of a step
        # of 1e-3 where a gradient is nearly zero.
        torch.testing.assert_close(one[name], two[name], atol=2e-5, rtol=1e-3)


def test_of_heads_that_are_all_right_on_validation_the_surest_is_taken():
    records = make_records(get_modality("hyperspectral"), train=21, val=4)
    fitted = fit(records, tiny_recipe(get_modality("hyperspectral"), {"tune": "head"}), console=QUIET)
    perfect = [line["val_log_loss"] for line in fitted.history if line["val_accuracy"] == 1.0]
    assert min(perfect) < perfect[0] - 1e-3
    assert fitted.metrics["val"]["log_loss"] == pytest.approx(min(perfect), rel=1e-5)


def test_tokens_learn_in_front_of_the_trunk(tmp_path: Path):
    texts = [f"a {word} film {number % 7}" for number, word in enumerate(["warm", "dull", "lovely", "awful"] * 24)]
    labels = ["yes", "no"] * 48
    settings: dict[str, Any] = {"input.vocabulary": "train", "head.read": [0, 1], "optim.lr": 1e-2}
    made = mt.Classifier("text", encoder="test", tune="tokens", epochs=8, precision="float32", recipe=settings)
    made.fit(texts, labels)
    pipeline, history = made.pipeline_, made.history_
    assert pipeline.head.solved and pipeline.head.readout.blocks == (0, 1)
    assert [line["epoch"] for line in history] == list(range(9)) and history[-1]["train_loss"] < history[0][
        "train_loss"
    ]
    assert made.predict(["a lovely film 3", "a awful film 2"]).tolist() == ["yes", "no"]
    made.save(tmp_path / "model")
    loaded = mt.load(tmp_path / "model", device="cpu")
    np.testing.assert_allclose(loaded.predict_proba(texts[:5]), made.predict_proba(texts[:5]), atol=1e-6)
    with pytest.raises(UsageError, match="'tune': must be another mode where tokens come with the trunk"):
        mt.Classifier("image", encoder="test", tune="tokens").fit(np.zeros((24, 16, 16, 3), np.uint8), ["a", "b"] * 12)
    with pytest.raises(UsageError, match="head.hidden: must be 0 in tune mode 'tokens'"):
        mt.Classifier("text", encoder="test", tune="tokens", recipe={**settings, "head.hidden": 3}).fit(texts, labels)
