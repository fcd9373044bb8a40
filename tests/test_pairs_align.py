"""Alignment: maps by hand, whole concepts held out, a ledger that is asked, and refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from common import Run
from pairs_common import HUES, align_words

import metatransformer as mt
from metatransformer.core.errors import UsageError, WeightsError
from metatransformer.pairs.align import _split, among
from metatransformer.pairs.ledger import read_aligned
from metatransformer.pairs.project import Maps, basis_of, fit_maps, folds_of, refine, shuffled, solve
from metatransformer.pairs.recall import both_ways
from metatransformer.pairs.sentences import Bert
from metatransformer.pairs.texts import Bag, make_side


def test_the_ledger_tells_pair_fingerprints_and_scores_beside_chance_and_controls(aligned: Path):
    told = json.loads((aligned / "ledger.json").read_text(encoding="utf-8"))
    assert told["pairs"] == 36 and told["concepts"] == 12 and told["held_out_concepts"] == 12
    assert told["chance"]["picture to words R@1"] == pytest.approx(1 / 12)
    assert told["sides"]["picture"]["modality"] == "image" and len(told["sides"]["picture"]["fingerprint"]) == 8
    assert told["aligned"] and told["scores"]["picture to words R@1"] > 0.4
    assert told["controls"].keys() == {"shuffled pairs", "random trunk", "ridge to words"}
    assert told["controls"]["shuffled pairs"]["picture to words R@1"] < told["scores"]["picture to words R@1"]
    assert json.loads((aligned / "metrics.json").read_text(encoding="utf-8"))["scores"] == told["scores"]
    page = (aligned / "report.html").read_text(encoding="utf-8")
    assert "shuffled pairs" in page and "picture to words R@1" in page


def test_an_aligned_encoder_tells_classes_by_their_names(aligned: Path, seen: Path, tmp_path: Path, call: Run):
    files = [path for path in pd.read_csv(seen)["file"] if "-large-" in path]
    words = ["predict", aligned, *files, "--classes", ",".join(HUES), "--templates", "large and {}"]
    status, result, err = call([*words, "--out", tmp_path / "p.csv", "--device", "cpu"])
    assert status == 0, err
    found = pd.read_csv(tmp_path / "p.csv")
    right = [Path(file).name.split("-")[0] for file in files]
    assert (found["prediction"] == right).mean() >= 0.75
    again = read_aligned(aligned, device="cpu")
    held = json.loads((aligned / "ledger.json").read_text(encoding="utf-8"))
    assert again.maps.scale == held["scale"]
    near = mt.similarity(files, ["large and red"], encoder=str(aligned), device="cpu")
    assert near.shape == (len(files), 1)


def test_what_is_not_above_chance_is_refused_with_its_figure(aligned: Path, tmp_path: Path, drawn: Path):
    shutil.copytree(aligned, tmp_path / "run")
    path = tmp_path / "run" / "ledger.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(told | {"aligned": False}), encoding="utf-8")
    with pytest.raises(
        UsageError, match="must have aligned its two sides better than chance; found picture to words R@"
    ):
        mt.zero_shot([str(drawn.parent / "red-tall-0.png")], ["red", "blue"], encoder=str(tmp_path / "run"))
    told["sides"]["picture"]["fingerprint"][0] += 1
    path.write_text(json.dumps(told | {"aligned": True}), encoding="utf-8")
    with pytest.raises(WeightsError, match="must compute what was recorded"):
        read_aligned(tmp_path / "run", device="cpu")
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(WeightsError, match="must be what 'metatransformer align' wrote"):
        read_aligned(tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--inputs", "picture=image(file)"], "must name two inputs, as picture=image"),
        (["--concept", "nothing"], "must have a column 'nothing'"),
        (["--text", "nowhere"], "must be words, minilm, or a run of 'metatransformer pretrain'"),
    ],
)
def test_bad_questions_are_refused(words, message: str, seen: Path, tmp_path: Path, call: Run):
    status, _, err = call([*align_words(seen, tmp_path / "run"), *words])
    assert status == 2 and message in " ".join(err.split()), err


def test_a_concept_on_both_sides_of_a_split_is_refused(seen: Path, tmp_path: Path, call: Run):
    table = pd.read_csv(seen)
    table.loc[0, "split"] = "test" if table.loc[0, "split"] == "train" else "train"
    table.to_csv(tmp_path / "mixed.csv", index=False)
    status, _, err = call(align_words(tmp_path / "mixed.csv", tmp_path / "run", "--concept", "concept"))
    assert status == 2 and "must have each concept on one side; found 1 on both" in " ".join(err.split())


def test_two_kinds_of_samples_are_aligned_without_texts(paired: Path, seen: Path, tmp_path: Path, call: Run):
    told = json.loads((paired / "ledger.json").read_text(encoding="utf-8"))
    table = pd.read_csv(paired.parent / "two.csv")
    assert told["scores"]["one to other R@1"] > 3 * told["chance"]["one to other R@1"]
    files = table["file"].tolist()[:4]
    near = mt.similarity(files, table["other"].unique().tolist()[:3], encoder=str(paired), device="cpu")
    assert near.shape == (4, 3) and near[0, :2].max() > near[0, 2]  # two of the same concept, one of another
    status, _, err = call(["predict", paired, seen, "--classes", "a,b", "--out", tmp_path / "p.csv"])
    assert status == 2 and "must have aligned samples with texts; found image and infrared" in " ".join(err.split())


# --- the parts --------------------------------------------------------------------------------------------------------


def pairs(count: int = 40, *, noise: float = 0.01) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(2)
    labels = torch.arange(count) // 2
    hidden = torch.randn(count, 5, generator=draw)[labels]
    x = hidden @ torch.randn(5, 9, generator=draw) + noise * torch.randn(count, 9, generator=draw)
    return x + 3, hidden @ torch.randn(5, 7, generator=draw) - 1, labels


@pytest.mark.parametrize("count", [7, 40])  # fewer pairs than features, and more
def test_the_ridge_equals_scikit_learns(count: int):
    from sklearn.linear_model import Ridge

    x, y, _ = pairs(count)
    maps = solve(x, y, penalty=0.1)
    a, b = (x - x.mean(0)) / x.std(0), y - y.mean(0)
    scale = (a.square().sum() / a.shape[1 if count > 9 else 0]).item()
    expected = Ridge(alpha=0.1 * scale, fit_intercept=False).fit(a.numpy(), b.numpy()).predict(a.numpy())
    found = (x @ maps.left + maps.left_bias) @ maps.right.T  # the directions are orthonormal
    assert np.allclose(found, expected, atol=1e-4)


def test_maps_find_what_two_sides_share_and_shuffled_pairs_do_not():
    x, y, labels = pairs(80)
    train, held = slice(0, 60), slice(60, 80)
    maps, plan = fit_maps(x[train], y[train], labels[train], seed=0)
    found = both_ways(maps.of_left(x[held]), maps.of_right(y[held]), labels[held], names=("a", "b"))
    assert found["a to b R@1"] > 0.8 and plan.score > 0.8
    wrong = shuffled(y[train], labels[train], seed=0)
    maps, _ = fit_maps(x[train], wrong, labels[train], seed=0)
    other = both_ways(maps.of_left(x[held]), maps.of_right(y[held]), labels[held], names=("a", "b"))
    assert other["a to b R@1"] < 0.4


def test_few_different_texts_are_learned_in_as_many_directions():
    x, y, labels = pairs(20)
    wide = torch.cat([y, torch.zeros(20, 30)], dim=1)[labels * 2] @ torch.linalg.qr(torch.randn(37, 37)).Q
    basis = basis_of(wide)
    assert basis.shape == (37, 10) and torch.allclose(wide @ basis @ basis.T, wide, atol=1e-4)
    maps, _ = fit_maps(x, wide, labels, seed=0)
    found = both_ways(maps.of_left(x), maps.of_right(wide), labels, names=("a", "b"))
    assert maps.right.shape[0] == 37 and found["a to b R@1"] > 0.8


def test_contrastive_steps_lessen_their_loss_and_stay_near_their_start():
    x, y, labels = pairs()
    start = solve(x, y, penalty=1.0)
    end = refine(start, x, y, labels, steps=20, seed=0)
    assert not torch.equal(end.left, start.left)
    assert (end.right - start.right).norm() < start.right.norm()


def test_folds_and_splits_keep_labels_together():
    labels = torch.tensor([n // 3 for n in range(60)])
    folds = folds_of(labels, seed=0)
    assert all(len(set(folds[labels.numpy() == label])) == 1 for label in range(20)) and len(set(folds)) == 5

    many = torch.arange(120) // 2
    train, held = _split([None] * 120, many, seed=0)
    assert len(train) == 96 and not set(many[train].tolist()) & set(many[held].tolist())


def test_the_nearest_other_sample_by_hand():
    vectors = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.0, 0.9]])
    assert among(vectors, torch.tensor([1, 1, 2, 3])) == 1.0
    assert among(vectors, torch.tensor([1, 2, 1, 2])) == 0.0


def test_a_bag_of_words_equals_scikit_learns():
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = ["a red square", "a blue square, and red", "green"]
    bag = Bag.of(texts)
    theirs = TfidfVectorizer(token_pattern=r"[^\W_]+", vocabulary=list(bag.weights)).fit(texts)
    asked = ["Red RED unseen blue", "nothing known here"]
    assert np.allclose(bag.vectors(asked), theirs.transform(asked).toarray(), atol=1e-6)


def test_a_sentence_encoder_equals_transformers():
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 21, "intermediate_size": 29, "num_hidden_layers": 2, "num_attention_heads": 3}
    model = transformers.BertModel(transformers.BertConfig(**shape, vocab_size=17, max_position_embeddings=9)).eval()
    ours = Bert({n: t for n, t in model.state_dict().items() if not n.startswith("pooler")}, heads=3)
    ids, mask = torch.tensor([[1, 5, 6, 2], [1, 9, 2, 0]]), torch.tensor([[True] * 4, [True, True, True, False]])
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    real = mask[..., None].float()
    mean = (hidden * real).sum(1) / real.sum(1)
    assert torch.allclose(ours(ids, mask), mean / mean.norm(dim=1, keepdim=True), atol=1e-5)


def test_a_pretraining_reads_the_texts(pretrained: Path):
    side = make_side(str(pretrained), ["a red square"])
    assert side.vectors(["a red bar", "square"]).shape == (2, 3 + 12)
    assert isinstance(Maps(*(torch.zeros(1),) * 4), Maps)
