"""Plain features beside the trunk's: what is tried, chosen, said, saved; counted words against scikit-learn's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from common import make_records, tiny_recipe
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import Ridge

from metatransformer.core.errors import UsageError
from metatransformer.fit.closed_form import WordBasis, sparse_path
from metatransformer.fit.fit import fit
from metatransformer.fit.fitted import Fitted
from metatransformer.infer.predict import predict
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.nn.beside import WordWeights
from metatransformer.saved import load_pipeline

QUIET = Console(quiet=True)


def run(modality: str, *, features: str, out: Path | None = None, **overrides: object) -> Fitted:
    kind = get_modality(modality)
    recipe = tiny_recipe(kind, {"tune": "head", "head.features": features, "head.dropout": 0.0, **overrides})
    return fit(make_records(kind, train=31, val=7, test=5), recipe, out=out, console=QUIET)


@pytest.mark.parametrize("features", ["plain", "both", "auto"])
def test_a_saved_model_computes_plain_features_itself(features: str, tmp_path: Path):
    fitted = run("imu", features=features, out=tmp_path / "run")
    head = fitted.pipeline.head
    assert fitted.kept is not None
    if features != "auto":
        assert len(head.beside) and head.through == (features == "both")
        assert fitted.history[fitted.kept]["reads"].startswith(features)
    forms = {"plain, line", "plain, kernel", "plain, line by likelihood"}
    assert forms <= {line.get("reads") for line in fitted.history}
    # What was scored is what is kept: parts of a mixture at the scale at which they were averaged.
    kept = fitted.history[fitted.kept]
    assert kept["val_log_loss"] == pytest.approx(fitted.metrics["val"]["log_loss"], abs=1e-4)
    loaded = load_pipeline(tmp_path / "run" / "model")
    assert loaded.head.through == head.through and list(loaded.head.beside) == list(head.beside)
    answers = predict(loaded, fitted.loaders["test"].examples, console=QUIET)
    ours = fitted.pipeline.task.decode(fitted.outputs["test"])
    assert answers["prediction"].tolist() == ours["prediction"].tolist()
    name = next(name for name in ours if name.startswith("p("))
    np.testing.assert_allclose(answers[name], ours[name], atol=2e-3)


def test_the_trunk_alone_is_as_it_was():
    alone = run("imu", features="trunk")
    assert not alone.pipeline.head.beside and not alone.pipeline.reader.plain
    tried = [line for line in run("imu", features="auto").history if "reads" not in line]
    assert tried == alone.history


def test_features_that_cannot_be_had_are_refused():
    with pytest.raises(UsageError, match=r"head.features: must be 'auto' or 'trunk' but in tune mode 'head'.*'plain'"):
        run("imu", features="plain", tune="ends")
    with pytest.raises(UsageError, match="head.features"):
        run("timeseries", features="both", **{"input.sample": "file", "task.name": "classify"})


def counted() -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    counts = torch.randint(0, 9, (17, 23), generator=draw) - 5
    counts[:, 4] = 0
    counts[3, 5], counts[:3, 5], counts[4:, 5] = 2, 0, 0  # a word of one text is not read
    return counts.clamp(min=0).float().to_sparse().coalesce()


def test_words_are_weighed_as_by_scikit_learn():
    counts = counted()
    weights = WordWeights.of(counts, most=99)
    read = [column for column in range(23) if column not in (4, 5)]
    assert weights.columns.tolist() == read
    dense = counts.to_dense().numpy()
    theirs = TfidfTransformer(sublinear_tf=True).fit(dense[:, read]).transform(dense[:, read])
    np.testing.assert_allclose(weights(counts).to_dense().numpy(), theirs.toarray(), atol=1e-6)
    assert WordWeights.of(counts, most=3).columns.shape == (3,)


def test_a_head_on_words_is_ridge_regression():
    counts = counted()
    x = WordBasis.of(counts, outputs=2).map(counts)
    goal = torch.randn(17, 2, generator=torch.Generator().manual_seed(1))
    weigh = torch.rand(17, generator=torch.Generator().manual_seed(2)) + 0.5
    ((_, weight, bias),) = sparse_path(x, goal, importance=weigh, l2=[0.3])
    model = Ridge(alpha=0.3, solver="cholesky").fit(x.toarray(), goal.numpy(), sample_weight=weigh.numpy())
    np.testing.assert_allclose(weight.numpy(), model.coef_, atol=1e-3)
    np.testing.assert_allclose(bias.numpy(), model.intercept_, atol=1e-3)


def test_texts_count_their_words(tmp_path: Path):
    fitted = run("text", features="plain", out=tmp_path / "run")
    head = fitted.pipeline.head
    assert head.beside["plain:text"].facts.words > 0 and not head.through
    loaded = load_pipeline(tmp_path / "run" / "model")
    answers = predict(loaded, fitted.loaders["test"].examples, console=QUIET)
    assert answers["prediction"].tolist() == fitted.pipeline.task.decode(fitted.outputs["test"])["prediction"].tolist()
    assert fitted.metrics["test"]["accuracy"] == 1.0
