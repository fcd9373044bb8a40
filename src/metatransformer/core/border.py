"""The one border where foreign decoders are called: whatever they raise becomes one error of ours.

A list of exception types always misses one, so there is none here. What keeps a bug of ours a bug is how little stands
inside: ``with foreign(path, "Pillow"):`` holds calls into that library and nothing else. An error that came through a
function of this package, called from inside, goes on untouched, and so do our own errors.
"""

import logging
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType

from metatransformer.core.errors import DataError, MetaTransformerError, MissingDependencyError, UsageError

_OURS = __name__.partition(".")[0]


@dataclass(frozen=True)
class foreign:  # noqa: N801 - it reads as a statement
    """Turns what a library raises inside the ``with`` block into a DataError, or another ``kind``, about ``where``.

    ``must`` completes "where must ..."; the message quotes the ``library``'s own words. ``needs`` is a package that
    the library asks for only in the text of an error, and the extra that installs it: then MissingDependencyError.
    Warnings and log lines of the library are not shown: they are about odd but readable input. Do not yield inside the
    block: it changes the process's warning filters and loggers, from the first thread's entry to the last one's exit.
    """

    where: object
    library: str
    must: str = "be a whole file of its format"
    do: str = "Remove it, or copy or write it again."
    needs: tuple[str, str] | None = None
    kind: type[MetaTransformerError] = DataError

    def __enter__(self) -> None:
        _silence.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _silence.leave()
        # Rust extensions panic with a BaseException of their own, so that is where the line is drawn.
        if error is None or isinstance(error, MetaTransformerError | KeyboardInterrupt | SystemExit | GeneratorExit):
            return
        if trace is None or _is_ours(trace):
            return
        if self.needs and self.needs[0] in str(error):
            purpose = f"reading {self.where}"
            raise MissingDependencyError(self.needs[0], extra=self.needs[1], purpose=purpose) from error
        found = f"a damaged one ({self.library}: '{words(error)}')"
        raise self.kind(self.where, must=self.must, found=found, do=self.do) from error


@dataclass(frozen=True)
class users_code:  # noqa: N801 - it reads as a statement
    """Turns what a person's own Python file, which the ``with`` block imports or calls, raises into a UsageError that
    names the line.

    Our own errors go on untouched, and so does one that came through a function of this package.
    """

    where: object
    path: Path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, MetaTransformerError):
            return
        if trace is None or _is_ours(trace):
            return
        lines = [frame.lineno for frame in traceback.extract_tb(trace) if frame.filename == str(self.path)]
        if isinstance(error, SyntaxError) and error.filename == str(self.path):
            lines.append(error.lineno)
        where = f"{self.where}, line {lines[-1]}" if lines else self.where
        found = f"{type(error).__name__}: {words(error)}"
        raise UsageError(where, must="run without an error", found=found, do="Mend the file.") from error


class _Silence:
    """No warnings and no log lines while a thread is inside: filters belong to the process, so the first one sets, the
    last restores.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._warnings = Lock(), 0, warnings.catch_warnings()
        self._logged = logging.NOTSET

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
                self._logged = logging.root.manager.disable
                logging.disable()
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._warnings.__exit__(None, None, None)
                logging.disable(self._logged)


_silence = _Silence()


def words(error: BaseException) -> str:
    """Returns the first line of an error's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def _is_ours(trace: TracebackType) -> bool:
    """Returns whether an error came through a function of this package that was called from the ``with`` block."""
    inner = trace.tb_next
    while inner is not None:
        # A comprehension or lambda is part of the block, although it has a frame of its own.
        ours = inner.tb_frame.f_globals.get("__name__", "").partition(".")[0] == _OURS
        if ours and not inner.tb_frame.f_code.co_name.startswith("<"):
            return True
        inner = inner.tb_next
    return False
