"""The pictures of a report, as PNG in ``data:`` addresses.

Painted with matplotlib's objects alone: no pyplot, no chosen backend, no settings that another program would notice.
"""

import base64
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from metatransformer.core.figures import Confusion, Lines, Scatter

INK, FAINT, LINE, SOFT = "#1c2430", "#5f6975", "#dfe3e8", "#f5f7f9"
BLUE, RED = "#2457a6", "#c0392b"
DPI = 180  # about twice the page's 96: sharp on dense screens
NUMBERED = 14  # classes up to which a confusion matrix has room for its counts
NAMED = 40  # and for the names of its classes


class Picture(NamedTuple):
    """A PNG as a ``data:`` address, and the width in pixels of the page at which it is shown."""

    address: str
    width: int


def learning_curves(history: Sequence[dict[str, Any]], *, metric: str, words: str, best: int) -> Picture:
    """Returns the course of a training: the loss and the validation score, called ``words``, by epoch.

    ``best`` is the position in ``history`` whose weights were kept.
    """
    figure = Figure(figsize=(8.4, 2.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [line["epoch"] for line in history]
    _curve(plain_axes(left, "training loss", "epoch"), epochs, history, key="train_loss", best=None)
    _curve(plain_axes(right, f"validation {words}", "epoch"), epochs, history, key=f"val_{metric}", best=best)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    return painted(figure)


def penalty_curve(history: Sequence[dict[str, Any]], *, metric: str, words: str, best: int) -> Picture:
    """Returns the score on samples not learned from by L2 penalty; ``best`` is the position of the kept head."""
    on = "val" if f"val_{metric}" in history[best] else "folds"
    title = f"validation {words}" if on == "val" else f"{words} over folds of train and val"
    figure = Figure(figsize=(5.4, 2.7), layout="constrained")
    axes = plain_axes(figure.add_subplot(), title, "L2 penalty of the head")
    _curve(axes, [line["l2"] for line in history], history, key=f"{on}_{metric}", best=best)
    axes.set_xscale("log")
    axes.minorticks_off()
    return painted(figure)


def picture_of(figure: Confusion | Scatter | Lines) -> Picture:
    """Returns a task's figure, painted."""
    match figure:
        case Confusion():
            return _confusion(figure)
        case Scatter():
            return _scatter(figure)
        case Lines():
            return _lines(figure)


def _confusion(confusion: Confusion) -> Picture:
    """Shades follow the share of the row: right answers blue, mistakes red and stronger, so that they can be seen."""
    counts, names = confusion.counts, confusion.names
    many = len(names)
    side = float(np.clip(1.7 + 0.34 * many, 3.2, 7.2))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(many, dtype=bool)[..., None]
    shades = np.where(right, colormaps["Blues"](0.15 + 0.75 * share), colormaps["Reds"](0.65 * share**0.5))
    shades[(counts == 0) & ~right[..., 0]] = to_rgba(SOFT)
    axes.imshow(shades)
    for edge in np.arange(many - 1) + 0.5 if many <= NAMED else ():
        axes.axhline(edge, color="white", linewidth=1)
        axes.axvline(edge, color="white", linewidth=1)
    axes.set_xlabel("predicted", color=FAINT, fontsize=8.5)
    axes.set_ylabel("true", color=FAINT, fontsize=8.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    short = [_short(name, 14) for name in names] if many <= NAMED else []
    cell = (side - 1) / many  # inches; a character of 8 points is about 0.08 wide
    turned = 90 if any(0.08 * len(name) > cell for name in short) else 0
    axes.set_xticks(range(len(short)), short, rotation=turned, parse_math=False)
    axes.set_yticks(range(len(short)), short, parse_math=False)
    if many <= NUMBERED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if row == column and share[row, column] > 0.4 else INK
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    return painted(figure)


def _scatter(scatter: Scatter) -> Picture:
    """Beside the points stands the diagonal on which perfect ones would lie."""
    truth, guess = scatter.truth, scatter.guess
    figure = Figure(figsize=(4.4, 4.4), layout="constrained")
    axes = plain_axes(figure.add_subplot(), "predicted", "true")
    low, high = float(min(truth.min(), guess.min())), float(max(truth.max(), guess.max()))
    axes.plot([low, high], [low, high], color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.plot(truth, guess, "o", color=BLUE, markersize=4, alpha=0.45, markeredgewidth=0)
    axes.set_aspect("equal", adjustable="datalim")
    return painted(figure)


def _lines(lines: Lines) -> Picture:
    figure = Figure(figsize=(5.4, 2.7), layout="constrained")
    axes = plain_axes(figure.add_subplot(), lines.up, lines.across)
    for number, (name, values) in enumerate(lines.values.items()):
        colour, style = (FAINT, (0, (4, 3))) if number else (BLUE, "-")
        axes.plot(range(1, len(values) + 1), values, color=colour, linestyle=style, linewidth=1.6, label=name)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.legend(frameon=False, fontsize=8)
    return painted(figure)


def sample_picture(draw: Any, sample: Any) -> tuple[Picture, str]:
    """Returns one sample as its modality paints it with ``draw(axes, sample)``, and what its axes show, in words.

    The words stand once below all samples: in a picture of this size they could not be read.
    """
    figure = Figure(figsize=(2.05, 1.75), layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(labelsize=6.5, labelcolor=INK, color=LINE, length=2)
    draw(axes, sample)
    labels = {"across": axes.get_xlabel(), "down": axes.get_ylabel()}
    axes.set(xlabel="", ylabel="", title="")
    return painted(figure), "; ".join(f"{where}: {label}" for where, label in labels.items() if label)


def stored_picture(path: Path) -> Picture:
    """Returns a PNG file as it is, shown at half its pixels and at most as wide as the page."""
    return picture_file(path.read_bytes())


def picture_file(data: bytes) -> Picture:
    """Returns the bytes of a PNG file as a picture, shown at half its pixels and at most as wide as the page."""
    width = int.from_bytes(data[16:20], "big")  # of the header chunk, which always comes first
    return Picture(f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}", width=min(width // 2, 860))


def plain_axes(axes: Axes, title: str, below: str) -> Axes:
    """Returns the axes with a quiet frame: a title at the left, two spines, horizontal lines."""
    axes.set_title(title, loc="left", fontsize=9.5, color=INK)
    axes.set_xlabel(below, fontsize=8.5, color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(labelsize=8, labelcolor=FAINT, color=LINE)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _curve(axes: Axes, x: Sequence[float], history: Sequence[dict[str, Any]], *, key: str, best: int | None) -> None:
    y = [line[key] for line in history]
    axes.plot(x, y, color=BLUE, linewidth=1.6, marker="o", markersize=3 if len(x) < 60 else 0)
    if best is None:
        return
    axes.margins(y=0.2)
    low, high = axes.get_ylim()
    if max(y) <= 1 < high:  # room for the words, but no such accuracy
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= 1])
    axes.plot(x[best], y[best], "o", color=RED, markersize=6)
    place = sorted(x).index(x[best]) / max(1, len(x) - 1)
    side = "left" if place < 0.2 else "right" if place > 0.8 else "center"
    axes.annotate(
        f"kept: {y[best]:.4g}",
        (x[best], y[best]),
        xytext=(0, 7),
        textcoords="offset points",
        ha=side,
        fontsize=8,
        color=RED,
    )


def painted(figure: Figure) -> Picture:
    """Returns the figure as PNG."""
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in a script that the built-in font lacks is shown as boxes; the page's text has it right.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="png", dpi=DPI, facecolor="white")
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(f"data:image/png;base64,{data}", width=round(96 * figure.get_figwidth()))


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
