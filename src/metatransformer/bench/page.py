"""The results as one page: scores with ranges, the trunk's gain, score against trainable parameters."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from metatransformer.bench.table import COLUMNS, RANGES, cells, complete, head
from metatransformer.bench.verdicts import FEW, HEAD, compared, verdicts
from metatransformer.report.figures import BLUE, FAINT, INK, LINE, RED, Picture, painted, plain_axes
from metatransformer.report.page import write_html
from metatransformer.tasks import known_score

COLOURS = {
    "pretrained": BLUE,
    "random": "#e08a1e",
    "identity": "#8a63b8",
    "baseline": "#7b8794",
    "strong": INK,
    "constant": "#c9d0d8",
}


def write_page(results: Mapping[str, Any], path: Path) -> None:
    """Writes the page; rows without figures are only named."""
    rows = complete(results["rows"])
    template = resources.files("metatransformer.bench").joinpath("page.html").read_text(encoding="utf-8")
    values = {
        "encoder": results["encoder"],
        "quick": results["quick"],
        "about": ", ".join(f"{key} {value}" for key, value in results["machine"].items() if value),
        "dots": _dots(rows) if rows else Picture("", 0),
        "gains": _gains(rows),
        "costs": _costs(rows),
        "ranges": RANGES,
        "verdict_columns": HEAD,
        "verdicts": verdicts(rows),
        "columns": head(),
        "rows": [cells(row, metric) for row in rows for metric in row["metrics"]],
        "noted": [row for row in rows if row["words"]],
        "missing": [row for row in results["rows"] if row["status"] != "done"],
        "command": results["command"],
    }
    write_html(path, template, values)


def _dots(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Returns one line a row with a dot for each model, worse at the left."""
    figure = Figure(figsize=(8.6, 0.62 * len(rows) + 1.1), layout="constrained")
    for place, (axes, row) in enumerate(zip(_stack(figure, len(rows)), rows, strict=True)):
        metric = row["metrics"][0]
        for name, colour in COLOURS.items():
            score = row["scores"].get(name, {}).get(metric)
            if score is None:
                continue
            ours = name == "pretrained"
            axes.plot([score["low"], score["high"]], [0, 0], color=colour, linewidth=2.5, alpha=0.5, zorder=2 + ours)
            label = COLUMNS[name] if place == 0 else None
            axes.plot(score["mean"], 0, "o", color=colour, markersize=9 if ours else 7, zorder=3 + ours, label=label)
        if not known_score(metric).higher:
            axes.invert_xaxis()
        axes.set_ylabel(f"{row['name']}\n{metric}", rotation=0, ha="right", va="center", fontsize=8.5, color=INK)
        axes.set_yticks([])
    figure.legend(loc="outside upper left", ncols=len(COLOURS), fontsize=8, frameon=False)
    return painted(figure)


def _stack(figure: Figure, count: int) -> list[Any]:
    axes = figure.subplots(count, 1, squeeze=False)[:, 0]
    for one in axes:
        one.spines[["top", "right", "left"]].set_visible(False)
        one.spines["bottom"].set_color(LINE)
        one.tick_params(labelsize=7.5, labelcolor=FAINT, color=LINE)
        one.margins(x=0.06)
    return list(axes)


def _gains(rows: Sequence[Mapping[str, Any]]) -> Picture | None:
    known = [(row, row["gains"]["random"][row["metrics"][0]]) for row in rows if "random" in row["gains"]]
    if not known:
        return None
    figure = Figure(figsize=(8.6, 0.3 * len(known) + 1.0), layout="constrained")
    axes = plain_axes(figure.add_subplot(), "", "gain on the row's metric")
    axes.grid(visible=False)
    for place, (row, gain) in enumerate(known):
        clear = compared(row, "random") if row["trunks"] >= FEW else "level"
        colour = {"better": BLUE, "worse": RED}.get(clear, FAINT)
        axes.barh(place, gain["mean"], color=colour, height=0.62)
        axes.plot([gain["low"], gain["high"]], [place, place], color=INK, linewidth=1.2)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(known)), [f"{row['name']}, {row['metrics'][0]}" for row, _ in known])
    axes.invert_yaxis()
    return painted(figure)


def _costs(rows: Sequence[Mapping[str, Any]]) -> Picture | None:
    several = [row for row in rows if any(name.startswith("tune:") for name in row["scores"])]
    if not several:
        return None
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    axes = plain_axes(figure.add_subplot(), "", "trainable parameters")
    for row in several:
        metric, points = row["metrics"][0], []
        for name in row["parameters"]:
            mode = row["tune"] if name == "pretrained" else name.removeprefix("tune:")
            if (name == "pretrained" or name.startswith("tune:")) and metric in row["scores"][name]:
                count = sum(part["trainable"] for part in row["parameters"][name].values())
                points.append((count, row["scores"][name][metric]["mean"], mode))
        points.sort()
        x, y, _ = zip(*points, strict=True)
        (line,) = axes.plot(x, y, "o-", label=f"{row['name']}, {metric}")
        for number, (count, score, mode) in enumerate(points):
            # Above and below in turn: modes of nearly as many parameters stand side by side.
            place: dict[str, Any] = {"xytext": (4, -11 if number % 2 else 4), "textcoords": "offset points"}
            axes.annotate(mode, (count, score), fontsize=7.5, color=line.get_color(), **place)
    axes.set_xscale("log")
    axes.margins(y=0.12)
    axes.legend(fontsize=8, frameon=False)
    return painted(figure)
