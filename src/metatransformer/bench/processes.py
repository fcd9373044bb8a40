"""Rows of the benchmark as processes of their own: begun, told, and ended with the call that began them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from metatransformer.bench.datasets import DataSet, digest
from metatransformer.bench.row import Plan
from metatransformer.core.errors import MetaTransformerError
from metatransformer.machine.console import Console


@dataclass(frozen=True)
class Outcome:
    """How a row ended: ``done``, ``failed`` with its last words, or ``absent`` data with where to get it."""

    name: str
    status: str
    words: str = ""
    seconds: float = 0.0


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Makes SIGTERM end a call as Ctrl-C does: it would else leave its rows running without it."""
    if threading.current_thread() is not threading.main_thread():  # only there may signals be taken
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def threads_of_each(jobs: int) -> int:
    """Returns with how many threads each of ``jobs`` rows computes."""
    return max(1, (os.cpu_count() or 1) // jobs)


class RowProcesses:
    """Runs rows, each in a process; ``stop`` ends those that are under way and lets no other begin."""

    def __init__(self, *, data: Path, out: Path, plan: Plan, jobs: int, console: Console) -> None:
        self.data, self.out, self.plan, self.jobs, self.console = data, out, plan, jobs, console
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def run(self, row: DataSet) -> Outcome:
        """Returns how a row ended; nothing that is wrong with it stops the others."""
        start = time.monotonic()
        folder = self.data / row.folder
        if not folder.exists():
            return Outcome(row.name, "absent", f"{folder} is not there. {row.fetch or row.source}")
        try:
            same = not row.sha256 or digest(folder) == row.sha256
        except (OSError, MetaTransformerError) as error:
            return Outcome(row.name, "failed", f"error: {error}")
        known = f", about {row.minutes} minutes" if row.minutes and not self.plan.quick else ""
        self.console.note(f"{row.name}: begun{known}")
        log = self.out / f"row-{row.name}.log"
        before = log.stat().st_size if log.is_file() else 0
        status = self._wait(row, log)
        seconds = time.monotonic() - start
        if status:
            return Outcome(row.name, "failed", _last_words(status, log, before=before), seconds)
        return Outcome(row.name, "done", "" if same else "other files than the registered ones", seconds)

    def stop(self) -> None:
        """Ends every process; what was finished is on disk."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()

    def _wait(self, row: DataSet, log: Path) -> int:
        """Returns the exit status of a row's process."""
        with open(log, "ab") as file:
            with self._lock:
                if self._stopped:
                    return -signal.SIGTERM
                process = subprocess.Popen(
                    self._command(row),
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"OMP_NUM_THREADS": str(threads_of_each(self.jobs))},
                )
                self._running.add(process)
            status = process.wait()
        with self._lock:
            self._running.discard(process)
        return status

    def _command(self, row: DataSet) -> list[str]:
        plan = self.plan
        words = [sys.executable, "-m", "metatransformer.bench.row", row.name]
        words += ["--data", str(self.data), "--out", str(self.out), "--encoder", plan.encoder]
        words += ["--seeds", str(plan.seeds or row.seeds), "--trunks", str(plan.trunks or row.trunks)]
        words += ["--quick"] if plan.quick else []
        return words + (["--set", *plan.overrides] if plan.overrides else [])


def _last_words(status: int, log: Path, *, before: int) -> str:
    """Returns why a process ended, from its status or the last line that this call added to the log."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"ended by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "") + f"; see {log}"
    lines = log.read_bytes()[before:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"status {status}; see {log}"
