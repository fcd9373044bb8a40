"""Sub-words: a text becomes numbers of a vocabulary, by the library ``tokenizers``.

A WordPiece vocabulary is lower-cased, cut and matched as BERT does it (Devlin et al. 2018, arXiv
1810.04805); a ``tokenizer.json`` brings its own rules, which are data, not code.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.io.table import decode

UNKNOWN = "[UNK]"
LONGEST = 100  # letters; BERT takes a longer word for unknown
RARE = 2  # a trained vocabulary builds no piece that occurs less often


class SubWords:
    """A vocabulary with its rules."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # What a file says about cutting and padding is not ours: nothing is cut silently.
        tokenizer.no_truncation()
        tokenizer.no_padding()

    def __len__(self) -> int:
        """Returns how many numbers there are: one more than the largest."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    @property
    def unknown(self) -> int:
        """The number of an unknown word; -1 where the vocabulary knows every letter."""
        number = self._tokenizer.token_to_id(UNKNOWN)
        return -1 if number is None else number

    def ids(self, text: str) -> list[int]:
        """Returns the numbers of a text's sub-words; none are added in front or behind."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def words(self, ids: Sequence[int]) -> list[str]:
        """Returns the sub-words of some numbers."""
        return [self._tokenizer.id_to_token(number) for number in ids]

    def state(self) -> dict[str, Any]:
        """Returns vocabulary and rules as JSON values."""
        return json.loads(self._tokenizer.to_str())


def subwords_from(state: Mapping[str, Any]) -> SubWords:
    """Returns the sub-words whose ``state`` this is."""
    return SubWords(_library().Tokenizer.from_str(json.dumps(state)))


def wordpiece(words: Sequence[str]) -> SubWords:
    """Returns the WordPiece rules for a vocabulary; a word's number is its place."""
    library = _library()
    model = library.models.WordPiece(
        {word: number for number, word in enumerate(words)}, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST
    )
    return SubWords(_with_rules(library.Tokenizer(model)))


def train_wordpiece(texts: Iterable[str], *, size: int) -> SubWords:
    """Returns a WordPiece vocabulary of at most ``size`` sub-words, learned from texts."""
    library = _library()
    model = library.models.WordPiece(unk_token=UNKNOWN, max_input_chars_per_word=LONGEST)
    tokenizer = _with_rules(library.Tokenizer(model))
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=RARE, special_tokens=[UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return SubWords(tokenizer)


def read_vocabulary(path: Path) -> SubWords:
    """Returns the sub-words of a ``vocab.txt`` (one WordPiece a line) or a ``tokenizer.json``.

    Raises:
        DataError: no such file, not UTF-8, no [UNK] in a vocab.txt, a word twice, or not such a JSON.
    """
    if not path.is_file():
        raise DataError(path, must="be a vocab.txt or a tokenizer.json", found="nothing there or a folder")
    content = decode(path.read_bytes(), path=path)
    if path.suffix.lower() == ".json":
        library = _library()
        try:
            return SubWords(library.Tokenizer.from_str(content))
        except Exception as error:  # noqa: BLE001
            raise DataError(path, must="be a tokenizer.json", found=f"'{error}'") from error
    words = [line.rstrip("\r") for line in content.rstrip("\r\n").split("\n")]
    if UNKNOWN not in words:
        raise DataError(path, must=f"hold one WordPiece a line, {UNKNOWN} among them", found=f"{len(words)} lines without")
    if len(set(words)) < len(words):
        twice = next(word for place, word in enumerate(words) if word in words[:place])
        raise DataError(path, must="hold every WordPiece once", found=f"'{twice}' twice")
    return wordpiece(words)


def _with_rules(tokenizer: Any) -> Any:
    library = _library()
    tokenizer.normalizer = library.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = library.decoders.WordPiece()
    return tokenizer


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.models
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise MissingDependencyError("tokenizers", extra="text", purpose="the modality text") from error
    return tokenizers
