"""Small linear maps that bring two frozen sides into one space: ridge regression first, then a few contrastive steps.

Axes: n pairs, F features of the left side, R of the right side, E width of the space.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from metatransformer.infer.loader import Place
from metatransformer.pairs.losses import contrast
from metatransformer.pairs.recall import both_ways, first_of_each

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # of the mean square of a feature
MOST_WIDE = 256
FOLDS = 5
STEPS, RATE, BATCH, STAY, SCALE = 60, 1e-3, 512, 0.1, 10.0
SCALES = torch.logspace(0, 2, 41)  # 1 .. 100, as far as CLIP lets its own go


@dataclass(frozen=True)
class Maps:
    """``left`` [F, E] and ``right`` [R, E] with what is added; ``scale`` makes shares of cosines."""

    left: Tensor
    left_bias: Tensor
    right: Tensor
    right_bias: Tensor
    scale: float = SCALE

    def of_left(self, x: Float[Tensor, "n F"]) -> Float[Tensor, "n E"]:
        """Returns vectors of length 1."""
        return F.normalize(x @ self.left + self.left_bias, dim=1)

    def of_right(self, y: Float[Tensor, "n R"]) -> Float[Tensor, "n E"]:
        """Returns vectors of length 1."""
        return F.normalize(y @ self.right + self.right_bias, dim=1)


@dataclass(frozen=True)
class Plan:
    """What folds of the training pairs chose: the penalty of the ridge, and how many contrastive steps behind it."""

    penalty: float
    steps: int
    score: float


def solve(x: Float[Tensor, "n F"], y: Float[Tensor, "n R"], *, penalty: float) -> Maps:
    """Returns the ridge regression from left to right, in the directions in which its answers vary most."""
    mean, std, middle = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6), y.mean(dim=0)
    a, b = (x - mean) / std, y - middle
    n, width = a.shape
    if n > width:
        gram = a.T @ a
        weights = torch.linalg.solve(gram + penalty * gram.trace() / width * torch.eye(width), a.T @ b)
    else:
        gram = a @ a.T
        weights = a.T @ torch.linalg.solve(gram + penalty * gram.trace() / n * torch.eye(n), b)
    answers = a @ weights
    _, directions = torch.linalg.eigh(answers.T @ answers)  # from the least to the most
    most = directions[:, -min(MOST_WIDE, n, *weights.shape) :]
    left = (weights @ most) / std[:, None]
    return Maps(left, -mean @ left, most, -middle @ most)


def refine(maps: Maps, x: Tensor, y: Tensor, labels: Int[Tensor, " n"], *, steps: int, seed: int) -> Maps:
    """Returns the maps after some steps of InfoNCE, with equal labels as equal targets; they stay near their start."""
    mean, std, middle = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6), y.mean(dim=0)
    a, b = (x - mean) / std, y - middle
    starts = maps.left * std[:, None], maps.right
    weights = [start.clone().requires_grad_() for start in starts]
    log_scale = torch.tensor(SCALE).log().requires_grad_()
    optimizer = torch.optim.Adam([*weights, log_scale], lr=RATE)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        some = torch.randperm(len(a), generator=draw)[:BATCH]
        left, right = (F.normalize(side[some] @ weight, dim=1) for side, weight in zip((a, b), weights, strict=True))
        loss = contrast(
            left,
            right,
            kind="infonce",
            scale=log_scale.exp(),
            bias=None,
            labels=labels[some],
            chunk=BATCH,
            place=Place(),
        )
        for weight, start in zip(weights, starts, strict=True):
            loss = loss + STAY * (weight - start).square().sum() / start.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    left, right = weights[0].detach() / std[:, None], weights[1].detach()
    return Maps(left, -mean @ left, right, -middle @ right)


def fit_maps(
    x: Tensor, y: Tensor, labels: Int[Tensor, " n"], *, seed: int, contrastive: bool = True
) -> tuple[Maps, Plan]:
    """Returns maps whose penalty, steps and scale folds of whole concepts chose."""
    basis, folds = basis_of(y), folds_of(labels, seed=seed)
    y = y @ basis
    found = {(penalty, 0): _score(x, y, labels, folds, penalty, 0, seed) for penalty in PENALTIES}
    (penalty, _), _ = max(found.items(), key=lambda item: item[1][0])
    if contrastive:
        found[penalty, STEPS] = _score(x, y, labels, folds, penalty, STEPS, seed)
    steps = max((0, STEPS), key=lambda steps: found.get((penalty, steps), (-1.0, 0.0))[0])
    score, scale = found[penalty, steps]
    maps = _fitted(x, y, labels, penalty, steps, seed)
    return replace(maps, right=basis @ maps.right, scale=scale), Plan(penalty, steps, score)


def basis_of(y: Float[Tensor, "n R"]) -> Float[Tensor, "R r"]:
    """Returns orthonormal directions that hold all of y: as many as there are different rows, which are often few."""
    different = torch.unique(y, dim=0)
    if len(different) >= y.shape[1]:
        return torch.eye(y.shape[1])
    return torch.linalg.qr(different.T).Q


def _fitted(x: Tensor, y: Tensor, labels: Tensor, penalty: float, steps: int, seed: int) -> Maps:
    maps = solve(x, y, penalty=penalty)
    return refine(maps, x, y, labels, steps=steps, seed=seed) if steps else maps


def _score(
    x: Tensor, y: Tensor, labels: Tensor, folds: np.ndarray, penalty: float, steps: int, seed: int
) -> tuple[float, float]:
    """Returns the mean R@1 of both ways over folds, and the scale at which held-out shares are most likely."""
    found, likely = [], torch.zeros(len(SCALES))
    for fold in range(FOLDS):
        inside, outside = (
            torch.from_numpy(np.flatnonzero(folds != fold)),
            torch.from_numpy(np.flatnonzero(folds == fold)),
        )
        if not len(inside) or not len(outside):
            continue
        maps = _fitted(x[inside], y[inside], labels[inside], penalty, steps, seed)
        left, right, own = maps.of_left(x[outside]), maps.of_right(y[outside]), labels[outside]
        told = both_ways(left, right, own, names=("a", "b"))
        found.append((told["a to b R@1"] + told["b to a R@1"]) / 2)
        once = first_of_each(own)
        near, right_one = left @ right[once].T, own[once] == own[:, None]
        likely += torch.stack([(scale * near).log_softmax(dim=1)[right_one].sum() for scale in SCALES])
    return sum(found) / max(1, len(found)), float(SCALES[likely.argmax()])


def folds_of(labels: Int[Tensor, " n"], *, seed: int) -> np.ndarray:
    """Returns the fold of each pair; pairs of one label are in one fold."""
    names, places = np.unique(labels.numpy(), return_inverse=True)
    return np.random.default_rng(seed).permutation(len(names))[places] % FOLDS


def shuffled(y: Tensor, labels: Int[Tensor, " n"], *, seed: int) -> Tensor:
    """Returns the right sides handed to other labels, each label one of another."""
    once = first_of_each(labels)
    order = np.random.default_rng(seed).permutation(len(once))
    other = dict(zip(labels[once].tolist(), once[torch.from_numpy(order)].tolist(), strict=True))
    return y[torch.tensor([other[label] for label in labels.tolist()])]


def scores_of(maps: Maps, x: Tensor, y: Tensor, labels: Tensor, *, names: Sequence[str]) -> dict[str, float]:
    """Returns R@k both ways on held-out pairs."""
    return both_ways(maps.of_left(x), maps.of_right(y), labels, names=(names[0], names[1]))
