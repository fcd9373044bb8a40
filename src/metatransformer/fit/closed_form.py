"""Tune mode ``head``: linear or kernel heads on features that were computed once.

One head is fitted for each L2 penalty, from the strongest to the weakest, until the validation split sees no more
gain. The features are standardised by the training split, and the head carries these statistics. Least squares on class
indicators is a ridge classifier: with more features than samples it beats the likelihood on every data set that was
tried (docs/log.md), and it has a closed form.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from metatransformer.core.errors import UsageError
from metatransformer.core.task import Task
from metatransformer.fit.shares import Held
from metatransformer.nn.beside import WordWeights, standardised
from metatransformer.nn.kernel import ROWS, Landmarks, drawn, nearness

MAX_ITERATIONS = 200
# Below this many feature values the products are so small that threads cost more than they bring: on a busy
# machine with two cores, 500 x 1536 features took 37 s of processor time on two threads and 2.7 s on one.
SMALL = 20_000_000
DIRECTIONS = 1024  # of features, that discriminants are solved in
MOST_WEIGHTS = 40_000_000  # of a head on words: with many classes rare words are left out


@dataclass(frozen=True)
class Probe:
    """A linear head: ``weight`` [C, F], ``bias`` [C], on features standardised by ``mean`` and ``scale`` [F].

    With ``centres`` [M, F], ``weight`` [C, M] is on the nearness to them; with ``words``, on weighed counts of words.
    ``factor`` is what its outputs were multiplied with after the fit.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    l2: float
    factor: float = 1.0
    centres: Tensor | None = None
    gamma: float = 1.0
    words: WordWeights | None = None

    def outputs(self, features: Tensor) -> Tensor:
        """Returns the outputs ``[n, C]`` of features ``[n, F]``."""
        if self.words is not None:
            return torch.sparse.mm(self.words(features), self.weight.T) + self.bias
        x = standardised(features, self.mean, self.scale)
        if self.centres is not None:
            x = nearness(x, self.centres.float(), gamma=self.gamma)
        return x @ self.weight.T + self.bias

    def times(self, factor: float) -> "Probe":
        """Returns the head whose outputs are ``factor`` times as large."""
        return replace(self, weight=self.weight * factor, bias=self.bias * factor, factor=factor * self.factor)


@dataclass(frozen=True)
class Basis:
    """What heads are linear in: standardised features, or, under a kernel, the nearness to some of the samples.

    Its statistics and centres are those of the samples that it was made of. ``scale`` holds ``stretch``.
    """

    mean: Tensor
    scale: Tensor
    near: Landmarks | None

    @classmethod
    def of(
        cls,
        features: Tensor,
        *,
        direct: int = 0,
        weight_of_direct: float = 1.0,
        centres: int = 0,
        gamma: float = 1.0,
        stretch: float = 1.0,
        seed: int = 0,
        share: Held | None = None,
    ) -> "Basis":
        """Returns the basis of samples with ``features`` [n, F], NaN for what a sample lacks.

        The last ``direct`` features, which did not come through the trunk, are standardised to a deviation of
        ``weight_of_direct``. With ``centres`` heads are linear in the nearness to that many of the samples, drawn by
        ``seed``; the mean squared difference of the direct features then counts ``weight_of_direct`` times as much as
        that of the others, and all squared differences count ``stretch`` times, as if ``gamma`` were that much larger.
        ``share``: several processes hold the samples, all of which have every feature.
        """
        mean, scale = _moments(features, share)
        # A feature that never changes (or hardly, against the others) carries nothing: leave its scale alone.
        scale = torch.where(scale > 1e-6 * scale.max(), scale, torch.ones_like(scale))
        if direct:
            others = len(scale) - direct
            scale[others:] /= (weight_of_direct * others / direct) ** 0.5 if centres else weight_of_direct
        if not centres:
            return cls(mean, scale, None)
        scale /= stretch**0.5
        if share is not None:
            features = share.some(features, drawn(share.count, most=centres, seed=seed))
        return cls(mean, scale, Landmarks(standardised(features, mean, scale), most=centres, gamma=gamma, seed=seed))

    def map(self, features: Tensor) -> Tensor:
        """Returns samples ``[n, F]`` in this basis, ``[n, M]``."""
        x = standardised(features, self.mean, self.scale)
        return x if self.near is None else self.near.map(x)

    def probe(self, weight: Tensor, bias: Tensor, *, l2: float) -> Probe:
        """Returns the head with ``weight`` [C, M] and ``bias`` [C] on this basis."""
        if self.near is None:
            return Probe(weight, bias, self.mean, self.scale, l2)
        weight, centres, gamma = self.near.unmap(weight), self.near.centres, self.near.gamma
        return Probe(weight, bias, self.mean, self.scale, l2, centres=centres, gamma=gamma)


def _moments(features: Tensor, share: Held | None) -> tuple[Tensor, Tensor]:
    """Returns mean and deviation of each feature over the samples that have it."""
    if share is not None or not features.isnan().any():
        total, count = _sums(share), len(features) if share is None else share.count
        mean = (total(features.sum(dim=0, dtype=torch.float64)) / count).float()
        squares = (features - mean).square().sum(dim=0, dtype=torch.float64)
        return mean, (total(squares) / count).sqrt().float()
    mean = features.nanmean(dim=0).nan_to_num(nan=0.0)
    return mean, (features - mean).square().nanmean(dim=0).sqrt().nan_to_num(nan=0.0)


def _sums(share: Held | None) -> Callable[[Tensor], Tensor]:
    """Returns what makes the sum over all processes of one's own, in float64 as it is."""
    return torch.Tensor.double if share is None else share.total


def _product(x: Tensor, y: Tensor) -> Tensor:
    """Returns ``x.T @ y`` in float64: sums in another order, as of several processes, would else show."""
    parts = zip(x.split(ROWS), y.split(ROWS), strict=True)
    found = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64)
    for a, b in parts:
        found += a.double().T @ b.double()
    return found


@dataclass(frozen=True)
class WordBasis:
    """What heads on counted words are linear in: their TF-IDF, by the samples it was made of; rows have length 1."""

    words: WordWeights

    @classmethod
    def of(cls, counts: Tensor, *, outputs: int) -> "WordBasis":
        """Returns the basis of samples with sparse ``counts`` [n, V] for heads of so many ``outputs``."""
        return cls(WordWeights.of(counts, most=MOST_WEIGHTS // outputs))

    def map(self, counts: Tensor) -> sparse.csr_array:
        """Returns samples ``[n, V]`` in this basis, ``[n, M]``."""
        x = self.words(counts)
        return sparse.coo_array((x.values().numpy(), x.indices().numpy()), shape=tuple(x.shape)).tocsr()

    def probe(self, weight: Tensor, bias: Tensor, *, l2: float) -> Probe:
        """Returns the head with ``weight`` [C, M] and ``bias`` [C] on this basis."""
        return Probe(weight, bias, torch.zeros(0), torch.ones(0), l2, words=self.words)


def fit_probes(
    task: Task,
    *,
    features: Tensor,
    target: Tensor,
    l2: Sequence[float],
    solver: str,
    basis: Basis | WordBasis | None = None,
    share: Held | None = None,
) -> Iterator[Probe]:
    """Yields one fitted probe for each penalty, strongest first; weaker ones cost more, so stop asking in time.

    ``solver`` "squares" minimises, in closed form, ``mean(importance * |outputs - goal|^2) / 2 + l2 / 2 * |weight|^2``;
    "likelihood" ``task.loss + l2 / 2 * |weight|^2`` with L-BFGS. A task whose loss is the squared error is always
    solved the first way, one for which squares say nothing always the second way. The bias is not penalised. Heads are
    linear in ``basis``, by default the features standardised. ``share``: several processes hold the samples, and solve
    by squares what they sum up.

    Raises:
        UsageError: no penalty is given.
    """
    if not l2:
        raise UsageError("optim.l2", must="list at least one penalty", found="none")
    basis = basis or Basis.of(features)
    for penalty, weight, bias in _path(task, basis.map(features), target, l2=l2, solver=solver, share=share):
        yield basis.probe(weight, bias, l2=penalty)


def cross_outputs(
    task: Task,
    x: Tensor | sparse.csr_array,
    target: Tensor,
    *,
    l2: Sequence[float],
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    solver: str = "squares",
) -> Iterator[tuple[float, Tensor]]:
    """Yields each penalty, strongest first, with what heads answer that learned from the other folds, ``[n, C]``.

    ``x`` is [n, M], samples in a basis; ``folds`` lists ``(others, fold)``; ``solver`` as ``fit_probes`` has it.
    """
    paths = [_path(task, x[others], target[others], l2=l2, solver=solver) for others, _ in folds]
    for heads in zip(*paths, strict=True):
        outputs = torch.zeros(x.shape[0], task.outputs)
        for (_, fold), (_, weight, bias) in zip(folds, heads, strict=True):
            outputs[fold] = torch.as_tensor(x[fold] @ weight.T) + bias
        yield heads[0][0], outputs


def _path(
    task: Task,
    x: Tensor | sparse.csr_array,
    target: Tensor,
    *,
    l2: Sequence[float],
    solver: str,
    share: Held | None = None,
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Yields ``(penalty, weight [C, F], bias [C])``, strongest penalty first."""
    penalties = sorted(l2, reverse=True)
    if task.compares:
        assert isinstance(x, Tensor), "samples with counted words are not compared"
        yield from discriminant_path(x, task.goal(target)[:, 0], width=task.outputs, l2=penalties)
        return
    if task.squared or (task.ranks and solver == "squares"):
        unit = task.outputs / 2 if task.squared else 1.0
        # How much a sample counts may depend on all the others.
        importance = task.importance(target) if share is None else task.importance(share.whole(target))[share.places]
        goal, tried = task.goal(target), [unit * penalty for penalty in penalties]
        path = (
            ridge_path(x, goal, importance=importance, l2=tried, share=share)
            if isinstance(x, Tensor)
            else sparse_path(x, goal, importance=importance, l2=tried)
        )
        for penalty, (_, weight, bias) in zip(penalties, path, strict=True):
            yield penalty, weight, bias
        return
    assert isinstance(x, Tensor) and share is None, "words are counted for heads by squares only"
    weight = torch.zeros(task.outputs, x.shape[1], requires_grad=True)
    bias = task.constant().clone().requires_grad_(True)
    for penalty in penalties:
        with _few_threads(x.numel() < SMALL):
            _minimise(task, x, target, weight, bias, penalty)
        yield penalty, weight.detach().clone(), bias.detach().clone()


def ridge_path(
    x: Tensor, goal: Tensor, *, importance: Tensor, l2: Sequence[float], share: Held | None = None
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Yields ``(penalty, weight [H, F], bias [H])`` of the squares that ``fit_probes`` describes.

    ``x`` is [n, F], ``goal`` [n, H], ``importance`` [n] with mean 1. Solved by Cholesky on the smaller of the two Gram
    matrices, in float64. Of rows that several processes hold each adds its part of the F x F one.
    """
    total = _sums(share)
    rows, features = (len(x) if share is None else share.count), x.shape[1]
    weights = (importance / total(importance.sum(dtype=torch.float64)).float())[:, None]
    centre, level = (total((weights * part).sum(dim=0, dtype=torch.float64)).float() for part in (x, goal))
    root = importance.sqrt()[:, None]
    x, goal = (x - centre) * root, (goal - level) * root
    primal = features <= rows or share is not None
    gram = total(_product(x, x)) if primal else (x @ x.T).double()
    right = total(_product(x, goal)) if primal else goal.double()
    # Directions that the data does not span would make the smallest penalties unsolvable: the products are of float32.
    floor = 1e-7 * float(gram.diagonal().sum())
    for penalty in l2:
        shift = max(penalty * rows, floor)
        shifted = gram.clone()
        shifted.diagonal().add_(shift)
        factor = torch.linalg.cholesky(shifted)
        solved = torch.cholesky_solve(right, factor).float()
        weight = (solved if primal else x.T @ solved).T.contiguous()
        yield penalty, weight, level - weight @ centre


def discriminant_path(
    x: Tensor, classes: Tensor, *, width: int, l2: Sequence[float]
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Yields ``(penalty, weight [K, F], bias [K])`` of vectors in which samples of one class are near each other.

    Linear discriminants on the ``DIRECTIONS`` in which ``x`` [n, F] varies most: what varies within classes is
    whitened, ``l2`` times its mean variance added, and of what is left the ``width`` directions are kept in which the
    means of classes differ most (Rao 1948; with the penalty of Friedman 1989). ``classes`` [n] are any numbers.
    Directions that do not exist are 0.
    """
    labels, counts = classes.unique(return_inverse=True, return_counts=True)[1:]
    centre = x.mean(dim=0)
    basis = _principal(x - centre, most=DIRECTIONS)
    z = ((x - centre) @ basis.T).double()
    means = z.new_zeros(len(counts), z.shape[1]).index_add(0, labels, z) / counts[:, None]
    within = z - means[labels]
    values, vectors = torch.linalg.eigh(within.T @ within / len(z))
    between, level = means * counts[:, None].sqrt() @ vectors, values.clamp(min=0).mean().clamp(min=1e-9)
    for penalty in l2:
        scale = (values.clamp(min=0) + penalty * level).rsqrt()
        _, _, directions = torch.linalg.svd(between * scale, full_matrices=False)
        found = ((directions[:width] * scale) @ vectors.T).float() @ basis
        weight = torch.cat([found, x.new_zeros(width - len(found), x.shape[1])])
        yield penalty, weight, -weight @ centre


def _principal(x: Tensor, *, most: int) -> Tensor:
    """Returns up to ``most`` directions in which centred samples ``[n, F]`` vary, as rows of length 1, ``[k, F]``."""
    primal = x.shape[1] <= len(x)
    values, vectors = torch.linalg.eigh((x.T @ x if primal else x @ x.T).double())
    real = values > 1e-6 * values[-1]  # the products are of float32
    values, vectors = values[real][-most:], vectors[:, real][:, -most:]
    return (vectors if primal else x.T.double() @ (vectors / values.sqrt())).T.float()


def sparse_path(
    x: sparse.csr_array, goal: Tensor, *, importance: Tensor, l2: Sequence[float]
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Yields what ``ridge_path`` does, of sparse samples ``[n, F]`` of length 1, by conjugate gradients.

    Penalties are of the sum over samples, not of their mean: a word that stands in few of many texts should count.
    """
    from sklearn.linear_model import Ridge

    for penalty in l2:
        model = Ridge(alpha=penalty, solver="sparse_cg", tol=1e-5).fit(
            x, goal.double().numpy(), sample_weight=importance.double().numpy()
        )
        weight = torch.from_numpy(np.atleast_2d(model.coef_)).float()
        yield penalty, weight, torch.from_numpy(np.atleast_1d(model.intercept_)).float()


def sharpness(task: Task, outputs: Tensor, target: Tensor) -> float:
    """Returns the factor on outputs that makes their loss least, for classes that least squares has ranked.

    One sample more is counted, whose class could be any: without it, a few samples that are all right would ask for an
    infinite factor, and the model would be certain of everything.
    """
    samples = len(target)

    def loss(factor: float) -> float:
        sharp = outputs * factor
        doubt = -sharp.log_softmax(dim=1).mean()  # the mean of the losses of all classes
        return float((samples * task.loss(sharp, target) + doubt) / (samples + 1))

    return min(torch.logspace(-1, 3, 81).tolist(), key=loss)


@contextmanager
def _few_threads(small: bool) -> Iterator[None]:
    """Computes on one thread inside the block when the problem is small, and puts the number back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if small else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _minimise(task: Task, x: Tensor, target: Tensor, weight: Tensor, bias: Tensor, penalty: float) -> None:
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MAX_ITERATIONS,
        history_size=10,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = task.loss(x @ weight.T + bias, target) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
