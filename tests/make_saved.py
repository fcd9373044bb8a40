"""Makes the saved models of ``tests/fixtures/saved``: what each was asked, and what it answered.

Those in the repository were made at revision bd332db (torch 2.13, x86-64), with the package of a checkout of it::

    OMP_NUM_THREADS=1 PYTHONPATH=<checkout of bd332db>/src python tests/make_saved.py

They are not made again when the package changes: they stand for the models that people have.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch
from PIL import Image
from saved_answers import SAVED, answers_of, inputs_of
from sklearn.base import clone

import metatransformer as mt
from metatransformer.modalities import get_modality

TRAIN, ASKED = 24, 6  # samples
KEPT = ("run.json", "recipe.yaml", "metrics.json")  # of a run folder, beside its model
MARGIN = 0.01  # between the two best classes of a sample: nearer ones could change places on another processor
USUAL: dict[str, Any] = {"encoder": "test", "device": "cpu", "precision": "float32"}
# The test trunk has six blocks and patches of four pixels.
PICTURE = {"input.size": 16, "head.cells": 2}

Raw = Mapping[str, Any]
Random = np.random.Generator
Writer = Callable[[Path, Sequence[int], Random, bool], Path]  # folder, labels, random numbers, whether labels are told


# --- one file a sample ------------------------------------------------------------------------------------------------


def write_sound(path: Path, raw: Raw) -> None:
    """Writes a WAV file of 16 bits."""
    soundfile.write(path.with_suffix(".wav"), raw["wave"], 16_000, subtype="PCM_16")


def write_picture(path: Path, raw: Raw) -> None:
    """Writes a PNG file of 8 or 16 bits."""
    Image.fromarray(np.squeeze(raw["pixels"])).save(path.with_suffix(".png"))


def write_steps(path: Path, raw: Raw) -> None:
    """Writes a recording or a series: one row a time step, times first where a rate is known."""
    table = pd.DataFrame(raw["values"], columns=list(raw["names"]))
    if raw.get("rate_hz"):
        table.insert(0, "time_s", np.arange(len(table)) / raw["rate_hz"])
    table.to_csv(path.with_suffix(".csv"), index=False, float_format="%.3f")


def write_points(path: Path, raw: Raw) -> None:
    """Writes an NPY file [n, 3]."""
    np.save(path.with_suffix(".npy"), raw["points"])


def write_film(path: Path, raw: Raw) -> None:
    """Writes the frames in grey, of which a GIF loses nothing."""
    first, *others = [Image.fromarray(frame[:, :, 0]) for frame in raw["frames"]]
    first.save(path.with_suffix(".gif"), save_all=True, append_images=others, duration=100)


def write_network(path: Path, rng: Random, label: int) -> None:
    """Writes an edge list: a ring (label 1) or a chain (label 0) with two short tails."""
    count = int(rng.integers(5, 11))
    edges = [(i, i + 1) for i in range(count - 1)] + [(count - 1, 0)] * label
    edges += [(int(rng.integers(count)), count + i) for i in range(2)]
    path.with_suffix(".edgelist").write_text("".join(f"n{a} n{b} {rng.uniform(0.5, 2):.3f}\n" for a, b in edges))


FILES: dict[str, Callable[[Path, Raw], None]] = {
    "audio": write_sound,
    "image": write_picture,
    "imu": write_steps,
    "infrared": write_picture,
    "pointcloud": write_points,
    "timeseries": write_steps,
    "video": write_film,
    "xray": write_picture,
}


def files(name: str) -> Writer:
    """Returns what writes a file a sample, in one folder a class where the classes are told."""

    def write(folder: Path, labels: Sequence[int], rng: Random, told: bool) -> Path:
        for number, label in enumerate(labels):
            place = folder / "ab"[label] if told else folder
            place.mkdir(parents=True, exist_ok=True)
            if name == "network":
                write_network(place / str(number), rng, label)
            else:
                FILES[name](place / str(number), get_modality(name).synthesize(rng, label))
        return folder

    return write


# --- one row a sample -------------------------------------------------------------------------------------------------


def people(rng: Random, label: int) -> Raw:
    """Returns a row of numbers, words and gaps; its class is a number."""
    row = get_modality("tabular").synthesize(rng, label)["row"]
    return {**row, "wealth": round(row["income"] / 1e4 + label, 3), "label": (3, 5)[label]}


def sentences(rng: Random, label: int) -> Raw:
    """Returns a text and a second one, for pairs."""
    first, second = (" ".join(get_modality("text").synthesize(rng, label)["row"].values()) for _ in range(2))
    return {"sentence": first, "question": f"was it {second} ?", "label": "ab"[label]}


def molecules(rng: Random, label: int) -> Raw:
    """Returns a molecule with a number and three answers, some of them unknown."""
    smiles = get_modality("graph").synthesize(rng, label)["smiles"]
    answers = {"toxic": label, "polar": int("O" in smiles), "large": int(len(smiles) > 9)}
    known = {name: "" if rng.random() < 0.1 else answer for name, answer in answers.items()}
    return {"smiles": smiles, "solubility": round(1 - 0.3 * len(smiles) + 2 * smiles.count("O"), 2), **known}


def spectra(rng: Random, label: int) -> Raw:
    """Returns the spectrum of a pixel, a column a band."""
    raw = get_modality("hyperspectral").synthesize(rng, label)
    nm = [f"{value:g}" for value in raw["wavelengths_nm"]]
    return dict(zip(nm, raw["values"][2, 2].round(4), strict=True)) | {"label": "ab"[label]}


def rows(make: Callable[[Random, int], Raw], target: str, *others: str) -> Writer:
    """Returns what writes a table with a row a sample, without the columns ``others``, nor ``target`` if untold."""

    def write(folder: Path, labels: Sequence[int], rng: Random, told: bool) -> Path:
        table = pd.DataFrame([make(rng, label) for label in labels]).drop(columns=list(others))
        path = folder.with_suffix(".csv")
        (table if told else table.drop(columns=target.split(","))).to_csv(path, index=False)
        return path

    return write


# --- one file of many samples -----------------------------------------------------------------------------------------


def write_hours(folder: Path, labels: Sequence[int], rng: Random, told: bool) -> Path:
    """Writes the hours of days: a load that follows the day, and a heat that follows it three hours later."""
    hours = np.arange(24 * (8 if told else 2))
    load = 40 + 7 * np.sin(2 * np.pi * hours / 24) + rng.normal(0, 1, size=len(hours))
    heat = 21 + 3 * np.sin(2 * np.pi * (hours - 3) / 24) + rng.normal(0, 0.3, size=len(hours))
    times = pd.date_range("2024-03-04", periods=len(hours), freq="h")
    path = folder.with_suffix(".csv")
    pd.DataFrame({"timestamp": times, "load": load, "heat": heat}).to_csv(path, index=False, float_format="%.3f")
    return path


def write_activities(folder: Path, labels: Sequence[int], rng: Random, told: bool) -> Path:
    """Writes one long recording whose rows are labelled, one activity after the other."""
    parts = []
    for label in labels:
        raw = get_modality("imu").synthesize(rng, label)
        parts.append(pd.DataFrame(raw["values"], columns=list(raw["names"])).assign(activity=("sway", "shake")[label]))
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "time_s", np.arange(len(table)) / 50)
    path = folder.with_suffix(".csv")
    (table if told else table.drop(columns="activity")).to_csv(path, index=False, float_format="%.3f")
    return path


def write_scene(folder: Path, labels: Sequence[int], rng: Random, told: bool) -> Path:
    """Writes a cube of two materials side by side, with a map of their numbers if told, 0 between them."""
    known = np.repeat(np.array([[1, 1, 1, 0, 2, 2, 2]], dtype=np.uint8), 5, axis=0)
    rise = np.linspace(0.2, 0.6, 11)
    cube = np.where(known[..., None] == 1, rise[::-1], rise) + rng.normal(0, 0.02, size=(5, 7, 11))
    path = folder.with_suffix(".npz")
    arrays = {"cube": cube.round(4).astype(np.float32), "wavelength": np.linspace(450.0, 950.0, 11)}
    np.savez(path, **(arrays | {"labels": known} if told else arrays))
    return path


# --- the cases --------------------------------------------------------------------------------------------------------


def classifier(modality: str, recipe: Raw, *, tune: str = "default", target: str = "", epochs: int = 0) -> Any:
    """Returns an unfitted classifier on the tests' trunk."""
    passes = epochs or "default"
    return mt.Classifier(modality, tune=tune, target=target, epochs=passes, recipe=recipe, **USUAL)


def defaults() -> dict[str, tuple[Any, Writer]]:
    """Returns a model of each modality in its default tune mode, and what writes its samples."""
    pieces = {"input.vocabulary": "train", "input.size": 131}
    shallow = {"input.environments": 31, "input.bins": 5}
    hours = mt.Forecaster(target="load", horizon=5, lookback=24, recipe={"head.cells": 3}, **USUAL)
    solubility = mt.Regressor("graph", target="solubility", recipe=shallow, **USUAL)
    return {
        "audio": (classifier("audio", {"head.cells": 3}), files("audio")),
        "graph": (solubility, rows(molecules, "solubility", "toxic", "polar", "large")),
        "hyperspectral": (classifier("hyperspectral", {"head.cells": 2}, target="label"), rows(spectra, "label")),
        "image": (classifier("image", {"input.size": 16}), files("image")),
        "imu": (classifier("imu", {"head.cells": 2}), files("imu")),
        "infrared": (classifier("infrared", PICTURE), files("infrared")),
        "pointcloud": (classifier("pointcloud", {"input.side": 2, "head.cells": 2}), files("pointcloud")),
        "tabular": (classifier("tabular", {"input.bins": 7}, target="label", epochs=12), rows(people, "label")),
        "text": (classifier("text", pieces, target="label", epochs=12), rows(sentences, "label", "question")),
        "timeseries": (hours, write_hours),
        "video": (classifier("video", {"input.size": 16, "input.frames": 4}), files("video")),
        "xray": (classifier("xray", PICTURE), files("xray")),
    }


def others() -> dict[str, tuple[Any, Writer]]:
    """Returns models of other tune modes, tasks, heads, tokenizers and kinds of data."""
    fast = {**PICTURE, "head.read": [1, -1], "optim.lr": 1e-2, "optim.trunk_lr": 1e-2, "data.batch_size": 8}
    groups = {"input.tokens": "groups", "input.groups": 5, "input.neighbours": 7, "head.pool": "both"}
    groups |= {"data.batch_size": 8}
    table = {"input.bins": 7, "input.numeric": "periodic"}
    pairs = {"input.vocabulary": "train", "input.size": 131, "input.columns": ["sentence", "question"]}
    pairs |= {"optim.lr": 1e-2, "data.batch_size": 8}
    deep = {**table, "head.read": [0, -1], "optim.trunk_lr": 1e-3}
    wealth = mt.Regressor("tabular", tune="head", target="wealth", recipe={**table, "head.pool": "summary"}, **USUAL)
    pictures = mt.Embedder("image", pool="both", recipe={"input.size": 16}, **USUAL)
    gained = {**fast, "head.read": [1], "head.pool": "mean", "head.centres": 0, "data.val_fraction": 0.3}
    return {
        "ends": (classifier("image", gained, tune="ends", epochs=8), files("image")),
        "lora": (classifier("image", fast, tune="lora:2", epochs=8), files("image")),
        "lora_table": (classifier("tabular", deep, tune="lora", target="label", epochs=12), rows(people, "label")),
        "all": (classifier("tabular", deep, tune="all", target="label", epochs=12), rows(people, "label")),
        "standalone": (classifier("infrared", PICTURE), files("infrared")),
        "groups": (classifier("pointcloud", groups, tune="ends", epochs=20), files("pointcloud")),
        "hidden": (
            classifier("tabular", {**table, "head.hidden": 7}, target="label", epochs=24),
            rows(people, "label"),
        ),
        "regress": (wealth, rows(people, "wealth", "label", "income")),
        "embedder": (pictures, files("image")),
        "series": (classifier("timeseries", {"input.sample": "file", "head.pool": "grid"}), files("timeseries")),
        "windows": (classifier("imu", {"head.cells": 2, "input.window_s": 1.0}, target="activity"), write_activities),
        "scene": (classifier("hyperspectral", {"head.cells": 2, "input.window": 3}), write_scene),
        "networks": (classifier("graph", {"input.environments": 31}), files("network")),
        "pairs": (classifier("text", pairs, target="label", epochs=12), rows(sentences, "label")),
    }


def save(case: str, estimator: Any, write: Writer) -> None:
    """Fits and saves an estimator, asks it, and writes down what it answers."""
    folder, rng = empty(SAVED / case), np.random.default_rng(list(case.encode()))
    with tempfile.TemporaryDirectory() as place:
        data = write(Path(place) / "data", alternating(TRAIN), rng, True)
        estimator.fit(data)
        if getattr(estimator, "tune", "default") not in ("default", "head"):
            untuned = clone(estimator).set_params(tune="head", epochs="default").fit(data)
            assert not np.allclose(untuned.transform(data), estimator.transform(data), atol=1e-2), f"{case}: untuned"
    write(folder / "inputs", alternating(ASKED), rng, False)
    if case == "standalone":
        estimator.save(folder / "model", standalone=True)
    else:
        estimator.save(folder / "model")
    answers = answers_of(estimator, inputs_of(folder))
    if "predict_proba" in answers:
        *_, second, first = np.sort(answers["predict_proba"], axis=1).T
        assert (first - second > MARGIN).all(), f"{case}: two classes are too near each other"
    np.savez_compressed(folder / "expected.npz", **answers)


def save_run(case: str, write: Writer, words: Sequence[str]) -> None:
    """Fits by the command line, asks by it, and keeps of the run folder what is small; the samples bring labels."""
    folder, rng = empty(SAVED / case), np.random.default_rng(list(case.encode()))
    with tempfile.TemporaryDirectory() as place:
        data, out = write(Path(place) / "data", alternating(TRAIN), rng, True), Path(place) / "run"
        usual = [f"{key}={value}" for key, value in {"run.device": "cpu", "run.precision": "float32"}.items()]
        told("fit", data, "--encoder", "test", "--out", out, *words, *usual)
        shutil.copytree(out / "model", folder / "model")
        for name in KEPT:
            shutil.copy(out / name, folder / name)
    write(folder / "inputs", alternating(ASKED), rng, True)
    told("predict", folder, inputs_of(folder), "--out", folder / "expected.csv")
    metrics = told("evaluate", folder, inputs_of(folder))["metrics"]
    (folder / "expected.json").write_text(json.dumps({"evaluate": metrics}, indent=1) + "\n")


def empty(folder: Path) -> Path:
    """Returns a folder that is new."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def alternating(count: int) -> list[int]:
    """Returns as many labels, 0 and 1 in turn."""
    return [number % 2 for number in range(count)]


def told(*words: object) -> dict[str, Any]:
    """Runs a command and returns the JSON object of its last line."""
    command = [sys.executable, "-m", "metatransformer", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Makes every saved model anew."""
    torch.set_num_threads(1)
    for case, (estimator, write) in {**defaults(), **others()}.items():
        save(case, estimator, write)
    save_run("run", files("image"), ["--modality", "image", "input.size=16", "head.read=[-1]"])
    answers = ["--task", "multilabel", "--target", "toxic,polar,large"]
    settings = ["input.environments=31", "input.whole=false", "data.val_fraction=0.3", "data.test_fraction=0"]
    table = rows(molecules, "toxic,polar,large", "solubility")
    save_run("multilabel", table, ["--modality", "graph", *answers, *settings])
    for folder in sorted(SAVED.iterdir()):
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{folder.name}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
