"""Seeing inside: where made data has its answer in one known place, that is found; a random head finds others."""

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from common import CLI_IMAGE, CLI_SETTINGS, Run, make_values, settings_of

import metatransformer as mt
from metatransformer.core.errors import UsageError
from metatransformer.core.inside import Places, Seen, few_cells, reach_of
from metatransformer.core.samples import View
from metatransformer.infer.explain import Explanation
from metatransformer.modalities import get_modality, modality_names

EVERY = modality_names()


def fitted(name: str, X: Any, y: list[str], more: Mapping[str, Any] | None = None) -> mt.Classifier:
    given = settings_of(name, more)
    return mt.Classifier(name, encoder="test", device="cpu", precision="float32", recipe=given).fit(X, y)


def one(found: Explanation | list[Explanation]) -> Explanation:
    assert isinstance(found, Explanation)
    return found


# --- places -----------------------------------------------------------------------------------------------------------


def test_cells_are_halved_along_the_finest_axis():
    edges = few_cells((8, 17), most=30)
    assert [own.tolist() for own in edges] == [[0, 2, 4, 6, 8], [0, 3, 7, 10, 14, 17]]
    assert reach_of(edges) == (0, 0) and reach_of(few_cells((8, 8), most=64)) == (1, 1)
    assert [len(own) - 1 for own in few_cells((3, 2), most=1)] == [1, 1]


def test_a_place_is_covered_with_its_neighbours_and_what_lies_behind_the_grid_alone():
    edges = [np.array([0, 1, 2, 3]), np.array([0, 2])]
    places = Places(list("abcd"), ("x",), np.zeros((4, 1)), edges, reach=(1, 0))
    assert places.covers().astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert places.spread(np.array([5, 6, 7, 8])).tolist() == [[5, 5], [6, 6], [7, 7]]
    assert places.spread(np.array([5, 6, 7, 8]), size=(6, 1)).ravel().tolist() == [5, 5, 6, 6, 7, 7]


# --- every modality ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_every_modality_tells_what_an_answer_rests_on(name: str, tmp_path: Path):
    values, labels = make_values(get_modality(name), 12)
    model = fitted(name, values, labels)
    found = one(mt.explain(model, [values[0]], places=20)[0])
    (part,) = found.parts.values()
    assert part.modality == name and len(part.values) == len(part.places) > 1
    assert np.isfinite(part.values).all() and np.abs(part.values).max() > 0
    assert part.places.where.shape == (len(part.places), len(part.places.columns))
    assert found.answer in ("a", "b") and found.unit == f"log odds of {found.answer}"
    assert len(set(part.places.names)) == len(part.places) or name == "text"
    outputs = model.predict_proba([values[0]])[0]
    assert found.score == pytest.approx(float(np.log(outputs.max() / (1 - outputs.max()))), abs=1e-3)
    picture, numbers = found.save(tmp_path / "seen")
    assert picture.read_bytes()[:4] == b"\x89PNG" and '"value"' in numbers.read_text(encoding="utf-8")
    again = one(mt.explain(model, [values[0]], places=20)[0])
    assert np.array_equal(next(iter(again.parts.values())).values, part.values)


# --- made data whose answer lies in one known place -------------------------------------------------------------------


def _corner(label: int, rng: np.random.Generator) -> np.ndarray:
    """A noisy picture; of class 1 with a bright square in the lower right corner."""
    pixels = rng.integers(60, 120, size=(64, 64, 3))
    if label:
        pixels[48:, 48:] = 240
    return pixels.astype(np.uint8)


def _burst(label: int, rng: np.random.Generator) -> dict[str, Any]:
    """Two axes of noise; of class 1 the first shakes during the third quarter."""
    values = rng.normal(0, 0.1, size=(100, 2))
    if label:
        values[50:75, 0] += 3 * np.sin(np.arange(25) * 2.1)
    return {"values": values, "names": ("acc", "tilt"), "units": ("", ""), "times_s": None, "rate_hz": 50.0}


def _spectrum(label: int, rng: np.random.Generator) -> dict[str, Any]:
    """A smooth spectrum of 40 bands from 400 to 790 nm; of class 1 with a line at 700 to 740 nm."""
    values = 0.5 + np.convolve(rng.normal(0, 0.05, size=44), np.full(5, 0.2), mode="valid")
    if label:
        values[30:35] += 0.5 * np.hanning(7)[1:-1]
    return {"values": values, "wavelengths_nm": np.linspace(400, 790, 40), "unit": "reflectance"}


def _film(label: int, rng: np.random.Generator) -> np.ndarray:
    """Eight noisy frames; of class 1 with a bright square in the upper left of the last two."""
    frames = rng.integers(60, 120, size=(8, 64, 64, 3))
    if label:
        frames[6:, :16, :16] = 240
    return frames.astype(np.uint8)


def _row(label: int, rng: np.random.Generator) -> dict[str, Any]:
    """Five columns, of which 'dose' alone knows the class."""
    noise = {name: float(rng.normal()) for name in ("age", "height", "weight", "pulse")}
    return {**noise, "dose": float(rng.normal(4 * label, 0.5))}


def _text(label: int, rng: np.random.Generator) -> str:
    """Common words; one of class 1 is 'splendid', one of class 0 'dreadful'."""
    words = [str(rng.choice("the film a story is was and with actors scenes".split())) for _ in range(8)]
    words[int(rng.integers(8))] = ("dreadful", "splendid")[label]
    return " ".join(words)


def _molecule(label: int, rng: np.random.Generator) -> str:
    """A chain of carbons; of class 1 with one bromine at its end, of class 0 with one more carbon."""
    return "C" * int(rng.integers(4, 9)) + ("C", "Br")[label]


def tops(found: Any, there: "Where") -> list[bool]:
    """Whether the place that speaks most for the answer is where the answer is."""
    return [there(one.table().nlargest(1, "value").iloc[0].to_dict()) for one in found]


def with_head(model: mt.Classifier, seed: int) -> mt.Classifier:
    """The same model with weights of its head that were drawn, as large as they were."""
    with torch.no_grad():
        for name, weights in model.pipeline_.head.named_parameters():
            drawn = torch.randn(weights.shape, generator=torch.Generator().manual_seed(seed))
            weights.copy_(drawn * weights.std(correction=0) if name.endswith("weight") else weights)
    return model


Where = Callable[[dict[str, Any]], bool]
MADE: dict[str, tuple[Callable[[int, np.random.Generator], Any], Where, dict[str, Any]]] = {
    "image": (_corner, lambda row: row["top_px"] >= 32 and row["left_px"] >= 32, {"input.size": 64}),
    "xray": (
        lambda label, rng: _corner(label, rng)[..., 0],
        lambda row: row["top_px"] >= 32 and row["left_px"] >= 32,
        {"input.size": 64},
    ),
    "infrared": (
        lambda label, rng: _corner(label, rng)[..., 0],
        lambda row: row["top_px"] >= 32 and row["left_px"] >= 32,
        {"input.size": 64},
    ),
    "video": (
        _film,
        lambda row: row["from_frames"] >= 4 and row["top_px"] < 32 and row["left_px"] < 32,
        {"input.size": 64, "input.frames": 8, "input.level": "kept"},
    ),
    "imu": (_burst, lambda row: row["from_channel"] == 1 and row["from_s"] < 1.5 and row["to_s"] > 1.0, {}),
    "timeseries": (
        lambda label, rng: {name: value for name, value in _burst(label, rng).items() if name != "units"},
        lambda row: row["from_channel"] == 1 and row["from_rows"] < 75 and row["to_rows"] > 50,
        {},
    ),
    "hyperspectral": (_spectrum, lambda row: row["to_nm"] >= 700 and row["from_nm"] <= 740, {}),
    "tabular": (_row, lambda row: row["place"].startswith("dose = "), {}),
    "text": (_text, lambda row: row["place"] == "splendid", {}),
    "graph": (_molecule, lambda row: "Br" in row["place"], {"input.whole": False, "input.environments": 0}),
}


@pytest.mark.parametrize("name", sorted(MADE))
def test_the_place_that_holds_the_answer_is_found_and_not_by_a_random_head(name: str):
    make, there, more = MADE[name]
    rng = np.random.default_rng(7)
    labels = [number % 2 for number in range(24)]
    values = [make(label, rng) for label in labels]
    model = fitted(name, values, [str(label) for label in labels], more)
    tests = [make(1, rng) for _ in range(2)]
    found = mt.explain(model, tests, answer="1", places=36)
    assert isinstance(found, list)
    assert all(tops(found, there)), [one.table().nlargest(3, "value").to_string() for one in found]
    drawn = [tops(mt.explain(with_head(model, seed), tests, answer="1", places=36), there) for seed in range(3)]
    assert np.mean(drawn) < 1, drawn


def test_a_band_that_no_training_clip_fills_is_covered_by_what_they_have_there():
    # As above 4 kHz in telephone speech. The mean of all bands is there the loudest sound that a plain model ever met.
    def clip(number: int) -> np.ndarray:
        rng, t = np.random.default_rng(number), np.arange(4000) / 8000
        wave = (0.2 + (t if number % 2 else t[::-1])) * rng.normal(size=4000)  # grows or fades
        return 0.1 * np.fft.irfft(np.pad(2 * np.fft.rfft(wave), (0, 2000)), 8000) + 1e-4 * rng.normal(size=8000)

    clips = [clip(number) for number in range(16)]
    pipeline = fitted("audio", clips, ["fades", "grows"] * 8).pipeline_
    modality, transform = pipeline.modality, pipeline.transform
    assert modality.inside is not None
    raw = View("0", {"wave": clips[0].astype(np.float32)})
    for state in (transform.state(), {**transform.state(), "bands": []}):  # the second: as models of before have it
        transform.load_state(state)
        seen = Seen(raw, transform(raw), transform)
        places = modality.inside.places(seen, 64)
        empty = places.where[:, places.columns.index("from_hz")] > 5000
        found = modality.inside.cover(seen, places)(empty)
        changed = (found.inputs["spectrum"] - seen.view.inputs["spectrum"]).mean(axis=0)
        assert empty.any() and np.abs(changed).max() < 0.3


def test_hidden_bands_lie_on_a_line_between_those_beside_them():
    modality = get_modality("hyperspectral")
    assert modality.inside is not None
    spectrum = np.array([1, 2, 9, 9, 5, 6, 7, 8], dtype=np.float32)
    inputs = {"spectrum": spectrum, "pixel": spectrum, "nm": np.full(8, np.nan)}
    seen = Seen(View("x", {}), View("x", inputs), None)
    places = modality.inside.places(seen, 4)
    assert places.grid == (4,)
    for hidden, expected in (
        ([False, True, False, False], [1, 2, 3, 4, 5, 6, 7, 8]),
        ([True, False, False, True], [9, 9, 9, 9, 5, 6, 6, 6]),
        ([True] * 4, [0] * 8),
    ):
        found = modality.inside.cover(seen, places)(np.array(hidden))
        assert found.inputs["spectrum"].tolist() == expected


def test_leaving_out_a_few_points_is_no_other_cloud():
    rng = np.random.default_rng(0)
    clouds = [get_modality("pointcloud").synthesize(rng, number % 2) for number in range(12)]
    model = fitted("pointcloud", clouds, [("upright", "lying")[number % 2] for number in range(12)])
    values = mt.explain(model, clouds[0]).table()["value"]
    assert values.abs().median() < 0.5 * values.abs().max()


def test_a_shuffled_head_finds_other_places():
    rng = np.random.default_rng(7)
    labels = [number % 2 for number in range(40)]
    model = fitted("tabular", [_row(label, rng) for label in labels], [str(label) for label in labels])
    rows = [_row(1, rng) for _ in range(6)]
    found = mt.explain(model, rows, answer="1", control=True)
    assert isinstance(found, list)
    alike = [one.control for one in found]
    assert None not in alike and -1 <= min(alike) and np.mean(alike) < 0.9, alike
    assert [one.copies for one in found] == [2 * (1 + 5)] * 6


# --- several inputs, other tasks, the command line --------------------------------------------------------------------


def test_of_several_inputs_each_is_left_out_and_then_its_places():
    rng = np.random.default_rng(3)
    labels = [number % 2 for number in range(24)]
    frame = pd.DataFrame([_row(label, rng) for label in labels])
    frame["note"] = [_text(int(rng.integers(2)), rng) for _ in labels]
    given = {"head.read": [1, -1], "inputs.words.vocabulary": "train"}
    inputs = {"words": ("text", ["note"]), "rest": ("tabular", ["age", "dose"])}
    model = mt.Classifier(inputs, encoder="test", device="cpu", precision="float32", recipe=given)
    model.fit(frame, [str(label) for label in labels])
    found = one(mt.explain(model, frame.iloc[0].to_dict()))
    assert list(found.parts) == ["words", "rest"]
    assert found.parts["rest"].places.names[1].startswith("dose = ")
    absent = {name: part.absent for name, part in found.parts.items()}
    whole = model.predict_proba(frame.iloc[:1])[0]
    without = model.predict_proba(frame.iloc[:1].assign(note=""))[0]
    number = list(model.classes_).index(found.answer)
    fall = float(np.log(whole[number] / (1 - whole[number])) - np.log(without[number] / (1 - without[number])))
    assert absent["words"] == pytest.approx(fall, abs=1e-3) and absent["rest"] is not None
    assert found.plot().axes[0].get_title().startswith("words: ")


def test_a_number_falls_in_its_own_unit():
    rng = np.random.default_rng(3)
    rows = [_row(number % 3, rng) for number in range(60)]
    model = mt.Regressor(
        "tabular", encoder="test", device="cpu", precision="float32", recipe=settings_of("tabular"), epochs=9
    )
    model.fit(rows, [100 * row["dose"] for row in rows])
    row = _row(2, rng)
    found = one(mt.explain(model, row))
    assert found.unit == "the number" and found.score == pytest.approx(model.predict([row])[0], rel=1e-4)
    top = found.table().iloc[0]
    mean = next(one.mean for one in model.pipeline_.transform.columns_ if one.name == "dose")
    assert top["place"].startswith("dose = ")
    assert top["value"] == pytest.approx(found.score - model.predict([{**row, "dose": mean}])[0], rel=1e-3)


def test_what_cannot_be_explained_is_said(tmp_path: Path):
    rng = np.random.default_rng(3)
    labels = [number % 2 for number in range(12)]
    model = fitted("tabular", [_row(label, rng) for label in labels], [str(label) for label in labels])
    with pytest.raises(UsageError, match="answer: must be an answer of the model; found '3'"):
        mt.explain(model, _row(1, rng), answer="3")
    with pytest.raises(UsageError, match="places: must be at least 1"):
        mt.explain(model, _row(1, rng), places=0)
    with pytest.raises(UsageError, match="be a run folder, or a fitted"):
        mt.explain(3, _row(1, rng))
    with pytest.raises(mt.NotFittedError):
        mt.explain(mt.Classifier("tabular"), _row(1, rng))
    with pytest.raises(mt.DataError, match="model"):
        mt.explain(tmp_path, _row(1, rng))


def test_the_command_writes_a_picture_and_numbers_for_each_sample(pictures: Path, tmp_path: Path, call: Run):
    run, out = tmp_path / "run", tmp_path / "seen"
    words = ["fit", pictures, *CLI_IMAGE, "--tune", "head", "--out", run, "--controls", *CLI_SETTINGS]
    assert call(words)[0] == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "What answers rest on" in page and "red is where the answer" in page
    status, told, err = call(["explain", run, pictures, "--out", out, "--most", 2, "--control", "--places", 4])
    assert status == 0 and told["samples"] == 2 and "the first 2 of" in err
    assert [Path(name).suffix for name in told["files"][0]] == [".png", ".json"]
    numbers = json.loads(Path(told["files"][0][1]).read_text(encoding="utf-8"))
    assert len(numbers["inputs"]["image"]["places"]) == 4 and -1 <= numbers["control"] <= 1
    status, _, err = call(["explain", run, pictures, "--out", out, "--answer", "z"])
    assert status == 2 and "must be an answer of the model" in err


@pytest.mark.parametrize("name", modality_names())
def test_what_a_fitted_model_holds_of_a_modality_can_be_pickled(name: str):
    assert pickle.loads(pickle.dumps(get_modality(name))).name == name
