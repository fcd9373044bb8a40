"""Long recordings of motion as windows of equal length, each with the one label that all its steps share.

A window never reaches over a change of subject or split. Left out and counted: windows in which the label changes or
is missing, with missing values, or over a gap in time. Where nothing is labelled, a last window ends with the
recording, so that every step is in one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError
from metatransformer.core.samples import Record
from metatransformer.data.limits import MOST_VALUE
from metatransformer.data.records import counted
from metatransformer.modalities._recording.motion import Motion

# Between the 2.56 s of UCI HAR and the 10 s of WISDM, as PAMAP2 is usually cut; 128 steps is UCI HAR's window.
WINDOW_S, WINDOW_STEPS = 5.0, 128.0
MOST_WINDOWS = 10_000_000  # of one recording: 290 days at the usual step


@dataclass(frozen=True)
class WindowCut:
    """How windows are taken, in seconds; in time steps where no rate is known.

    ``length`` and ``step`` 0 mean the usual ones: 5 s or 128 steps, and half the length. ``axes``: those that must have
    no missing value, () = all. ``rate_hz``: of recordings that state none. ``max_gap``: in median steps.
    """

    length: float = 0.0
    step: float = 0.0
    axes: tuple[str, ...] = ()
    rate_hz: float = 0.0
    max_gap: float = 3.0

    def settled(self, *, timed: bool) -> "WindowCut":
        """Returns the cut with length and step as numbers, for recordings with or without a known rate."""
        length = self.length or (WINDOW_S if timed else WINDOW_STEPS)
        return replace(self, length=length, step=self.step or length / 2)


@dataclass(frozen=True, eq=False)
class Stretch:
    """One recording of one subject, called ``name``; ``labels`` [t] has None where a step has none."""

    name: str
    record: Record
    motion: Motion
    labels: np.ndarray | None = None

    def is_timed(self, cut: WindowCut) -> bool:
        """Returns whether times are seconds; else they are time steps."""
        return self.motion.times_s is not None or bool(self.motion.rate_hz or cut.rate_hz)

    def times(self, cut: WindowCut) -> np.ndarray:
        """Returns the time of each step, from 0."""
        if self.motion.times_s is not None:
            return self.motion.times_s
        return np.arange(len(self.motion.values)) / (self.motion.rate_hz or cut.rate_hz or 1.0)


@dataclass(frozen=True, eq=False)
class MotionWindow:
    """The steps of recording ``name`` from ``start`` up to ``stop``: seconds, or time steps, since its first step."""

    name: str
    motion: Motion
    start: float
    stop: float
    timed: bool

    def __repr__(self) -> str:
        return f"MotionWindow({self.name!r}, {self.start:g}, {self.stop:g}, {float(self.motion.values.sum())!r})"


def cut_stretch(stretch: Stretch, *, cut: WindowCut, labelled: bool) -> tuple[list[Record], Counter[str]]:
    """Returns one record a window, and how many were left out for which reason; ``cut`` is settled.

    With ``labelled``, a record's target is its window's label, or the file's where the steps have none.
    """
    times, timed = stretch.times(cut), stretch.is_timed(cut)
    if len(times) < 2:
        return [], Counter({"shorter than a window": 1})
    tick, duration = float(np.median(np.diff(times))), float(times[-1] - times[0])
    if duration > MOST_WINDOWS * cut.step:
        found = f"{duration:g} s in {counted(len(times), 'row')}, at a step of {cut.step:g} s"
        must = f"have at most {MOST_WINDOWS:,} windows"
        raise DataError(stretch.name, must=must, found=found, do="Look at the unit of the times, or set input.step_s.")
    starts = _starts(float(times[-1]) + tick, cut=cut, labelled=labelled, tick=tick)
    if not len(starts):
        return [], Counter({"shorter than a window": 1})
    codes = _codes(stretch.labels) if labelled else None
    # Times are rounded to what a file writes: a hundredth of a step too early is still in the window.
    firsts = np.searchsorted(times, starts - 0.01 * tick)
    ends = np.minimum(starts + cut.length, times[-1] + tick)
    stops = np.searchsorted(times, ends - 0.01 * tick)
    names = _taken(stretch.motion, cut.axes)
    values = stretch.motion.values[:, [stretch.motion.names.index(name) for name in names]]
    whole = np.abs(values) <= MOST_VALUE  # [t, axes]
    records: list[Record] = []
    left_out: Counter[str] = Counter()
    for start, end, i, j in zip(starts.tolist(), ends.tolist(), firsts.tolist(), stops.tolist(), strict=True):
        reason = _flaw(times[i:j], start=start, end=end, tick=tick, most=cut.max_gap)
        reason = reason or _missing(whole[i:j], names=names)
        reason = reason or ("" if codes is None else _mixed(codes[i:j]))
        if reason:
            left_out[reason] += 1
            continue
        window = MotionWindow(stretch.name, _slice(stretch.motion, i, j), start, end, timed)
        records.append(_record(stretch, window, label=_label(stretch, i) if labelled else None))
    return records, left_out


def _starts(duration: float, *, cut: WindowCut, labelled: bool, tick: float) -> np.ndarray:
    """Returns where windows begin: every ``step``; without labels one more that ends with the recording."""
    slack = 0.01 * tick
    count = int(np.floor((duration - cut.length + slack) / cut.step)) + 1 if duration + slack >= cut.length else 0
    starts = cut.step * np.arange(count)
    rest = duration - (starts[-1] + cut.length if count else 0.0)
    if labelled or rest < 0.5 * tick:
        return starts
    return np.append(starts, max(0.0, duration - cut.length))


def _flaw(times: np.ndarray, *, start: float, end: float, tick: float, most: float) -> str:
    """Returns why a window cannot be used, "" where it can: too short, or a gap inside it or at its ends."""
    if end - start < 1.9 * tick:
        return "of fewer than 2 time steps"
    limit = 1.01  # a rounded clock must not turn an exact multiple into a gap
    if len(times) < 2 or max(times[0] - start, end - times[-1]) > most * tick * limit:
        return "over a gap in time"
    steps = np.diff(times)
    return "over a gap in time" if steps.max() > most * np.median(steps) * limit else ""


def _missing(whole: np.ndarray, *, names: Sequence[str]) -> str:
    """Returns in which axis a window's first missing value is, "" where none is."""
    gone = np.flatnonzero(~whole.all(axis=0))
    return f"with missing values in '{names[gone[0]]}'" if len(gone) else ""


def _mixed(codes: np.ndarray) -> str:
    if codes.min() < 0:
        return "without a label" if codes.max() < 0 else "in which the label begins or ends"
    return "in which the label changes" if codes.min() != codes.max() else ""


def _codes(labels: np.ndarray | None) -> np.ndarray | None:
    """Returns labels as numbers, -1 where there is none."""
    return None if labels is None else pd.factorize(labels)[0]


def _label(stretch: Stretch, step: int) -> object:
    return stretch.record.target if stretch.labels is None else stretch.labels[step]


def _taken(motion: Motion, axes: Sequence[str]) -> tuple[str, ...]:
    """Returns the axes that count; one that is not there is named later, when it is taken."""
    return tuple(axes) if axes and all(name in motion.names for name in axes) else motion.names


def _slice(motion: Motion, first: int, stop: int) -> Motion:
    times = None if motion.times_s is None else motion.times_s[first:stop]
    return replace(motion, values=motion.values[first:stop], times_s=times)


def _record(stretch: Stretch, window: MotionWindow, *, label: object) -> Record:
    unit = "s" if window.timed else ""
    place = f"{window.start:.10g}{unit}"
    return replace(stretch.record, key=f"{stretch.name}#{place}", part=place, value=window, target=label)


def about_windows(records: Sequence[Record], left_out: Counter[str], *, cut: WindowCut, timed: bool) -> str:
    """Returns what was cut and what was left out, in one sentence."""
    unit = " s" if timed else " steps"
    text = f"{counted(len(records), 'window')} of {cut.length:g}{unit}, one every {cut.step:g}{unit}"
    short = left_out["shorter than a window"]
    reasons = [f"{number:,} {why}" for why, number in left_out.items() if why != "shorter than a window"]
    reasons += [f"{counted(short, 'recording')} shorter than a window"] if short else []
    return f"{text}; left out: {', '.join(reasons)}" if reasons else text
