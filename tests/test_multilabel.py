"""Several yes-or-no labels a sample, with gaps: loss, scores, predictions, and the way through table and engine."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from common import FIXTURES, run
from sklearn import metrics as scores
from sklearn.linear_model import LogisticRegression

from metatransformer import Classifier, load
from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.task import TaskOptions
from metatransformer.data.rows import index_table, split_target
from metatransformer.report.controls import PerLabel
from metatransformer.report.page import choose_samples
from metatransformer.tasks.classify import Classify
from metatransformer.tasks.multilabel import Multilabel

TARGETS = [(1, 0, None), ("0", 1.0, True), (1, None, "no"), (0, 0, 1), (None, 1, 0)]


def fitted(targets=tuple(TARGETS)) -> Multilabel:
    task = Multilabel(TaskOptions(target="a,b,c"))
    task.fit(targets)
    return task


def test_gaps_teach_nothing():
    task = fitted()
    target = task.encode([(1, None, 0), (None, None, None)])
    assert target.isnan().tolist() == [[False, True, False], [True, True, True]]
    outputs = torch.zeros(2, 3, requires_grad=True)
    loss = task.loss(outputs, target)
    assert loss.item() == pytest.approx(np.log(2))  # two known answers, each at chance one half
    loss.backward()
    assert outputs.grad is not None
    # sigmoid(0) - answer over two known answers; nothing where there is a gap
    np.testing.assert_allclose(outputs.grad.numpy(), [[-0.25, 0, 0.25], [0, 0, 0]], atol=1e-7)
    assert task.loss(outputs, target[1:].expand(2, -1)).item() == 0.0


def test_scores_are_means_over_the_labels_with_both_answers():
    task = fitted()
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, size=(41, 3)).astype(float)
    truth[::3, 0] = np.nan
    truth[:, 1] = 1.0  # one answer only: not scored
    outputs = torch.from_numpy(rng.normal(size=(41, 3)))
    found = task.metrics(outputs, torch.from_numpy(truth))
    expected = []
    for label in (0, 2):
        known = ~np.isnan(truth[:, label])
        expected.append(scores.roc_auc_score(truth[known, label], outputs[known, label]))
    assert found["mean_auroc"] == pytest.approx(np.mean(expected))
    assert found["labels_scored"] == 2.0
    rows = task.label_scores(outputs, torch.from_numpy(truth))
    assert [row["label"] for row in rows] == ["a", "b", "c"]
    assert np.isnan(rows[1]["auroc"]) and rows[1]["known"] == rows[1]["positive"] == 41
    with pytest.raises(DataError, match="must see both answers of at least one label"):
        task.metrics(outputs, torch.full((41, 3), torch.nan))


def test_the_constant_answer_is_the_rate_of_each_label():
    task = fitted()
    np.testing.assert_allclose(task.constant().sigmoid().numpy(), [1 / 2, 1 / 2, 1 / 2], atol=1e-6)
    many = torch.from_numpy(np.random.default_rng(0).integers(0, 2, size=(1009, 3)).astype(float))
    assert task.metrics(task.constant().expand(1009, -1), many)["mean_auroc"] == 0.5  # nothing but ties
    task = fitted([(1, 0, 0), (0, 0, 1), (0, 1, None), (0, 0, None)])
    np.testing.assert_allclose(task.constant().sigmoid().numpy(), [1 / 4, 1 / 4, 1 / 2], atol=1e-6)


def test_predictions_name_the_positive_labels():
    task = fitted()
    columns = task.decode(torch.tensor([[2.0, -2.0, 0.1], [-1.0, -1.0, -1.0]]))
    assert columns["prediction"].tolist() == ["a, c", ""]
    assert columns["p(a)"][0] == pytest.approx(1 / (1 + np.exp(-2)))
    assert task.text((1, None, 0)) == "a" and task.text((0, 0, 0)) == ""
    other = Multilabel()
    other.load_state(json.loads(json.dumps(task.state())))
    assert other.names_ == task.names_ and torch.equal(other.constant(), task.constant())


def test_names_are_numbered_where_others_were_given():
    task = Multilabel(TaskOptions(target="one,two"))
    task.fit(TARGETS)
    assert task.names_ == ["label_1", "label_2", "label_3"]
    single = Multilabel(TaskOptions(target="one"))
    single.fit([1, 0, None, 1])
    assert single.names_ == ["one"] and single.encode([0, None]).shape == (2, 1)


@pytest.mark.parametrize(
    "targets, match",
    [
        ([(1, 0), (0, 2)], "must be 0, 1 or empty"),
        ([(1, 0), (0, "high")], "found 'high'"),
        ([(1, 0), (0,)], r"must be as many in every sample.*\[1, 2\]"),
        ([(1, 0), (0, 0)], "label 'label_2': must be 0 for some training samples and 1 for others; found only one"),
        ([(1, None), (0, None)], "found no known value"),
    ],
)
def test_targets_that_cannot_be_learned(targets, match: str):
    with pytest.raises(DataError, match=match):
        Multilabel().fit(targets)


def test_other_metrics_and_tasks_are_refused():
    with pytest.raises(UsageError, match="must be a score of 'multilabel'; found accuracy"):
        Multilabel(TaskOptions(metric="accuracy"))
    with pytest.raises(DataError, match="--task .multilabel for several columns"):
        Classify().fit([(1, 0), (0, 1)])
    with pytest.raises(DataError, match="must be 3 in every sample; |labels: must be 3"):
        fitted().encode([(1, 0)])


# --- tables -----------------------------------------------------------------------------------------------------------


def test_several_targets_make_a_tuple_with_gaps():
    frame = pd.DataFrame({"x": [1, 2], "a": [1.0, np.nan], "b, c": ["yes", None], "d": [0, 1]})
    index = index_table(frame, target='a,"b, c"')
    assert [record.target for record in index.records] == [(1.0, "yes"), (None, None)]
    assert index.columns == ("x", "d")
    assert [record.target for record in index_table(frame, target="d").records] == [0, 1]
    # a column whose own name holds a comma is meant before a list
    assert [r.target for r in index_table(frame.dropna(), target="b, c").records] == ["yes"]
    with pytest.raises(DataError, match="must have a column 'e'"):
        index_table(frame, target="a,e")
    assert split_target('a, b ,"c,d"') == ("a", "b", "c,d") and split_target("") == ()


def test_samples_with_the_largest_error_come_first():
    task = fitted()
    outputs = torch.tensor([[-3.0, 0, 0], [3.0, 0, 0], [0.0, 0, 0]])
    told = task.cards(task.decode(outputs), [(1, None, None), (1, None, None), (None, None, None)])
    assert (told.guesses[0], told.truths) == ("none", ["a", "a", "none"])
    chosen = choose_samples(told)
    assert chosen[0] == (0, True) and {place for place, _ in chosen} == {0, 1, 2}


def test_command_line_learns_several_labels(tmp_path: Path, capsys):
    table, out = FIXTURES / "graph" / "good.csv", tmp_path / "run"
    labels = ["--target", "toxic,polar,large", "--task", "multilabel"]
    small = ["head.read=[1]", "data.test_fraction=0.3", "data.val_fraction=0.3", "run.device=cpu"]
    words = ["fit", table, "--modality", "graph", "--encoder", "test", "--out", out, *labels, "--controls", *small]
    status, result, err = run(words, capsys)
    assert status == 0, err
    assert {"constant", "baseline", "random", "identity"} == result["controls"].keys()
    assert result["metrics"]["test"]["labels_scored"] >= 1
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "By label" in page and "toxic" in page and "mean AUROC" in page
    status, result, err = run(["evaluate", out, table], capsys)
    assert status == 0, err
    assert 0 <= result["metrics"]["mean_auroc"] <= 1
    status, result, err = run(["predict", out, table, "--out", tmp_path / "p.csv"], capsys)
    assert status == 0, err
    found = pd.read_csv(tmp_path / "p.csv")
    assert list(found.columns) == ["key", "prediction", "p(toxic)", "p(polar)", "p(large)"] and len(found) == 13
    with pytest.raises(UsageError, match="to be loaded in Python; found one of the task 'multilabel'"):
        load(out)
    with pytest.raises(DataError, match="--task .multilabel for several columns"):
        Classifier("graph", encoder="test", target="toxic,polar").fit(table)


def test_each_label_has_an_estimator_of_its_own():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(61, 3))
    y = np.stack([x[:, 0] > 0, x[:, 1] > 0, np.ones(61)], axis=1).astype(float)
    y[::5, 0] = np.nan
    known = ~np.isnan(y[:, 0])
    found = PerLabel(LogisticRegression()).fit(x, y).predict(x)
    alone = LogisticRegression().fit(x[known], y[known, 0]).decision_function(x)
    # log odds through a probability and back
    np.testing.assert_allclose(found[:, 0], alone, atol=1e-6)
    assert found.shape == (61, 3) and np.ptp(found[:, 2]) == 0 and found[0, 2] > 20  # never anything but 1
