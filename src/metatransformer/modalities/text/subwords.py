"""Sub-words: a text becomes numbers of a WordPiece vocabulary, by the library ``tokenizers``.

Text is cleaned, split and matched as BERT does it (Devlin et al. 2018, arXiv 1810.04805): spaces
and control characters, one word a CJK letter, punctuation apart, then the longest piece first. A
vocabulary without capital letters means that text is lower-cased and loses its accents.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.data.delimited import decode
from metatransformer.data.limits import read_bytes

UNKNOWN = "[UNK]"
LONGEST = 100  # letters; BERT takes a longer word for unknown
# Words that are too long to have pieces; the library's trainer takes minutes for one of 200,000 letters. Ideographs are
# words of their own.
_TOO_LONG = re.compile(rf"[^\W\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]{{{LONGEST + 1},}}")
RARE = 2  # a trained vocabulary builds no piece that occurs less often
INSIDE = "##"  # in front of a piece that does not begin a word


class SubWords:
    """A WordPiece vocabulary; the number of a piece is its place in ``words``."""

    def __init__(self, words: Sequence[str]) -> None:
        library = tokenizers_library()
        self.words = tuple(words)
        self.unknown = self.words.index(UNKNOWN)
        numbers = {word: number for number, word in enumerate(self.words)}
        model = library.models.WordPiece(numbers, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST)
        self._tokenizer = _with_rules(library.Tokenizer(model), lowercase=_is_lower(self.words))

    def ids(self, text: str) -> list[int]:
        """Returns the numbers of a text's pieces; none are added in front or behind, none cut off."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Returns where in the text each of these pieces begins and ends, in characters."""
        return self._tokenizer.encode(text, add_special_tokens=False).offsets


def train_wordpiece(texts: Iterable[str], *, size: int) -> SubWords:
    """Returns a vocabulary of at most ``size`` pieces, learned from texts; equal texts give equal pieces."""
    library = tokenizers_library()
    texts = list(texts)
    alphabet = _alphabet(texts, most=(size - 1) // 2)
    # The library numbers letters inside words in a random order and breaks ties by number: given
    # beforehand, they have fixed ones.
    given = [UNKNOWN, *alphabet, *(INSIDE + letter for letter in alphabet)]
    model = library.models.WordPiece(unk_token=UNKNOWN, max_input_chars_per_word=LONGEST)
    tokenizer = _with_rules(library.Tokenizer(model), lowercase=True)
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=RARE,
        special_tokens=given,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator((_TOO_LONG.sub(" ", text) for text in texts), trainer)
    numbers = tokenizer.get_vocab()
    return SubWords(sorted(numbers, key=numbers.__getitem__))


def read_vocabulary(path: Path) -> SubWords:
    """Returns the pieces of a ``vocab.txt`` (one a line) or of a ``tokenizer.json`` of a WordPiece model.

    Raises:
        DataError: no such file, not UTF-8, another model, no [UNK], or a piece twice.
    """
    if not path.is_file():
        raise DataError(path, must="be a vocab.txt or a tokenizer.json", found="nothing there or a folder")
    content = decode(read_bytes(path), path=path)
    if path.suffix.lower() == ".json":
        words = _words_of_json(content, path=path)
    else:
        words = [line.rstrip("\r") for line in content.rstrip("\r\n").split("\n")]
    if UNKNOWN not in words:
        must = f"hold WordPieces, {UNKNOWN} among them (in a vocab.txt one a line)"
        raise DataError(path, must=must, found=f"{len(words)} without it")
    if twice := [word for word, count in Counter(words).items() if count > 1]:
        raise DataError(path, must="hold every WordPiece once", found=f"'{twice[0]}' more than once")
    return SubWords(words)


def _words_of_json(content: str, *, path: Path) -> list[str]:
    try:
        model = json.loads(content)["model"]
        kind, numbers = model["type"], model["vocab"]
        words = sorted(numbers, key=numbers.__getitem__)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
        found = f"another file ({type(error).__name__}: {error})"
        raise DataError(path, must="be a tokenizer.json", found=found) from error
    if kind != "WordPiece" or sorted(numbers.values()) != list(range(len(words))):
        raise DataError(path, must="hold a WordPiece model with pieces 0, 1, 2, ...", found=f"a {kind} model")
    return words


def _alphabet(texts: Iterable[str], *, most: int) -> list[str]:
    """Returns the most frequent letters of texts, as the rules leave them, sorted."""
    library = tokenizers_library()
    normalizer, splitter = _rules(library, lowercase=True)
    counts: Counter[str] = Counter()
    for text in texts:
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
            counts.update(word)
    ranked = sorted(counts, key=lambda letter: (-counts[letter], letter))
    return sorted(ranked[:most])


def _is_lower(words: Iterable[str]) -> bool:
    return all(word == word.lower() for word in words if not (word.startswith("[") and word.endswith("]")))


def _with_rules(tokenizer: Any, *, lowercase: bool) -> Any:
    tokenizer.normalizer, tokenizer.pre_tokenizer = _rules(tokenizers_library(), lowercase=lowercase)
    return tokenizer


def _rules(library: Any, *, lowercase: bool) -> tuple[Any, Any]:
    return library.normalizers.BertNormalizer(lowercase=lowercase), library.pre_tokenizers.BertPreTokenizer()


def tokenizers_library() -> Any:
    """Returns the library, imported when it is first asked for."""
    try:
        import tokenizers
        import tokenizers.models
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise MissingDependencyError("tokenizers", extra="text", purpose="the modality text") from error
    return tokenizers
