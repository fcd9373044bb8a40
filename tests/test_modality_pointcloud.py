"""Point cloud: what becomes of a cloud on its way to tokens, what is said of it, and which clouds are refused."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from common import FIXTURES, batch_of, make_records, make_views, tiny_pipeline, tiny_recipe
from scipy import stats
from sklearn.ensemble import RandomForestClassifier

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.modality import Stem
from metatransformer.core.samples import Record, View
from metatransformer.fit.fit import fit
from metatransformer.machine.console import Console
from metatransformer.modalities.pointcloud import (
    MODALITY,
    PointCloudOptions,
    PointCloudTransform,
    draw,
    features,
    load,
)
from metatransformer.modalities.pointcloud.whole import whole_numbers

GROUPS = {
    "input.tokens": "groups",
    "input.groups": 13,
    "input.neighbours": 7,
    "tune": "ends",
    "head.pool": "both",
    "head.read": [1],
}


def raw(value, key: str = "x") -> View:
    return View(key, load(Record(key, value=value)))


def points(count: int = 53, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3))


def fitted(*samples: View, **options) -> PointCloudTransform:
    transform = PointCloudTransform(PointCloudOptions(**options), Stem())
    transform.fit(samples)
    return transform


def cloud_of(transform: PointCloudTransform, sample: View) -> np.ndarray:
    return transform(sample).inputs["cloud"]


# --- the transform


def test_a_cloud_is_put_into_a_box_or_a_sphere():
    cloud = cloud_of(fitted(), raw(points() * 700 + [431_000, 5_410_000, 0]))
    assert np.abs(cloud).max() == pytest.approx(1)
    np.testing.assert_allclose(cloud, cloud_of(fitted(), raw(points())), atol=1e-5)
    cloud = cloud_of(fitted(normalize="sphere"), raw(points() * 700 + [431_000, 5_410_000, 0]))
    assert cloud.shape == (53, 3) and cloud.dtype == np.float32
    np.testing.assert_allclose(cloud.min(axis=0), -cloud.max(axis=0), atol=1e-6)  # float32
    assert np.linalg.norm(cloud, axis=1).max() == pytest.approx(1)
    # Metres or millimetres, near or far: the same shape.
    np.testing.assert_allclose(cloud, cloud_of(fitted(normalize="sphere"), raw(points())), atol=1e-5)


def test_a_shared_scale_keeps_sizes():
    transform = fitted(raw(points()), raw(points() * 3), normalize="shared")
    small, large = (np.abs(cloud_of(transform, raw(points() * k))).max() for k in (1, 3))
    assert (small, large) == (pytest.approx(1 / 3), pytest.approx(1))
    far = cloud_of(transform, raw(points() * 1000))
    with pytest.raises(DataError, match=r"must lie in \[-8.0, 8.0\] half sides; .*Check the unit"):
        MODALITY.fields["cloud"].check(far, where="x")


def test_the_order_of_the_file_and_repeated_points_play_no_part():
    value = points(97)
    shuffled = np.random.default_rng(1).permutation(np.concatenate([value, value[:31]]))
    for options in ({}, {"points": 37}):
        one, two = (cloud_of(fitted(**options), raw(x)) for x in (value, shuffled))
        np.testing.assert_array_equal(one, two)
        assert len(one) == options.get("points", 97)


def test_y_up_is_turned_without_mirroring():
    value = points() * [1, 3, 2]
    turned = cloud_of(fitted(up="y"), raw(value))
    # y becomes z, and z comes towards the viewer, who stands at -y.
    plain = cloud_of(fitted(), raw(np.stack([value[:, 0], -value[:, 2], value[:, 1]], axis=1)))
    np.testing.assert_allclose(turned, plain, atol=1e-6)
    assert np.ptp(turned, axis=0).argmax() == 2


def test_a_mesh_becomes_points_on_its_surface():
    sample = View("x", load(Record("x", path=FIXTURES / "pointcloud" / "good.off")))
    transform = fitted(sample, points=211, features=("normal",))
    cloud = cloud_of(transform, sample)
    assert cloud.shape == (211, 6)
    np.testing.assert_allclose(np.linalg.norm(cloud[:, 3:], axis=1), 1, atol=1e-6)
    assert transform.notes[1] == "1 of 1 are meshes: 211 points drawn on each (seed 0)"


def test_features_are_scaled_by_what_is_stated_or_learned():
    value = np.concatenate([points(), np.full((53, 3), [0.0, 51, 255]), np.arange(53.0)[:, None]], axis=1)
    names = ("red", "green", "blue", "intensity")
    transform = fitted(raw(value), features=("intensity", "color"), columns=names)
    cloud = cloud_of(transform, raw(value))
    assert cloud.shape == (53, 7) and transform.top_ == 255
    np.testing.assert_allclose(cloud[:, 4:], [[0, 0.2, 1]] * 53, atol=1e-6)
    assert cloud[:, 3].min() == 0 and cloud[:, 3].max() == 1
    assert "colours are taken as 0..255, after the brightest in training" in transform.notes
    stated = {"points": points(), "colors": np.full((53, 3), 51, dtype=np.uint8)}
    np.testing.assert_allclose(cloud_of(fitted(raw(stated), features=("color",)), raw(stated))[:, 3:], 0.2)
    with pytest.raises(DataError, match=r"must have colours in 0\.\.255, as in training; found 0 to 510"):
        transform(raw(value * [1, 1, 1, 1, 1, 2, 1]))


def test_notes_say_what_was_left_out():
    value = {"points": points(), "normals": points()}
    notes = fitted(raw(value), raw(points(41)), points=43).notes
    assert notes == (
        "each cloud is put into the same box, whatever its size; z points up (input.up)",
        "1 of 2 are thinned to 43 points (seed 0; input.points)",
        "not drawn: normal (input.features)",
        "plain features: the shape, and place, size and spread of x, y, z",
    )


def test_a_training_copy_is_turned_shrunk_and_mirrored():
    value = {"points": points(), "normals": points(seed=1)}
    transform = fitted(raw(value), features=("normal",), turn=180, jitter=0.0, scale=0.0)
    ready = transform(raw(value))
    copy = transform.augment(ready, np.random.default_rng(3)).inputs["cloud"]
    before = ready.inputs["cloud"]
    np.testing.assert_allclose(copy[:, [2, 5]], before[:, [2, 5]], atol=1e-6)  # the vertical stays
    for start in (0, 3):
        inner = before[:, start : start + 3] @ before[:, start : start + 3].T
        np.testing.assert_allclose(copy[:, start : start + 3] @ copy[:, start : start + 3].T, inner, atol=1e-5)
    assert not np.allclose(copy, before, atol=0.1)
    still = PointCloudTransform(PointCloudOptions(turn=0, jitter=0, scale=0, mirror=False), Stem())
    np.testing.assert_allclose(still.augment(ready, np.random.default_rng(3)).inputs["cloud"], before, atol=1e-6)


def test_plain_features_by_hand():
    cloud = np.array([[0.5, 0, 0], [-0.5, 0, 0]], dtype=np.float32)
    found = features(View("x", {"cloud": cloud, "whole": np.array([3, -1.5], dtype=np.float32)}))
    assert found.shape == (4 * 16 + 6 + 2,)
    np.testing.assert_allclose(found[:16], [0.5] + [0] * 14 + [0.5])
    np.testing.assert_allclose(found[48:64], [0] * 15 + [1])
    np.testing.assert_allclose(found[64:], [2, 0, 0, 0, 0, 0, 3, -1.5], rtol=1e-6)


def test_numbers_of_the_whole_by_formula():
    rng = np.random.default_rng(0)
    place = rng.gamma(2.0, size=(53, 3)) @ rng.normal(size=(3, 3)) + [431_000, 5_410_000, 7]
    speed = rng.normal(size=(53, 2))
    speed[:5, 0] = np.nan
    found = whole_numbers(place, speed, ("speed", ""))
    frame = pd.DataFrame(np.concatenate([place, speed], axis=1), columns=["x", "y", "z", "speed", "column 5"])
    assert found.pop("points") == pytest.approx(np.log(54))
    for name, column in frame.items():
        assert found.pop(f"{name} mean") == pytest.approx(column.mean())
        assert found.pop(f"{name} deviation") == pytest.approx(column.std(ddof=0))
        assert (found.pop(f"{name} least"), found.pop(f"{name} largest")) == (column.min(), column.max())
        if str(name) in "xyz":
            assert found.pop(f"{name} skewness") == pytest.approx(stats.skew(column), abs=1e-6)
    for a, b in ("xy", "xz", "yz"):
        assert found.pop(f"{a}{b} correlation") == pytest.approx(frame[a].corr(frame[b]), abs=1e-6)
    assert not found
    flat = whole_numbers(np.zeros((3, 3)), np.full((3, 1), np.nan), ("speed",))
    assert (flat["x skewness"], flat["xy correlation"]) == (0, 0) and np.isnan(flat["speed mean"])


def test_place_size_and_columns_are_told_in_deviations_from_the_training_clouds():
    clouds = [
        raw({"points": points(seed=i) * size + i, "intensity": np.full(53, 9.0 * i)})
        for i, size in enumerate((1, 3, 2))
    ]
    transform = fitted(*clouds)
    assert transform.whole_.columns == ("x", "y", "z", "intensity")
    names, whole = transform.whole_.names, np.stack([transform(view).inputs["whole"] for view in clouds])
    own = whole_numbers(clouds[1].inputs["points"], clouds[1].inputs["extras"], ("intensity",))
    for number in ("x mean", "z deviation", "y largest", "intensity mean"):
        column = whole[:, names.index(number)]
        assert (column.mean(), column.std()) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-6))
        spread = transform.whole_.deviations[names.index(number)]
        assert column[1] * spread + transform.whole_.means[names.index(number)] == pytest.approx(own[number], rel=1e-5)
    assert (whole[:, names.index("points")] == 0).all()  # all have as many
    again = PointCloudTransform(PointCloudOptions(), Stem())
    again.load_state(json.loads(json.dumps(transform.state())))
    np.testing.assert_array_equal(again(clouds[0]).inputs["whole"], whole[0])
    bare = transform(raw(points(seed=5) * 1e6)).inputs["whole"]  # far away, and without intensity
    assert bare[names.index("z deviation")] == 10 and bare[names.index("intensity mean")] == 0
    assert fitted(*clouds, raw(points())).whole_.columns == ("x", "y", "z")


def test_clouds_without_names_have_columns_by_their_place():
    six = np.random.default_rng(0).normal(size=(2, 53, 5))
    assert fitted(*map(raw, six)).whole_.columns == ("x", "y", "z", "column 4", "column 5")
    assert fitted(*map(raw, six), columns=("speed", "power")).whole_.columns == ("x", "y", "z", "speed", "power")


@pytest.mark.parametrize("size", [0.0, 1e-300, 1e300])
def test_clouds_of_any_size_have_numbers(size: float):
    view = raw(np.concatenate([points() * size, points() * size], axis=1))
    with suppress(DataError):  # too few different points
        whole = fitted(view, raw(points()))(view).inputs["whole"]
        assert np.isfinite(whole).all() and np.abs(whole).max() <= 10


def test_plain_features_know_what_the_shape_does_not():
    """The same shapes, small or large, near or far, weak or strong: a plain model tells them apart."""
    rng = np.random.default_rng(0)
    for change in ("size", "place", "intensity"):
        views = []
        for label in np.arange(80) % 2:
            cloud, power = rng.normal(size=(31, 3)), rng.normal(size=31)
            cloud = cloud * (2 if change == "size" and label else 1) + (2 if change == "place" and label else 0)
            views.append(raw({"points": cloud, "intensity": power + (2 if change == "intensity" and label else 0)}))
        transform = fitted(*views[:40])
        x = np.stack([features(transform(view)) for view in views])
        forest = RandomForestClassifier(50, random_state=0).fit(x[:40], np.arange(40) % 2)
        assert forest.score(x[40:], np.arange(40) % 2) >= 0.8, change


def test_a_cloud_is_drawn():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    draw(axes, fitted()(raw(points())))
    (dots,) = axes.collections
    assert len(dots.get_offsets()) == 53
    assert axes.get_xlabel().endswith("the nearer the brighter")  # the report says it below the pictures


# --- tokens of groups (those of views are tested with every modality)


def test_groups_learn_and_are_saved(tmp_path: Path):
    records = make_records(MODALITY, train=8, val=5)
    settings = {**GROUPS, "optim.epochs": 2, "data.batch_size": 4}
    fitted_model = fit(records, tiny_recipe(MODALITY, settings), console=Console(quiet=True), out=tmp_path / "run")
    assert set(fitted_model.metrics) == {"val"}
    pipeline = fitted_model.pipeline
    assert not pipeline.model.tokenizer("pointcloud").native


def test_a_padded_cloud_has_the_same_groups():
    pipeline = tiny_pipeline("pointcloud", GROUPS)
    views = make_views(MODALITY, 5)
    together = pipeline.model.tokenize(batch_of(pipeline, views))
    for row, view in enumerate(views):
        alone = pipeline.model.tokenize(batch_of(pipeline, [view]))
        torch.testing.assert_close(together.x[row], alone.x[0], atol=2e-6, rtol=2e-5)


def test_gradients_reach_every_parameter_of_groups():
    pipeline = tiny_pipeline("pointcloud", GROUPS)
    batch = batch_of(pipeline, make_views(MODALITY, 5))
    pipeline.model(batch, task="classify").square().sum().backward()
    assert [name for name, p in pipeline.model.tokenizers.named_parameters() if p.grad is None] == []


# --- what is refused


def test_clouds_with_too_few_points_are_refused():
    with pytest.raises(DataError, match="x: must have at least 16 different points; found 11"):
        fitted()(raw(np.repeat(points(11), 5, axis=0)))
    with pytest.raises(DataError, match=r"at least 32 different points; found 31\. .*lower input.neighbours"):
        fitted(tokens="groups")(raw(points(31)))
    assert len(cloud_of(fitted(tokens="groups", neighbours=31), raw(points(31)))) == 31


def test_missing_and_nameless_features_are_refused():
    with pytest.raises(DataError, match=r"x: must bring normal \(columns nx, ny, nz\); found no 'nx' among none"):
        fitted(raw(points()), features=("normal",))
    six = np.concatenate([points(), points()], axis=1)
    with pytest.raises(DataError, match="found no 'nx' among nameless columns.* Name the columns"):
        fitted(raw(six), features=("normal",))
    assert cloud_of(fitted(features=("normal",), columns=("nx", "ny", "nz")), raw(six)).shape == (53, 6)
    with pytest.raises(DataError, match="must have 2 columns behind x, y, z, as input.columns names; found 3"):
        fitted(raw(six), columns=("nx", "ny"))
    six[5, 4] = np.nan
    with pytest.raises(DataError, match="must have finite nx, ny, nz; found 1 of 53 points without"):
        fitted(raw(six), features=("normal",), columns=("nx", "ny", "nz"))


@pytest.mark.parametrize(
    "wrong", [{"points": 3}, {"side": 0}, {"groups": 0}, {"neighbours": 0}, {"turn": 181.0}, {"scale": 1.0}]
)
def test_options_are_checked(wrong: dict[str, float]):
    (name,) = wrong
    with pytest.raises(UsageError, match=f"input.{name}: must"):
        PointCloudOptions(**wrong)
