"""Sub-words: equal to an independent WordPiece, deterministic training, files that are refused."""

import json
from pathlib import Path

import pytest

from metatransformer.core.errors import DataError
from metatransformer.modalities.text.subwords import UNKNOWN, SubWords, read_vocabulary, train_wordpiece

# Pieces that meet the odd strings below: words, inner pieces, marks, letters of other scripts.
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789éüß中文字ий"
WORDS = [
    "[PAD]", UNKNOWN, "[CLS]", "[SEP]", "the", "film", "un", "##able", "##s", "good", "cafe", "don", "'", "t", "!", ".",
    ",", "-", "$", "…", "❤", "##ing", "naive", *LETTERS, *("##" + letter for letter in LETTERS),
]  # fmt: skip
WORDS = list(dict.fromkeys(WORDS))
ODD = (
    "the film",
    "The FILM!!! unable, films...",
    "  don't\tstop\nnow  ",
    "Café naïve Ünable ÉTÉ",
    "中文good字",
    "a\u200bb \u00a0 c\u2028d \ufeff e",
    "control\x07character\x1b \ufffd",
    "e\u0301te\u0301",
    "[UNK] [SEP] [MASK]",
    "$9.99 - 5%",
    "❤️ 😀 film",
    "x" * 101,
    "x" * 100,
    "и\u0306 Й",
    "ﬁlm Ⅳ ²",
    "",
    "' '' `` \"",
)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("cased", [False, True])
def test_pieces_equal_those_of_transformers(vocabulary: Path, cased: bool, tmp_path: Path):
    from transformers import BertTokenizer

    words = [*WORDS, "Film", "É"] if cased else WORDS
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(words) + "\n", encoding="utf-8")
    numbers = {word: number for number, word in enumerate(words)}
    other = BertTokenizer(vocab=numbers, do_lower_case=not cased)
    ours = read_vocabulary(path)
    for text in ODD:
        if "[" in text:
            continue  # there the names of special tokens in a text become these tokens; here they are letters
        assert ours.ids(text) == other.encode(text, add_special_tokens=False), text


def test_numbers_by_hand(vocabulary: Path):
    words = read_vocabulary(vocabulary)
    shown = [words.words[number] for number in words.ids("Unable films, zzz Ω")]
    assert shown == ["un", "##able", "film", "##s", ",", "z", "##z", "##z", UNKNOWN]
    assert words.unknown == 1
    # What stands in a text is text, never a command to the model.
    assert [words.words[number] for number in words.ids("[SEP]")] == [UNKNOWN, "s", "##e", "##p", UNKNOWN]


def test_a_tokenizer_json_gives_the_same_pieces(vocabulary: Path, tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    model = {"type": "WordPiece", "vocab": {word: number for number, word in enumerate(WORDS)}}
    path.write_text(json.dumps({"model": model}), encoding="utf-8")
    assert read_vocabulary(path).words == read_vocabulary(vocabulary).words


def test_a_trained_vocabulary_depends_on_its_texts_alone():
    texts = [f"the film number {number} is unable to surprise the surprised" for number in range(31)]
    one, two = (train_wordpiece(texts, size=101).words for _ in range(2))
    assert one == two and len(one) <= 101 and one[0] == UNKNOWN and len(set(one)) == len(one)
    words = SubWords(one)
    assert [words.words[number] for number in words.ids("the film")] == ["the", "film"]
    assert words.unknown not in words.ids("the 42 films")


def test_a_trained_vocabulary_keeps_to_its_size_in_any_script():
    texts = ["".join(chr(0x4E00 + (7 * a + b) % 997) for b in range(13)) for a in range(301)]
    assert len(train_wordpiece(texts, size=211).words) <= 211


@pytest.mark.parametrize(
    "name, content, found",
    [
        ("vocab.txt", b"the\nfilm\n", "2 without it"),
        ("vocab.txt", b"[UNK]\nfilm\nfilm\n", "'film' more than once"),
        ("vocab.txt", b"[UNK]\nfilm\xff\n", "0xff"),
        ("tokenizer.json", b"[UNK]\n", "another file"),
        ("tokenizer.json", b"[1]", "another file"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {"a": 0}}}', "a BPE model"),
        ("tokenizer.json", b'{"model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "a": 2}}}', "a WordPiece model"),
        ("tokenizer.json", b'{"model": {"type": "WordPiece", "vocab": {"a": "x"}}}', "must hold a WordPiece model"),
    ],
)
def test_a_foreign_vocabulary_is_refused(name: str, content: bytes, found: str, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_vocabulary(path)
    assert name in str(caught.value) and found in str(caught.value)


def test_a_missing_vocabulary_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"none.txt: must be a vocab.txt or a tokenizer.json; found nothing there"):
        read_vocabulary(tmp_path / "none.txt")


def test_a_word_too_long_for_pieces_takes_no_part_in_training():
    texts = ["other words of a text", "words of another text"]
    long = "textwords" * 60_000  # minutes for the library's trainer
    assert set(train_wordpiece([*texts, long], size=101).words) == set(train_wordpiece(texts, size=101).words)
    assert len(train_wordpiece(["漢字" * 300], size=101).words) > 1  # ideographs are words of their own
