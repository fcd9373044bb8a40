"""Tasks: metrics against scikit-learn, values by hand, and targets that cannot be learned."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import sklearn.metrics as reference
import torch
from sklearn.utils.class_weight import compute_class_weight

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.samples import Record
from metatransformer.data.examples import Examples
from metatransformer.infer.loader import require_targets
from metatransformer.tasks.classify import Classify, ClassifyOptions
from metatransformer.tasks.multilabel import Multilabel
from metatransformer.tasks.regress import Regress


def classify(*targets: object, class_weight: Literal["none", "balanced"] = "none") -> Classify:
    task = Classify(ClassifyOptions(class_weight=class_weight))
    task.fit(targets)
    return task


def outputs(count: int, classes: int) -> torch.Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(3))


def test_classes_are_sorted_as_people_sort_them():
    assert classify("10", "9", "b", "a", "9").classes_ == ["9", "10", "a", "b"]
    assert classify(2, 1, 10).classes_ == ["1", "2", "10"]
    assert classify("b", "a", "b").encode(["b", "a"]).tolist() == [1, 0]


@pytest.mark.parametrize("classes", [2, 3])
def test_classification_scores_equal_scikit_learns(classes: int):
    truth = torch.arange(23) % classes
    logits = outputs(23, classes)
    found = classify(*map(str, range(classes))).metrics(logits, truth)
    probability = logits.double().softmax(1).numpy()
    guess, y = probability.argmax(1), truth.numpy()
    expected = {
        "accuracy": reference.accuracy_score(y, guess),
        "balanced_accuracy": reference.balanced_accuracy_score(y, guess),
        "macro_f1": reference.f1_score(y, guess, average="macro"),
        "log_loss": reference.log_loss(y, probability),
        "kappa": reference.cohen_kappa_score(y, guess),
        "matthews": reference.matthews_corrcoef(y, guess),
        "auroc": reference.roc_auc_score(y, probability[:, 1] if classes == 2 else probability, multi_class="ovr"),
    }
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_class_that_does_not_occur_costs_nothing_but_the_auroc():
    task = classify("a", "b", "c")
    found = task.metrics(torch.tensor([[5.0, 0, 0], [0, 5, 0], [5, 0, 0]]), torch.tensor([0, 1, 1]))
    assert found["balanced_accuracy"] == pytest.approx(0.75) and "auroc" not in found
    strict = Classify(ClassifyOptions(metric="auroc"))
    strict.fit(["a", "b", "c"])
    with pytest.raises(DataError, match="metric 'auroc': must see every class.*; found 2 of 3 classes"):
        strict.metrics(torch.zeros(2, 3), torch.tensor([0, 1]))


def test_kappa_by_hand():
    task = classify("a", "b")
    logits, truth = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]), torch.tensor([0, 0, 0, 1])
    # 3 of 4 agree; by chance 1/2 would: (0.75 - 0.5) / (1 - 0.5).
    assert task.metrics(logits, truth)["kappa"] == pytest.approx(0.5)
    # True answers 1 and 2, false ones 1 and 0: (1 * 2 - 1 * 0) / sqrt(2 * 1 * 3 * 2).
    assert task.metrics(logits, truth)["matthews"] == pytest.approx(1 / 3**0.5)
    assert not {"kappa", "matthews"} & set(task.metrics(logits[:2], truth[:2]))  # one class only: 0 / 0


def test_answers_that_are_hardly_any_are_doubted():
    task = classify("a", "b", "c")
    truth = torch.tensor([0] * 80 + [1] * 16 + [2] * 4)
    logits = torch.eye(3)[truth]
    assert task.doubts(logits, truth) == []
    logits = torch.eye(3)[torch.tensor([0] * 95 + [1] * 5)]
    assert task.doubts(logits, truth) == ["'a' is the answer 95 times of 100, where 80 would be right"]  # of c are few
    logits = torch.eye(3)[torch.tensor([0] * 90 + [2] * 10)]
    assert task.doubts(logits, truth) == ["never the answer: 'b' (16 samples)"]
    assert task.doubts(torch.eye(3)[torch.zeros(100, dtype=torch.long)], torch.zeros(100, dtype=torch.long)) == []


def test_loss_weights_are_scikit_learns():
    targets = ["a"] * 5 + ["b"] * 2 + ["c"]
    task = classify(*targets, class_weight="balanced")
    weight = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=np.array(targets))
    logits, truth = outputs(8, 3), task.encode(targets)
    weights = torch.tensor(weight, dtype=torch.float32)
    expected = torch.nn.functional.cross_entropy(logits, truth, weight=weights)
    torch.testing.assert_close(task.loss(logits, truth), expected)


def test_predictions_of_a_classification_by_hand():
    columns = classify("a", "b").decode(torch.tensor([[0.0, np.log(3)], [0, 0]]))
    assert columns["prediction"].tolist() == ["b", "a"]
    np.testing.assert_allclose(columns["p(b)"], [0.75, 0.5])
    np.testing.assert_allclose(columns["confidence"], [0.75, 0.5])


def test_the_constant_answer_is_the_majority():
    constant = classify("a", "b", "b", "b").constant()
    torch.testing.assert_close(constant.exp(), torch.tensor([0.25, 0.75]))
    assert Regress().constant().tolist() == [0.0]


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_the_better_score_is_known(metric: str):
    task = Classify(ClassifyOptions(metric=metric))
    assert task.is_better(0.4, 0.6) == (metric == "log_loss")
    assert task.is_better(0.5, task.worst) and not task.is_better(float("nan"), 0.5)


def test_regression_scores_are_in_the_targets_unit():
    task = Regress()
    task.fit([10, 20, 30.0])
    assert (task.mean_, task.std_) == pytest.approx((20, np.sqrt(200 / 3)))
    truth, logits = task.encode([12, 18, 33]), outputs(3, 1)
    guess = task.decode(logits)["prediction"]
    found = task.metrics(logits, truth)
    expected = {
        "rmse": reference.root_mean_squared_error([12, 18, 33], guess),
        "mae": reference.mean_absolute_error([12, 18, 33], guess),
        "r2": reference.r2_score([12, 18, 33], guess),
    }
    assert found == pytest.approx(expected, rel=1e-6)  # targets are standardised in float32 on the way
    torch.testing.assert_close(task.loss(logits, truth), ((logits[:, 0] - truth) ** 2).mean())


@pytest.mark.parametrize("task", [classify("a", "b", "b"), Regress()])
def test_state_goes_through_json(task):
    if task.name == "regress":
        task.fit([1, 2, 4])
    other = type(task)()
    other.load_state(json.loads(json.dumps(task.state())))
    assert other.state() == task.state() and other.outputs == task.outputs


@pytest.mark.parametrize(
    ("task", "targets", "message"),
    [
        (Classify(), ["a", "a"], "training labels: must hold at least 2 classes; found only \\['a'\\]"),
        (Classify(), ["a", None], "training labels: must be known for every sample"),
        (Regress(), [1, "x"], "targets: must be numbers for the task 'regress'; found 'x'.*use --task classify"),
        (Regress(), [1, None], "targets: must be numbers"),
        (Regress(), [1, np.nan], "targets: must be finite; found nan"),
        (Regress(), [3, 3], "training targets: must differ from each other; found only 3"),
    ],
)
def test_targets_that_cannot_be_learned_are_named(task, targets: list, message: str):
    with pytest.raises(DataError, match=message):
        task.fit(targets)


def test_the_row_of_a_bad_target_is_named(tmp_path: Path):
    records = [Record(str(row), path=tmp_path / "a.csv", target=y) for row, y in enumerate((1, "2.5", "low", "x"))]
    with pytest.raises(DataError, match=r"a.csv, row 2 \(counted from 0\): target: must .* found 'low', and 1 more"):
        require_targets(Regress(), Examples.of(records, input="x", task="y"), name="y")
    with pytest.raises(DataError, match=r"^x/y.png: target: must be 0, 1 or empty.*found 'maybe'. Use"):
        bad = Examples.of([Record("x/y.png", target=(1, "maybe"))], input="x", task="y")
        require_targets(Multilabel(), bad, name="y")
    good = Examples.of([*records[:2], Record("unknown")], input="x", task="y")
    require_targets(Regress(), good, name="y")


def test_an_unknown_class_is_named():
    with pytest.raises(DataError, match=r"labels: must be classes that training saw \(a, b\); found c"):
        classify("a", "b").encode(["a", "c"])


@pytest.mark.parametrize(("kind", "message"), [(Classify, "score of 'classify'"), (Regress, "score of 'regress'")])
def test_an_unknown_metric_is_named(kind: type, message: str):
    with pytest.raises(UsageError, match=f"task.metric: must be a {message}; found acuracy"):
        kind(kind.options(metric="acuracy"))


def test_classes_count_alike_where_the_metric_counts_them_alike():
    target = torch.tensor([0, 0, 0, 1])
    for metric, weights in (("", [1, 1, 1, 1]), ("accuracy", [1, 1, 1, 1]), ("matthews", [2 / 3, 2 / 3, 2 / 3, 2])):
        task = Classify(ClassifyOptions(metric=metric))
        task.fit(["a", "a", "a", "b"])
        assert task.importance(target).tolist() == pytest.approx(weights)
    assert Classify(ClassifyOptions(metric="matthews", class_weight="none")).balanced is False
