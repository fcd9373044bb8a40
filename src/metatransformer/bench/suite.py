"""``metatransformer bench``: rows in processes of their own, and what they found as JSON, Markdown and a page.

A row that fails is reported and does not stop the others; a call that was interrupted continues. Calls with ``--only``
into one folder add up: its table holds the rows of all of them.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metatransformer.bench.datasets import DATA_SETS, DataSet, digest
from metatransformer.bench.page import write_page
from metatransformer.bench.row import Plan, Results
from metatransformer.bench.strong import require_libraries
from metatransformer.bench.table import markdown, summarise
from metatransformer.core.errors import UsageError, nearest
from metatransformer.engine.console import Console
from metatransformer.engine.run import about_machine
from metatransformer.io.write import atomic_file, write_json

SUITES = ("real12", "paper")


@dataclass(frozen=True)
class Outcome:
    """How a row ended: ``done``, ``failed`` with its last words, or ``absent`` data with where to get it."""

    name: str
    status: str
    words: str = ""
    seconds: float = 0.0


def choose(suite: str, *, only: Sequence[str]) -> list[DataSet]:
    """Returns the rows of a suite, or those named.

    Raises:
        UsageError: an unknown suite or row.
    """
    if suite not in SUITES:
        raise UsageError("SUITE", must=f"be one of {', '.join(SUITES)}", found=suite)
    rows = {name: row for name, row in DATA_SETS.items() if row.suite == suite}
    for name in only:
        if name not in rows:
            raise UsageError("--only", must=f"name rows of {suite}", found=name, do=nearest(name, rows))
    return [rows[name] for name in (only or rows)]


def run_suite(
    rows: Sequence[DataSet], *, data: Path, out: Path, plan: Plan, jobs: int, command: str, console: Console
) -> dict[str, Any]:
    """Runs every row, writes ``results.json``, ``results.md`` and ``report.html`` into ``out``, and returns the first.

    The longest rows start first, so that none of them is alone at the end. Rows of earlier calls into ``out`` stand in
    the results too.

    Raises:
        UsageError: ``out`` holds results of another plan.
        MissingDependencyError: a library of the strong baselines is not installed.
    """
    there = [row for row in rows if (data / row.folder).exists()]
    require_libraries(row.strong for row in there)
    out.mkdir(parents=True, exist_ok=True)
    _require_same_plan(out / "plan.json", plan)
    if not plan.quick:
        minutes = sum(row.minutes for row in there)
        console.note(f"{len(there)} rows, about {minutes} minutes on one core; the log of each is {out}/row-NAME.log")
    outcomes = _earlier(out / "results.json")
    begun = time.monotonic()
    resumed = bool(outcomes) or any((out / f"row-{row.name}.jsonl").is_file() for row in there)
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        longest_first = sorted(rows, key=lambda row: row.minutes, reverse=True)
        more = {"data": data, "out": out, "plan": plan, "jobs": jobs, "console": console}
        waiting = [pool.submit(_run, row, **more) for row in longest_first]
        for number, future in enumerate(as_completed(waiting), start=1):
            outcome = future.result()
            outcomes[outcome.name] = outcome
            minutes = f"{outcome.seconds / 60:.1f} min"
            console.note(f"{number}/{len(rows)} {outcome.name}: {outcome.status}, {minutes} {outcome.words}".rstrip())
    known = [row for row in {**DATA_SETS, **{row.name: row for row in rows}}.values() if row.name in outcomes]
    results = collect(known, out=out, outcomes=[outcomes[row.name] for row in known], command=command, plan=plan)
    results["call_minutes"] = None if resumed else (time.monotonic() - begun) / 60
    write_json(out / "results.json", results)
    with atomic_file(out / "results.md") as temporary:
        temporary.write_text(markdown(results), encoding="utf-8")
    write_page(results, out / "report.html")
    return results


def _earlier(path: Path) -> dict[str, Outcome]:
    """Returns how the rows of earlier calls ended."""
    if not path.is_file():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {row["name"]: Outcome(row["name"], row["status"], row["words"]) for row in rows}


def collect(
    rows: Sequence[DataSet], *, out: Path, outcomes: Sequence[Outcome], command: str, plan: Plan
) -> dict[str, Any]:
    """Returns everything that is known of the rows, as plain values."""
    found = []
    for row, outcome in zip(rows, outcomes, strict=True):
        lines = Results(out / f"row-{row.name}.jsonl").lines
        found.append(_about(row, outcome) | summarise(lines, metrics=row.metrics))
    return {"command": command, "quick": plan.quick, "encoder": plan.encoder, "machine": about_machine(), "rows": found}


def _about(row: DataSet, outcome: Outcome) -> dict[str, Any]:
    return {
        "name": row.name,
        "summary": row.summary,
        "modality": row.modality,
        "split": row.split,
        "metrics": list(row.metrics),
        "licence": row.licence,
        "source": row.source,
        "sha256": row.sha256,
        "published": [vars(one) for one in row.published],
        "status": outcome.status,
        "words": outcome.words,
    }


def _run(row: DataSet, *, data: Path, out: Path, plan: Plan, jobs: int, console: Console) -> Outcome:
    start = time.monotonic()
    folder = data / row.folder
    if not folder.exists():
        return Outcome(row.name, "absent", f"{folder} is not there. {row.fetch or row.source}")
    words = _identity(row, folder)
    console.note(f"{row.name}: begun" + ("" if plan.quick else f", about {row.minutes} minutes"))
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    with open(out / f"row-{row.name}.log", "a", encoding="utf-8") as log:
        done = subprocess.run(
            _command(row, data=data, out=out, plan=plan),
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": threads},
            check=False,
        )
    seconds = time.monotonic() - start
    if done.returncode:
        text = Path(log.name).read_text(encoding="utf-8").strip().splitlines()
        return Outcome(row.name, "failed", text[-1] if text else f"status {done.returncode}", seconds)
    return Outcome(row.name, "done", words, seconds)


def _identity(row: DataSet, folder: Path) -> str:
    """Returns a remark where the files are not those that the recorded figures were made on."""
    return "" if not row.sha256 or digest(folder) == row.sha256 else "other files than the registered ones"


def _command(row: DataSet, *, data: Path, out: Path, plan: Plan) -> list[str]:
    seeds = plan.seeds or row.seeds
    words = [sys.executable, "-m", "metatransformer.bench.row", row.name, "--data", str(data), "--out", str(out)]
    words += ["--encoder", plan.encoder, "--seeds", str(seeds)]
    words += ["--trunks", str(plan.trunks or row.trunks)]
    words += ["--quick"] if plan.quick else []
    return words + (["--set", *plan.overrides] if plan.overrides else [])


def _require_same_plan(path: Path, plan: Plan) -> None:
    now: Mapping[str, Any] = json.loads(json.dumps(vars(plan)))
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != now:
        raise UsageError(
            f"--out {path.parent}",
            must="hold results of the same encoder, seeds and settings",
            found="those of another call",
            do="Name another folder.",
        )
    write_json(path, now)
