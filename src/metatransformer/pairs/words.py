"""A text as numbers for a text tower: sub-words of a vocabulary learned here, or another model's own tokenizer."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import UsageError, WeightsError
from metatransformer.modalities.text.subwords import SubWords, read_vocabulary, tokenizers_library, train_wordpiece
from metatransformer.trunk.words import KNOWN_WORDS, load_words

PAD, BEGIN, END, FIRST = 0, 1, 2, 3  # numbers in front of the sub-words of our own vocabularies
TRAIN = "train"


@dataclass(frozen=True)
class Words:
    """What makes numbers of texts. ``ids`` of a text begin and end as the tower expects; ``end`` closes each.

    ``told`` is what ``of`` makes it from again. ``whole`` says that every text fills all places of the tower.
    """

    count: int
    end: int
    pad: int
    context: int
    told: Mapping[str, Any]
    tokenizer: Any
    whole: bool = False

    @classmethod
    def of(cls, told: Mapping[str, Any], *, context: int) -> "Words":
        """Returns what ``told`` of an earlier one says: sub-words, or a tokenizer's own JSON."""
        if told["kind"] == "wordpiece":
            own = SubWords(told["words"])
            return cls(FIRST + len(own.words), END, PAD, context, told, own)
        tokenizer = tokenizers_library().Tokenizer.from_str(told["json"])
        tokenizer.no_padding()
        tokenizer.no_truncation()
        count, whole = tokenizer.get_vocab_size(), bool(told.get("whole", False))
        return cls(count, told["end"], told["pad"], context, told, tokenizer, whole)

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """Returns ``[B, t]`` int64, as wide as the longest text needs, and how many texts had to be cut."""
        found = [self._ids(text) for text in texts]
        cut = sum(len(ids) > self.context for ids in found)
        found = [ids if len(ids) <= self.context else [*ids[: self.context - 1], self.end] for ids in found]
        width = self.context if self.whole else max(map(len, found), default=0)
        table = np.full((len(found), width), self.pad, dtype=np.int64)
        for row, ids in zip(table, found, strict=True):
            row[: len(ids)] = ids
        return table, cut

    def _ids(self, text: str) -> list[int]:
        if isinstance(self.tokenizer, SubWords):
            return [BEGIN, *(number + FIRST for number in self.tokenizer.ids(text)), END]
        if self.told.get("lower"):
            text = " ".join(text.lower().split())
        return self.tokenizer.encode(text).ids


def choose_words(name: str, texts: Iterable[str], *, size: int, context: int) -> Words:
    """Returns the vocabulary of that name: "train" learns one from ``texts``.

    Raises:
        UsageError: neither a known vocabulary nor a file.
        DataError: a bad vocabulary file.
    """
    if name == TRAIN:
        words = train_wordpiece(texts, size=size - FIRST).words
    elif name in KNOWN_WORDS:
        words = load_words(name).words
    elif Path(name).is_file():
        words = read_vocabulary(Path(name)).words
    else:
        must = f"be '{TRAIN}', a known vocabulary ({', '.join(KNOWN_WORDS)}) or the path of a vocab.txt"
        raise UsageError("vocabulary", must=must, found=repr(name))
    return Words.of({"kind": "wordpiece", "words": list(words)}, context=context)


def read_tokenizer(folder: Path, *, context: int, whole: bool) -> Words:
    """Returns the tokenizer that lies beside another model's weights: its ``tokenizer.json``.

    ``whole`` says that the tower reads padding as well (SigLIP).

    Raises:
        WeightsError: there is none, or a damaged one.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        do = "Put the tokenizer.json of the same repository beside the weights."
        raise WeightsError(folder, must="hold the tokenizer of its text tower", found="no tokenizer.json", do=do)
    library = tokenizers_library()
    with foreign(path, "tokenizers", must="be a tokenizer.json", kind=WeightsError):
        text = path.read_text(encoding="utf-8")
        tokenizer = library.Tokenizer.from_str(text)
        ends = [tokenizer.token_to_id(name) for name in ("<|endoftext|>", "</s>", "<eos>")]
        pads = [tokenizer.token_to_id(name) for name in ("<pad>", "</s>", "<|endoftext|>")]
    end, pad = (next((number for number in some if number is not None), None) for some in (ends, pads))
    if end is None or pad is None:
        found = "none of <|endoftext|>, </s>, <eos>"
        raise WeightsError(path, must="have a token that ends a text", found=found)
    told = {"kind": "tokenizers", "json": json.dumps(json.loads(text)), "end": end, "pad": pad, "whole": whole}
    return Words.of({**told, "lower": whole}, context=context)
