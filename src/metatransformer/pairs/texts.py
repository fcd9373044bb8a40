"""The text side of an alignment: a bag of words, and beside it a frozen encoder of sentences."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metatransformer.core.errors import UsageError
from metatransformer.pairs.files import TEXT, read_towers
from metatransformer.pairs.sentences import load_sentences
from metatransformer.trunk.words import KNOWN_WORDS

WORD = re.compile(r"[^\W_]+")
MOST_WORDS = 4000  # the most frequent ones
ALONE = "words"


@dataclass(frozen=True)
class Bag:
    """Words and how much each counts (the rarer the more); vectors have length 1, or 0 where no word is known."""

    weights: Mapping[str, float]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Bag":
        """Returns the bag of the words of these texts; equal texts count once."""
        different = set(texts)
        counts = Counter(word for text in different for word in set(words_of(text)))
        most = sorted(counts, key=lambda word: (-counts[word], word))[:MOST_WORDS]
        total = 1 + len(different)
        return cls({word: float(np.log(total / (1 + counts[word])) + 1) for word in most})

    def vectors(self, texts: Sequence[str]) -> Float[Tensor, "n V"]:
        """Returns a vector a text."""
        places = {word: place for place, word in enumerate(self.weights)}
        table = np.zeros((len(texts), len(places)), dtype=np.float32)
        for row, text in zip(table, texts, strict=True):
            for word, count in Counter(words_of(text)).items():
                if word in places:
                    row[places[word]] = count * self.weights[word]
        length = np.linalg.norm(table, axis=1, keepdims=True)
        return torch.from_numpy(table / np.maximum(length, 1e-12))


def words_of(text: str) -> list[str]:
    """Returns the words of a text in small letters."""
    return WORD.findall(text.lower())


@dataclass(frozen=True)
class TextSide:
    """A bag of words with a frozen encoder beside it, whose ``name`` is "words" where there is none; ``sha256`` says
    which weights it has.
    """

    bag: Bag
    name: str
    sha256: str
    encode: Callable[[list[str]], Float[Tensor, "n D"]] | None

    def vectors(self, texts: Sequence[str]) -> Float[Tensor, "n R"]:
        """Returns a vector a text: words, and the encoder's where there is one."""
        bag = self.bag.vectors(texts)
        return bag if self.encode is None else torch.cat([bag, self.encode(list(texts))], dim=1)

    def knows(self, text: str) -> bool:
        """Returns whether anything can be told of a text: an encoder reads all words, a bag those that it has seen."""
        known = (word in self.bag.weights for word in words_of(text))
        return any(known) if self.encode is None else bool(text.strip())

    def state(self) -> dict[str, Any]:
        """Returns what ``load_side`` takes."""
        return {"name": self.name, "sha256": self.sha256, "bag": dict(self.bag.weights)}


def make_side(name: str, texts: Sequence[str]) -> TextSide:
    """Returns a text side that knows the words of ``texts``; ``name`` is "words", a known encoder, or a pretraining.

    Raises:
        UsageError: none of these.
    """
    return TextSide(Bag.of(texts), *_encoder(name))


def load_side(state: Mapping[str, Any], *, where: object) -> TextSide:
    """Returns the text side whose ``state`` was saved.

    Raises:
        UsageError: its encoder is another one now.
    """
    name, sha256, encode = _encoder(state["name"])
    if sha256 != state["sha256"]:
        found = "other weights"
        raise UsageError(where, must=f"find the text encoder '{name}' that it was aligned with", found=found)
    return TextSide(Bag(state["bag"]), name, sha256, encode)


def _encoder(name: str) -> tuple[str, str, Callable[[list[str]], Tensor] | None]:
    if name == ALONE:
        return name, "", None
    if name in KNOWN_WORDS:
        sentences = load_sentences(name)
        return name, sentences.sha256, lambda texts: sentences.vectors(texts)[0]
    folder = Path(name)
    if not (folder / TEXT).is_file():
        must = f"be {ALONE}, {', '.join(KNOWN_WORDS)}, or a run of 'metatransformer pretrain'"
        raise UsageError("--text", must=must, found=repr(name))
    loaded = read_towers(folder)
    return str(folder.absolute()), loaded.encoder.sha256, loaded.of_texts
