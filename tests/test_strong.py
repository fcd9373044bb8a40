"""Baselines see what a person without this package would give them: raw pictures, the course of a sound, weights."""

from typing import Any

import numpy as np
import pytest
from common import tiny_pipeline, tiny_recipe
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from metatransformer.bench.strong import MANY, _candidates, _joined, _mfcc
from metatransformer.core.samples import Record
from metatransformer.data.examples import Examples
from metatransformer.infer.loader import Loader
from metatransformer.modalities import get_modality
from metatransformer.modalities.audio import RATE_HZ
from metatransformer.pipeline import Reader
from metatransformer.report.controls import as_outputs, fit_weighed, known_splits, plain_features
from metatransformer.tasks.classify import Classify
from metatransformer.trunk import load_encoder


def loader_of(name: str, records: list[Record]) -> Loader:
    modality = get_modality(name)
    transform = modality.transform(tiny_recipe(modality).input, load_encoder("test").stem)
    examples = Examples.of(records, input=name, task="")
    return Loader({name: Reader(modality, transform)}, examples, cache_mb=1, tasks={})


def sound(wave: np.ndarray) -> np.ndarray:
    return _mfcc(loader_of("audio", [Record("x", value=wave.astype(np.float32))]), 0)


def test_cepstra_follow_a_sound_and_not_the_silence_around_it():
    t = np.arange(RATE_HZ // 2) / RATE_HZ
    rising, falling = (np.sin(2 * np.pi * (1500 * t + slope * t**2)) for slope in (1000, -1000))
    silence = np.zeros(RATE_HZ // 4)
    alone = sound(rising)
    assert alone.shape == (2 * 26 + 8 * 26,) and np.isfinite(alone).all()
    apart = np.abs(alone - sound(falling)).mean()
    assert np.abs(alone - sound(np.concatenate([silence, rising, silence]))).mean() < apart / 4
    assert np.isfinite(sound(np.zeros(5))).all()


def test_plain_features_of_a_video_see_its_brightness():
    clips = [Record(key, value=np.full((8, 32, 32), level, dtype=np.uint8)) for key, level in (("a", 51), ("b", 204))]
    dark, bright = (plain_features(loader_of("video", clips), i, "video")[0] for i in range(2))
    assert (dark, bright) == pytest.approx((0.2, 0.8))


def test_vectors_of_two_texts_say_how_these_differ():
    a, b = np.array([[1.0, 2.0]]), np.array([[3.0, -1.0]])
    assert _joined([a]).tolist() == [[1, 2]]
    assert _joined([a, b]).tolist() == [[1, 2, 3, -1, 2, 3, 3, -2]]


def test_weights_reach_the_last_step_of_a_pipeline():
    rng = np.random.default_rng(0)
    x, y, weight = rng.normal(size=(40, 3)), rng.normal(size=(40, 2)), rng.uniform(0.1, 2, size=40)
    model = make_pipeline(StandardScaler(), Ridge(alpha=1.0))
    fit_weighed(model, x, y, weight=weight)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    # By hand: both sides times the root of the weight, a column of ones for the constant, which is not penalised.
    root = np.sqrt(weight)[:, None]
    columns = np.concatenate([z, np.ones((40, 1))], axis=1) * root
    solved = np.linalg.solve(columns.T @ columns + np.diag([1.0, 1, 1, 0]), columns.T @ (y * root))
    np.testing.assert_allclose(model.predict(x), z @ solved[:3] + solved[3], rtol=1e-9)

    class Unweighed:
        def fit(self, x: Any, y: Any) -> None:
            self.seen = len(x)

    plain = Unweighed()
    fit_weighed(plain, x, y, weight=np.ones(40))
    assert plain.seen == 40


@pytest.mark.parametrize("seen", [(0, 2), (1, 2, 3), (0, 1, 2, 3)])
def test_a_class_that_a_fold_lacks_is_never_its_answer(seen: tuple[int, ...]):
    task = Classify()
    task.fit(list("abcd"))
    y = np.repeat(seen, 5)
    x = np.eye(4)[y] + 0.1 * np.random.default_rng(0).normal(size=(len(y), 4))
    outputs = as_outputs(SVC().fit(x, y), task, x)
    assert outputs.shape == (len(y), 4) and outputs.argmax(dim=1).tolist() == y.tolist()


def test_a_baseline_sees_validation_where_the_model_is_fitted_on_it():
    assert known_splits(tiny_pipeline("timeseries")) == ("train", "val")
    assert known_splits(tiny_pipeline("timeseries", {"tune": "ends"})) == ("train", "val")  # its head is solved as well
    assert known_splits(tiny_pipeline("timeseries", {"optim.refit": False})) == ("train",)
    assert known_splits(tiny_pipeline("tabular", {"tune": "ends"})) == ("train",)


@pytest.mark.parametrize("name", ["svm", "logistic"])
def test_principal_components_keep_their_sizes(name: str):
    task = Classify()
    task.fit(["a", "b"])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)) @ rng.normal(size=(3, MANY + 1)) + 0.1 * rng.normal(size=(60, MANY + 1))
    for _, model in _candidates(name, task, sparse=False, width=x.shape[1]):
        seen = model[:-1].fit_transform(x)
        spread = seen.std(axis=0)
        assert seen.shape == (60, 60) and spread[0] > 10 * spread[40]
