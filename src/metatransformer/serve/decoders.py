"""Processes that read samples: each is ended and replaced when it crashes or takes too long."""

import asyncio
import io
import multiprocessing
import pathlib
import pickle
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from metatransformer.core.errors import DataError
from metatransformer.serve.limits import Limits
from metatransformer.serve.metrics import Metrics
from metatransformer.serve.reading import Asked, Most, Read, Refused, Spec, serve_samples

START_S = 120.0  # to import what reads; later processes are forked from one that has


@dataclass
class _Child:
    process: BaseProcess
    connection: Connection

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


class Decoders:
    """A few processes that read, and a thread for each that waits for it."""

    def __init__(self, specs: Mapping[str, Spec], *, writable: Path, limits: Limits, metrics: Metrics) -> None:
        self._given = dict(specs), Most(limits.samples, limits.sample_bytes), writable, limits.memory_bytes
        self._deadline_s, self._metrics = limits.decode_s, metrics
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([serve_samples.__module__])
        self._threads = ThreadPoolExecutor(limits.readers, thread_name_prefix="decoder")
        self._own = threading.local()
        self._all: list[_Child] = []
        self.held = False

    def start(self) -> None:
        """Starts one process, so that the first request need not wait; ``held`` is whether the kernel restricts it."""
        self._threads.submit(self._child).result()

    async def read(self, asked: Asked) -> Read:
        """Returns the samples of a request.

        Raises:
            DataError: it cannot be read, its reader crashed, or takes too long.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, asked)

    def close(self) -> None:
        """Ends all processes."""
        self._threads.shutdown(cancel_futures=True)
        for child in self._all:
            child.end()

    def _child(self) -> _Child:
        """Returns the process of this thread."""
        if (child := getattr(self._own, "child", None)) is None:
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=serve_samples, args=(theirs, *self._given), daemon=True)
            process.start()
            theirs.close()
            if not ours.poll(START_S):
                process.kill()
                raise DataError("the server", must="start its readers", found=f"none within {START_S:.0f} s")
            self.held = bool(ours.recv())
            child = self._own.child = _Child(process, ours)
            self._all.append(child)
        return child

    def _read(self, asked: Asked) -> Read:
        child = self._child()
        try:
            child.connection.send(asked)
            if not child.connection.poll(self._deadline_s):
                found = f"one that took more than {self._deadline_s:g} s"
                raise self._replaced(child, found)
            answer = _Careful(io.BytesIO(child.connection.recv_bytes())).load()
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            child.process.join(1)
            raise self._replaced(child, "one at which its decoder broke down") from error
        if isinstance(answer, Refused):
            raise DataError(answer.where, must=answer.must, found=answer.found, do=answer.do)
        return answer

    def _replaced(self, child: _Child, found: str) -> DataError:
        """Ends this thread's process, so that the next request gets a new one."""
        self._own.child = None
        self._all.remove(child)
        child.end()
        self._metrics.restarts.inc()
        do = "Send it apart from the others, or write it again."
        return DataError("a file of the request", must="be one that can be decoded", found=found, do=do)


# What an answer may be made of. The process that wrote it has read a stranger's file and is not to be believed.
_MODULES = ("metatransformer.", "pandas.", "numpy.dtypes")
_FUNCTIONS = {
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("pandas._libs.internals", "_unpickle_block"),
    ("pandas.core.indexes.base", "_new_Index"),
    ("builtins", "slice"),
    ("builtins", "range"),
    ("builtins", "frozenset"),
    ("builtins", "set"),
    ("_codecs", "encode"),
}


class _Careful(pickle.Unpickler):
    """Makes classes of ours and arrays, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns a class by its name.

        Raises:
            UnpicklingError: it is none of those that answers are made of.
        """
        if module.startswith("pathlib"):
            return getattr(pathlib, name)
        found = super().find_class(module, name)
        if (module, name) in _FUNCTIONS or (module.startswith(_MODULES) and isinstance(found, type)):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an answer")
