"""The campaign: which inputs there are, the processes that read them, and what they found."""

import importlib
import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fuzz import child
from fuzz.child import AGAIN, HANG_S, STATE, State, run_child, stem
from fuzz.seeds import seeds

WAIT_S = 600.0  # of wall time for one file: it waits for something, since it has not used up its processor time
Job = tuple[str, str, int, int]  # reader, seed, first number, the one behind the last
# Loaded once, before processes are forked: a start then costs nothing.
_LIBRARIES = ("torch", "pandas", "pyarrow.csv", "pyarrow.parquet", "PIL.Image", "tifffile", "imagecodecs", "pydicom")
_LIBRARIES += ("soundfile", "soxr", "av", "laspy", "trimesh", "rdkit.Chem", "networkx", "h5py", "scipy.io")
_LIBRARIES += ("tokenizers", "common")


@dataclass
class Outcome:
    """What came out of some inputs."""

    inputs: int = 0
    samples: int = 0
    refused: int = 0
    seconds: float = 0.0
    findings: list[dict[str, object]] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        """Takes in another outcome."""
        self.inputs += other.inputs
        self.samples += other.samples
        self.refused += other.refused
        self.seconds += other.seconds
        self.findings += other.findings

    def __str__(self) -> str:
        kinds = Counter(str(found["kind"]) for found in self.findings)
        words = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"
        return (
            f"{self.inputs} inputs, {self.samples} samples, {self.refused} refused, findings: {words}; "
            f"{self.seconds:.0f} s of processor time"
        )


def jobs_of(reader: str, *, inputs: int, first: int = 0, names: Sequence[str] = ()) -> list[Job]:
    """Returns jobs that share ``inputs`` evenly among the seeds of a reader, or those of ``names``."""
    known = names or list(seeds(reader))
    each = -(-inputs // len(known))
    return [(reader, name, first, first + each) for name in known]


class Run:
    """Some jobs in a process of their own; where it crashes or hangs, another one goes on behind the input."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        for reader, name, *_ in jobs:  # what all inputs need is made before the fork
            child.Reading(reader, name)
        self.jobs, self.found = jobs, Outcome(inputs=sum(last - first for *_, first, last in jobs))
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        self.folder = Path(self._folder.name)
        (self.folder / "state").write_bytes(bytes(STATE.size))
        self.state, self.stuck = State(self.folder / "state"), 0
        self._start()

    def _start(self) -> None:
        self.before = self.state.read()[:2]
        self.pid = os.fork()
        if not self.pid:
            status = 70
            try:
                status = run_child(self.jobs, state=self.folder / "state", findings=self.folder / "findings")
            finally:
                os._exit(status)

    def ended(self) -> bool:
        """Returns whether all inputs were read; starts the next process where this one ended before."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        began = self.state.read()[2]
        if not pid:
            if began and time.monotonic() - began > WAIT_S:
                os.kill(self.pid, signal.SIGKILL)
            return False
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return self._close()
        self.stuck = self.stuck + 1 if self.state.read()[:2] == self.before else 0
        if code != AGAIN or self.stuck > 2:
            self._note(code)
        if self.state.read()[0] >= len(self.jobs):
            return self._close()
        self._start()
        return False

    def _note(self, code: int) -> None:
        """Notes how a process ended, and goes on behind the input that it read then."""
        values = list(self.state.read())
        job, number = values[:2]
        reader, seed, _, last = self.jobs[job]
        kind = "hang" if code in (-signal.SIGPROF, -signal.SIGKILL) else "crash"
        detail = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        detail = f"more than {HANG_S:g} s of processor time" if code == -signal.SIGPROF else detail
        self.found.findings.append({"reader": reader, "seed": seed, "number": number, "kind": kind, "detail": detail})
        values[:3] = [job, number + 1, 0.0] if number + 1 < last else [job + 1, 0, 0.0]
        self.state.values = values
        self.state.write()

    def _close(self) -> bool:
        *_, self.found.samples, self.found.refused, _, self.found.seconds = self.state.read()
        with suppress(FileNotFoundError):
            self.found.findings += map(json.loads, (self.folder / "findings").read_text().splitlines())
        self._folder.cleanup()
        return True


def run_jobs(bundles: Iterable[Sequence[Job]], *, jobs: int, out: Path | None = None) -> dict[str, Outcome]:
    """Returns the outcome by reader; ``jobs`` processes run at a time, findings go to ``out`` as they come."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    stem()
    return _run_all(iter(bundles), jobs=jobs, out=out)


def _run_all(waiting: Iterator[Sequence[Job]], *, jobs: int, out: Path | None) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    running: list[Run] = []
    while True:
        while len(running) < jobs and (bundle := next(waiting, None)):
            running.append(Run(bundle))
        if not running:
            return outcomes
        time.sleep(0.1)
        ended = [run for run in running if run.ended()]
        running = [run for run in running if run not in ended]
        for run in ended:
            outcomes.setdefault(run.jobs[0][0], Outcome()).add(run.found)
            print(f"{run.jobs[0][0]}, {run.jobs[0][1]} to {run.jobs[-1][1]}: {run.found}", flush=True)
            if out is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(found) + "\n" for found in run.found.findings)


def bundles_of(
    readers: Iterable[str], *, inputs: int, first: int = 0, names: Sequence[str] = ()
) -> Iterable[Sequence[Job]]:
    """Yields jobs of ``inputs`` for each reader, some seeds at a time."""
    for reader in readers:
        parts = jobs_of(reader, inputs=inputs, first=first, names=names)
        yield from (parts[i : i + 12] for i in range(0, len(parts), 12))
