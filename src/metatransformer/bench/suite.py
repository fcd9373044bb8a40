"""``metatransformer bench``: rows in processes of their own, and what they found as JSON, Markdown and a page.

A row that fails is reported and does not stop the others; a call that was interrupted continues. Calls with ``--only``
into one folder add up: its table holds the rows of all of them.
"""

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from metatransformer.bench.datasets import DATA_SETS, DataSet
from metatransformer.bench.page import write_page
from metatransformer.bench.processes import Outcome, RowProcesses, termination_interrupts, threads_of_each
from metatransformer.bench.row import Plan, Results
from metatransformer.bench.strong import require_libraries
from metatransformer.bench.table import markdown, summarise
from metatransformer.core.errors import UsageError, nearest
from metatransformer.data.write import atomic_file, write_json
from metatransformer.machine.about import about_machine, revision
from metatransformer.machine.console import Console

SUITES = ("real12", "tasks", "paper")


def choose(suite: str, *, only: Sequence[str]) -> list[DataSet]:
    """Returns the rows of a suite, or those named, each once.

    Raises:
        UsageError: an unknown suite or row.
    """
    if suite not in SUITES:
        raise UsageError("SUITE", must=f"be one of {', '.join(SUITES)}", found=suite)
    rows = {name: row for name, row in DATA_SETS.items() if row.suite == suite}
    for name in only:
        if name not in rows:
            other = f"It is a row of 'metatransformer bench {DATA_SETS[name].suite}'." if name in DATA_SETS else ""
            raise UsageError("--only", must=f"name rows of {suite}", found=name, do=other or nearest(name, rows))
    return [rows[name] for name in dict.fromkeys(only or rows)]


def run_suite(
    rows: Sequence[DataSet], *, data: Path, out: Path, plan: Plan, jobs: int, command: str, console: Console
) -> dict[str, Any]:
    """Runs every row, writes ``results.json``, ``results.md`` and ``report.html`` into ``out``, and returns the first.

    The longest rows start first, so that none of them is alone at the end. Rows of earlier calls into ``out`` stand in
    the results too. When this call is interrupted, its processes end with it.

    Raises:
        UsageError: no row's data is there; ``out`` is a file or holds results of another plan.
        MissingDependencyError: a library of the strong baselines is not installed.
    """
    there = [row for row in rows if (data / row.folder).exists()]
    if not there:
        folders = ", ".join(row.folder for row in rows[:3]) + (", ..." if len(rows) > 3 else "")
        do = "'metatransformer bench --list' says where to get them."
        raise UsageError(f"--data {data}", must=f"hold data sets in {folders}", found="none of them", do=do)
    require_libraries(row.strong for row in there if row.strong)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}", must="be a folder", found="a file")
    out.mkdir(parents=True, exist_ok=True)
    _require_same_plan(out, plan)
    if not plan.quick:
        minutes, unknown = sum(row.minutes for row in there), sum(not row.minutes for row in there)
        more = f" and what {unknown} rows take that were never timed" if unknown else ""
        console.note(f"{len(there)} rows, about {minutes} minutes on one core{more}; logs: {out}/row-NAME.log")
    outcomes = _earlier(out / "results.json")
    begun = time.monotonic()
    resumed = bool(outcomes) or any(_has_lines(out / f"row-{row.name}.jsonl") for row in there)
    if resumed:
        _tell_earlier(there, out=out, console=console)
    processes = RowProcesses(data=data, out=out, plan=plan, jobs=jobs, console=console)
    for outcome in _run_rows(rows, processes=processes, jobs=jobs, console=console):
        earlier = outcomes.get(outcome.name)
        if not (outcome.status == "absent" and earlier and earlier.status == "done"):
            outcomes[outcome.name] = outcome
    known = [row for row in {**DATA_SETS, **{row.name: row for row in rows}}.values() if row.name in outcomes]
    results = collect(known, out=out, outcomes=[outcomes[row.name] for row in known], command=command, plan=plan)
    results["machine"] = about_machine(threads=threads_of_each(jobs))
    results["call_minutes"] = None if resumed else (time.monotonic() - begun) / 60
    write_json(out / "results.json", results)
    with atomic_file(out / "results.md") as temporary:
        temporary.write_text(markdown(results), encoding="utf-8")
    write_page(results, out / "report.html")
    return results


def _run_rows(rows: Sequence[DataSet], *, processes: RowProcesses, jobs: int, console: Console) -> list[Outcome]:
    """Returns how each row ended; an interruption ends the rows that are under way and begins no other."""
    found = []
    longest_first = sorted(rows, key=lambda row: row.minutes, reverse=True)
    with termination_interrupts(), ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            waiting = [pool.submit(processes.run, row) for row in longest_first]
            for number, future in enumerate(as_completed(waiting), start=1):
                outcome = future.result()
                minutes = f"{outcome.seconds / 60:.1f} min"
                words = f"{number}/{len(rows)} {outcome.name}: {outcome.status}, {minutes} {outcome.words}"
                console.note(words.rstrip())
                found.append(outcome)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop()
    return found


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


def _tell_earlier(rows: Sequence[DataSet], *, out: Path, console: Console) -> None:
    """Says what was made with other code and is kept."""
    lines = [line for row in rows for line in Results(out / f"row-{row.name}.jsonl").lines]
    if others := sorted({line.get("revision") or "no checkout" for line in lines} - {revision() or "no checkout"}):
        console.note(f"kept: results made at {', '.join(others)} (now {revision() or 'no checkout'})")


def _has_lines(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _require_same_plan(out: Path, plan: Plan) -> None:
    """Writes what is run into ``out``; refuses it where there are results of something else."""
    path = out / "plan.json"
    now: Mapping[str, Any] = json.loads(json.dumps(vars(plan)))
    there = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else now
    if there != now and any(_has_lines(row) for row in out.glob("row-*.jsonl")):
        other = [name for name in now if there.get(name) != now[name]]
        raise UsageError(
            f"--out {out}",
            must="hold results of the same " + ", ".join(f"{name} ({now[name]!r})" for name in other),
            found=", ".join(repr(there.get(name)) for name in other),
            do="Name another folder.",
        )
    write_json(path, now)
