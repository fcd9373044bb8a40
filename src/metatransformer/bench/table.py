"""The table of results as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = {
    "ours": "ours",
    "constant": "majority / mean",
    "baseline": "plain baseline",
    "identity": "no trunk",
    "random": "random trunk",
}


def markdown(rows: Sequence[Mapping[str, Any]], *, machine: Mapping[str, Any]) -> str:
    """Returns one line for each data set and metric; the mean over folds, with the range where there are several."""
    head = ["data", "metric", *COLUMNS.values(), "trunk gain", "trainable (tokenizer / trunk / head)", "minutes"]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for row in rows:
        for metric in row["mean"]["ours"]:
            lines.append(" | ".join(_cells(row, metric)))
    versions = ", ".join(f"{key} {value}" for key, value in machine.items())
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{versions}\n"


def _cells(row: Mapping[str, Any], metric: str) -> list[str]:
    scores = [_figure(row, name, metric) for name in COLUMNS]
    gain = "-"
    if "random" in row["mean"]:
        gain = f"{row['mean']['ours'][metric] - row['mean']['random'][metric]:+.3f}"
    counts = " / ".join(f"{part['trainable']:,}" for part in row["parameters"].values())
    return [row["summary"], metric, *scores, gain, counts, f"{row['seconds'] / 60:.1f}"]


def _figure(row: Mapping[str, Any], name: str, metric: str) -> str:
    if name not in row["mean"]:
        return "-"
    values = [fold["scores"][name][metric] for fold in row["folds"]]
    text = f"{row['mean'][name][metric]:.3f}"
    return text if len(values) == 1 else f"{text} ({min(values):.3f}..{max(values):.3f})"
