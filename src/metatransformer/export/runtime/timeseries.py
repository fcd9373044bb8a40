"""The newest rows of a series -> the inputs of the graph, as the model was trained: numpy.

A file is a CSV or TSV with a line of names, one row a time step, in order and without gaps; the last ``lookback``
rows count. The forecast is of the column ``target``; ``covariates`` are the others that training had (their past).
``lines`` [r, t] float32: the newest whole cycles, drawn below each other; ``direct`` [f]: each column of the window
in its own deviations from its last value, and how far that is from the series' mean. ``level`` and ``spread`` are of
the window: value = level + spread * answer.
"""

import csv
import math

import numpy as np

from metatransformer.nn.resample import resample_curves

MOST_CYCLES, FLAT, FAR = 8, 0.1, 1e4


def prepare(path, settings):
    """Yields one sample: (key, its arrays by name)."""
    names = [settings["target"], *settings["covariates"]]
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    if missing := [name for name in names if rows and name not in rows[0]]:
        raise ValueError(f"must have the columns {', '.join(names)}; found no '{missing[0]}'")
    if len(rows) < settings["lookback"]:
        raise ValueError(f"must have at least {settings['lookback']} rows; found {len(rows)}")
    deviation = float(np.std([float(row[names[0]]) for row in rows]))  # of the whole file
    table = np.array([[float(row[name]) for name in names] for row in rows[-settings["lookback"] :]])
    lines, direct = [], []
    for place, values in enumerate(table.T):
        level, spread = scale(values, floor=0.0 if place else FLAT * deviation)
        lines.append(page((values - values.mean()) / spread, settings))
        direct.append((values - level) / spread)
    level, spread = scale(table[:, 0], floor=FLAT * deviation)
    direct.append(np.array([(settings["mean"] - level) / spread]))
    inputs = {"lines": np.concatenate(lines).astype(np.float32)}
    inputs["direct"] = np.clip(np.concatenate(direct), -FAR, FAR).astype(np.float32)
    yield str(path), {**inputs, "level": level, "spread": spread}


def scale(values, floor):
    """Returns the last value and the deviation, at least ``floor``; 1 where all of it is 0."""
    spread = math.hypot(float(values.std()), floor)
    return float(values[-1]), spread if spread > 1e-12 * (1 + abs(float(values[-1]))) else 1.0


def page(values, settings):
    """Returns the newest whole cycles [r, t]."""
    fold = settings["fold"]
    cycles = len(values) // fold
    newest = values[len(values) - cycles * fold :].reshape(cycles, fold).T
    return resample_curves(newest, times=np.arange(fold), columns=settings["columns"]).T
