"""Uniform batches: no padding, every sample of one shape. What is computed of them follows from shapes alone.

A graph that is exported may look at no value, so tokenizers are traced on such batches: where they ask how far a sample
was padded, or which of its rows are real, the answer is then that all of it is. Pieces of a text that say themselves
that they are none stay masked.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

UNIFORM: ContextVar[bool] = ContextVar("uniform", default=False)  # whether batches are promised to be uniform


@contextmanager
def uniform() -> Iterator[None]:
    """Promises that batches inside the block are uniform."""
    token = UNIFORM.set(True)
    try:
        yield
    finally:
        UNIFORM.reset(token)
