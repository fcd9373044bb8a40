"""Predictions of windows as people expect them: with start and end, and as a band of colours under the recording."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metatransformer.core.samples import Record
from metatransformer.modalities.imu.windows import MotionWindow

MOST_PICTURES = 6
MOST_POINTS = 4000  # of one line: more than the picture has columns
MOST_NAMES = 12  # in a legend
# Told apart by people with colour-deficient sight as well (Okabe and Ito 2008), then lighter ones.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#5f6975", "#a6761d", "#7570b3")


def arrange_windows(records: Sequence[Record], table: pd.DataFrame) -> pd.DataFrame:
    """Returns predictions of windows with ``start_s`` and ``end_s`` (without a rate ``start_step``, ``end_step``).

    Predictions of whole files stay as they are.
    """
    windows = _windows(records)
    if not windows:
        return table
    unit = "s" if windows[0].timed else "step"
    table = table.copy()
    place = list(table.columns).index("prediction") + 1
    table.insert(place, f"start_{unit}", [round(window.start, 6) for window in windows])
    table.insert(place + 1, f"end_{unit}", [round(window.stop, 6) for window in windows])
    return table


def draw_timelines(records: Sequence[Record], table: pd.DataFrame, folder: Path) -> Sequence[Path]:
    """Writes a picture of each of the first 6 recordings: its axes over time, what was predicted, and the truth.

    Without windows, or where what is predicted is no class, there is nothing to draw.
    """
    windows = _windows(records)
    if not windows or table["prediction"].dtype.kind not in "OUT" or not isinstance(table["prediction"].iloc[0], str):
        return ()
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted({*table["prediction"], *(map(str, table["target"]) if "target" in table else ())})
    paths = []
    for number, recording in enumerate(list(dict.fromkeys(window.name for window in windows))[:MOST_PICTURES]):
        places = [place for place, window in enumerate(windows) if window.name == recording]
        path = folder / f"recording_{number + 1:02d}.png"
        part = table.iloc[places]
        _picture(recording, [windows[place] for place in places], part, names=names).savefig(path, dpi=144)
        paths.append(path)
    return paths


def _windows(records: Sequence[Record]) -> list[MotionWindow]:
    """Returns the records' windows, none where a record is something else."""
    windows = [record.value for record in records if isinstance(record.value, MotionWindow)]
    return windows if len(windows) == len(records) else []


def _picture(name: str, windows: Sequence[MotionWindow], table: pd.DataFrame, *, names: Sequence[str]) -> Figure:
    strips = [column for column in ("target", "prediction") if column in table]
    figure = Figure(figsize=(8.0, 2.2 + 0.25 * len(strips)), layout="constrained")
    FigureCanvasAgg(figure)
    ratios = [6.0] + [1.0] * len(strips)
    above, *below = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    _draw_lines(above, windows)
    colours = {text: COLOURS[place % len(COLOURS)] for place, text in enumerate(names)}
    for axes, column in zip(below, strips, strict=True):
        _draw_strip(axes, windows, [str(cell) for cell in table[column]], colours=colours)
        axes.set_ylabel({"target": "truth"}.get(column, column), rotation=0, ha="right", va="center", fontsize=8)
    below[-1].set_xlabel("s" if windows[0].timed else "time step", fontsize=8)
    above.set_title(name, loc="left", fontsize=10, parse_math=False)
    shown = names[:MOST_NAMES]
    handles = [below[0].barh([0], [0], color=colours[text], label=text) for text in shown]
    figure.legend(handles, shown, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _draw_lines(axes: Axes, windows: Sequence[MotionWindow]) -> None:
    """Paints every axis of the recording once, in its own deviations; breaks where no window is."""
    values, times, reached = [], [], -np.inf
    for window in windows:
        now = _times(window)
        new = now > reached
        if window.start > reached and values:
            values.append(np.full((1, values[0].shape[1]), np.nan))
            times.append(np.array([window.start]))
        values.append(window.motion.values[new])
        times.append(now[new])
        reached = max(reached, float(now[-1]), window.stop)
    lines, x = np.concatenate(values), np.concatenate(times)
    stride = -(-len(x) // MOST_POINTS)
    lines = (lines - np.nanmean(lines, axis=0)) / np.maximum(np.nanstd(lines, axis=0), 1e-12)
    axes.plot(x[::stride], lines[::stride], linewidth=0.5)
    axes.set(yticks=[], ylim=(-4, 4))
    axes.margins(x=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=8, bottom=False)


def _times(window: MotionWindow) -> np.ndarray:
    motion = window.motion
    if motion.times_s is not None:
        return motion.times_s
    return np.linspace(window.start, window.stop, len(motion.values), endpoint=False)


def _draw_strip(axes: Axes, windows: Sequence[MotionWindow], texts: Sequence[str], *, colours: dict[str, Any]) -> None:
    """Paints each window; what two of them share is halved between them."""
    starts, ends = [window.start for window in windows], [window.stop for window in windows]
    for place in range(1, len(windows)):
        if starts[place] < ends[place - 1]:
            starts[place] = ends[place - 1] = (starts[place] + ends[place - 1]) / 2
    widths = [end - start for start, end in zip(starts, ends, strict=True)]
    axes.barh([0] * len(starts), widths, left=starts, height=1.0, color=[colours[text] for text in texts])
    axes.set(yticks=[], ylim=(-0.5, 0.5))
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=8)
