"""Demo: the main job on real data that scikit-learn carries, as files on disk, beside every control.

Handwritten digits become PNG files in one folder per class, the breast-cancer table becomes CSV files. Each then goes
the way of ``metatransformer fit --controls``, by the same functions. Sizes are chosen so that two cores need less than
four minutes; what was left out is said. The same call on the same folder continues, or shows the table again at once.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.samples import SPLITS
from metatransformer.data.write import write_json
from metatransformer.fit.fit import fit
from metatransformer.fit.fitted import Fitted
from metatransformer.infer.sources import prepared, read_index
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.recipe import Recipe, make_recipe
from metatransformer.report.controls import CONTROLS, run_controls
from metatransformer.report.page import Summary, join_reports, trunk_facts, write_report
from metatransformer.report.verdict import verdict
from metatransformer.trunk import Pretrained, load_encoder

FORMAT = 1
SEED = 0
# Line breaks where a table on a terminal of 80 characters needs them.
COLUMNS = ("data set", "ours", "majority", "plain\nbaseline", "random\ntrunk", "no\ntrunk", "learned\nparams", "s")

Write = Callable[[Path, tuple[int, int, int]], None]


@dataclass(frozen=True)
class Plan:
    """One data set of the demo: how it is written, how many samples each split gets, and what the recipe changes.

    ``total`` is how many ``items`` the published set has.
    ``read`` lists the trunk's blocks that the head reads; those behind a smaller trunk's last one are left out.
    """

    name: str
    modality: str
    write: Write
    counts: tuple[int, int, int]
    read: tuple[int, ...]
    overrides: Mapping[str, Any]
    total: int
    items: str
    target: str = ""


def write_digits(folder: Path, counts: tuple[int, int, int]) -> None:
    """Writes ``split/class/NNNN.png``, 8 x 8 grey pixels; the number is the sample's place in scikit-learn's set."""
    digits: Any = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)  # 0..16 as published
    for split, places in _places(digits.target, counts).items():
        for place in places:
            path = folder / split / str(digits.target[place]) / f"{place:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[place]).save(path)


def write_breast_cancer(folder: Path, counts: tuple[int, int, int]) -> None:
    """Writes ``train.csv``, ``val.csv`` and ``test.csv`` with 30 measurements and the column ``diagnosis``."""
    table: Any = load_breast_cancer(as_frame=True)
    frame = table.data.assign(diagnosis=pd.Series(table.target_names[table.target], index=table.data.index))
    folder.mkdir(parents=True)
    for split, places in _places(table.target.to_numpy(), counts).items():
        frame.iloc[places].to_csv(folder / f"{split}.csv", index=False)


def _places(target: np.ndarray, counts: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Returns sorted row numbers for each split: seeded, stratified, disjoint."""
    left, places = np.arange(len(target)), {}
    for split, count in zip(SPLITS, counts, strict=True):
        if count == len(left):
            chosen, left = left, left[:0]
        else:
            chosen, left = train_test_split(left, train_size=count, stratify=target[left], random_state=SEED)
        places[split] = np.sort(chosen)
    return places


PLANS = (
    Plan(
        name="digits",
        modality="image",
        write=write_digits,
        counts=(500, 125, 400),
        read=(4, 8),
        overrides={"head.pool": "both", "input.mirrored": False},
        total=1797,
        items="digits",
    ),
    Plan(
        name="breast_cancer",
        modality="tabular",
        write=write_breast_cancer,
        counts=(313, 86, 170),
        read=(4,),
        overrides={"optim.epochs": 6, "data.batch_size": 32},
        total=569,
        items="patients",
        target="diagnosis",
    ),
)


def run_demo(out: Path, *, encoder: str, console: Console, plans: Sequence[Plan] = PLANS) -> dict[str, Any]:
    """Runs or continues the demo in the folder ``out`` and returns its figures.

    Raises:
        UsageError: ``out`` holds other files, or a demo with another encoder.
        WeightsError: the encoder cannot be had.
    """
    results = _open(out, encoder=encoder)
    trunk = load_encoder(encoder)
    for plan in plans:
        if plan.name in results:
            console.note(f"{plan.name}: done before, in {out / plan.name}")
            continue
        results[plan.name] = _run(plan, out, trunk=trunk, console=console)
        _save(out, encoder=encoder, results=results)
    summary = _summary(plans, results, out=out, trunk=trunk)
    join_reports([out / plan.name / "report.html" for plan in plans], out / "report.html", summary=summary)
    console.table(f"accuracy on test samples, trunk '{encoder}'", list(summary.columns), summary.rows)
    for text in (*(f"{name}: {text}" for name, text in summary.findings), *summary.notes):
        console.note(text)
    console.note(f"\nreport: {out / 'report.html'}\n\ntry next:\n{summary.commands}")
    return {"out": str(out), "report": str(out / "report.html"), "encoder": encoder, "results": results}


def _open(out: Path, *, encoder: str) -> dict[str, Any]:
    """Returns the results that an earlier call left in ``out``, after it was made or found to be a demo's folder."""
    path = out / "demo.json"
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        _save(out, encoder=encoder, results={})
        return {}
    if not path.is_file():
        found = "other files in it" if out.is_dir() else "a file"
        raise UsageError(f"--out {out}", must="be a new or empty folder", found=found, do="Name another.")
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(path, must="be the demo's own file", found=str(error), do="Name another folder.") from error
    if state.get("format") != FORMAT or state.get("encoder") != encoder:
        raise UsageError(
            f"--out {out}",
            must=f"hold a demo with the encoder '{encoder}'",
            found=f"one with '{state.get('encoder')}'",
            do="Name another folder.",
        )
    return state["results"]


def _save(out: Path, *, encoder: str, results: Mapping[str, Any]) -> None:
    write_json(out / "demo.json", {"format": FORMAT, "encoder": encoder, "results": results})


def _run(plan: Plan, out: Path, *, trunk: Pretrained, console: Console) -> dict[str, Any]:
    """Writes the data, fits, runs the controls, writes the report and returns the figures."""
    console.note(f"\n{plan.name}: {plan.modality}, train / val / test {' / '.join(map(str, plan.counts))}")
    start = time.monotonic()
    data, run = out / "data" / plan.name, out / plan.name
    _write_data(plan, data)
    recipe = _recipe(plan, trunk)
    modality = get_modality(plan.modality)
    index = read_index(
        modality, data, options=recipe.input, target=plan.target, labelled=True, header=recipe.data.header
    )
    examples, recipe = prepared(index, recipe, console=console)
    # A run that ended without its controls is done again: only a whole result is kept.
    fitted = fit(examples, recipe, out=run, overwrite=_is_done(run), console=console)
    controls = run_controls(fitted, CONTROLS, split="test", console=console)
    write_report(fitted, run / "report.html", controls=controls)
    return _figures(fitted, controls, seconds=time.monotonic() - start)


def _write_data(plan: Plan, folder: Path) -> None:
    """Writes the data set beside its place and moves it there when it is complete."""
    if folder.is_dir():
        return
    unfinished = folder.with_name(f".{folder.name}-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    plan.write(unfinished / "data", plan.counts)
    (unfinished / "data").rename(folder)
    unfinished.rmdir()


def _recipe(plan: Plan, trunk: Pretrained) -> Recipe:
    read = [block for block in plan.read if block <= trunk.encoder.config.depth] or [-1]
    given = {"encoder": trunk.name, "task.target": plan.target, "head.read": read, **plan.overrides}
    return make_recipe(plan.modality, base={}, overrides=given)


def _is_done(run: Path) -> bool:
    about = run / "run.json"
    return about.is_file() and json.loads(about.read_text(encoding="utf-8"))["status"] == "done"


def _figures(fitted: Fitted, controls: Mapping[str, Mapping[str, float]], *, seconds: float) -> dict[str, Any]:
    pipeline, target = fitted.pipeline, fitted.loaders["test"].target
    assert target is not None
    counts = pipeline.model.parameter_counts()
    says = verdict(
        pipeline.task,
        fitted.metrics["test"],
        controls,
        samples=pipeline.task.independent(target),
        encoder=pipeline.trunk.name,
        frozen=True,
    )
    return {
        "metric": pipeline.task.primary,
        "metrics": fitted.metrics,
        "controls": {name: dict(scores) for name, scores in controls.items()},
        "trainable": sum(part["trainable"] for part in counts.values()),
        "seconds": round(seconds, 1),
        "says": says,
        "read": list(pipeline.head.readout.blocks),
    }


def _summary(plans: Sequence[Plan], results: Mapping[str, Any], *, out: Path, trunk: Pretrained) -> Summary:
    rows = []
    for plan in plans:
        result = results[plan.name]
        metric = result["metric"]
        scores = [result["metrics"]["test"], *(result["controls"][name] for name in CONTROLS)]
        figures = [f"{score[metric]:.3f}" for score in scores]
        rows.append((_title(plan), *figures, f"{result['trainable']:,}", f"{result['seconds']:.0f}"))
    about = dict(trunk_facts(trunk))
    return Summary(
        title="Two kinds of data, one frozen transformer",
        lead=f"Trunk {trunk.name}: {about['what it is']}; {about['shape']}. Only tokenizer and head learn.",
        columns=COLUMNS,
        rows=rows,
        findings=[(_title(plan), results[plan.name]["says"]) for plan in plans],
        notes=[_reduced(plan, results[plan.name]["read"], depth=trunk.encoder.config.depth) for plan in plans],
        commands=_next_commands(out, encoder=trunk.name),
    )


def _reduced(plan: Plan, read: Sequence[int], *, depth: int) -> str:
    """Returns what was made smaller so that the demo is quick."""
    used = f"{sum(plan.counts):,} of {plan.total:,} {plan.items}"
    epochs = f", {plan.overrides['optim.epochs']} epochs" if "optim.epochs" in plan.overrides else ""
    blocks = (
        f"{len(read)} of the trunk's {depth} blocks" if len(read) > 1 else f"block {read[0]} of the trunk's {depth}"
    )
    behind = "" if max(read) == depth else f", and those behind block {max(read)} are not computed"
    return f"To be quick, {_title(plan)}: {used}{epochs}; the head reads {blocks}{behind}."


def _title(plan: Plan) -> str:
    return plan.name.replace("_", " ")


def _next_commands(out: Path, *, encoder: str) -> str:
    return "\n".join(
        [
            f"metatransformer predict {out}/digits {out}/data/digits/test --out predictions.csv",
            f"metatransformer evaluate {out}/breast_cancer {out}/data/breast_cancer/test.csv",
            f"metatransformer embed {out}/data/digits/test --modality image --encoder {encoder} --out vectors.parquet",
            f"metatransformer fit PHOTOS/ --modality image --encoder {encoder} --out run --controls",
        ]
    )
