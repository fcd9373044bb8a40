"""The report of a run: one HTML file that needs no network, no other file and no script.

It shows the score beside its controls, says in one computed sentence what the pretrained trunk brings, and lets a
person look: the course of the training, the confusions or the scatter, and samples with prediction and truth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from metatransformer.core.errors import DataError
from metatransformer.core.figures import Cards, Figure, Rows
from metatransformer.core.samples import SPLITS
from metatransformer.core.task import Task
from metatransformer.data.write import atomic_file
from metatransformer.fit.choose import rule
from metatransformer.fit.fitted import Fitted, refits, stays_untuned
from metatransformer.infer.explain import Explanation, explain
from metatransformer.machine.console import Console
from metatransformer.machine.versions import version_of
from metatransformer.recipe import to_yaml, tune_mode
from metatransformer.report import figures
from metatransformer.report.verdict import control_words, independent, margin, verdict
from metatransformer.trunk import KNOWN, Pretrained

SAMPLES = 12
BESIDE = 4  # samples that are shown beside each
INSIDE = 2  # wrong ones, and as many others, of which is shown what their answers rest on
TUNE = {
    "head": "trunk and tokenizer frozen, a head learned",
    "tokens": "trunk frozen, the tokenizer learned in front of it, then the head on what the trunk makes of the tokens",
    "ends": "trunk frozen, tokenizer and head learned",
    "norm": "tokenizer, head and the trunk's norms learned, the rest of the trunk frozen",
    "lora": "tokenizer, head and low-rank adapters in the trunk learned, the trunk itself frozen",
    "last": "tokenizer, head and the last blocks of the trunk learned, the others frozen",
    "all": "tokenizer, trunk and head learned",
}
BRINGS = ("alone", "without", "absent")  # what is told of each input
NONE: Mapping[str, Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True)
class Summary:
    """What stands before several reports: a table (``rows`` of cells below ``columns``), then ``findings`` (a name and
    a sentence each), then ``notes``, then commands, one a line.
    """

    title: str
    lead: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    findings: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    commands: str = ""


def write_report(
    fitted: Fitted,
    path: Path,
    *,
    controls: Mapping[str, Mapping[str, float]] = NONE,
    inside: Sequence[Explanation] = (),
) -> None:
    """Writes the report of one run; ``controls`` are the scores of ``run_controls`` on the same split, ``inside`` what
    some answers rest on (``explain_some``).

    The command to predict that it shows takes the folder of ``path`` for the run folder.

    Raises:
        DataError: the file cannot be written.
    """
    context = report_context(fitted, run=path.parent, controls=controls)
    context["inside"] = [_told(one) for one in inside]
    _write(path, {"kind": "report", "title": context["title"], "part": context})


def join_reports(reports: Sequence[Path], path: Path, *, summary: Summary) -> None:
    """Writes one file with a summary and the whole content of reports that ``write_report`` wrote.

    Raises:
        DataError: a report is missing or was not written by ``write_report``, or the file cannot be written.
    """
    parts = [Markup(_main(report)) for report in reports]
    _write(path, {"kind": "joined", "title": summary.title, "summary": summary, "parts": parts})


def report_context(fitted: Fitted, *, run: Path, controls: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Returns everything that the template shows, as texts, rows and pictures."""
    pipeline, task = fitted.pipeline, fitted.pipeline.task
    recipe, modalities = pipeline.recipe, [reader.modality for reader in pipeline.route.values()]
    source = modalities[0].source
    split = scored_split(fitted)
    new = "new.csv" if source.kind == "table" else f"new{next(iter(source.suffixes), '')}"
    named = " and ".join(modality.title or modality.name.capitalize() for modality in modalities)
    return {
        "run": run.name,
        "title": f"{named} {task.title}",
        "target": recipe.task.target,
        "counts": [(name, len(fitted.loaders[name])) for name in SPLITS if name in fitted.loaders],
        "extent": task.extent,
        **_scores(fitted, controls, split=split),
        "trunk": trunk_facts(pipeline.trunk),
        "tune": f"{recipe.tune}: {TUNE[tune_mode(recipe.tune)[0]]}",
        "parameters": _parameter_rows(fitted),
        "curve": _curve(fitted),
        "through": _through(fitted),
        "rule": _rule(fitted),
        "sections": _sections(fitted, split),
        "inputs": [(name, *(_number(row.get(key)) for key in BRINGS)) for name, row in fitted.outcome.inputs.items()],
        **_grid(fitted, split),
        "pictures": [figures.stored_picture(path) for path in sorted((run / "pictures" / split).glob("*.png"))],
        "recipe": to_yaml(recipe),
        "command": f"metatransformer predict {run} {new} --out predictions.csv",
        "date": datetime.now(UTC).strftime("%d %B %Y").lstrip("0"),
        "versions": [(name, version_of(name)) for name in ("metatransformer", "torch", "numpy", "scikit-learn")],
    }


def explain_some(fitted: Fitted, *, console: Console) -> list[Explanation]:
    """Returns what answers to a few of the report's samples rest on, wrong ones first; none of a task or a modality
    that has no places.
    """
    pipeline, split = fitted.pipeline, scored_split(fitted)
    task, examples = pipeline.task, fitted.loaders[split].examples
    targets = examples.targets[pipeline.task_name]
    told = task.cards(task.answers(fitted.outputs[split], keys=examples.keys, targets=targets), targets)
    if told is None or task.kit or any(reader.modality.inside is None for reader in pipeline.route.values()):
        return []
    places = choose_samples(told)
    some = [[i for i, marked in places if marked is wanted][:INSIDE] for wanted in (True, False)]
    return list(explain(pipeline, examples.take(np.array([*some[0], *some[1]])), console=console))


def _told(one: Explanation) -> dict[str, Any]:
    """Returns the picture of an explanation, and in words what it shows."""
    top = one.table().head(3)
    most = ", ".join(f"{name} ({value:+.2g})" for name, value in zip(top["place"], top["value"], strict=True))
    told = {"key": one.key, "answer": one.answer, "most": most, "unit": one.unit}
    return {"picture": figures.picture_file(one.png()), **told}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def scored_split(fitted: Fitted) -> str:
    """Returns the split whose scores are shown: test where it has targets, else val."""
    return "test" if "test" in fitted.metrics else "val"


def trunk_facts(trunk: Pretrained) -> list[tuple[str, str]]:
    """Returns what a trunk is, as pairs of label and text."""
    config = trunk.encoder.config
    parameters = sum(p.numel() for p in trunk.encoder.parameters())
    shape = f"{config.width} wide, {config.depth} blocks, {config.heads} heads, {parameters:,} parameters"
    checked = "answers as the known file does" if trunk.verified else "no known file to compare with"
    about = KNOWN[trunk.name].summary if trunk.name in KNOWN else trunk.note
    facts = [("trunk", trunk.name), ("what it is", about), ("shape", shape), ("licence", trunk.licence)]
    return [*facts, ("sha256", f"{trunk.sha256[:16]}…, {checked}")]


def _scores(fitted: Fitted, controls: Mapping[str, Mapping[str, float]], *, split: str) -> dict[str, Any]:
    task, recipe = fitted.pipeline.task, fitted.pipeline.recipe
    scores, loader = fitted.metrics[split], fitted.loaders[split]
    assert loader.target is not None
    sure = independent(task, fitted.outputs[split], loader.target, groups=loader.examples.groups)
    encoder = fitted.pipeline.trunk.name
    frozen = recipe.tune in ("head", "tokens", "ends")
    return {
        "metric": task.words(task.primary),
        "higher": task.higher_is_better,
        "split": split,
        "samples": len(loader),
        "score": _short_figure(scores[task.primary]),
        "margin": _own_margin(task, scores[task.primary], samples=sure, of=len(loader)),
        "verdict": verdict(task, scores, controls, samples=sure, encoder=encoder, frozen=frozen),
        "bars": _bars(task, scores, controls),
        "metrics": [task.words(name) for name in scores],
        "refit": refits(fitted.pipeline),
        "rows": _metric_rows(fitted, controls, split=split),
    }


def _own_margin(task: Task, score: float, *, samples: int, of: int) -> str:
    """Returns two standard errors of one score, empty where there is no formula."""
    both = margin(task.scores[task.primary], score, score, samples=samples)
    if both is None:
        return ""
    return f"± {both / 2**0.5:.3f}" + (f", as of {samples:,} independent answers" if samples < of else "")


def _bars(task: Task, scores: Mapping[str, float], controls: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Returns one bar for the model and each control; a bar's length is its share of the longest, at least of 1."""
    values = {"this model": scores[task.primary]}
    values |= {control_words(name, task): control[task.primary] for name, control in controls.items()}
    longest = max(values.values(), default=0)
    longest = max(longest, 1.0) if task.higher_is_better else longest
    bars = []
    for name, value in values.items():
        share = 100 * max(value, 0) / (longest or 1)
        bars.append({"name": name, "score": _short_figure(value), "share": f"{share:.1f}", "own": not bars})
    return bars


def _metric_rows(
    fitted: Fitted, controls: Mapping[str, Mapping[str, float]], *, split: str
) -> list[tuple[str, list[str]]]:
    names = list(fitted.metrics[split])
    lines: list[tuple[str, Mapping[str, float]]] = [
        (f"this model, {part}", scores) for part, scores in fitted.metrics.items()
    ]
    lines += [(f"{control_words(name, fitted.pipeline.task)}, {split}", scores) for name, scores in controls.items()]
    return [(label, [_figure(scores.get(name)) for name in names]) for label, scores in lines]


def _parameter_rows(fitted: Fitted) -> list[tuple[str, str, str]]:
    counts = fitted.pipeline.model.parameter_counts()
    return [(part, f"{n['trainable']:,}", f"{n['total']:,}") for part, n in counts.items()]


def _figure(value: float | None, *, digits: int = 4) -> str:
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:.5g}"


def _short_figure(value: float) -> str:
    return _figure(value, digits=3)


def _curve(fitted: Fitted) -> figures.Picture | None:
    """Returns the picture of the training, None when nothing was trained."""
    task, history = fitted.pipeline.task, fitted.history
    if fitted.kept is None:
        return None
    kept, words = history[fitted.kept], task.words(task.primary)
    if "l2" not in kept and "epoch" not in kept:
        return None  # of several heads, each with a path of its own
    if "l2" in kept:
        path = [line for line in history if all(line.get(key) == kept.get(key) for key in ("reads", "gamma"))]
        return figures.penalty_curve(path, metric=task.primary, words=words, best=path.index(kept))
    return figures.learning_curves(history, metric=task.primary, words=words, best=fitted.kept)


def _through(fitted: Fitted) -> str:
    """Returns what a training through a solved head came to, empty where there was none."""
    if not fitted.pipeline.head.solved or fitted.kept is None or "epoch" not in fitted.history[fitted.kept]:
        return ""
    place = ", on the tokens in front of the trunk" if fitted.pipeline.recipe.tune == "tokens" else ""
    course = f"The curve shows the small linear head that was used during training{place}; epoch 0 is before training."
    if not stays_untuned(fitted):
        return f"{course} The full head was then fitted on the tuned features, which score better on val."
    return f"{course} Tuning did not make the full head better on val, so the untuned model was kept."


def _rule(fitted: Fitted) -> str:
    """Returns which head or epoch is kept, and which one it was; empty where nothing was chosen."""
    if fitted.kept is None:
        return ""
    line = fitted.history[fitted.kept]
    names = ("epoch",) if "epoch" in line else ("l2", "gamma")
    which = ", ".join(f"{name} {line[name]:g}" for name in names if name in line)
    words = rule(fitted.pipeline.task, what="epochs" if "epoch" in line else "heads")
    return f"{words[0].upper()}{words[1:]}{f': {which}' if which else ''}."


def _sections(fitted: Fitted, split: str) -> list[dict[str, Any]]:
    """Returns what the task shows of its answers: titles, and pictures, tables and paragraphs below them."""
    target = fitted.loaders[split].target
    assert target is not None
    sections = fitted.pipeline.task.figures(fitted.outputs[split], target)
    return [{"title": one.title, "parts": [_part(part) for part in one.parts]} for one in sections]


def _part(part: Figure | str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    if isinstance(part, Rows):
        return {"columns": part.columns, "rows": [[_cell(cell) for cell in row] for row in part.rows]}
    return {"picture": figures.picture_of(part)}


def _cell(cell: str | int | float) -> str:
    return _short_figure(cell) if isinstance(cell, float) else str(cell)


def _grid(fitted: Fitted, split: str) -> dict[str, Any]:
    """Returns the cards of the chosen samples, and what the axes of their pictures show."""
    task, loader = fitted.pipeline.task, fitted.loaders[split]
    keys, targets = loader.examples.keys, loader.examples.targets[fitted.pipeline.task_name]
    told = task.cards(task.answers(fitted.outputs[split], keys=keys, targets=targets), targets)
    if told is None:
        return {"grid": [], "axes": "", "worst": ""}
    cards, axes, places = [], "", {key: place for place, key in enumerate(keys)} if told.beside else {}
    for i, wrong in choose_samples(told):
        picture, axes = _picture(fitted, split, i)
        card = {"picture": picture, "key": keys[i], "wrong": wrong, "guess": told.guesses[i], "truth": told.truths[i]}
        card["sure"] = "" if told.sure is None else f", {100 * told.sure[i]:.0f} %"
        near = told.beside[i][:BESIDE] if told.beside else ()
        card["beside"] = [(_picture(fitted, split, places[one.key])[0], one) for one in near]
        cards.append(card)
    return {"grid": cards, "axes": axes, "worst": told.worst}


def _picture(fitted: Fitted, split: str, place: int) -> tuple[figures.Picture, str]:
    """Returns a sample's picture and what its axes show; of several inputs that of the first one that it has."""
    views = fitted.loaders[split].sample(place).views.items()
    name, view = next((name, view) for name, view in views if view is not None)
    return figures.sample_picture(fitted.pipeline.route[name].modality.draw, view)


def choose_samples(told: Cards) -> list[tuple[int, bool]]:
    """Returns up to 12 places, each with whether it is marked: up to half of them the worst, then others.

    The others are spread evenly over all that is not wrong or, where answers are only more or less off, not marked.
    """
    asked = np.ones(len(told.badness), dtype=bool) if told.asked is None else told.asked
    order = np.argsort(-told.badness, kind="stable")
    worst = order[asked[order]][: SAMPLES // 2]
    if told.wrong is None:
        rest = np.setdiff1d(np.flatnonzero(asked), worst)
    else:
        worst, rest = worst[told.wrong[worst]], np.flatnonzero(~told.wrong & asked)
    count = min(SAMPLES - len(worst), len(rest))
    spread = rest[np.linspace(0, len(rest) - 1, count).round().astype(int)] if count else rest
    return [(int(i), True) for i in worst] + [(int(i), False) for i in spread]


def _main(report: Path) -> str:
    """Returns the content of a report's ``main`` element."""
    text = report.read_text(encoding="utf-8") if report.is_file() else ""
    _, start, rest = text.partition("<main>")
    content, end, _ = rest.rpartition("</main>")
    if not start or not end:
        raise DataError(report, must="be a report of a run", found="none" if not text else "another file")
    return content


def _write(path: Path, values: Mapping[str, Any]) -> None:
    files = resources.files("metatransformer.report")
    write_html(path, files.joinpath("page.html").read_text(encoding="utf-8"), values)


def write_html(path: Path, template: str, values: Mapping[str, Any]) -> None:
    """Writes a page from a jinja template, to which ``style`` is what reports look like."""
    css = resources.files("metatransformer.report").joinpath("page.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string(template).render({**values, "style": Markup(css)})
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
