"""Rows of a CSV or TSV -> the inputs of the graph, as the model was trained: numpy.

``cells`` [c] float32, in the order of training: a number in deviations from the training rows, the index of a
category (0 = a word never seen, 1 = a rare one), NaN = missing. ``plain``, where the head reads it: numbers (0 where
missing) each with a flag "missing", categories one-hot.
"""

import csv
import math
import re

import numpy as np

MISSING = {"", "?", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null"}
TRUTHS = {True: {"true", "t", "yes", "y", "1", "on"}, False: {"false", "f", "no", "n", "0", "off"}}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def prepare(path, settings):
    """Yields one sample a row: (key, its arrays by name)."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with open(path, encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file, delimiter=delimiter)):
            cells = np.array(
                [cell(row, column, f"{path}#{number}") for column in settings["columns"]], dtype=np.float32
            )
            plain = {"plain": features(cells, settings["columns"])} if settings["plain"] else {}
            yield f"{path}#{number}", {"cells": cells, **plain}


def cell(row, column, where):
    """Returns the number of one cell."""
    if column["name"] not in row:
        raise ValueError(
            f"{where}: must have the column '{column['name']}'; a cell may be empty, its column not absent"
        )
    text = (row[column["name"]] or "").strip()
    if text in MISSING or text in column["missing"]:
        return np.nan
    if column["kind"] == "number":
        if text.lower() in ("true", "false"):
            text = str(int(text.lower() == "true"))
        if not NUMBER.fullmatch(text):
            raise ValueError(f"{where}, column '{column['name']}': must hold a number; found '{text}'")
        return min(max((float(text) - column["mean"]) / column["scale"], -1e30), 1e30)
    word = same_truth(as_word(text, column["words"]), column["words"] + column["rare"])
    if word in column["words"]:
        return 2 + column["words"].index(word)
    return 1 if word in column["rare"] else 0


def as_word(text, words):
    """Returns a category: 1.0 is 1 where training knew it so."""
    whole = NUMBER.fullmatch(text) and math.isfinite(float(text)) and float(text).is_integer()
    return str(int(float(text))) if whole and text not in words else text


def same_truth(word, known):
    """Returns the known word of the same truth value where a column knows nothing else: True for TRUE, yes, 1."""
    if word in known or len(known) != 2:
        return word
    truths = {truth: one for one in known for truth, words in TRUTHS.items() if one.lower() in words}
    same = [truths[truth] for truth, words in TRUTHS.items() if word.lower() in words and len(truths) == 2]
    return same[0] if same else word


def features(cells, columns):
    """Returns the plain features of a row."""
    parts = []
    for value, column in zip(cells, columns, strict=True):
        choices, gone = 2 + len(column["words"]) if column["kind"] == "category" else 0, np.isnan(value)
        part = np.zeros(choices + 1 if choices else 2, dtype=np.float32)
        if choices:
            part[choices if gone else int(value)] = 1
        else:
            part[:] = 0 if gone else value, gone
        parts.append(part)
    return np.concatenate(parts)
