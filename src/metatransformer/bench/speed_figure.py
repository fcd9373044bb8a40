"""The picture of ``bench speed``: how many times faster each row was than what stands beside it."""

import io
import statistics
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metatransformer.report.figures import BLUE, INK, plain_axes

DPI = 110


def speed_figure(rows: Sequence[tuple[str, Sequence[float]]]) -> bytes:
    """Returns a PNG: for each row ``(name, ratios of its turns)`` a bar to the median, a line from least to most."""
    figure = Figure(figsize=(9.0, 0.9 + 0.34 * len(rows)), layout="constrained")
    axes = plain_axes(
        figure.add_subplot(), "times faster than what stands beside it", "median, least and most of turns"
    )
    places = range(len(rows), 0, -1)
    middles = [statistics.median(ratios) for _, ratios in rows]
    axes.barh(places, middles, color=BLUE, height=0.6)
    axes.hlines(places, [min(r) for _, r in rows], [max(r) for _, r in rows], color=INK, linewidth=1.2)
    for place, middle, (_, ratios) in zip(places, middles, rows, strict=True):
        axes.annotate(
            f"{middle:.2f}", (max(ratios), place), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(list(places), [name for name, _ in rows], fontsize=8)
    FigureCanvasAgg(figure)
    found = io.BytesIO()
    figure.savefig(found, format="png", dpi=DPI)
    return found.getvalue()
