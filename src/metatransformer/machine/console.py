"""What people see while something runs: notes and progress bars on standard error; programs read standard output."""

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

FIGURE = re.compile(r"-?|[+-]*\d\S*")  # a number with its unit, or none
WIDTH = 160  # columns of a table in a log file, which has no width of its own


class Console:
    """Notes, bars and tables on standard error; a quiet console says nothing.

    On a terminal a bar is drawn; in a log file a line is written when it is done, so that logs stay short.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        # Of the processes that torchrun starts, the first one speaks for all.
        self.quiet = quiet or os.environ.get("RANK", "0") != "0"
        width = None if sys.stderr.isatty() else WIDTH
        self.rich = RichConsole(stderr=True, quiet=self.quiet, highlight=False, soft_wrap=True, width=width)

    def note(self, text: str) -> None:
        """Prints one line."""
        self.rich.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Prints one line that stands out."""
        self.rich.print(f"warning: {text}", style="yellow", markup=False)

    def table(self, title: str, columns: list[str], rows: Iterable[Iterable[object]]) -> None:
        """Prints a table; columns of figures are right-aligned, columns of words left-aligned."""
        lines = [[str(cell) for cell in row] for row in rows]
        table = Table(title=title, title_justify="left")
        for number, column in enumerate(columns):
            figures = all(FIGURE.fullmatch(line[number]) for line in lines)
            table.add_column(column, justify="right" if figures else "left", no_wrap=not number)
        for line in lines:
            table.add_row(*line)
        self.rich.print(table)

    @contextmanager
    def bar(self, title: str, *, total: int) -> Iterator["Bar"]:
        """Shows progress until the block ends; call ``advance`` on what it yields."""
        if self.quiet or not sys.stderr.isatty():
            start = time.monotonic()
            yield Bar(None)
            self.note(f"{title}: {total} in {time.monotonic() - start:.1f} s")
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
        )
        with Progress(*columns, console=self.rich, transient=True) as progress:
            progress.add_task(title, total=total, status="")
            yield Bar(progress)


@dataclass(frozen=True)
class Bar:
    """One running progress bar, or none, where there is no terminal."""

    progress: Progress | None

    def advance(self, steps: int = 1, *, status: str = "") -> None:
        """Moves the bar on; ``status`` stands behind it."""
        if self.progress is not None:
            self.progress.update(self.progress.task_ids[0], advance=steps, status=status)
