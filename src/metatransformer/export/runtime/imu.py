"""Recordings of motion -> the inputs of the graph, as the model was trained: numpy.

A file is a CSV or TSV with a line of names, one row a time step, or NPY [t, axes] with the axes in the order of
training. The axes are ``names``, in the units of training (SI). Steps are ``step_s`` apart (1 where no rate is
known), or a column ``time`` in seconds says when. ``motion`` [w, t, axes] float32: w pictures of t columns, in
deviations from training, at most 50. ``plain``, where the head reads it: mean, deviation, least, largest and mean
absolute step of each axis.
"""

import csv
import math

import numpy as np

from metatransformer.nn.resample import resample_curves

PATCHES, FAR = 8, 50.0  # patches over a window; deviations
TIMES = ("time", "time_s", "t", "seconds")


def prepare(path, settings):
    """Yields one sample: (key, its arrays by name)."""
    values, times = read(path, settings)
    if len(values) < 2:
        raise ValueError(f"must have at least 2 time steps; found {len(values)}")
    duration = float(times[-1] - times[0] + np.median(np.diff(times)))
    window = settings["window"]
    pictures = 1 if duration <= window * settings["max_windows"] else math.ceil(duration / window)
    patches = max(1, round(PATCHES * duration / window / pictures))
    motion = resample_curves(values, times=times, columns=pictures * patches * settings["patch"])
    motion = (motion - np.array(settings["mean"])) / np.array(settings["scale"])
    motion = np.clip(motion, -FAR, FAR).astype(np.float32)
    inputs = {"motion": motion.reshape(pictures, -1, motion.shape[1])}
    if settings["plain"]:
        steps = np.abs(np.diff(motion, axis=0)).mean(axis=0)
        ends = motion.min(axis=0), motion.max(axis=0)
        inputs["plain"] = np.concatenate([motion.mean(axis=0), motion.std(axis=0), *ends, steps])
    yield str(path), inputs


def read(path, settings):
    """Returns values [t, axes] and times [t]."""
    names = settings["names"]
    if path.suffix.lower() == ".npy":
        values, own = np.load(path).astype(np.float64), None
        if values.ndim != 2 or values.shape[1] != len(names):
            raise ValueError(f"must be [t, {len(names)}] ({', '.join(names)}); found {values.shape}")
    else:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
        head = [name.partition("[")[0].strip() for name in rows[0]]
        units = [name.partition("[")[2].strip(" ]") for name in rows[0]]
        for name, unit in zip(names, settings["units"], strict=True):
            stated = units[head.index(name)] if name in head else ""
            if stated and stated != unit:
                raise ValueError(f"axis '{name}' must be in {unit or 'the unit of training'}; found {stated}")
        if missing := [name for name in names if name not in head]:
            raise ValueError(f"must have the axes {', '.join(names)}; found no '{missing[0]}'")
        table = np.array(rows[1:], dtype=object)
        values = table[:, [head.index(name) for name in names]].astype(np.float64)
        clock = next((name for name in head if name.lower() in TIMES), None)
        own = None if clock is None else table[:, head.index(clock)].astype(np.float64)
    if own is None and not settings["step_s"]:
        raise ValueError("must have a column 'time' in seconds, as training had times")
    return values, np.arange(len(values)) * settings["step_s"] if own is None else own - own[0]
