"""The page of a model: what it is, what it learned from, how well it does beside its controls, whose its trunk is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metatransformer.fit.run import source_of
from metatransformer.pipeline import Pipeline
from metatransformer.saved import read_description, saved_model
from metatransformer.trunk.catalog import KNOWN

TAGS = {"timeseries": "time-series", "xray": "x-ray", "pointcloud": "point-cloud"}
WIDELY = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "bsd-3-clause")  # names of licences that the Hub knows


@dataclass(frozen=True)
class Facts:
    """What is told of a model. ``data`` is the name of its data, without a path; ``scores`` are of ``split``, by task
    those of the model and of its controls.
    """

    modalities: tuple[str, ...]
    tasks: Mapping[str, str]
    data: str
    split: str
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]
    primary: Mapping[str, str]
    trunk: Mapping[str, str]


def facts_of(pipeline: Pipeline, run: Path) -> Facts:
    """Returns what is known of the model of a run."""
    model = saved_model(run)
    place, split, scores = model.parent if model.name == "model" else model, "", {}
    metrics = read_description(model).get("metrics", {})
    for name in pipeline.tasks:
        own = metrics.get(name, metrics)
        split = next((part for part in ("test", "val") if isinstance(own.get(part), dict)), "")
        suffix = f"-{name}" if len(pipeline.recipe.tasks) > 1 else ""
        controls = _read(place / f"controls{suffix}.json").get("controls", {})
        found = {"this model": own[split]} if split else {}
        scores[name] = found | {title: one for title, one in controls.items() if isinstance(one, dict)}
    source = source_of(run)
    trunk = pipeline.trunk
    known = trunk.name in KNOWN
    return Facts(
        modalities=tuple(dict.fromkeys(reader.modality.name for reader in pipeline.route.values())),
        tasks={name: task.name for name, task in pipeline.tasks.items()},
        data=Path(source).name if source else "",
        split=split,
        scores=scores,
        primary={name: task.primary for name, task in pipeline.tasks.items()},
        trunk={
            "name": Path(trunk.name).name,
            "licence": trunk.licence,
            "sha256": trunk.sha256[:16],
            "source": "; ".join(one.address for one in KNOWN[trunk.name].sources) if known else "a file of its trainer",
        },
    )


def _read(path: Path) -> dict[str, Any]:
    """Returns a JSON file of a run, empty where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def card_of(facts: Facts, *, told: str) -> str:
    """Returns the page in Markdown, with the Hub's header; ``told`` says how to load it."""
    licence = facts.trunk["licence"].lower()
    tags = ["metatransformer", *(TAGS.get(name, name) for name in facts.modalities), *facts.tasks.values()]
    lines = ["---", "library_name: metatransformer", f"license: {licence if licence in WIDELY else 'other'}", "tags:"]
    lines += [f"- {tag}" for tag in dict.fromkeys(tags)] + ["---", ""]
    learned = ", ".join(f"{kind} ({name})" if name != kind else kind for name, kind in facts.tasks.items())
    lines += [f"# {' and '.join(facts.modalities)}: {learned}", ""]
    lines += ["A head of [metatransformer] on a frozen transformer, learned from "]
    lines[-1] += f"`{facts.data}` (not included)." if facts.data else "data that is not named here."
    lines += ["", *_score_lines(facts), told, "## Trunk and licence", ""]
    lines += [
        f"Trunk: `{facts.trunk['name']}` (SHA-256 {facts.trunk['sha256']}...), from {facts.trunk['source']}.",
        f"Licence of the trunk: {facts.trunk['licence'] or 'not stated'}. The head is a work of whoever trained it, "
        "on data with terms of its own.",
        "",
    ]
    return "\n".join(lines)


def _score_lines(facts: Facts) -> list[str]:
    lines: list[str] = []
    for name, rows in facts.scores.items():
        if not rows:
            continue
        metrics = [key for key, value in next(iter(rows.values())).items() if isinstance(value, int | float)]
        primary = facts.primary[name]
        metrics = [primary, *(key for key in metrics if key != primary)][:5] if primary in metrics else metrics[:5]
        title = f" of {name}" if len(facts.scores) > 1 else ""
        lines += [f"## Scores{title} (split: {facts.split})", "", f"| | {' | '.join(metrics)} |"]
        lines.append(f"| --- |{' --- |' * len(metrics)}")
        for row, values in rows.items():
            cells = [f"{values[key]:.4f}" if isinstance(values.get(key), int | float) else "-" for key in metrics]
            lines.append(f"| {row} | {' | '.join(cells)} |")
        if len(rows) == 1:
            lines += ["", "No controls were run (`fit --controls`)."]
        lines.append("")
    return lines
