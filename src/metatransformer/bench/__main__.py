"""``python -m metatransformer.bench --data DIR --out DIR``: the default recipes on real data, with their controls.

Every row is written when it is done, and rows that are done are skipped, so an interrupted call continues.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

from metatransformer.bench.datasets import DATA_SETS, DataSet, Fold
from metatransformer.bench.table import markdown
from metatransformer.core.errors import MetaTransformerError, UsageError, nearest
from metatransformer.engine.console import Console
from metatransformer.engine.controls import CONTROLS, run_controls
from metatransformer.engine.fit import fit
from metatransformer.engine.run import about_machine
from metatransformer.engine.sources import split_index
from metatransformer.io.index import Index
from metatransformer.io.write import atomic_file, write_json
from metatransformer.modalities import get_modality
from metatransformer.recipe import Recipe, make_recipe, to_dict


def main() -> int:
    """Runs the rows that are asked for and writes ``results.json`` and ``results.md``."""
    parser = argparse.ArgumentParser(prog="python -m metatransformer.bench", description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="the folder that holds the data sets")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--only", nargs="+", default=list(DATA_SETS), metavar="NAME")
    parser.add_argument("--encoder", default="focus-s14")
    parser.add_argument("--controls", nargs="*", default=list(CONTROLS), help="default: all")
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="recipe overrides")
    options = parser.parse_args()
    console = Console()
    try:
        for name in options.only:
            if name not in DATA_SETS:
                known = nearest(name, DATA_SETS)
                raise UsageError("--only", must="name data sets", found=name, do=known)
            _row(DATA_SETS[name], options, console)
    except MetaTransformerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = [json.loads(path.read_text()) for path in sorted(options.out.glob("row-*.json"))]
    write_json(options.out / "results.json", {"machine": about_machine(), "rows": rows})
    text = markdown(rows, machine=about_machine())
    with atomic_file(options.out / "results.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text, file=sys.stderr)
    print(json.dumps({"out": str(options.out), "rows": len(rows)}))
    return 0


def _row(data_set: DataSet, options: argparse.Namespace, console: Console) -> None:
    path = options.out / f"row-{data_set.name}.json"
    if path.is_file():
        console.note(f"{data_set.name}: done already")
        return
    modality = get_modality(data_set.modality)
    recipe = make_recipe(
        data_set.modality,
        options=modality.options,
        defaults={**modality.defaults, "encoder": options.encoder, **data_set.overrides},
        base={},
        overrides=options.set,
    )
    folds = [_fold(f, recipe, options, console) for f in data_set.folds(options.data)]
    names = ["ours", *options.controls]
    summary = {
        name: {metric: mean(fold["scores"][name][metric] for fold in folds) for metric in data_set.metrics}
        for name in names
    }
    row = {
        "name": data_set.name,
        "summary": data_set.summary,
        "modality": data_set.modality,
        "recipe": to_dict(recipe),
        "mean": summary,
        "folds": folds,
        "parameters": folds[0]["parameters"],
        "seconds": sum(fold["seconds"] for fold in folds),
    }
    write_json(path, row)


def _fold(records: Fold, recipe: Recipe, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    index = split_index(Index(tuple(records)), recipe, console=console)
    start = time.monotonic()
    fitted = fit(index.records, recipe, console=console)
    seconds = time.monotonic() - start
    console.note(f"test: {fitted.metrics['test']}")
    controls = run_controls(fitted, tuple(options.controls), split="test", console=console)
    return {
        "scores": {"ours": fitted.metrics["test"], **controls},
        "validation": fitted.metrics["val"],
        "parameters": fitted.pipeline.model.parameter_counts(),
        "seconds": seconds,
        "samples": {name: len(loader) for name, loader in fitted.loaders.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
