"""Tabular: one token a column; categories looked up, numbers coded, missing cells explicit.

File: CSV, TSV, JSON lines, Parquet, or a DataFrame; one row a sample; mixed columns. A cell that is
empty, NaN, NA, null or '?' is missing, and so is '-', none and the like among numbers. Numbers may be
written as people do (1,5; $1,234.50); dates become year, month, day, weekday, hour and days elapsed.
Kinds are inferred from the training rows and noted; columns are matched by name, in any order.
Tokens: what the column is (one vector a column) + what the cell holds: a row of the column's own
table (categories; a rare and an unknown word have rows of their own), a piecewise-linear or
periodic code under the column's own linear map (numbers), or the column's vector for "missing".
Nothing is imputed. No positions: a column's vector is its position.
Sources: Meta-Transformer's supplement (TabTransformer's column embeddings, arXiv 2012.06678);
FT-Transformer (arXiv 2106.11959) for one token a column, numbers included; Gorishniy et al. 2022
(arXiv 2203.05556) for the numbers' codes.
Errors: an infinity, a date that may be two days, a stray text among numbers, a list in a cell, a missing column.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from metatransformer.core.errors import DataError, NotFittedError, UsageError, nearest
from metatransformer.core.fields import Field
from metatransformer.core.modality import (
    Modality,
    Source,
    Stem,
    SummaryToken,
    Tokenizer,
    Transform,
)
from metatransformer.core.samples import Record, View
from metatransformer.core.settings import Rule, Settings
from metatransformer.core.tokens import Span, Tokens
from metatransformer.data.columns import (
    FIRST,
    RARE,
    UNKNOWN,
    Cell,
    Cells,
    Column,
    as_word,
    clean,
    clean_column,
    column_from,
    column_kind,
    column_notes,
    common_words,
    parse_number,
)
from metatransformer.data.limits import MOST_VALUE
from metatransformer.data.records import Views, objects
from metatransformer.data.spelled import spelled_styles
from metatransformer.data.table import TABLE_SUFFIXES
from metatransformer.modalities.tabular.inside import ROW_INSIDE
from metatransformer.modalities.tabular.reading import Reading, cell_number, find_reading
from metatransformer.modalities.tabular.unseen import UnseenWords, same_truth
from metatransformer.nn.numeric import Periodic, PiecewiseLinear, bin_edges

# Deviations per channel of the two parts of a token. Together 0.128, a norm of 2.5 at width 384:
# what the patch embeddings of focus-s14 measure on photographs (0.136 and 2.5), so that a frozen
# trunk meets tokens of the size it knows.
COLUMN_STD = 0.10
VALUE_STD = 0.08

# Adult, frozen focus-s14, one seed, validation AUC: .929 read after block 4, .927 after block 2 (3
# epochs each), .921 without any block (8 epochs). 5 epochs on another validation part: .9234 read after
# block 4, .9245 before block 1 and after block 4, weights averaged. Blocks behind the one read are not computed.
DEFAULTS = {
    "tune": "ends",
    "head.read": [0, 0.33],
    "optim.lr": 3e-3,
    "optim.average": 0.99,
    "data.batch_size": 256,
    "data.augment": False,
}

_REASONS = {
    "empty": "every training cell is missing",
    "constant": "every training cell is the same",
    "identifier": "nearly every training row has its own text (an identifier)",
    "numbering": "it only numbers the rows (input.numbers keeps it)",
    "ignored": "named in 'ignore'",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TabularOptions(Settings):
    """How columns are read and numbers embedded.

    ``ignore``, ``categories`` and ``numbers`` name columns and overrule what is inferred. ``style``: how dates are
    written where they may be two days each, as for strptime (%d/%m/%Y).
    ``numeric``: the code of numbers; ``bins`` its components a column (48 quantile bins, or 24
    sines and 24 cosines), ``sigma`` the deviation of the periodic frequencies. Categories in fewer
    than a share ``rare`` of the training rows, and beyond the ``most_categories`` frequent ones,
    are pooled.
    """

    ignore: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    style: str = ""
    numeric: Literal["piecewise", "periodic"] = "piecewise"
    bins: int = 48
    sigma: float = 0.3
    rare: float = 3e-4
    most_categories: int = 1000

    rules = (
        Rule("bins", "be at least 2", lambda own: own.bins >= 2),
        Rule("sigma", "lie above 0, below 1000", lambda own: 0 < own.sigma < 1e3),
        Rule("rare", "lie in [0, 1)", lambda own: 0 <= own.rare < 1),
        Rule("most_categories", "be at least 1", lambda own: own.most_categories >= 1),
    )


class TabularTransform(Transform):
    """Turns a row into one float a column: standardised number, category's index, NaN = missing.

    Learns ``columns_`` (kinds, means, scales, bins, words), ``dropped_`` (column -> why it is left
    out) and ``notes_`` (what a person should be told).
    """

    def __init__(self, options: TabularOptions, stem: Stem) -> None:
        del stem
        self.options = options
        self.columns_: tuple[Column, ...] = ()
        self.dropped_: dict[str, str] = {}
        self._extra: set[str] = set()  # columns that were already noted as not used
        self._unseen = UnseenWords()
        self.notes_: tuple[str, ...] = ()

    def fit(self, views: Iterable[View]) -> None:
        """Infers kinds, words, scales and bins from training rows.

        Raises:
            DataError: a column cannot be decided (dates of two meanings, stray texts), or none is left.
            UsageError: an option names a column that does not exist.
        """
        options = self.options
        keys, table = _by_columns(views)
        _require_known(options, table)
        columns: list[Column] = []
        told: list[str] = []
        self.dropped_ = {}
        by_name = {name: Cells.of(column) for name, column in table.items()}
        comma = lru_cache(partial(_has_decimal_comma, by_name))
        for name, cells in by_name.items():
            taken = name not in (*options.ignore, *options.categories)
            reading = find_reading(name, cells, style=options.style, keys=keys, comma=comma) if taken else None
            if reading is not None:
                told += [reading.told]
                columns += _learn_reading(name, cells, reading, bins=options.bins)
                continue
            kind = self._kind(name, cells, keys=keys, alone=len(table) == 1)
            if kind in _REASONS:
                self.dropped_[name] = _REASONS[kind]
            elif kind == "number":
                columns.append(_learn_number(name, cells, keys=keys, bins=options.bins))
            else:
                words, rare = common_words(cells, share=options.rare, most=options.most_categories)
                columns.append(Column(name, kind, words=words, rare=rare))
        if not columns:
            raise DataError(
                "table",
                must="have a column to learn from beside the target",
                found=f"{len(keys)} rows of {len(table)} columns, left out: {self.dropped_}",
            )
        self._take(columns)
        self.notes_ = (*column_notes(self.columns_, dropped=self.dropped_), *told)

    def _kind(self, name: str, cells: Cells, *, keys: Sequence[str], alone: bool) -> str:
        options = self.options
        if name in options.ignore:
            return "ignored"
        forced = {"category": options.categories, "number": options.numbers}
        kinds = [kind for kind, named in forced.items() if name in named]
        if kinds and len(cells.values):
            return kinds[0]
        return "number" if (kind := column_kind(name, cells, keys=keys)) == "numbering" and alone else kind

    def _take(self, columns: Iterable[Column]) -> None:
        """Sets the columns and what reading a row needs of them."""
        self.columns_ = tuple(columns)
        self._codes = [
            dict.fromkeys(column.rare, RARE) | {word: FIRST + i for i, word in enumerate(column.words)}
            for column in self.columns_
        ]
        self._choices = np.array([column.choices for column in self.columns_], dtype=np.int64)
        self._known = {column.name for column in self.columns_} | set(self.dropped_)

    @property
    def notes(self) -> tuple[str, ...]:
        """How the columns were understood and what was left out."""
        return self.notes_

    def __call__(self, view: View) -> View:
        """Returns ``cells`` [c] float32 and ``choices`` [c] int64; columns are found by name.

        Raises:
            DataError: a column is missing, or a cell of a column of numbers is no finite number.
            NotFittedError: before ``fit``.
        """
        if not self.columns_:
            raise NotFittedError("tabular transform", must="have learned its columns", found="none", do="Fit first.")
        row = view.inputs["row"]
        cells = np.empty(len(self.columns_), dtype=np.float32)
        if any(column.name not in row for column in self.columns_):
            raise self._missing_column(row, where=f"row {view.key}")
        for i, (column, codes) in enumerate(zip(self.columns_, self._codes, strict=True)):
            cell = row[column.name]
            if cell is None:
                cells[i] = np.nan
            elif column.kind == "category":
                word = same_truth(as_word(cell), codes)
                cells[i] = codes.get(word, UNKNOWN)
                self._unseen.count(column.name, word, unseen=word not in codes)
            else:
                cells[i] = _standardise(cell, column, key=view.key)
        if len(row) > len(self.columns_):
            self._note_extra(row)
        return view.with_inputs({"cells": cells, "choices": self._choices})

    def doubts(self) -> tuple[str, ...]:
        """Returns which columns hold many words that training never saw."""
        return self._unseen.told()

    def _missing_column(self, row: Mapping[str, Cell], *, where: str) -> DataError:
        missing = [column.name for column in self.columns_ if column.name not in row]
        return DataError(
            where,
            must="have every column that the model was fitted on",
            found=f"no column '{missing[0]}'" + (f" (missing: {missing})" if missing[1:] else ""),
            do=f"{nearest(missing[0], row)} A cell may be empty, its column not absent.",
        )

    def _note_extra(self, row: Mapping[str, Cell]) -> None:
        if extra := row.keys() - self._known - self._extra:
            self._extra |= extra
            _log.warning("columns not used, since training did not have them: %s", sorted(extra))

    def state(self) -> dict[str, Any]:
        """Returns the columns, what was left out, and the notes."""
        return {
            "columns": [asdict(column) for column in self.columns_],
            "dropped": dict(self.dropped_),
            "notes": list(self.notes_),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back the columns, what was left out, and the notes."""
        self.dropped_, self.notes_ = dict(state["dropped"]), tuple(state["notes"])
        self._take(column_from(column) for column in state["columns"])


def _by_columns(views: Iterable[View]) -> tuple[Sequence[str], dict[str, np.ndarray]]:
    """Returns the keys of the samples and their columns of clean cells; those of a table are taken as they are."""
    if isinstance(views, Views) and (table := views.records.table) is not None:
        keys = views.records.keys
        return keys, {name: clean_column(table.column(name), name=name, keys=keys) for name in table.names}
    views = list(views)
    rows = [view.inputs["row"] for view in views]
    names = dict.fromkeys(name for row in rows for name in row)
    return [view.key for view in views], {name: objects([row.get(name) for row in rows]) for name in names}


def _require_known(options: TabularOptions, names: Collection[str]) -> None:
    for option in ("ignore", "categories", "numbers"):
        for name in getattr(options, option):
            if name not in names:
                must, do = "name columns of the table", nearest(name, names)
                raise UsageError(f"input.{option}", must=must, found=repr(name), do=do)


def _learn_number(name: str, cells: Cells, *, keys: Sequence[str], bins: int) -> Column:
    numbers = cells.numbers(keys, where=f"column '{name}'")
    for odd in np.flatnonzero(np.isnan(numbers)).tolist()[:1]:
        parse_number(cells.values.tolist()[odd], name=name, key=cells.key(odd, keys))  # says what is wrong with it
    return _number_column(Column(name, "number"), numbers[cells.codes[cells.codes >= 0]], bins=bins)


def _learn_reading(name: str, cells: Cells, reading: Reading, *, bins: int) -> list[Column]:
    columns = []
    for part, numbers in reading.values.items():
        values = numbers[cells.codes[cells.codes >= 0]]
        column = Column(name, "number", style=reading.style, part=part, missing=reading.missing)
        columns.append(_number_column(column, values[~np.isnan(values)], bins=bins))
    return columns


def _has_decimal_comma(table: Mapping[str, Cells]) -> bool:
    """Returns whether a column of a table holds numbers with decimal commas beyond doubt."""
    for cells in table.values():
        texts = cells.values.tolist()
        if texts and all(isinstance(text, str) for text in texts) and [*spelled_styles(texts)] == ["comma"]:
            return True
    return False


def _number_column(column: Column, values: np.ndarray, *, bins: int) -> Column:
    if (largest := float(np.abs(values).max())) > MOST_VALUE:
        do = "Correct it, or leave the column out."
        raise DataError(
            f"column '{column.name}'", must=f"hold numbers up to {MOST_VALUE:g}", found=f"{largest:g}", do=do
        )
    # Where the only two states are one value and "missing", there is no spread to divide by.
    column = replace(column, mean=float(values.mean()), scale=float(values.std()) or 1.0)
    standard = (values - column.mean) / column.scale
    return replace(column, edges=tuple(bin_edges(standard, bins=bins)))


def _standardise(cell: Cell, column: Column, *, key: str) -> float:
    number = (cell_number(cell, column, key=key) - column.mean) / column.scale
    # Far outside every bin the code does not change any more; float32 must not overflow on the way.
    return float(np.clip(number, -1e30, 1e30))


class TabularTokenizer(Tokenizer):
    """One token a column, in the table's order, with the summary token in front."""

    numbers: Tensor
    words: Tensor
    back: Tensor
    starts: Tensor

    def __init__(self, options: TabularOptions, transform: Transform, width: int, stem: Stem) -> None:
        super().__init__()
        assert isinstance(transform, TabularTransform) and transform.columns_
        columns = transform.columns_
        numbers = [i for i, column in enumerate(columns) if column.kind == "number"]
        words = [i for i, column in enumerate(columns) if column.kind == "category"]
        self.register_buffer("numbers", torch.tensor(numbers).long(), persistent=False)
        self.register_buffer("words", torch.tensor(words).long(), persistent=False)
        # Position of each column among the numbers first, then the categories.
        self.register_buffer("back", torch.tensor(numbers + words).argsort(), persistent=False)
        self.number = _number_embedding([columns[i] for i in numbers], options, width=width)
        sizes = [columns[i].choices for i in words]
        starts = torch.tensor([0, *sizes]).cumsum(0)[:-1]
        self.register_buffer("starts", starts, persistent=False)
        table = torch.randn(sum(sizes), width) * VALUE_STD
        # A word that training never saw must not carry a random meaning: it is the bare column.
        table[starts[: len(sizes)] + UNKNOWN] = 0
        self.table = nn.Parameter(table) if sizes else None
        self.column = nn.Parameter(torch.randn(len(columns), width) * COLUMN_STD)
        self.missing = nn.Parameter(torch.zeros(len(columns), width))
        self.summary = SummaryToken(width=width, stem=stem)

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns the summary token and one token a column, in the table's order."""
        del masks
        cells = inputs["cells"]
        gone = cells.isnan()
        filled = cells.masked_fill(gone, 0)  # a placeholder: `where` below discards its embedding
        values = []
        if self.number is not None:
            values.append(self.number(filled[:, self.numbers]))
        if self.table is not None:
            values.append(self.table[filled[:, self.words].long() + self.starts])
        x = torch.cat(values, dim=1)[:, self.back]  # [B, C, D]
        x = torch.where(gone[..., None], self.missing.to(x.dtype), x) + self.column
        x, mask = self.summary(x, torch.ones_like(gone))
        return Tokens(x, mask, (Span("tabular", 0, x.shape[1], summary=0),))


def _number_embedding(columns: Sequence[Column], options: TabularOptions, *, width: int) -> nn.Module | None:
    if not columns:
        return None
    if options.numeric == "piecewise":
        return PiecewiseLinear([column.edges for column in columns], width=width, std=VALUE_STD)
    return Periodic(len(columns), components=options.bins, sigma=options.sigma, width=width, std=VALUE_STD)


def load(record: Record) -> dict[str, dict[str, Cell]]:
    """Returns ``row``: column name -> None (missing), number, truth value or text.

    Raises:
        DataError: no row, an empty one, an infinity, or a cell that is no single value.
    """
    if not isinstance(record.value, Mapping) or not record.value:
        raise DataError(
            record.key,
            must="be a row of a table, a mapping from column to cell, with at least one column",
            found=f"{record.value!r}"[:40],
        )
    cells = record.value.items()
    return {"row": {str(n): clean(v, where=f"row {record.key}: column '{n}'") for n, v in cells}}


def features(view: View) -> np.ndarray:
    """Returns standardised numbers (0 where missing) with a flag "missing", categories one-hot."""
    parts = []
    for cell, choices in zip(view.inputs["cells"], view.inputs["choices"], strict=True):
        gone = np.isnan(cell)
        part = np.zeros(choices + 1 if choices else 2, dtype=np.float32)
        if choices:
            part[choices if gone else int(cell)] = 1
        else:
            part[:] = 0 if gone else cell, gone
        parts.append(part)
    return np.concatenate(parts)


def draw(axes: Any, view: View) -> None:
    """Paints one bar a column: numbers blue, indices of categories grey, missing cells a red x."""
    cells, choices = view.inputs["cells"], view.inputs["choices"]
    gone, places = np.isnan(cells), np.arange(1, len(cells) + 1)
    colours = np.where(choices > 0, "0.6", "tab:blue")
    axes.barh(places, np.where(gone, 0, cells), color=list(colours))
    axes.plot(np.zeros(gone.sum()), places[gone], "x", color="tab:red")
    axes.set(ylabel="column", xlabel="deviations from the mean, or category")
    axes.invert_yaxis()


def synthesize(rng: np.random.Generator, label: int) -> dict[str, dict[str, Cell]]:
    """Returns a row whose numbers and words lean to the class, now and then with a missing cell."""
    row: dict[str, Cell] = {
        "age": round(float(rng.normal(40 + 9 * label, 7)), 1),
        "income": float(rng.lognormal(10 + label, 0.5)),
        "visits": int(rng.poisson(2 + 3 * label)),
        "colour": ("red", "green", "blue")[(label + int(rng.random() < 0.2)) % 3],
        "member": bool(rng.random() < (0.8 if label % 2 else 0.2)),
    }
    for name in ("age", "colour"):
        if rng.random() < 0.1:
            row[name] = None
    return {"row": row}


MODALITY = Modality(
    name="tabular",
    summary="tables of mixed columns: numbers, categories, missing cells",
    source=Source(kind="table", suffixes=TABLE_SUFFIXES),
    fields={
        "cells": Field("c", missing=True, summary="a standardised number or a category's index"),
        "choices": Field("c", "int64", low=0.0, summary="indices a category has, 0 for a number"),
    },
    options=TabularOptions,
    load=load,
    transform=TabularTransform,
    tokenizer=TabularTokenizer,
    features=features,
    draw=draw,
    synthesize=synthesize,
    threads=False,
    native="the class token; columns and values are learned from your rows",
    units="any; numbers are standardised by the training rows",
    defaults=DEFAULTS,
    baseline="boosting",
    before={"style": ""},
    inside=ROW_INSIDE,
)
