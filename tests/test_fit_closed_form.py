"""The linear heads of tune mode "head", against scikit-learn and a closed form."""

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier

from metatransformer.core.errors import UsageError
from metatransformer.fit.closed_form import Basis, fit_probes, ridge_path, sharpness
from metatransformer.nn.kernel import KernelLayer, Landmarks, nearness
from metatransformer.tasks.classify import Classify, ClassifyOptions
from metatransformer.tasks.regress import Regress

N, F = 101, 7


def data(*, classes: int) -> tuple[torch.Tensor, list[str]]:
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(0, classes, (N,), generator=draw)
    centres = torch.randn(classes, F, generator=draw)
    features = centres[labels] + torch.randn(N, F, generator=draw)
    return features * torch.arange(1, F + 1) + 3, [str(label) for label in labels.tolist()]


@pytest.mark.parametrize("features", [7, 211])  # fewer and more than the 101 rows
def test_ridge_path_minimises_its_objective(features: int):
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(N, features, generator=draw)
    goal = torch.randn(N, 3, generator=draw)
    importance = torch.rand(N, generator=draw) + 0.1
    importance = importance / importance.mean()
    for penalty, weight, bias in ridge_path(x, goal, importance=importance, l2=[0.3, 0.01]):
        # Theirs is the summed squared error + alpha |w|^2, ours half its mean + penalty / 2 |w|^2.
        model = Ridge(alpha=penalty * N)
        model.fit(x.double().numpy(), goal.double().numpy(), sample_weight=importance.double().numpy())
        np.testing.assert_allclose(weight.numpy(), model.coef_, atol=1e-4)
        np.testing.assert_allclose(bias.numpy(), model.intercept_, atol=1e-4)


def test_classes_by_squares_equal_the_ridge_classifier_and_are_sharpened():
    features, labels = data(classes=3)
    task = Classify(ClassifyOptions(class_weight="balanced"))
    task.fit(labels)
    target = task.encode(labels)
    (probe,) = fit_probes(task, features=features, target=target, l2=[0.3], solver="squares")
    x = ((features - features.mean(0)) / features.std(0, correction=0)).double().numpy()
    model = RidgeClassifier(alpha=0.3 * N, class_weight="balanced").fit(x, labels)
    # Theirs aims at -1 and 1 where ours aims at 0 and 1.
    np.testing.assert_allclose(2 * probe.outputs(features).numpy() - 1, model.decision_function(x), atol=1e-4)
    factor = sharpness(task, probe.outputs(features), target)
    sharp = probe.times(factor)
    assert sharp.factor == factor > 1
    assert task.loss(sharp.outputs(features), target) < task.loss(probe.outputs(features), target)


@pytest.mark.parametrize("samples", [4, 400])
def test_a_few_right_answers_make_nobody_certain(samples: int):
    task = Classify()
    task.fit(["a", "b"])
    target = torch.arange(samples) % 2
    outputs = torch.where(target[:, None] == torch.arange(2), 0.8, 0.2)
    chance = (outputs * sharpness(task, outputs, target)).softmax(dim=1).amax(dim=1)
    # By hand: n log(1 + e^-z) + log(1 + e^-z) + z / 2 is least where the chance is (n + 1/2) / (n + 1).
    np.testing.assert_allclose(
        chance.numpy(), (samples + 0.5) / (samples + 1), rtol=0.01
    )  # the factors tried lie 12 % apart


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("l2", [0.3, 0.01])
def test_classification_equals_logistic_regression(classes: int, l2: float):
    features, labels = data(classes=classes)
    task = Classify()
    task.fit(labels)
    (probe,) = fit_probes(task, features=features, target=task.encode(labels), l2=[l2], solver="likelihood")
    x = ((features - features.mean(0)) / features.std(0, correction=0)).double().numpy()
    # Ours is mean loss + l2 / 2 |w|^2, theirs C x summed loss + 1 / 2 |w|^2. For two classes theirs has one vector, the
    # difference of our two, which are half of it each: the same penalty costs it half as much.
    penalty = l2 / 2 if classes == 2 else l2
    model = LogisticRegression(C=1 / (N * penalty), tol=1e-10, max_iter=5000)
    model.fit(x, labels)
    ours = probe.outputs(features).double().softmax(1).numpy()
    # Both stop at a gradient of about 1e-6.
    np.testing.assert_allclose(ours, model.predict_proba(x), atol=2e-4)


def test_regression_equals_ridge():
    features, labels = data(classes=5)
    targets = features @ torch.arange(F).float() + torch.tensor([float(label) for label in labels])
    task = Regress()
    task.fit(targets.tolist())
    l2 = 0.2
    (probe,) = fit_probes(task, features=features, target=task.encode(targets.tolist()), l2=[l2], solver="likelihood")
    x = (features - features.mean(0)) / features.std(0, correction=0)
    # Mean of squares + l2 / 2 |w|^2 is Ridge's sum of squares + alpha |w|^2 with alpha = n l2 / 2.
    model = Ridge(alpha=N * l2 / 2).fit(x.numpy(), targets.numpy())
    ours = task.decode(probe.outputs(features))["prediction"]
    np.testing.assert_allclose(ours, model.predict(x.numpy()), atol=1e-3 * task.std_)  # L-BFGS stops in float32


def test_stronger_penalties_come_first_and_have_smaller_weights():
    features, labels = data(classes=3)
    task = Classify()
    task.fit(labels)
    target = task.encode(labels)
    probes = list(fit_probes(task, features=features, target=target, l2=[1e-3, 1, 0.1], solver="likelihood"))
    assert [probe.l2 for probe in probes] == [1, 0.1, 1e-3]
    norms = [float(probe.weight.norm()) for probe in probes]
    assert norms == sorted(norms)


def test_a_feature_that_never_changes_is_harmless():
    features, labels = data(classes=2)
    task = Classify()
    task.fit(labels)
    flat = torch.cat([features, torch.full((N, 1), 5.0)], dim=1)
    (probe,) = fit_probes(task, features=flat, target=task.encode(labels), l2=[0.1], solver="likelihood")
    assert probe.outputs(flat).isfinite().all() and probe.scale[-1] == 1


def test_no_penalty_is_refused():
    features, labels = data(classes=2)
    task = Classify()
    task.fit(labels)
    with pytest.raises(UsageError, match="optim.l2: must list at least one penalty; found none"):
        next(fit_probes(task, features=features, target=task.encode(labels), l2=[], solver="likelihood"))


def test_a_head_with_every_sample_as_centre_equals_kernel_ridge():
    features, labels = data(classes=3)
    task = Regress()
    task.fit([float(label) for label in labels])
    target = task.encode([float(label) for label in labels])
    probes = fit_probes(
        task,
        features=features,
        target=target,
        l2=[0.3],
        solver="squares",
        basis=Basis.of(features, centres=500, gamma=0.4),
    )
    (probe,) = probes
    x = ((features - features.mean(0)) / features.std(0, correction=0)).half().double().numpy()
    goal = task.goal(target).double().numpy()
    # Theirs is the summed squared error + alpha |w|^2 without a bias; that of the mean of squares is F / 2 as large,
    # and ours is centred: the kernel in the centred feature space of the same samples.
    kernel = F * np.exp(-0.4 * ((x[:, None] - x[None]) ** 2).sum(-1) / F)
    middle = np.eye(N) - 1 / N
    centred = middle @ kernel @ middle
    model = KernelRidge(alpha=0.3 * N / 2, kernel="precomputed").fit(centred, goal - goal.mean())
    theirs = model.predict(centred) + goal.mean()
    np.testing.assert_allclose(probe.outputs(features).numpy(), theirs, atol=2e-3)  # centres in half precision


def test_landmarks_approximate_the_kernel_and_the_layer_answers_as_the_probe():
    features, labels = data(classes=3)
    x = (features - features.mean(0)) / features.std(0, correction=0)
    exact = nearness(x, x, gamma=0.3)
    errors = []
    for most in (11, 53, 101):
        mapped = Landmarks(x, most=most, gamma=0.3, seed=0).map(x)
        assert mapped.shape == (N, most)
        errors.append(float((mapped @ mapped.T - exact).abs().mean()))
    assert errors[0] > 3 * errors[1] and errors[2] < 0.01
    task = Classify()
    task.fit(labels)
    target = task.encode(labels)
    (probe,) = fit_probes(
        task,
        features=features,
        target=target,
        l2=[0.1],
        solver="squares",
        basis=Basis.of(features, centres=53, gamma=0.3),
    )
    assert probe.centres is not None and probe.weight.shape == (3, 53)
    layer = KernelLayer(F, 3, centres=53, gamma=0.3)
    layer.centres.copy_(probe.centres)
    layer.weight.data, layer.bias.data = probe.weight, probe.bias
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answers = layer((features - probe.mean) / probe.scale)
    torch.testing.assert_close(answers, probe.outputs(features), rtol=1e-4, atol=1e-4)


def test_landmarks_bear_samples_that_are_there_many_times():
    draw = torch.Generator().manual_seed(4)
    few = torch.randn(5, 307, generator=draw)
    x = few.repeat(101, 1) * 6
    x += 1e-4 * torch.randn(x.shape, generator=draw)  # what rounding leaves of sameness
    mapped = Landmarks(x, most=1000, gamma=0.35, seed=0).map(x)
    assert mapped.isfinite().all()
    torch.testing.assert_close(mapped @ mapped.T, nearness(x, x, gamma=0.35), atol=0.1, rtol=0.01)


def test_a_kernel_learns_what_no_line_can():
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(211, 2, generator=draw)
    labels = ["same" if same else "other" for same in (x[:, 0] * x[:, 1] > 0).tolist()]
    task = Classify()
    task.fit(labels)
    target = task.encode(labels)
    right = {}
    for centres in (0, 100):
        (probe,) = fit_probes(
            task, features=x, target=target, l2=[1e-3], solver="squares", basis=Basis.of(x, centres=centres)
        )
        right[centres] = float((probe.outputs(x).argmax(1) == target).float().mean())
    assert right[0] < 0.65 and right[100] > 0.95


def test_under_a_kernel_direct_features_weigh_by_their_share_not_by_their_number():
    features, labels = data(classes=3)
    task = Classify()
    task.fit(labels)
    target = task.encode(labels)
    basis = Basis.of(features, direct=2, weight_of_direct=4.0, centres=N, gamma=0.2)
    (once,) = fit_probes(task, features=features, target=target, l2=[0.3], solver="squares", basis=basis)
    x = ((features - features.mean(0)) / features.std(0, correction=0)).double()
    far = [torch.cdist(part, part).square() / part.shape[1] for part in (x[:, :-2], x[:, -2:])]
    kernel = torch.exp(-0.2 * (F - 2) / F * (far[0] + 4 * far[1]))
    model = KernelRidge(alpha=0.3 * N / F, kernel="precomputed")
    goal = torch.nn.functional.one_hot(target, 3).double()
    centred = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    expected = model.fit(centred.numpy(), (goal - goal.mean(0)).numpy()).predict(centred.numpy()) + goal.mean(0).numpy()
    np.testing.assert_allclose(once.outputs(features).numpy(), expected, atol=2e-3)  # centres in half precision
