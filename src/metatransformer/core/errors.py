"""Errors that a person can act on.

Every error that the user can mend is a ``MetaTransformerError``. Its message always has the same four parts: where it
happened, what must hold there, what was found instead, and what to do about it. The command line prints the message
without a traceback and exits with status 2; every other exception is a bug and exits with status 1.
"""

import difflib
from collections.abc import Iterable

LONGEST = 1000  # letters of one part of a message
LONG = 100  # letters of a name that may be meant


class MetaTransformerError(Exception):
    """An error whose cause lies in the input, not in this package.

    ``where`` is a file, a column, an argument or a recipe key; ``must`` completes "where must ..."; ``found`` is what
    stands there; ``do`` is one sentence that tells the way out (it may be empty when ``must`` says it all).
    """

    def __init__(self, where: object, *, must: str, found: str, do: str = "") -> None:
        self.where, self.must, self.found, self.do = str(where), must, found, do
        message = f"{_short(self.where)}: must {_short(must)}; found {_short(found)}."
        super().__init__(f"{message} {do}".rstrip())


def _short(text: str) -> str:
    """Returns a text without its middle where it is longer than any that people read, as a damaged cell may be."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 4 :]}"


class DataError(MetaTransformerError, ValueError):
    """A file, a sample or a table does not hold what its modality declares."""


class UnlabelledError(DataError):
    """Samples have no labels, where some are asked for; without labels they may be read."""


class UsageError(MetaTransformerError, ValueError):
    """An argument, an option or a recipe key is wrong."""


class WeightsError(MetaTransformerError, OSError):
    """Pretrained weights cannot be had, are damaged, or are not the weights that they claim to be."""


class NotFittedError(MetaTransformerError, ValueError, AttributeError):
    """``predict`` or ``transform`` was called before ``fit``."""


class MissingDependencyError(MetaTransformerError, ImportError):
    """An optional library is needed for this input and is not installed."""

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            purpose,
            must=f"have the package '{package}' installed",
            found="that it is missing",
            do=f"Install it with: pip install 'metatransformer[{extra}]'",
        )


def nearest(name: str, choices: Iterable[str]) -> str:
    """Returns ``Did you mean 'x'? Valid: a, b, x.`` for a misspelt ``name``; up to 30 choices are listed, long ones
    cut.
    """
    choices = sorted(choice if len(choice) <= LONG else f"{choice[: LONG - 3]}..." for choice in choices)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    listed = ", ".join(choices[:30]) + (", ..." if len(choices) > 30 else "")
    return f"{hint}Valid: {listed}."
