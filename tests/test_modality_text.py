"""Text: what becomes of a text on its way to tokens, and which texts are refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from common import FIXTURES, run, settings_of, tiny_recipe, words_of

from metatransformer import Classifier
from metatransformer.bench.datasets.text import whole_phrases
from metatransformer.core.batch import stack_views
from metatransformer.core.errors import DataError, NotFittedError, UsageError
from metatransformer.core.modality import Stem
from metatransformer.core.samples import Record, View
from metatransformer.fit.fit import fit
from metatransformer.machine.console import Console
from metatransformer.modalities import text as module
from metatransformer.modalities.text import (
    BINS,
    DROPPED,
    FIRST,
    MODALITY,
    SEPARATOR,
    TextOptions,
    TextTokenizer,
    TextTransform,
    features,
    load,
)
from metatransformer.modalities.text.subwords import UNKNOWN
from metatransformer.report.controls import run_controls
from metatransformer.trunk.words import Words

WORDS = ("[PAD]", UNKNOWN, "a", "good", "bad", "film", "##s", "is", "it", "?")
WIDTH = 23


def sample(value, key: str = "x") -> View:
    if isinstance(value, tuple):
        value = {"text_1": value[0], "text_2": value[1]}
    return View(key, load(Record(key, value=value)))


@pytest.fixture
def vocabulary(tmp_path: Path) -> str:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return str(path)


def fitted(*values, **options) -> TextTransform:
    transform = TextTransform(TextOptions(**options), Stem())
    transform.fit([sample(value) for value in values])
    return transform


def tokenizer(transform: TextTransform, *, width: int = WIDTH, seed: int = 0) -> TextTokenizer:
    torch.manual_seed(seed)
    return TextTokenizer(transform.options, transform, width, Stem()).eval()


def tokens(transform: TextTransform, *values, seed: int = 0):
    batch = stack_views([transform(sample(value)) for value in values], fields=MODALITY.fields)
    return tokenizer(transform, seed=seed)(batch.inputs, batch.masks)


# --- from a text to numbers


def test_numbers_by_hand(vocabulary: str):
    transform = fitted("a good film", vocabulary=vocabulary)
    ready = transform(sample("A bad, films!")).inputs
    assert (ready["pieces"] - FIRST).tolist() == [[2, 4, 1, 5, 6, 1]]
    assert ready["second"].tolist() == [[0] * 6]
    assert ready["letters"].tobytes() == b"A bad, films!"
    assert transform.seen_ == (2, 3, 5)


def test_a_pair_has_a_separator_and_says_which_text_a_piece_is_of(vocabulary: str):
    transform = fitted(("a film", "is it bad ?"), vocabulary=vocabulary)
    ready = transform(sample(("a good film", "is it ?"))).inputs
    assert ready["pieces"][0].tolist() == [FIRST + 2, FIRST + 3, FIRST + 5, SEPARATOR, FIRST + 7, FIRST + 8, FIRST + 9]
    assert ready["second"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]
    assert transform.columns_ == ("text_1", "text_2")
    one, two = tokens(transform, ("a film", "is it ?")), tokens(transform, ("a film is", "it ?"))
    assert one.x.shape == two.x.shape and not torch.allclose(one.x[:, 3], two.x[:, 3])


def test_of_two_texts_one_may_be_missing(vocabulary: str):
    transform = fitted(("a film", "is it bad ?"), (None, "good film"), vocabulary=vocabulary)
    assert transform(sample((None, "is it"))).inputs["pieces"][0].tolist() == [SEPARATOR, FIRST + 7, FIRST + 8]
    assert transform(sample(("good", " "))).inputs["pieces"][0].tolist() == [FIRST + 3, SEPARATOR]
    with pytest.raises(DataError, match="must hold a text; found a missing one"):
        transform(sample((None, float("nan"))))


def test_a_long_text_fills_windows_of_equal_length(vocabulary: str):
    transform = fitted("a film", vocabulary=vocabulary, window=5, max_windows=3)
    assert transform(sample("a " * 5)).inputs["pieces"].shape == (1, 5)
    pieces = transform(sample("a " * 11)).inputs["pieces"]
    assert pieces.shape == (3, 4) and (pieces == 0).tolist() == [[False] * 4, [False] * 4, [False] * 3 + [True]]
    assert transform.doubts() == ()


def test_a_text_beyond_all_windows_is_read_in_evenly_spaced_ones_and_that_is_said(vocabulary: str):
    text = "a good bad film is it ? " * 3 + "a"  # 22 pieces
    transform = fitted(text, "a film", vocabulary=vocabulary, window=5, max_windows=3)
    whole = fitted(text, vocabulary=vocabulary, window=22)(sample(text)).inputs["pieces"][0]
    pieces = transform(sample(text)).inputs["pieces"]
    assert np.array_equal(pieces, np.stack([whole[0:5], whole[8:13], whole[17:22]]))  # from 0, 8.5 (to even), 17
    words = "1 texts of more than 15 sub-words are read in 3 evenly spaced windows (input.max_windows; time and memory"
    assert transform.notes[-1].startswith(words)
    (doubt,) = transform.doubts()
    assert doubt.startswith(words) and transform.doubts() == ()
    assert fitted(text, vocabulary=vocabulary, window=5, max_windows=1)(sample(text)).inputs["pieces"].shape == (1, 5)


def test_a_training_copy_of_a_long_text_is_some_of_its_windows(vocabulary: str):
    transform = fitted("a film", vocabulary=vocabulary, window=4, train_windows=2, drop=0.0)
    ready = transform(sample("a good bad film is it ? a bad bad film ?"))
    copies = [transform.augment(ready, np.random.default_rng(seed)).inputs for seed in range(20)]
    windows = [row.tolist() for row in ready.inputs["pieces"]]
    chosen = {tuple(windows.index(row.tolist()) for row in copy["pieces"]) for copy in copies}
    assert chosen == {(0, 1), (0, 2), (1, 2)} and all(copy["second"].shape == (2, 4) for copy in copies)
    everything = fitted("a film", vocabulary=vocabulary, window=4, train_windows=0, drop=0.0)
    assert everything.augment(ready, np.random.default_rng(0)).inputs["pieces"].shape == (3, 4)


def test_columns_are_found_by_name_or_by_being_the_only_one(vocabulary: str):
    transform = fitted({"number": "1", "sentence": "a good film"}, vocabulary=vocabulary)
    assert transform.columns_ == ("sentence",)
    pieces = transform(sample("a film")).inputs["pieces"]
    assert np.array_equal(transform(sample({"content": "a film"})).inputs["pieces"], pieces)
    assert np.array_equal(transform(sample({"n": "bad", "sentence": "a film"})).inputs["pieces"], pieces)
    with pytest.raises(DataError, match="the column 'sentence' that the model was fitted on; found n, content"):
        transform(sample({"n": "1", "content": "a film"}))
    assert fitted({"a": "a film", "b": "bad"}, columns=("b",), vocabulary=vocabulary).columns_ == ("b",)


def test_dropped_pieces_are_blotted_out_and_nothing_else(vocabulary: str):
    transform = fitted("a film", vocabulary=vocabulary, drop=0.5)
    ready = transform(sample("a good film is it ? " * 17))
    copy = transform.augment(ready, np.random.default_rng(0)).inputs["pieces"]
    lost = copy == DROPPED
    assert 0.35 < lost.mean() < 0.65  # 102 pieces: four deviations
    assert np.array_equal(copy[~lost], ready.inputs["pieces"][~lost])


def test_state_needs_no_vocabulary_file(tmp_path: Path, vocabulary: str):
    transform = fitted("a good film", vocabulary=vocabulary)
    state = json.loads(json.dumps(transform.state()))
    Path(vocabulary).unlink()
    other = TextTransform(TextOptions(vocabulary=vocabulary), Stem())
    other.load_state(state)
    one, two = (each(sample("a bad film")).inputs["pieces"] for each in (transform, other))
    assert np.array_equal(one, two)


def test_a_misspelt_vocabulary_is_refused():
    with pytest.raises(UsageError, match="found 'minlm'. Did you mean 'minilm'. Valid: minilm, train"):
        fitted("a film", vocabulary="minlm")


def test_notes_say_what_was_found(vocabulary: str):
    transform = fitted("a good film", "zzz " * 9, vocabulary=vocabulary, window=4)
    assert transform.notes == (
        "texts of text: 6 sub-words (median), at most 9; 4 of 10 sub-words occur",
        f"75.0% of all words are not in the vocabulary '{vocabulary}'",
        "1 texts fill more than one window of 4 sub-words",
    )


@pytest.mark.parametrize(
    "value, found",
    [
        (None, "a missing one"),
        (" ", "an empty one"),
        ("\u200d", "hold at least one word"),
        (float("nan"), "a missing one"),
        (3.5, "a float"),
    ],
)
def test_what_is_no_text_is_refused(value, found: str, vocabulary: str):
    transform = fitted("a film", vocabulary=vocabulary)
    with pytest.raises(DataError, match=f"^row 7: must .*{found}"):
        transform(sample({"text": value}, key="row 7"))


def test_a_transform_must_be_fitted():
    with pytest.raises(NotFittedError):
        TextTransform(TextOptions(), Stem())(sample("a film"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": ("a", "a")},
        {"size": 7},
        {"window": 3},
        {"max_windows": 0},
        {"train_windows": -1},
        {"neighbours": 2},
        {"drop": 1.0},
    ],
)
def test_options_are_checked(wrong: dict):
    (name,) = wrong
    with pytest.raises(UsageError, match=f"input.{name}: must"):
        TextOptions(**wrong)


# --- tokens


def test_windows_are_rows_of_their_own(vocabulary: str):
    transform = fitted("a good film", vocabulary=vocabulary, window=4)
    long, short = "a good film is it", "bad film"
    found = tokens(transform, short, long)
    assert found.samples is not None and found.samples.tolist() == [0, 1, 1]
    assert found.mask.sum(dim=1).tolist() == [3, 4, 3]
    alone = tokens(transform, short)
    assert alone.samples is None
    torch.testing.assert_close(found.x[0, :3], alone.x[0])
    # The second window begins at place 0 again: it is what its own words give.
    torch.testing.assert_close(found.x[2, :3], tokens(transform, "is it").x[0])


def test_neighbours_reach_as_far_as_the_convolution(vocabulary: str):
    def far(**options) -> list[bool]:
        transform = fitted("a good film", vocabulary=vocabulary, **options)
        one, two = tokens(transform, "a a a good a a a"), tokens(transform, "a a a bad a a a")
        return [not torch.equal(x, y) for x, y in zip(one.x[0, 1:], two.x[0, 1:], strict=True)]

    assert far(neighbours=1) == [False] * 3 + [True] + [False] * 3
    assert far(neighbours=5) == [False] + [True] * 5 + [False]


def test_known_vectors_carry_words_that_training_never_saw(monkeypatch: pytest.MonkeyPatch):
    vectors = torch.randn(len(WORDS), 11, generator=torch.Generator().manual_seed(0)).half()
    monkeypatch.setattr(module, "load_words", lambda name: Words(name, WORDS, vectors, ""))
    transform = fitted("a film")
    one, two = tokens(transform, "good"), tokens(transform, "bad")
    assert not torch.allclose(one.x[:, 1], two.x[:, 1])
    other = TextTransform(TextOptions(), Stem())
    other.load_state(json.loads(json.dumps(transform.state())))
    rebuilt = tokenizer(other, seed=1)
    rebuilt.load_state_dict(tokenizer(transform).state_dict())
    batch = stack_views([other(sample("good"))], fields=MODALITY.fields)
    torch.testing.assert_close(rebuilt(batch.inputs, batch.masks).x, one.x)


def test_tokens_have_the_size_that_patches_have(monkeypatch: pytest.MonkeyPatch):
    vectors = torch.randn(len(WORDS), 384, generator=torch.Generator().manual_seed(0)).half()
    monkeypatch.setattr(module, "load_words", lambda name: Words(name, WORDS, vectors, ""))
    transform = fitted("a good film", neighbours=1)
    batch = stack_views([transform(sample("a good bad film is it ?"))], fields=MODALITY.fields)
    x = tokenizer(transform, width=384)(batch.inputs, batch.masks).x[0, 1:]
    # Words of length 2.5 and places of a tenth of that, about at right angles; seven words.
    assert x.norm(dim=1).mean().item() == pytest.approx(2.5, rel=0.05)


# --- baseline, picture, and the whole way


def test_features_count_words_and_their_neighbours():
    text = "A film, a film!"  # a, film, ",", a, film, "!"
    counts = features(View("x", {"letters": np.frombuffer(text.encode(), dtype=np.uint8)}))
    assert counts.size == BINS and counts.values.sum() == 6 + 5 + 4
    # a, film and "a film" twice; "," and "!", three pairs and four triples more once
    assert sorted(counts.values.tolist()) == [1] * 9 + [2, 2, 2] and (np.diff(counts.places) > 0).all()


def test_the_picture_shows_the_text(vocabulary: str):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    MODALITY.draw(axes, fitted("a film", vocabulary=vocabulary)(sample("a $good$ film " * 99)))
    (shown,) = axes.texts
    assert shown.get_text().startswith("a $good$ film") and len(shown.get_text()) < 500


def test_strings_and_pairs_from_python():
    texts = ["a warm and good film", "a dull and bad film"] * 9
    labels = ["pos", "neg"] * 9
    settings = settings_of("text", {"optim.lr": 1e-2, "data.batch_size": 8})
    classifier = Classifier("text", encoder="test", tune="ends", precision="float32", epochs=20, recipe=settings)
    classifier.fit(texts, labels)
    assert classifier.predict(["good film", "a bad film"]).tolist() == ["pos", "neg"]
    pairs = [(text, "is it good") for text in texts]
    assert classifier.fit(pairs, labels).predict(pairs[:2]).tolist() == ["pos", "neg"]


def test_folders_of_text_files_bring_their_labels(tmp_path: Path):
    for number in range(12):
        place = tmp_path / ("bad", "good")[number % 2]
        place.mkdir(exist_ok=True)
        (place / f"{number}.txt").write_text(f"a {('dull', 'warm')[number % 2]} film\n")
    classifier = Classifier("text", encoder="test", precision="float32", recipe=settings_of("text"))
    assert classifier.fit(tmp_path).predict([tmp_path / "bad/0.txt"]).shape == (1,)
    with pytest.raises(UsageError, match="--target: must name the column to learn of the table"):
        Classifier("text", encoder="test", recipe=settings_of("text")).fit(pd.DataFrame({"text": ["a", "b"]}))


def test_the_plain_baseline_learns_from_words():
    texts = ["a warm and good film", "a dull and bad film"] * 13
    splits = ["train"] * 16 + ["val"] * 4 + ["test"] * 6
    records = [
        Record(str(n), value=text, target="pn"[n % 2], split=split)
        for n, (text, split) in enumerate(zip(texts, splits, strict=True))
    ]
    console = Console(quiet=True)
    done = fit(records, tiny_recipe(MODALITY, {"tune": "head"}), console=console)
    assert run_controls(done, ("baseline",), split="test", console=console)["baseline"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    "name", ["good.csv", "good.tsv", "good.jsonl", "good.jsonl.gz", "good.parquet", "good_pairs.csv"]
)
def test_tables_from_the_command_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = FIXTURES / "text" / name
    settings = words_of({"head.read": [1], "input.vocabulary": "train", "run.precision": "float32"})
    words = ["fit", path, "--modality", "text", "--encoder", "test", "--tune", "ends", "--epochs", 1, *settings]
    status, _, err = run([*words, "--out", tmp_path / "run"], capsys)
    assert status == 0, err
    status, result, err = run(["evaluate", tmp_path / "run", path, "--split", "all"], capsys)
    assert status == 0 and 10 <= result["samples"] <= 11, err
    status, result, err = run(["check", path, "--modality", "text", *settings], capsys)
    assert (status, result["bad"]) == (0, 0), err


# --- the benchmark's validation part


def test_phrases_that_stand_in_no_longer_one():
    phrases = [tuple(text.split()) for text in ("a b c", "b c", "b", "d", "c d", "b c")]
    assert whole_phrases(phrases) == [("a", "b", "c"), ("c", "d")]
