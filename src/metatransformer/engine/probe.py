"""Tune mode ``head``: linear heads on features that were computed once.

One head is fitted for each L2 penalty, from the strongest to the weakest, each started from the one before,
until the validation split sees no more gain. The features are standardised by the training split, and the
head carries these statistics.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from metatransformer.core.errors import UsageError
from metatransformer.tasks import Task

MAX_ITERATIONS = 200
# Below this many feature values the products are so small that threads cost more than they bring: on a busy
# machine with two cores, 500 x 1536 features took 37 s of processor time on two threads and 2.7 s on one.
SMALL = 20_000_000


@dataclass(frozen=True)
class Probe:
    """A linear head: ``weight`` [C, F], ``bias`` [C], on features standardised by ``mean`` and ``scale`` [F]."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    l2: float

    def outputs(self, features: Tensor) -> Tensor:
        """Returns the outputs ``[n, C]`` of features ``[n, F]``."""
        return ((features - self.mean) / self.scale) @ self.weight.T + self.bias


def fit_probes(
    task: Task, *, features: Tensor, target: Tensor, l2: Sequence[float]
) -> Iterator[Probe]:
    """Yields one fitted probe for each penalty, strongest first; weaker ones cost more, so stop asking in time.

    Minimises ``task.loss + l2 / 2 * |weight|^2``: in closed form where the loss is the squared error, else with L-BFGS.
    The bias is not penalised and starts at the constant answer.

    Raises:
        UsageError: no penalty is given.
    """
    if not l2:
        raise UsageError("optim.l2", must="list at least one penalty", found="none")
    mean = features.mean(dim=0)
    scale = features.std(dim=0, correction=0)
    # A feature that never changes (or hardly, against the others) carries nothing: leave its scale alone.
    scale = torch.where(scale > 1e-6 * scale.max(), scale, torch.ones_like(scale))
    x = (features - mean) / scale
    if task.squared:
        goal = target if target.ndim == 2 else target[:, None]
        for penalty, weight, bias in ridge_path(x, goal, l2=sorted(l2, reverse=True)):
            yield Probe(weight, bias, mean, scale, penalty)
        return
    weight = torch.zeros(task.outputs, x.shape[1], requires_grad=True)
    bias = task.constant().clone().requires_grad_(True)
    for penalty in sorted(l2, reverse=True):
        with _few_threads(x.numel() < SMALL):
            _minimise(task, x, target, weight, bias, penalty)
        yield Probe(weight.detach().clone(), bias.detach().clone(), mean, scale, penalty)


def ridge_path(
    x: Tensor, goal: Tensor, *, l2: Sequence[float]
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Yields ``(penalty, weight [H, F], bias [H])`` that minimise ``mse(x weight' + bias, goal) + l2 / 2 |weight|^2``.

    ``x`` [n, F] has columns of mean 0, ``goal`` is [n, H]; the mean squared error is taken over all n H values. Solved
    by Cholesky on the smaller of the two Gram matrices, in float64.
    """
    rows, features = x.shape
    bias = goal.mean(dim=0)
    centred = goal - bias
    primal = features <= rows
    gram = (x.T @ x if primal else x @ x.T).double()
    right = (x.T @ centred if primal else centred).double()
    # Directions that the data does not span would make the smallest penalties unsolvable.
    floor = 1e-7 * float(gram.diagonal().mean())
    for penalty in l2:
        shift = max(penalty * rows * goal.shape[1] / 2, floor)
        factor = torch.linalg.cholesky(gram + shift * torch.eye(len(gram), dtype=torch.float64))
        solved = torch.cholesky_solve(right, factor).float()
        yield penalty, (solved if primal else x.T @ solved).T.contiguous(), bias


@contextmanager
def _few_threads(small: bool) -> Iterator[None]:
    """Computes on one thread inside the block when the problem is small, and puts the number back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if small else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _minimise(
    task: Task, x: Tensor, target: Tensor, weight: Tensor, bias: Tensor, penalty: float
) -> None:
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
