"""How values at places are painted over a sample: what speaks for the answer red, what speaks against it blue."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

SHOWN = 14  # bars
LETTERS = 46  # of a line of text
LINES = 16


def shades(values: np.ndarray) -> np.ndarray:
    """Returns colours ``[..., 4]`` of values: the largest is strong, 0 is nothing at all."""
    from matplotlib import colormaps

    largest = float(np.abs(values).max()) if values.size else 0.0
    share = values / (largest or 1.0)
    colours = colormaps["RdBu_r"](0.5 + 0.42 * np.sign(share))
    colours[..., 3] = 0.75 * np.abs(share)
    return colours


def paint_over(axes: Any, values: np.ndarray, *, extent: tuple[float, float, float, float] | None = None) -> None:
    """Paints values ``[h, w]``, one a pixel, over the pictures on the axes, which become pale and grey; ``extent`` is
    left, right, bottom, top.
    """
    limits = axes.axis()
    for picture in axes.images:
        shown = np.asarray(picture.get_array(), dtype=float)
        if shown.ndim == 3:
            shown = shown[..., :3] @ (0.299, 0.587, 0.114)
        picture.set_data(shown)
        picture.set_cmap("gray")
        picture.set_clim(shown.min() - 0.4 * np.ptp(shown), shown.max())
    upper = "lower" if limits[3] > limits[2] else "upper"
    h, w = values.shape
    low, high = (-0.5, h - 0.5) if upper == "lower" else (h - 0.5, -0.5)
    place = extent or (-0.5, w - 0.5, low, high)
    axes.imshow(shades(values), origin=upper, extent=place, interpolation="nearest", aspect=axes.get_aspect())
    axes.axis(limits)


def paint_bars(axes: Any, names: Sequence[str], values: np.ndarray) -> None:
    """Paints a bar for each name, the largest first; of many only these."""
    order = np.argsort(-np.abs(values), kind="stable")[:SHOWN]
    places = np.arange(len(order))
    axes.barh(places, values[order], color=_solid(values[order]))
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_yticks(places, [textwrap.shorten(names[i], 26, placeholder=" …") for i in order], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    if len(order) < len(values):
        axes.set_xlabel(f"the {len(order)} largest of {len(values)}")


def paint_lines(axes: Any, x: np.ndarray, lines: np.ndarray, values: np.ndarray) -> None:
    """Paints lines ``[r, t]`` over ``x`` [t], each step coloured by its value ``[r, t]``."""
    from matplotlib.collections import LineCollection

    colours = shades(values)
    largest = float(np.abs(values).max()) or 1.0
    axes.plot(x, lines.T, color="0.75", linewidth=0.8)
    for line, own, worth in zip(lines, colours, values, strict=True):
        points = np.stack([x, line], axis=1)
        width = 0.4 + 2.2 * np.abs(worth[:-1]) / largest
        axes.add_collection(
            LineCollection([*np.stack([points[:-1], points[1:]], axis=1)], colors=own[:-1], linewidths=width)
        )


def paint_words(axes: Any, words: Sequence[str], values: np.ndarray) -> None:
    """Writes words, wrapped, each on the colour of its value; of a long text the beginning."""
    colours = shades(values)
    row, column = 0, 0
    for word, colour in zip(words, colours, strict=True):
        word = textwrap.shorten(word, LETTERS, placeholder="…") or word
        if column and column + len(word) > LETTERS:
            row, column = row + 1, 0
        if row >= LINES:
            axes.text(0.0, 1 - row / LINES, "…", transform=axes.transAxes, va="top", fontsize=7)
            break
        place = {"transform": axes.transAxes, "va": "top", "fontsize": 7, "family": "monospace", "parse_math": False}
        box = {"facecolor": colour, "edgecolor": "none", "pad": 1.2}
        axes.text(column / LETTERS, 1 - row / LINES, word, bbox=box, **place).set_in_layout(False)
        column += len(word) + 1
    axes.set_axis_off()


def _solid(values: np.ndarray) -> list[str]:
    return ["#b2182b" if value > 0 else "#2166ac" for value in values]
