"""Forecasts as people expect them: a long table with timestamps, and a picture a series."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.modalities.timeseries.windows import Window

MOST_PICTURES = 12
NONE: Mapping[str, np.ndarray] = MappingProxyType({})
SHOWN = 3  # horizons of the past that a picture shows, at most the look-back


def in_unit(window: Window, prediction: np.ndarray) -> np.ndarray:
    """Returns a forecast [H] in the unit of its series; it comes in spreads from the window's level."""
    level, spread = window.scale
    return level + spread * np.asarray(prediction, dtype=np.float64)


def quantiles_of(table: pd.DataFrame) -> list[str]:
    """Returns the columns of quantiles, the lowest first."""
    return [name for name in table.columns if name.startswith("quantile_")]


def arrange_forecasts(windows: Sequence[Window], table: pd.DataFrame) -> pd.DataFrame:
    """Returns ``series, timestamp, prediction``, a row for each step of each window, in their order; quantiles stand
    behind the prediction.

    Where ``table`` says the split, it comes first, and ``target`` last: these are windows whose
    future is known, and ``step`` tells apart what several of them say of one time.
    """
    lengths = [window.horizon for window in windows]
    columns: dict[str, object] = {
        "series": np.repeat([window.series.name for window in windows], lengths),
        "timestamp": windows[0].times.append([window.times for window in windows[1:]]),
    }
    if "split" in table:
        columns = {"split": np.repeat(table["split"].to_numpy(), lengths)} | columns
        columns["step"] = np.concatenate([np.arange(1, length + 1) for length in lengths])
    for name in ("prediction", *quantiles_of(table)):
        guesses = [in_unit(window, guess) for window, guess in zip(windows, table[name], strict=True)]
        columns[name] = np.concatenate(guesses)
    if "target" in table:
        columns["target"] = np.concatenate([future.values for future in table["target"]])
    return pd.DataFrame(columns)


def draw_forecasts(windows: Sequence[Window], table: pd.DataFrame, folder: Path) -> list[Path]:
    """Writes up to 12 pictures, spread evenly over the windows, and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    count = min(MOST_PICTURES, len(windows))
    chosen = np.linspace(0, len(windows) - 1, count).round().astype(int)
    paths = []
    for number, place in enumerate(chosen.tolist()):
        path = folder / f"forecast_{number + 1:02d}.png"
        bands = {name: np.asarray(table[name].iloc[place]) for name in quantiles_of(table)}
        _picture(windows[place], np.asarray(table["prediction"].iloc[place]), bands).savefig(path, dpi=144)
        paths.append(path)
    return paths


def _picture(window: Window, prediction: np.ndarray, quantiles: Mapping[str, np.ndarray] = NONE) -> Any:
    """Returns a matplotlib figure, with a band between each pair of outer quantiles.

    The library is imported here, since it takes a second.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    series, now = window.series, window.now
    first = max(window.start, now - SHOWN * window.horizon)
    figure = Figure(figsize=(8.0, 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    future = window.future
    axes.plot(series.times[first:now], series.values[first:now], color="#5f6975", linewidth=1.2, label="history")
    joined = [series.values[now - 1], *in_unit(window, prediction)]
    times: Any = series.times[now - 1 : now].append(window.times)
    if future is not None:
        axes.plot(times, [series.values[now - 1], *future.values], color="#1c2430", linewidth=1.2, label="truth")
    names = list(quantiles)
    half = len(names) // 2
    for low, high in zip(names[:half], names[::-1][:half], strict=True):
        bottom, top = in_unit(window, quantiles[low]), in_unit(window, quantiles[high])
        words = f"{low.removeprefix('quantile_')} to {high.removeprefix('quantile_')}"
        axes.fill_between(times[1:], bottom, top, color="#c0392b", alpha=0.18, linewidth=0, label=words)
    axes.plot(times, joined, color="#c0392b", linewidth=1.6, label="forecast")
    axes.axvline(times[0], color="#dfe3e8", linewidth=1)
    began = f", from {window.times[0]}"
    axes.set_title(f"{series.name}{began}", loc="left", fontsize=10, parse_math=False)
    axes.set_ylabel(series.column, fontsize=8, parse_math=False)
    if isinstance(series.times, pd.DatetimeIndex):
        locator = AutoDateLocator(tz=series.times.tz)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=series.times.tz))
        axes.xaxis.get_offset_text().set_fontsize(8)
    else:
        axes.set_xlabel("row", fontsize=8)
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure
