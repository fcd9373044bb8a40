"""IMU: what becomes of a recording on its way to a plot, and which recordings are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.modality import Stem
from metatransformer.core.samples import Record, View
from metatransformer.modalities.imu import MODALITY, ImuOptions, ImuTransform, features
from metatransformer.modalities.imu.index import load_motion as load
from metatransformer.nn.curves import axis_bands, draw_curves
from metatransformer.nn.resample import resample_curves

STEM = Stem()  # no kernel: patches of 16


def raw(values, key: str = "x", **more) -> View:
    return View(key, load(Record(key, value={"values": np.asarray(values, dtype=float), **more})))


def noise(steps: int, axes: int = 3, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(steps, axes))


def fitted(*samples: View, **options) -> ImuTransform:
    transform = ImuTransform(ImuOptions(**options), STEM)
    transform.fit(samples)
    return transform


# --- the plot


def test_axes_of_one_sensor_share_a_band():
    assert axis_bands(["acc_x", "gyro_x", "acc_y", "acc_z", "gyro_y"]) == ((0, 2, 3), (1, 4))
    assert axis_bands(["q_1", "q_2", "q_3", "q_4"]) == ((0, 1, 2), (3,))
    assert axis_bands(["roll", "pitch"]) == ((0,), (1,))


def test_a_line_runs_at_its_level():
    motion = torch.tensor([[[0.0, 3.0], [-3.0, 99.0]]])  # two columns, two axes
    picture = draw_curves(motion, bands=((0, 1),), height=11)
    assert picture.shape == (1, 3, 11, 2)
    assert picture[0, 0, :, 0].argmax() == 5  # zero in the middle
    assert picture[0, 1, :, 0].argmax() == picture[0, 1, :, 1].argmax() < 2  # beyond 3 along the edge
    assert picture[0, 0, :, 1].argmax() > 8
    assert (picture[0, 2] == -1).all()  # no third axis
    assert picture.max() <= 1 and picture.min() >= -1


def test_resampling_keeps_lines_and_averages_what_is_too_fast():
    times = np.array([0.0, 0.1, 0.4, 1.0])  # uneven, as clocks are
    curves = resample_curves(3 * times[:, None] + 1, times=times, columns=7)
    np.testing.assert_allclose(curves[:, 0], np.linspace(1, 4, 7), atol=1e-12)  # float64 sums
    fast = np.tile([1.0, -1.0], 500)[:, None]
    slow = resample_curves(fast, times=np.arange(1000.0), columns=13)
    assert np.abs(slow).max() < 0.1


def test_a_recording_is_drawn_in_proportion_to_its_length():
    transform = fitted(raw(noise(101), rate_hz=50.0))
    assert transform(raw(noise(101), rate_hz=50.0)).inputs["motion"].shape == (1, 8 * 16, 3)
    assert transform(raw(noise(202), rate_hz=50.0)).inputs["motion"].shape == (1, 16 * 16, 3)
    # The same two seconds at another rate are as wide.
    assert transform(raw(noise(404), rate_hz=200.0)).inputs["motion"].shape == (1, 8 * 16, 3)


def test_axes_are_standardised_by_the_training_recordings():
    values = noise(97) * [1, 10, 100] + [0, 5, -7]
    motion = fitted(raw(values))(raw(values)).inputs["motion"]
    assert motion.dtype == np.float32
    # The first and last columns weigh a little more than in the recording.
    np.testing.assert_allclose(motion[0].mean(axis=0), 0, atol=0.1)
    still = fitted(raw(np.ones((31, 2))))(raw(np.ones((31, 2)))).inputs["motion"]
    np.testing.assert_array_equal(still, 0)


def test_before_fit_a_recording_is_standardised_by_itself():
    motion = ImuTransform(ImuOptions(), STEM)(raw(noise(53) * 400 + 9)).inputs["motion"]
    assert motion.shape == (1, 128, 3) and abs(motion).max() < 6


def test_axes_are_found_by_name_in_any_order():
    values = noise(43, 2)
    transform = fitted(raw(values, names=("acc_x", "acc_y")))
    one = transform(raw(values, names=("acc_x", "acc_y")))
    two = transform(raw(values[:, ::-1], names=("acc_y", "acc_x")))
    np.testing.assert_array_equal(one.inputs["motion"], two.inputs["motion"])


def test_options_choose_axes():
    sample = raw(noise(43, 2), names=("acc_x", "temperature"), left_out={"activity": "text"})
    assert fitted(sample, axes=("acc_x",)).names_ == ("acc_x",)
    assert fitted(sample).notes[-1] == "columns left out: activity (text)"
    with pytest.raises(DataError, match="have the same axes as the first recording; found also the column 'z'"):
        fitted(sample, raw(noise(43), names=("acc_x", "temperature", "z")))


def test_features_by_hand():
    sample = View("x", {"motion": np.array([[[1, 0], [3, 0], [2, 0]]], dtype=np.float32)})
    expected = [2, 0, (2 / 3) ** 0.5, 0, 1, 0, 3, 0, 1.5, 0]
    np.testing.assert_allclose(features(sample), expected, rtol=1e-6)  # float32


def test_augmentation_moves_a_recording_a_little():
    transform = fitted(raw(noise(61)))
    ready = transform(raw(noise(61)))
    other = transform.augment(ready, np.random.default_rng(1)).inputs["motion"]
    assert other.shape == ready.inputs["motion"].shape and not np.array_equal(other, ready.inputs["motion"])
    none = ImuTransform(ImuOptions(warp=0, shift=0), STEM)
    np.testing.assert_allclose(
        none.augment(ready, np.random.default_rng(1)).inputs["motion"], ready.inputs["motion"], atol=1e-6
    )


def test_notes_say_how_the_data_was_understood():
    transform = fitted(raw(noise(51, 2), rate_hz=50.0, names=("acc_x", "q"), units=("m/s2", "")))
    assert transform.notes == ("2 axes: acc_x [m/s2], q; a window is 1.02 s",)
    assert "51 time steps of unknown rate" in fitted(raw(noise(51))).notes[0]


def test_a_recording_of_a_ts_file_is_found_by_its_part(tmp_path: Path):
    path = tmp_path / "a.ts"
    path.write_text("@timeStamps false\n@classLabel true a b\n@data\n1,2:3,4:a\n5,6:7,9:b\n")
    assert MODALITY.source.parts is not None
    assert MODALITY.source.parts(path) == ((1, "a"), (2, "b"))
    assert MODALITY.source.parts(tmp_path / "a.csv") == ()
    np.testing.assert_array_equal(load(Record("a", path=path, part=2))["values"], [[5, 7], [6, 9]])


# --- what is refused


def test_a_gap_is_named():
    times = np.delete(np.arange(50) / 50, range(20, 26))
    with pytest.raises(DataError, match="no gap beyond 3 steps of 0.02 s; found 0.14 s .* after 0.38 s"):
        fitted(raw(noise(44), times_s=times))
    assert fitted(raw(noise(44), times_s=times), max_gap=7.0).window_ == pytest.approx(1.0)


def test_mixed_rates_units_and_axes_are_refused():
    rated = raw(noise(31), key="first", rate_hz=50.0)
    with pytest.raises(DataError, match="second: must state its rate; found no rate and no times"):
        fitted(rated, raw(noise(31), key="second"))
    with pytest.raises(DataError, match="must state no rate, as the first recording"):
        fitted(raw(noise(31)), rated)
    assert fitted(rated, raw(noise(31)), rate_hz=50.0).timed_
    with pytest.raises(DataError, match="axis 'axis_1'.*must have the unit g, as in training; found none stated"):
        fitted(raw(noise(31), units=("g",) * 3), raw(noise(31)))
    with pytest.raises(DataError, match="must have the axes axis_1, axis_2, axis_3; found no 'axis_3'"):
        fitted(rated, raw(noise(31, 2), rate_hz=50.0))
    with pytest.raises(DataError, match="also the column 'axis_4'"):
        fitted(rated, raw(noise(31, 4), rate_hz=50.0))


def test_too_long_and_too_short_recordings_are_refused():
    transform = fitted(raw(noise(50), rate_hz=50.0))
    with pytest.raises(DataError, match="must last at most 64 s; found 64.02 s. Set input.sample=window"):
        transform(raw(noise(3201), rate_hz=50.0))
    with pytest.raises(DataError, match="must have at least 2 time steps; found 1"):
        transform(raw(noise(1), rate_hz=50.0))


def test_values_far_out_are_clipped_and_told():
    transform = fitted(raw(noise(101)))
    far = transform(raw(noise(101) * 57.3, key="far.csv"))  # deg/s instead of rad/s
    assert np.abs(MODALITY.fields["motion"].check(far.inputs["motion"], where="x")).max() == 50.0
    (told,) = transform.doubts()
    assert told.startswith("1 recording with values beyond 50 deviations of training, clipped there (the farthest: ")
    assert "of far.csv). Where they are many, check the unit" in told
    assert transform.doubts() == ()


def test_a_unit_that_only_one_side_states_is_told_once_fitted():
    transform = fitted(raw(noise(31), units=("g",) * 3), raw(noise(31, seed=1), units=("g",) * 3))
    transform(raw(noise(31)))
    assert transform.doubts() == ("1 recording and training do not state the same units: taken to be equal",)
    with pytest.raises(DataError, match="axis 'axis_1': must have the unit g, as in training; found uT"):
        transform(raw(noise(31), units=("uT",) * 3))


def test_what_is_one_value_in_each_recording_is_no_axis():
    def labelled(label: float, seed: int) -> View:
        return raw(np.column_stack([noise(31, 2, seed=seed), np.full(31, label)]), names=("x", "y", "digit"))

    transform = fitted(labelled(3, 0), labelled(4, 1), labelled(3, 2))
    assert transform.names_ == ("x", "y") and transform(labelled(5, 3)).inputs["motion"].shape[2] == 2
    assert transform(raw(noise(31, 2), names=("x", "y"))).inputs["motion"].shape[2] == 2
    why = "one value in each recording: it tells which one it is"
    assert transform.notes[-1] == f"columns left out: digit ({why})"
    again = ImuTransform(ImuOptions(), STEM)
    again.load_state(transform.state())
    np.testing.assert_array_equal(*(one(labelled(3, 0)).inputs["motion"] for one in (transform, again)))
    # Who names the axes gets them, and what never differs says nothing of a recording.
    assert fitted(labelled(3, 0), labelled(4, 1), axes=("digit",)).names_ == ("digit",)
    assert fitted(labelled(3, 0), labelled(3, 1)).names_ == ("x", "y", "digit")


WRONG = {"rate_hz": -1.0, "window_s": 0.0, "step_s": 0.0, "max_windows": 0.5, "max_rows": 0, "warp": 0.5}


@pytest.mark.parametrize("name", WRONG)
def test_options_are_checked(name: str):
    with pytest.raises(UsageError, match=f"input.{name}: must"):
        ImuOptions(**{name: WRONG[name]})


def test_arrays_in_memory_have_no_rate():
    sample = load(Record("x", value=noise(11)))
    assert sample["rate_hz"] == 0 and sample["names"] == ("axis_1", "axis_2", "axis_3")
    with pytest.raises(DataError, match="must be numbers"):
        load(replace(Record("x"), value=np.array(["a"])))
