"""Text: one token a sub-word, its meaning from a table of word vectors, pairs side by side.

File: CSV, TSV, JSON lines, Parquet, a DataFrame (one column of texts, or two for pairs; the columns
label, split and group are taken as such), folders of .txt files, a manifest of them, or a list of
strings or of pairs. UTF-8. Languages: the default vocabulary is English; vocabulary=train learns
one from the training texts, in any script.
Tokens: WordPieces -> word vectors -> a convolution over neighbouring pieces, added to them ->
place in the window (learned, sinusoidal at first) and, in pairs, which text; a separator stands
between the two. A text of more than ``window`` pieces fills several windows, which do not see each
other; a sample is the mean of its windows. One of more than ``max_windows`` is read in that many
evenly spaced ones, and that is said. Word vectors are fixed and of length 2.5 at width 384, what the patches of
photographs measure on focus-s14, so that a frozen trunk meets tokens of the size it knows; a
learned linear map (the identity at first) takes them to the trunk's width, and a slowly learned
vector is added for each piece that training saw: 5.0 million parameters learn on SST-2 (4.4 of them
words), and the saved tokenizer takes 32 MB there, 12 of them the whole table in 8 bits.
Sources: Meta-Transformer section 3.2 (arXiv 2307.10802): WordPiece, word embeddings, convolution;
vocabulary of BERT (arXiv 1810.04805), vectors of all-MiniLM-L6-v2; convolution over word vectors
for sentiment: Kim 2014 (arXiv 1408.5882).
Errors: not UTF-8, an empty or missing text, no or several columns of texts, a vocabulary that
cannot be had, quotation marks that do not close.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metatransformer.core.errors import DataError, NotFittedError, UsageError, nearest
from metatransformer.core.fields import Field
from metatransformer.core.modality import Modality, Source, Stem, SummaryToken, Tokenizer, Transform
from metatransformer.core.samples import Counts, Record, View
from metatransformer.core.settings import Rule, Settings
from metatransformer.core.tokens import Span, Tokens
from metatransformer.data.records import Index, listing
from metatransformer.data.table import TABLE_SUFFIXES
from metatransformer.modalities.text.inside import text_inside
from metatransformer.modalities.text.read import (
    COLUMN,
    FILE_SUFFIXES,
    index_text,
    is_missing,
    read_text,
    require_text,
    text_columns,
)
from metatransformer.modalities.text.subwords import SubWords, read_vocabulary, train_wordpiece
from metatransformer.nn.pool import fold_rows
from metatransformer.nn.words import WordVectors, sinusoids
from metatransformer.trunk.words import KNOWN_WORDS, load_words

NOTHING, DROPPED, SEPARATOR, FIRST = 0, 1, 2, 3  # numbers before those of the vocabulary
TRAIN = "train"  # the vocabulary that is learned from the training texts
NORM = 2.5 / math.sqrt(384)  # of a word vector, times the root of the trunk's width
PLACE = 0.1  # length of a place's vector at the start, in lengths of a word's
WORD = r"(?u)\w+|[^\w\s]"  # of the plain baseline: marks count as words
BINS = 2**20  # of words and their neighbours
# SST-2, one seed, 1,582 whole sentences held out (error .009), accuracy and log loss. No trunk: summary
# and mean .819 / .421, the largest values .838 / .398; with twice the pieces lost and dropout, mean and
# largest .828 / .375. Frozen focus-s14, with both, block 2: summary and largest .820 / .389, the
# largest alone .833 / .380. What carries is the tokenizer, as docs/log.md says.
DEFAULTS = {
    "tune": "head",
    "head.read": [0.17],
    "head.pool": "max",
    "head.dropout": 0.3,
    "optim.lr": 3e-3,
    "data.batch_size": 256,
}


@dataclass(frozen=True)
class TextOptions(Settings):
    """What is read of a table, and how a text is cut.

    ``columns``: one that holds texts, or two; () = those that read as texts. ``quotes``: what
    quotation marks are in tables of text; "auto" = brackets around fields in CSV, in TSV what fits
    the file. ``vocabulary``: "minilm" (English, with word vectors), "train" (at most ``size``
    pieces learned from the training texts, no vectors), or the path of a vocab.txt or
    tokenizer.json. ``window``: pieces a window; ``max_windows``: a longer text is read in that many
    evenly spaced windows. ``neighbours``: pieces that the convolution sees, odd; 1 = none.
    ``drop``: share of the pieces that a training copy loses; it has at most ``train_windows``
    windows of its text, drawn anew each epoch (0 = all).
    """

    columns: tuple[str, ...] = ()
    quotes: Literal["auto", "brackets", "letters"] = "auto"
    vocabulary: str = "minilm"
    size: int = 8000
    window: int = 128
    max_windows: int = 8
    train_windows: int = 1
    neighbours: int = 3
    drop: float = 0.2

    rules = (
        Rule(
            "columns",
            "name one column, or two different ones",
            lambda own: len(set(own.columns)) == len(own.columns) <= 2,
        ),
        Rule("size", "be at least 100", lambda own: own.size >= 100),
        Rule("window", "be at least 4", lambda own: own.window >= 4),
        Rule("max_windows", "be at least 1", lambda own: own.max_windows >= 1),
        Rule("train_windows", "be at least 1, or 0 for all", lambda own: own.train_windows >= 0),
        Rule("neighbours", "be odd", lambda own: own.neighbours >= 1 and own.neighbours % 2 == 1),
        Rule("drop", "lie in [0, 1)", lambda own: 0 <= own.drop < 1),
    )


class TextTransform(Transform):
    """Text -> numbers of sub-words in windows.

    Learns ``columns_`` (those that hold texts), ``words_`` (the vocabulary) and ``seen_`` (the
    numbers of the pieces that occur in training). ``vectors`` are the vocabulary's word vectors
    while a model is built, None where it has none.
    """

    def __init__(self, options: TextOptions, stem: Stem) -> None:
        del stem
        self.options = options
        self.columns_: tuple[str, ...] = ()
        self.subwords_: SubWords | None = None
        self.seen_: tuple[int, ...] = ()
        self.vectors: Tensor | None = None
        self._notes: tuple[str, ...] = ()
        self._long: set[str] = set()  # keys of texts that were not read whole

    def fit(self, views: Iterable[View]) -> None:
        """Learns columns, vocabulary and which of its pieces occur.

        Raises:
            DataError: no column of texts, or more than two; an empty text; a bad vocabulary file.
            UsageError: no such vocabulary.
            WeightsError: the vocabulary cannot be had.
        """
        views = list(views)
        if not views:
            return
        rows = [view.inputs["row"] for view in views]
        self.columns_ = self.options.columns or text_columns(rows, where=views[0].inputs["table"])
        texts = [text for view in views for text in self.texts(view)]
        self.subwords_, self.vectors = self._vocabulary(texts)
        pieces = [self.subwords_.ids(text) for text in texts]
        found = np.unique(np.concatenate([np.array(ids, dtype=np.int64) for ids in pieces]))
        self.seen_ = tuple(found.tolist())
        self._notes = tuple(self._said(pieces))

    def _vocabulary(self, texts: Iterable[str]) -> tuple[SubWords, Tensor | None]:
        name = self.options.vocabulary
        if name == TRAIN:
            return train_wordpiece(texts, size=self.options.size), None
        if name in KNOWN_WORDS:
            known = load_words(name)
            return SubWords(known.words), known.vectors
        if not Path(name).is_file():
            must = "be a known vocabulary, or the path of a vocab.txt or tokenizer.json"
            raise UsageError("input.vocabulary", must=must, found=repr(name), do=nearest(name, [TRAIN, *KNOWN_WORDS]))
        return read_vocabulary(Path(name)), None

    def _said(self, pieces: list[list[int]]) -> Iterable[str]:
        assert self.subwords_ is not None
        lengths = np.array([len(ids) for ids in pieces])
        unknown = sum(ids.count(self.subwords_.unknown) for ids in pieces) / max(1, lengths.sum())
        yield (
            f"texts of {' and '.join(self.columns_)}: {np.median(lengths):.0f} sub-words (median), at most "
            f"{lengths.max()}; {len(self.seen_):,} of {len(self.subwords_.words):,} sub-words occur"
        )
        if unknown > 0.01:
            yield f"{unknown:.1%} of all words are not in the vocabulary '{self.options.vocabulary}'"
        long = (lengths > self.options.window).sum()
        if long:
            yield f"{long:,} texts fill more than one window of {self.options.window} sub-words"
        longest = self.options.window * self.options.max_windows
        if longer := (lengths > longest).sum():
            yield f"{longer:,} {self._spaced()}"

    def _spaced(self) -> str:
        most = self.options.max_windows
        return (
            f"texts of more than {most * self.options.window:,} sub-words are read in {most} evenly spaced windows "
            "(input.max_windows; time and memory grow with it)"
        )

    def texts(self, view: View) -> list[str]:
        """Returns one text, or the two of a pair."""
        row = view.inputs["row"]
        names = [name for name in self.columns_ if name in row]
        if len(names) < len(self.columns_) == len(row):
            names = list(row)  # texts in memory, or one column under another name
        if len(names) < len(self.columns_):
            missing = next(name for name in self.columns_ if name not in row)
            raise DataError(
                _where(view),
                must=f"have the column '{missing}' that the model was fitted on",
                found=listing(row),
                do="Rename the column.",
            )
        where = "{}" if len(row) == 1 else "{}, column '{}'"
        # Of two texts one may be missing: a review without a title is a review.
        there = [name for name in names if not is_missing(row[name])] or names[:1]
        found = {name: require_text(row[name], where=where.format(_where(view), name)) for name in there}
        return [found.get(name, "") for name in names]

    def __call__(self, view: View) -> View:
        """Returns ``pieces`` [w, t] and ``second`` [w, t] int64, and ``letters`` [b] uint8.

        Raises:
            DataError: see the module.
            NotFittedError: before ``fit``.
        """
        if self.subwords_ is None:
            raise NotFittedError("text transform", must="have its vocabulary", found="none", do="Fit first.")
        texts = self.texts(view)
        pieces = [np.array(self.subwords_.ids(text), dtype=np.int64) + FIRST for text in texts]
        if not all(len(ids) for ids, text in zip(pieces, texts, strict=True) if text):
            raise DataError(_where(view), must="hold at least one word", found=f"{texts[0][:40]!r}")
        second = [np.full(len(ids), number) for number, ids in enumerate(pieces)]
        if len(texts) == 2:
            pieces.insert(1, np.array([SEPARATOR]))
            second.insert(1, np.array([0]))
        if sum(map(len, pieces)) > self.options.window * self.options.max_windows:
            self._long.add(view.key)
        return view.with_inputs(
            {
                "pieces": self.windows(np.concatenate(pieces)),
                "second": self.windows(np.concatenate(second)),
                "letters": self.letters(texts),
            }
        )

    @staticmethod
    def letters(texts: Sequence[str]) -> np.ndarray:
        """Returns texts as UTF-8, for pictures and the plain baseline."""
        return np.frombuffer(" | ".join(text.strip() for text in texts).encode("utf-8"), dtype=np.uint8)

    def windows(self, numbers: np.ndarray) -> np.ndarray:
        """Returns numbers in as few windows as hold them, of nearly equal length, 0 behind the end of one; or in
        ``max_windows`` evenly spaced ones, the first and the last among them.
        """
        size, most = self.options.window, self.options.max_windows
        count = -(-len(numbers) // size)
        if count > most:
            starts = np.linspace(0, len(numbers) - size, most).round().astype(np.int64)
            return numbers[starts[:, None] + np.arange(size)]
        parts = np.array_split(numbers, count)
        windows = np.zeros((count, len(parts[0])), dtype=np.int64)
        for window, part in zip(windows, parts, strict=True):
            window[: len(part)] = part
        return windows

    def doubts(self) -> tuple[str, ...]:
        """Returns how many texts were not read whole."""
        count, self._long = len(self._long), set()
        return (f"{count:,} {self._spaced()}",) if count else ()

    def augment(self, view: View, rng: np.random.Generator) -> View:
        """Returns some windows of the text, with some of their pieces blotted out."""
        pieces, second = view.inputs["pieces"], view.inputs["second"]
        most = self.options.train_windows
        if 0 < most < len(pieces):
            kept = np.sort(rng.choice(len(pieces), size=most, replace=False))
            pieces, second = pieces[kept], second[kept]
        lost = (rng.random(pieces.shape) < self.options.drop) & (pieces >= FIRST)
        return view.with_inputs({**view.inputs, "pieces": np.where(lost, DROPPED, pieces), "second": second})

    @property
    def notes(self) -> tuple[str, ...]:
        """Which columns were read, how long texts are, and what of the vocabulary occurs."""
        return self._notes

    def state(self) -> dict[str, Any]:
        """Returns columns, vocabulary, and which pieces occurred."""
        return {
            "columns": list(self.columns_),
            "words": [] if self.subwords_ is None else list(self.subwords_.words),
            "seen": list(self.seen_),
            "stored": 0 if self.vectors is None else self.vectors.shape[1],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back columns, vocabulary, and which pieces occurred."""
        self.columns_, self.seen_ = tuple(state["columns"]), tuple(state["seen"])
        self.subwords_ = SubWords(state["words"]) if state["words"] else None
        # The values come with the tokenizer's saved state; here only their shape counts.
        stored = int(state["stored"])
        self.vectors = torch.zeros(len(state["words"]), stored) if stored else None


def _where(view: View) -> str:
    """Returns what to call a sample in messages: its row of a table, its file, its place in a list."""
    table = view.inputs["table"]
    return f"{table}, row {view.key}" if table else view.key


class TextTokenizer(Tokenizer):
    """Look up word vectors, mix neighbours, add place and which text, put the summary in front."""

    axes = 1
    hides = True

    def __init__(self, options: TextOptions, transform: Transform, width: int, stem: Stem) -> None:
        super().__init__()
        assert isinstance(transform, TextTransform) and transform.subwords_ is not None
        norm = NORM * math.sqrt(width)
        self.words = WordVectors(
            words=len(transform.subwords_.words),
            seen=transform.seen_,
            width=width,
            stored=transform.vectors,
            norm=norm,
        )
        self.special = nn.Parameter(torch.zeros(FIRST, width))  # nothing, dropped, separator
        self.second = nn.Parameter(torch.randn(width) * NORM * PLACE) if len(transform.columns_) == 2 else None
        self.mix = None
        if options.neighbours > 1:
            self.mix = nn.Conv1d(width, width, options.neighbours, padding=options.neighbours // 2)
            # What it adds to a word is about half as long as the word.
            nn.init.normal_(self.mix.weight, std=(2 * width * options.neighbours) ** -0.5)
            assert self.mix.bias is not None
            nn.init.zeros_(self.mix.bias)
        self.places = nn.Parameter(sinusoids(options.window, width) * norm * PLACE)
        self.summary = SummaryToken(width=width, stem=stem)

    @property
    def lengths(self) -> Mapping[str, range]:
        """A window holds so many pieces."""
        return {"t": range(1, len(self.places) + 1)}

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns the summary token and the grid (t,) of each window; pieces are ``[S, w, t]``."""
        real = masks["pieces"] & (inputs["pieces"] != NOTHING)  # [S, w, t]
        windows = real.any(dim=2)
        pieces, samples = fold_rows(inputs["pieces"], windows)  # [B, t]
        mask, _ = fold_rows(real, windows)
        pieces = pieces.masked_fill(~mask, NOTHING)
        known = pieces >= FIRST
        x = self.words((pieces - FIRST).clamp(min=0)) * known[..., None]
        x = x + self.special[pieces.clamp(max=FIRST - 1)] * ~known[..., None]
        if self.mix is not None:
            clean = x * mask[..., None]  # a row's neighbours beyond its end are zeros, padded or not
            x = x + F.gelu(self.mix(clean.transpose(1, 2))).transpose(1, 2)
        x = x + self.places[: x.shape[1]]
        if self.second is not None:
            second, _ = fold_rows(inputs["second"], windows)
            x = x + second.masked_fill(~mask, 0)[..., None] * self.second
        grid = (x.shape[1],)
        x, mask = self.summary(x, mask)
        several = windows.shape[1] > 1
        return Tokens(x, mask, (Span("text", 0, x.shape[1], summary=0, grid=grid),), samples if several else None)


def index(data: Any, *, target: str, labelled: bool, header: bool, options: TextOptions) -> Index:
    """Returns one record a text or pair of texts; see ``read.index_text``."""
    return index_text(
        data, target=target, labelled=labelled, header=header, columns=options.columns, quotes=options.quotes
    )


def load(record: Record) -> dict[str, Any]:
    """Returns ``row``: column name -> text, and ``table``: the table's file, "" where there is none."""
    if record.value is None and record.path is not None:
        return {"row": {COLUMN: read_text(record.path)}, "table": ""}
    table = "" if record.path is None else str(record.path)
    if isinstance(record.value, str):
        return {"row": {COLUMN: record.value}, "table": table}
    if not isinstance(record.value, Mapping) or not record.value:
        raise DataError(record.key, must="be a text, or a row of a table", found=f"{record.value!r}"[:40])
    return {"row": {str(name): value for name, value in record.value.items()}, "table": table}


def features(view: View) -> Counts:
    """Returns how often each word, and each two and three neighbouring ones, occur, by scikit-learn's hashing."""
    row = _counter().transform([view.inputs["letters"].tobytes().decode("utf-8")])
    row.sort_indices()
    return Counts(row.indices, row.data.astype(np.float32), BINS)


@cache
def _counter() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        ngram_range=(1, 3), token_pattern=WORD, n_features=BINS, alternate_sign=False, norm=None, dtype=np.float32
    )


def draw(axes: Any, view: View) -> None:
    """Paints the beginning of the text, wrapped."""
    import textwrap

    text = view.inputs["letters"].tobytes().decode("utf-8")
    lines = textwrap.wrap(text, 34)
    shown = lines[:13] if len(lines) <= 13 else [*lines[:12], lines[12][:32] + " …"]
    place = {"va": "top", "ha": "left", "fontsize": 7, "transform": axes.transAxes, "parse_math": False}
    axes.text(0.0, 1.0, "\n".join(shown), **place).set_in_layout(False)  # text does not make room for itself
    axes.set_axis_off()


_WORDS = (
    ("dull", "bad", "awful", "boring", "poor", "flat"),
    ("fine", "good", "lovely", "funny", "rich", "warm"),
)


def synthesize(rng: np.random.Generator, label: int) -> dict[str, dict[str, str]]:
    """Returns a sentence of 3 to 12 words, some of them of the label's kind."""
    common = ("the", "film", "a", "story", "is", "was", "and", "with", "actors", "scenes")
    words = [str(rng.choice(common)) for _ in range(int(rng.integers(2, 9)))]
    for _ in range(int(rng.integers(1, 4))):
        words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(_WORDS[label % 2])))
    return {"row": {COLUMN: " ".join(words)}}


MODALITY = Modality(
    name="text",
    summary="texts or pairs of texts, of any length",
    source=Source(kind="table", suffixes=(*TABLE_SUFFIXES, *FILE_SUFFIXES), index=index, named="columns"),
    fields={
        "pieces": Field("w* t*", "int64", low=0, summary="numbers of sub-words in w windows, 0 = none"),
        "second": Field("w* t*", "int64", low=0, high=1, summary="1 in the second text of a pair"),
        "letters": Field("b*", "uint8", summary="the text as UTF-8, for pictures and plain features"),
    },
    options=TextOptions,
    load=load,
    transform=TextTransform,
    tokenizer=TextTokenizer,
    features=features,
    draw=draw,
    synthesize=synthesize,
    synthetic={"input.vocabulary": "train"},  # the default one may have to be fetched
    threads=False,
    native="the class token; word vectors come with the vocabulary",
    units="UTF-8 text",
    defaults=DEFAULTS,
    before={"train_windows": 0},
    inside=text_inside(dropped=DROPPED),
    baseline="sparse",
    requires=("tokenizers",),
    extra="text",
)
