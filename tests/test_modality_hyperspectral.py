"""Hyperspectral: what becomes of a pixel, which samples are refused, and the maps that predictions become."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from common import FIXTURES, SMALL, run, words_of
from PIL import Image

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.modality import Stem
from metatransformer.core.samples import Record, View
from metatransformer.modalities.hyperspectral import (
    MODALITY,
    HyperspectralOptions,
    HyperspectralTokenizer,
    HyperspectralTransform,
    draw,
    features,
    illustrate,
    index,
    load,
)
from metatransformer.modalities.hyperspectral.cube import cube_from_array
from metatransformer.modalities.hyperspectral.label_map import ERRORS, _colours, class_colours

FOLDER = FIXTURES / "hyperspectral"
NM = np.linspace(410.0, 890.0, 13)


def scene(h: int = 7, w: int = 11, bands: int = 13, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.2, 0.8, size=(h, w, bands))


def pixels(values: np.ndarray, places=((0, 0), (3, 5), (6, 10)), **about) -> list[View]:
    cube = cube_from_array(values, where="scene", about=about)
    return [View(f"scene#{r},{c}", {"cube": cube, "row": r, "column": c, "names": ()}) for r, c in places]


def fitted(samples: list[View], **options) -> HyperspectralTransform:
    transform = HyperspectralTransform(HyperspectralOptions(**options), Stem())
    transform.fit(samples)
    return transform


# --- pixels


def test_a_pixel_is_the_mean_of_its_window_inside_the_scene():
    values = scene()
    transform = fitted(pixels(values), window=3, alike=1.0)
    windows = [values[:2, :2].reshape(-1, 13), values[2:5, 4:7].reshape(-1, 13), values[5:, 9:].reshape(-1, 13)]
    seen = np.concatenate(windows)
    np.testing.assert_allclose(transform.mean_, seen.mean(axis=0))
    np.testing.assert_allclose(transform.scale_, seen.std(axis=0))
    middle = transform(pixels(values)[1]).inputs["spectrum"]
    # float32 holds 7 digits.
    np.testing.assert_allclose(
        middle, (windows[1].mean(axis=0) - seen.mean(axis=0)) / seen.std(axis=0), rtol=1e-5, atol=1e-6
    )
    alone = fitted(pixels(values), window=1)
    np.testing.assert_allclose(alone.mean_, np.mean([values[0, 0], values[3, 5], values[6, 10]], axis=0))


def test_only_the_pixels_most_like_the_middle_one_are_averaged():
    values = scene() / 100 + 1
    values[:, 6:] += 1  # another material begins beside column 5
    mean = fitted(pixels(values, places=((3, 5),)), window=3, alike=0.6).mean_
    np.testing.assert_allclose(mean, values[2:5, 4:6].reshape(6, 13).mean(axis=0))  # ceil(0.6 x 9) = 6


def test_neighbours_without_data_do_not_count():
    values = scene()
    values[3, 4] = np.nan
    mean = fitted(pixels(values, places=((3, 5),)), window=3, alike=1.0).mean_
    window = values[2:5, 4:7].reshape(9, 13)
    np.testing.assert_allclose(mean, np.delete(window, 3, axis=0).mean(axis=0))


def test_bands_are_left_out_and_said():
    values = scene()
    values[:, :, 2] = 0
    transform = fitted(
        pixels(values, wavelengths_nm=NM, good=np.arange(13) != 5), window=1, skip_bands=(1,), skip_nm=((800.0, 900.0),)
    )
    assert transform.bands_ is not None and transform.bands_.taken == (1, 3, 4, 6, 7, 8, 9)
    assert (
        transform(pixels(values, wavelengths_nm=NM)[0]).inputs["nm"].tolist()
        == NM[list(transform.bands_.taken)].tolist()
    )
    assert "7 bands, 450 to 770 nm" in transform.notes[0] and "unit not stated; window 1 x 1" in transform.notes[0]
    assert transform.notes[1].endswith(": 1, 3, 6, 11, 12, 13")
    water = fitted(pixels(scene(), wavelengths_nm=np.linspace(1000, 1600, 13), unit="reflectance"))
    assert "3 bands where water vapour absorbs; input.skip_nm=" in water.notes[1]


def test_a_band_that_never_changes_stays_finite():
    values = scene()
    values[:, :, 4] = 0.5
    transform = fitted(pixels(values))
    assert (transform(pixels(values)[0]).inputs["spectrum"][4] == 0).all()


def test_before_fit_a_spectrum_is_standardised_by_itself():
    ready = HyperspectralTransform(HyperspectralOptions(window=1), Stem())(pixels(scene())[0])
    assert abs(ready.inputs["spectrum"].mean()) < 1e-6 and ready.inputs["spectrum"].std() == pytest.approx(1, abs=1e-6)
    assert np.isnan(ready.inputs["nm"]).all()


def test_augmentation_moves_a_spectrum_a_little():
    transform = fitted(pixels(scene()))
    ready = transform(pixels(scene())[1])
    other = transform.augment(ready, np.random.default_rng(1))
    assert 0 < np.abs(other.inputs["spectrum"] - ready.inputs["spectrum"]).max() < 1
    still = HyperspectralTransform(HyperspectralOptions(noise=0, level=0), Stem())
    np.testing.assert_array_equal(
        still.augment(ready, np.random.default_rng(1)).inputs["spectrum"], ready.inputs["spectrum"]
    )


def test_columns_of_a_table_are_found_by_name():
    rows = [{"450": 0.1 * i, "550": 0.2 * i, "650": 0.3} for i in range(1, 8)]
    samples = [View(str(i), load(Record(str(i), value=row))) for i, row in enumerate(rows)]
    transform = fitted(samples)
    turned = dict(reversed(rows[2].items()))
    one, two = transform(samples[2]), transform(View("x", load(Record("x", value=turned))))
    np.testing.assert_array_equal(one.inputs["spectrum"], two.inputs["spectrum"])
    assert one.inputs["nm"].tolist() == [450, 550, 650]
    with pytest.raises(DataError, match="x: must have the bands of training; found no column 550"):
        transform(View("x", load(Record("x", value={"450": 1.0, "650": 1.0}))))


def test_samples_in_memory():
    window = load(Record("x", value=scene(5, 3)))
    assert (window["row"], window["column"]) == (2, 1) and window["cube"].neighbours
    assert not load(Record("x", value=np.ones(7)))["cube"].neighbours
    mapping = load(
        Record("x", value={"values": np.ones(7), "wavelengths_nm": np.arange(7) + 400.0, "unit": "radiance"})
    )
    assert mapping["cube"].unit == "radiance"
    for bad, message in ((scene(4, 3), "with a pixel in the middle"), (np.ones((3, 7)), "one spectrum or one window")):
        with pytest.raises(DataError, match=message):
            load(Record("x", value=bad))


def test_features_are_the_standardised_spectrum_of_the_pixel_alone():
    transform, alone = fitted(pixels(scene())), pixels(scene())[1]
    ready = transform(alone)
    own = (alone.inputs["cube"].values[3, 5] - transform.mean_) / transform.scale_
    np.testing.assert_allclose(features(ready), own, atol=1e-5)
    assert not np.allclose(features(ready), ready.inputs["spectrum"], atol=0.05)
    many = ready.with_inputs({"pixel": np.arange(401, dtype=np.float32)})  # in threes: 134
    assert len(features(many)) == 134 and features(many)[[0, 133]].tolist() == [1, 399.5]


def test_many_bands_are_smoothed_and_few_are_not():
    peak = np.zeros(61)
    peak[30] = 1.0
    samples = [View(str(i), load(Record(str(i), value=np.full(61, float(i))))) for i in (1, 2, 3)]
    for smooth, ratio in (("auto", np.exp(-0.5)), (2.0, np.exp(-0.125))):
        transform = fitted(samples, smooth=smooth)
        found = transform(View("x", load(Record("x", value=np.full(61, 2.0) + peak)))).inputs["spectrum"]
        # A Gaussian falls by exp(-1 / 2 width^2) over one band; all bands have one scale here; float32.
        assert found[31] / found[30] == pytest.approx(ratio, rel=1e-4)
        assert "spectra smoothed over neighbouring bands, deviation" in transform.notes[-2]
        assert "beside the trunk (head.direct)" in transform.notes[-1]
    plain = fitted(pixels(scene()))
    assert not any("smoothed" in note for note in plain.notes)


def test_a_glitch_in_one_band_is_cut_and_another_unit_is_not():
    samples = [View(str(i), load(Record(str(i), value=np.full(13, 100.0 + i)))) for i in (1, 2, 3)]
    transform = fitted(samples)
    spike = np.full(13, 102.0)
    spike[4] += 60 * np.sqrt(2 / 3)  # 60 deviations, within the largest value that training has seen by far
    found = transform(View("x", load(Record("x", value=spike)))).inputs["spectrum"]
    np.testing.assert_allclose(found, np.where(np.arange(13) == 4, 50.0, 0.0), atol=1e-5)
    found = transform(View("x", load(Record("x", value=spike + 60)))).inputs["spectrum"]
    assert found.min() > 50  # nothing is cut: the check of the field refuses it


def test_the_spectrum_goes_beside_the_trunk_half_whitened():
    samples = pixels(scene(bands=13), places=[(r, c) for r in range(7) for c in range(11)])
    transform = fitted(samples, window=1)
    stem = Stem()
    tokenizer = HyperspectralTokenizer(HyperspectralOptions(window=1), transform, 32, stem)
    spectra = torch.from_numpy(np.stack([transform(sample).inputs["spectrum"] for sample in samples]))
    with torch.autocast("cpu", torch.bfloat16):
        tokens = tokenizer({"spectrum": spectra}, {})
    assert tokenizer.direct == 13 and tokens.direct.dtype == torch.float32
    before, after = (np.cov(values.double().numpy().T, bias=True) for values in (spectra, tokens.direct))
    np.testing.assert_allclose(np.linalg.eigvalsh(after), np.sqrt(np.linalg.eigvalsh(before)), rtol=1e-3)
    # A model that is loaded knows only how many bands there were; the numbers come with the tokenizer.
    again = HyperspectralTransform(HyperspectralOptions(window=1), stem)
    again.load_state(transform.state())
    loaded = HyperspectralTokenizer(HyperspectralOptions(window=1), again, 32, stem)
    loaded.load_state_dict(tokenizer.state_dict())
    assert torch.equal(loaded({"spectrum": spectra}, {}).direct, tokenizer({"spectrum": spectra}, {}).direct)
    # Before fit nothing is known of how bands vary.
    fresh = HyperspectralTransform(HyperspectralOptions(), stem)
    unfitted = HyperspectralTokenizer(HyperspectralOptions(), fresh, 32, stem)
    assert unfitted.direct == 0 and unfitted({"spectrum": spectra}, {}).direct is None


def test_false_colours_are_the_bands_nearest_to_red_green_and_blue():
    values = np.full((3, 3, 13), 0.5) + np.linspace(-0.1, 0.1, 13)
    values[0, 0] += 10  # far too bright: white
    window = fitted(pixels(values, places=((1, 1),), wavelengths_nm=NM), window=3)(
        pixels(values, places=((1, 1),), wavelengths_nm=NM)[0]
    ).inputs["window"]
    assert window.shape == (3, 3, 3) and window.dtype == np.uint8
    assert window[0, 0].tolist() == [255] * 3 and (window[1:] == window[2, 2]).all()
    alone = HyperspectralTransform(HyperspectralOptions(), Stem())(pixels(values, places=((1, 1),))[0]).inputs["window"]
    assert alone.shape == (3, 3, 3)


def test_a_drawing_says_nanometres_only_where_they_are_known():
    from matplotlib.figure import Figure

    for about, label in (({"wavelengths_nm": NM}, "nm"), ({}, "band")):
        samples = pixels(scene(), **about)
        axes = Figure().add_subplot()
        draw(axes, fitted(samples)(samples[0]))
        assert axes.get_xlabel() == label and len(axes.child_axes) == 1


# --- what is refused


def test_other_bands_wavelengths_units_and_scales_are_refused():
    transform = fitted(pixels(scene(), wavelengths_nm=NM, unit="reflectance"))
    with pytest.raises(DataError, match="must have 13 bands, as training; found 11"):
        transform(pixels(scene(bands=11))[0])
    with pytest.raises(DataError, match="band 1: must lie at 410 nm, as in training; found 470 nm"):
        transform(pixels(scene(), wavelengths_nm=NM + 60)[0])
    transform(pixels(scene(), wavelengths_nm=NM + 9)[0])  # less than half a step
    with pytest.raises(DataError, match="must be in reflectance, as training; found radiance"):
        transform(pixels(scene(), unit="radiance")[0])
    for factor in (1e4, 1e-2):
        with pytest.raises(DataError, match="must be on the scale of training, where the largest value is 0.79"):
            transform(pixels(scene() * factor)[0])
    # A single spectrum has no file to compare: the range of the field holds it to the scale of training.
    far = fitted(pixels(scene()), window=1)(View("x", load(Record("x", value=np.full(13, 99.0)))))
    with pytest.raises(DataError, match="must lie in .* deviations.*Check the unit"):
        MODALITY.fields["spectrum"].check(far.inputs["spectrum"], where="x")


def test_spectra_and_scenes_do_not_mix_unless_the_pixel_is_alone():
    one = View("x", load(Record("x", value=np.full(13, 0.5))))
    with pytest.raises(DataError, match="must be pixels of a scene, whose neighbours count; found spectra without"):
        fitted(pixels(scene()))(one)
    fitted(pixels(scene()), window=1)(one)


def test_a_spectrum_with_a_gap_is_refused():
    values = np.full(13, 0.5)
    values[4] = np.nan
    transform = fitted([View("x", load(Record("x", value=np.full(13, 0.5))))])
    with pytest.raises(DataError, match="y: must hold a number in every band; found nan in band 5"):
        transform(View("y", load(Record("y", value=values))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 4},
        {"window": 0},
        {"alike": 0.0},
        {"skip_bands": (0,)},
        {"skip_nm": ((9.0, 1.0),)},
        {"tile": 5},
        {"smooth": -1.0},
        {"noise": -1.0},
    ],
)
def test_options_are_checked(wrong):
    (name,) = wrong
    with pytest.raises(UsageError, match=f"input.{name}: must"):
        HyperspectralOptions(**wrong)


def test_bands_to_skip_must_exist():
    with pytest.raises(UsageError, match="input.skip_bands: must lie in 1..13; found 14"):
        fitted(pixels(scene()), skip_bands=(14,))
    with pytest.raises(UsageError, match="input.skip_nm: must stand beside data with wavelengths"):
        fitted(pixels(scene()), skip_nm=((1.0, 2.0),))


# --- maps


def predictions(tmp_path: Path, *, known: bool = True):
    """Returns the records of a scene that has no data in a corner, and predictions: 1 left of column 4."""
    values = scene(5, 7)
    values[0, 0] = np.nan
    np.save(tmp_path / "field.npy", values)
    options = HyperspectralOptions()
    records = index(tmp_path / "field.npy", target="", labelled=False, header=True, options=options).records
    classes = ["1" if int(str(r.part).split(",")[1]) < 4 else "12" for r in records]
    table = pd.DataFrame({"key": [r.key for r in records], "prediction": classes})
    if known:
        table["target"] = "1"
    return records, table


def test_a_label_map_holds_the_classes_at_their_places(tmp_path: Path):
    records, table = predictions(tmp_path)
    (picture,) = illustrate(records, table, tmp_path / "out")
    assert picture == tmp_path / "out" / "field.png"
    expected = np.where(np.arange(7) < 4, 1, 12) * np.ones((5, 1), dtype=int)
    expected[0, 0] = 0
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "field.npy"), expected)
    with Image.open(picture) as image:
        found = {tuple(colour) for colour in np.asarray(image.convert("RGB")).reshape(-1, 3)}
    for colour in class_colours(2):
        assert tuple(np.round(colour[:3] * 255).astype(int)) in found
    assert not (tmp_path / "out" / "field.json").exists()


def test_a_map_shows_the_scene_beside_what_was_predicted(tmp_path: Path):
    records, table = predictions(tmp_path, known=False)
    with Image.open(illustrate(records, table, tmp_path / "out")[0]) as image:
        alone = image.size
    cube = load(records[0])["cube"]
    with Image.open(illustrate(records, table.assign(target="1"), tmp_path / "more")[0]) as image:
        assert image.size[0] == alone[0] and image.size[1] > 1.9 * alone[1]  # four panels, two by two
    shown = _colours(cube)
    assert shown.shape == (5, 7, 3) and shown.min() == 0 and (shown[0, 0] == 1).all()  # no data there: white
    middle = cube.values[1:, :, 6]
    assert shown[1:, :, 1].argmax() == middle.argmax()  # 13 bands: the seventh is shown in green


def test_a_whole_scene_is_compared_with_the_labels_that_it_brings(tmp_path: Path):
    records, table = predictions(tmp_path, known=False)
    labels = [None if place % 3 else "12" for place in range(len(records))]
    own = [replace(record, target=label) for record, label in zip(records, labels, strict=True)]
    with Image.open(illustrate(own, table, tmp_path / "out")[0]) as image:
        found = np.asarray(image.convert("RGB")).reshape(-1, 3) / 255
    shares = [(np.abs(found - colour).max(axis=1) < 0.01).sum() for colour in ERRORS[:, :3]]
    expected = [sum(1 for p, t in zip(table["prediction"], labels, strict=True) if t and (p == t) == r) for r in (1, 0)]
    assert shares[0] / shares[1] == pytest.approx(expected[0] / expected[1], rel=0.05)


def test_the_picture_of_a_window_hides_no_part_of_the_spectrum():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    inputs = {"spectrum": np.arange(31.0), "nm": np.full(31, np.nan), "window": np.zeros((5, 5, 3), np.uint8)}
    draw(axes, View("x", inputs))
    low, high = axes.get_ylim()
    assert low < 0 and (30 - low) / (high - low) < 0.62  # where the inset begins


def test_classes_that_are_words_get_numbers_and_a_key(tmp_path: Path):
    records, table = predictions(tmp_path, known=False)
    table["prediction"] = table["prediction"].map({"1": "soil", "12": "maize"})
    illustrate(records, table, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "field.json").read_text()) == {"1": "maize", "2": "soil"}
    assert np.load(tmp_path / "out" / "field.npy")[2].tolist() == [2, 2, 2, 2, 1, 1, 1]


def test_values_become_a_map_with_nan_where_there_is_none(tmp_path: Path):
    records, table = predictions(tmp_path, known=False)
    table["prediction"] = np.arange(34) / 10
    illustrate(records, table, tmp_path / "out")
    found = np.load(tmp_path / "out" / "field.npy")
    assert np.isnan(found[0, 0]) and found[0, 1] == 0 and found[4, 6] == 3.3


def test_spectra_without_places_have_no_map(tmp_path: Path):
    record = Record("good.npy#1", path=FOLDER / "good_spectra.mat", part=1, value="X")
    assert illustrate([record], pd.DataFrame({"prediction": ["a"]}), tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_colours_differ():
    for count in (3, 20, 47):
        colours = class_colours(count)
        assert colours.shape == (count, 4) and len({tuple(c) for c in colours.round(3)}) == count


def test_command_line_from_a_scene_to_its_map(tmp_path: Path, capsys):
    words = words_of({key: value for key, value in SMALL.items() if key != "encoder"} | {"input.window": 1})
    train = ["fit", FOLDER / "good.npz", "--modality", "hyperspectral", "--encoder", "test", "--out", tmp_path / "run"]
    status, result, err = run([*train, *words, "input.train_pixels=5"], capsys)
    assert status == 0, err
    assert "5 random pixels a class for training, draw 0" in err
    assert result["metrics"]["test"]["accuracy"] == 1.0 and "kappa" in result["metrics"]["test"]
    assert (tmp_path / "run/pictures/test/good.png").is_file()
    out = tmp_path / "map.csv"
    status, result, err = run(["predict", tmp_path / "run", FOLDER / "good_v73.mat", "--out", out], capsys)
    assert status == 0, err
    assert result["rows"] == 35 and Path(result["pictures"][0]).name == "good_v73.png"
    assert np.load(tmp_path / "map" / "good_v73.npy")[:, [0, 1, 5, 6]].tolist() == [[1, 1, 2, 2]] * 5


def test_the_default_source_takes_what_the_docstring_says():
    assert {".mat", ".hdr", ".dat", ".tif", ".npy", ".npz", ".csv", ".parquet"} <= set(MODALITY.source.suffixes)
    assert replace(MODALITY, name="x").extra == "hyperspectral"
