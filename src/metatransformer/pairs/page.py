"""The report of what learned from pairs: figures beside chance, curves, held-out pictures with their nearest texts."""

import base64
import io
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from metatransformer.nn.near import nearest
from metatransformer.pairs.recall import first_of_each
from metatransformer.report.figures import BLUE, Picture, painted, plain_axes
from metatransformer.report.page import write_html

if TYPE_CHECKING:
    from metatransformer.pairs.batches import Reader
    from metatransformer.pairs.pretrain import Pretrainer
    from metatransformer.pairs.run import PairsRun

SHOWN, NEAREST = 12, 3
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
Sample = tuple[str, str, Sequence[tuple[str, str, bool]]]  # a picture, its text, the nearest texts


def write_page(
    run: "PairsRun",
    told: Mapping[str, Any],
    trainer: "Pretrainer",
    held: "Reader | None",
    *,
    fingerprint: Sequence[float],
    sha256: str,
) -> None:
    """Writes the report of a pretraining."""
    options, history = trainer.options, trainer.progress.history
    scores = [(name, f"{value:.4f}", _chance(told, name)) for name, value in told["metrics"].items() if _is_score(name)]
    facts = [
        ("pairs learned from", f"{told['pairs']:,}"),
        ("pairs held out", f"{told['held_out']:,}"),
        *((f"left out: {name}", f"{count:,}") for name, count in told["left_out"].items()),
        ("broken", f"{told['broken_beforehand'] + told['broken']:,}"),
        ("texts that were cut", f"{told['cut']:.2%}"),
        ("pairs seen", f"{options.steps * options.batch:,}"),
        ("vision tower", f"{sha256[:12]}; fingerprint {' '.join(f'{value:g}' for value in fingerprint)}"),
    ]
    settings = [(name, str(value)) for name, value in run.about()["settings"].items()]
    tables: list[Table] = [
        ("Held-out pairs", ("score", "value", "chance"), scores),
        ("Facts", ("what", "value"), facts),
        ("Settings", ("setting", "value"), settings),
    ]
    lead = (
        f"{options.preset}, {options.loss}, {told['steps']:,} steps of {options.batch:,} pairs from {told['pairs']:,}"
    )
    samples = [] if held is None else nearest_texts(trainer, held)
    write_pairs_page(run.path / "report.html", f"Pretraining: {run.path.name}", lead, tables, curves(history), samples)


def write_pairs_page(
    path: Path,
    title: str,
    lead: str,
    tables: Sequence[Table],
    pictures: Sequence[tuple[str, Picture]],
    samples: Sequence[Sample],
) -> None:
    """Writes a page of tables, curves and samples.

    Raises:
        DataError: the file cannot be written.
    """
    template = resources.files("metatransformer.pairs").joinpath("page.html").read_text(encoding="utf-8")
    values = {"title": title, "lead": lead, "tables": [table for table in tables if table[2]]}
    write_html(path, template, {**values, "curves": pictures, "samples": samples})


def _is_score(name: str) -> bool:
    return " R@" in name or name.endswith("accuracy")


def _chance(told: Mapping[str, Any], name: str) -> str:
    value = told.get("chance", {}).get(name)
    return "" if value is None else f"{value:.4f}"


def curves(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, Picture]]:
    """Returns the course of a training: loss, rate and speed by step, and each validation score."""
    found = []
    for title, names in (
        ("Training", ("loss", "lr", "scale", "pairs_per_second")),
        ("Validation", sorted({name for line in history for name in line if name.endswith(("R@1", "accuracy"))})),
    ):
        if not names:
            continue
        figure = Figure(figsize=(8.4, 2.5 * -(-len(names) // 2)), layout="constrained")
        axes = figure.subplots(-(-len(names) // 2), 2, squeeze=False).flatten()
        for own, name in zip(axes[: len(names)], names, strict=True):
            points = [(line["step"], line[name]) for line in history if name in line]
            plain_axes(own, name.replace("_", " "), "step").plot(*zip(*points, strict=True), color=BLUE, linewidth=1.4)
        for rest in axes[len(names) :]:
            rest.set_axis_off()
        found.append((title, painted(figure)))
    return found


@torch.no_grad()
def nearest_texts(trainer: "Pretrainer", held: "Reader") -> list[Sample]:
    """Returns some held-out pictures, evenly spaced, with the texts that are nearest to them."""
    left, right, labels = trainer.vectors(held)
    once = first_of_each(labels)
    rows = np.linspace(0, len(left) - 1, min(SHOWN, len(left))).round().astype(int).tolist()
    values, places = nearest(left[rows], right[once], count=NEAREST)
    found = []
    for row, cosines, near in zip(rows, values.tolist(), places.tolist(), strict=True):
        pixels, text = held.read(row, least=trainer.options.size)
        beside = [
            (held.read(int(once[place]), least=8)[1], f"{cosine:.2f}", bool(labels[once[place]] == labels[row]))
            for place, cosine in zip(near, cosines, strict=True)
        ]
        found.append((thumbnail(pixels), text, beside))
    return found


def thumbnail(pixels: np.ndarray, *, side: int = 128) -> str:
    """Returns a small PNG as a ``data:`` address."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    data = io.BytesIO()
    picture.save(data, format="png")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
