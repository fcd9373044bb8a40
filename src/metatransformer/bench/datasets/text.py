"""Data sets of the modality text.

SST-2's training part is not sentences but the phrases of their parse trees, each with its label. A validation part that
is drawn at random from it therefore holds phrases whose halves and wholes are in training; the official dev sentences
(our test: GLUE keeps the labels of its own) are nowhere in it. So validation gets whole sentences, and training loses
every phrase of two words or more that stands in one of them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from metatransformer.bench.datasets._base import DataSet, Fold, Published
from metatransformer.core.samples import Record
from metatransformer.modalities.text.read import index_text

FEWEST = 8  # words of a phrase that no other holds, to count as a sentence
SHARE = 13  # one sentence in so many is for validation: 455, at the price of 4,163 of 67,349 phrases


def _sst2(root: Path) -> list[Fold]:
    folder = root / "text/sst2"
    train = _read(folder / "train.tsv", key="train")
    test = [replace(record, split="test") for record in _read(folder / "dev.tsv", key="dev")]
    phrases = [tuple(record.value["text"].split()) for record in train]
    chosen = {phrase for phrase in whole_phrases(phrases) if len(phrase) >= FEWEST and _number(phrase) % SHARE == 0}
    inside = {part for phrase in chosen for part in _parts(phrase) if len(part) > 1}
    fold: Fold = []
    for record, phrase in zip(train, phrases, strict=True):
        if phrase in chosen or phrase not in inside:
            fold.append(replace(record, split="val" if phrase in chosen else "train"))
    return [[*fold, *test]]


def _read(path: Path, *, key: str) -> list[Record]:
    index = index_text(path, target="label", labelled=True, header=True, columns=(), quotes="letters")
    (column,) = index.columns
    return [
        replace(record, key=f"{key}/{record.key}", value={"text": record.value[column]}) for record in index.records
    ]


def whole_phrases(phrases: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Returns the phrases that stand in no longer one, each once."""
    known, covered = set(phrases), set()
    whole = []
    for phrase in sorted(known, key=lambda words: (-len(words), words)):
        if phrase not in covered:
            whole.append(phrase)
            covered.update(known.intersection(_parts(phrase)))
    return whole


def _parts(phrase: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yields every stretch of consecutive words."""
    for start in range(len(phrase)):
        for stop in range(start + 1, len(phrase) + 1):
            yield phrase[start:stop]


def _number(phrase: tuple[str, ...]) -> int:
    return int(hashlib.md5(" ".join(phrase).encode(), usedforsecurity=False).hexdigest(), 16)


DATA_SETS = (
    DataSet(
        name="sst2",
        title="SST-2 dev",
        modality="text",
        summary="SST-2 (GLUE): phrases of film reviews, tested on the official dev sentences",
        folds=_sst2,
        metrics=("accuracy",),
        licence="none stated; free for research use",
        source="https://nlp.stanford.edu/sentiment/ (GLUE's selection)",
        folder="text/sst2",
        split="GLUE's train.tsv; dev.tsv is the test; 455 whole sentences of train.tsv choose, their phrases left out",
        strong="tfidf:logistic;sentences:logistic",
        minutes=54,
        published=(
            Published("Meta-Transformer-B16, frozen", 0.546, "arXiv 2307.10802 (split not stated)"),
            Published("Meta-Transformer-B16, tuned", 0.813, "arXiv 2307.10802 (split not stated)"),
        ),
        sha256="8fb837904ee89daa869732bc0bafcbf3420f635cad35e42e8f3306ec3fabd2ce",
        fetch="Unpack GLUE's SST-2.zip; train.tsv and dev.tsv are used.",
    ),
)
