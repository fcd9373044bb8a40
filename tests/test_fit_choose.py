"""Which head is kept: folds against scikit-learn's, the rule of one standard error, when folds choose."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from common import make_records, tiny_recipe
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedGroupKFold

from metatransformer.core.errors import UsageError
from metatransformer.data.split import cross_folds
from metatransformer.fit.choose import PATIENCE, STRETCHES, Choice, Part, Share, best_of
from metatransformer.fit.closed_form import Basis, cross_outputs, fit_probes
from metatransformer.fit.fit import fit
from metatransformer.fit.fitted import Fitted
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.nn.kernel import nearness
from metatransformer.recipe import HeadOptions
from metatransformer.tasks.classify import Classify, ClassifyOptions
from metatransformer.tasks.regress import Regress

N, F = 83, 5
QUIET = Console(quiet=True)


def classified() -> tuple[torch.Tensor, torch.Tensor, Classify]:
    draw = torch.Generator().manual_seed(1)
    target = torch.randint(0, 3, (N,), generator=draw)
    features = torch.randn(3, F, generator=draw)[target] + torch.randn(N, F, generator=draw)
    task = Classify()
    task.fit([str(label) for label in target.tolist()])
    return features * 3 + 1, target, task


def test_heads_answer_each_fold_as_scikit_learns_do():
    features, target, task = classified()
    groups = [f"g{place % 11}" for place in range(N)]
    folds = cross_folds(groups, classes=target.numpy(), count=4, seed=2)
    x = Basis.of(features).map(features)
    found = dict(cross_outputs(task, x, target, l2=[0.1, 3.0], folds=folds))
    assert list(found) == [3.0, 0.1]
    # Theirs is summed over the samples of a fit, whose number differs by fold: one fold at a time.
    cutter = StratifiedGroupKFold(4, shuffle=True, random_state=2)
    for others, fold in cutter.split(features, target, np.array(groups)):
        model = RidgeClassifier(alpha=0.1 * len(others)).fit(x[others].double().numpy(), target[others].numpy())
        theirs = (model.decision_function(x[fold].double().numpy()) + 1) / 2
        np.testing.assert_allclose(found[0.1][fold].numpy(), theirs, atol=1e-4)


def test_a_fold_under_a_kernel_is_answered_as_by_a_head_that_never_saw_it():
    features, target, task = classified()
    basis = Basis.of(features, centres=500, gamma=0.3, stretch=2.0)
    (others, fold), *_ = folds = cross_folds([None] * N, classes=target.numpy(), count=5)
    ((_, found),) = cross_outputs(task, basis.map(features), target, l2=[0.05], folds=folds)
    # The same head by a fit on the other folds alone; features in the unit of the whole, which is no more than a scale.
    x = ((features - basis.mean) / basis.scale).half().float()
    with torch.no_grad():
        near = torch.exp(-0.3 / F * torch.cdist(x.double(), x.double()).square())
    kernel = F * near[np.ix_(others, others)]
    middle = np.eye(len(others)) - 1 / len(others)
    goal = torch.nn.functional.one_hot(target[others], 3).double().numpy()
    weight = np.linalg.solve(middle @ kernel.numpy() @ middle + 0.05 * len(others) * np.eye(len(others)), middle @ goal)
    shift = F * near[np.ix_(fold, others)].numpy() - kernel.numpy().mean(axis=0)
    expected = shift @ middle @ weight + goal.mean(axis=0)
    np.testing.assert_allclose(found[fold].numpy(), expected, atol=2e-3)


def test_by_default_a_stranger_is_half_as_near_as_the_sample_itself():
    """Standardised features that have nothing in common differ by 2 in the mean square: exp(-2 * 0.35) = 0.497."""
    x = torch.randn(2, 10_007, generator=torch.Generator().manual_seed(0))
    itself, stranger = nearness(x[:1], x, gamma=HeadOptions().gamma)[0].tolist()
    assert stranger / itself == pytest.approx(0.5, abs=0.02)


def test_stretching_is_a_larger_gamma():
    features, target, task = classified()
    wide, narrow = (
        next(fit_probes(task, features=features, target=target, l2=[0.1], solver="squares", basis=basis))
        for basis in (
            Basis.of(features, centres=100, gamma=0.2, stretch=2.0),
            Basis.of(features, centres=100, gamma=0.4),
        )
    )
    assert wide.gamma == 0.2  # what the layer was built for
    torch.testing.assert_close(wide.outputs(features), narrow.outputs(features), atol=2e-3, rtol=0)


def choice(score: float, loss: float, *, name: str = "accuracy") -> Choice:
    return Choice((Share(Part(), 1.0, 1.0),), 1.0, {name: score}, loss)


def test_of_scores_within_one_standard_error_the_least_loss_decides():
    task = Classify()
    choices = [choice(0.84, 0.1), choice(0.87, 0.5), choice(0.90, 0.7)]
    assert best_of(task, choices, samples=100) == choices[1]  # 0.90 +- 0.03
    assert best_of(task, choices, samples=10) == choices[0]
    assert best_of(task, choices, samples=100_000) == choices[2]
    certain = [choice(1.0, 0.3), choice(1.0, 0.2), choice(0.99, 0.1)]
    assert best_of(task, certain, samples=5) == certain[1]


def test_where_the_score_is_a_loss_the_best_one_decides():
    numbers, task = [choice(0.5, 1.0, name="rmse"), choice(0.4, 2.0, name="rmse")], Regress()
    assert best_of(task, numbers, samples=4) == numbers[1]
    assert (
        best_of(Classify(ClassifyOptions(metric="log_loss")), [choice(0.5, 1.0, name="log_loss")], samples=4).loss
        == 1.0
    )


def run(overrides: dict[str, object], *, drawn: bool, modality: str = "hyperspectral") -> Fitted:
    records = make_records(get_modality(modality), train=31, val=6, test=5)
    records = [replace(record, drawn=drawn and record.split == "val") for record in records]
    return fit(records, tiny_recipe(get_modality(modality), {"tune": "head", **overrides}), console=QUIET)


def test_folds_choose_where_the_validation_split_was_drawn():
    fitted = run({}, drawn=True)
    gammas = sorted({line["gamma"] for line in fitted.history})
    assert gammas == pytest.approx([fitted.pipeline.recipe.head.gamma * stretch for stretch in STRETCHES])
    given = run({}, drawn=False)
    assert len({line["gamma"] for line in given.history}) == 1 and len(given.history) <= 13
    never = run({"optim.folds": 0}, drawn=True)
    assert never.history == given.history
    asked = run({"optim.folds": 3}, drawn=False)
    assert {line["gamma"] for line in asked.history} == set(gammas) and asked.history != fitted.history


def test_the_kept_head_is_the_one_of_the_kept_line():
    fitted = run({"optim.refit": False, "head.gamma": 0.3}, drawn=True)
    assert fitted.kept is not None
    kept = fitted.history[fitted.kept]
    assert kept["gamma"] != 0.3
    one = {"optim.refit": False, "optim.folds": 0, "optim.l2": [kept["l2"]], "head.gamma": kept["gamma"]}
    alone = run(one, drawn=True)
    # Other samples chose the scale of the outputs.
    directions = [outputs / outputs.norm() for outputs in (fitted.outputs["test"], alone.outputs["test"])]
    torch.testing.assert_close(*directions, atol=1e-3, rtol=0)


def test_folds_are_refused_where_heads_have_no_closed_form():
    with pytest.raises(UsageError, match=r"optim.folds: must be 'auto' or 0 for heads by likelihood.*found 4"):
        run({"optim.folds": 4, "optim.solver": "likelihood", "head.centres": 0}, drawn=True)
    with pytest.raises(UsageError, match="'optim.folds': must be 'auto', 0 or at least 2; found 1"):
        run({"optim.folds": 1}, drawn=True)


def test_patience_ends_a_path_on_a_validation_split():
    fitted = run({"optim.l2": [10.0, 1.0, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11]}, drawn=False)
    assert PATIENCE < len(fitted.history) < 8
