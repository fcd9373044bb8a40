"""One process that reads many damaged files, under limits of time and memory.

Jobs are ``(reader, seed, first, last)``; ``state`` is a file of a few numbers that parent and child map into memory,
``findings`` gets one line of JSON for each input that came to anything but a sample or a DataError.
"""

import ctypes
import json
import mmap
import os
import resource
import shutil
import signal
import struct
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

SLOW_S = 2.0  # of processor time for one file of some kilobytes
HANG_S = 10.0  # of processor time, where SIGPROF ends the process
ROOM = 1 << 30  # bytes of addresses that may be asked for beyond those of the idle process
LARGE_KB = 256 << 10  # of memory in use beyond those
NOISE = 4096  # bytes that libraries may print about one file
LIFE = 20_000  # inputs of one process
AGAIN = 75  # exit status: finished as far as STATE says, start another one
STATE = struct.Struct("qqdqqqd")  # job, number, when it began, samples, refused, findings, processor seconds


class State:
    """What a child tells its parent at once: which input it reads since when, and what came out so far."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), STATE.size)
        self.values = list(STATE.unpack(self.map[:]))

    def write(self) -> None:
        """Shows the values to the other process."""
        self.map[:] = STATE.pack(*self.values)

    def read(self) -> tuple[Any, ...]:
        """Returns what the other process showed."""
        return STATE.unpack(self.map[:])


def changed(reader: str, name: str, number: int) -> dict[str, bytes]:
    """Returns the files of one input: those of the seed at number 0, else one of them changed."""
    from fuzz.mutate import mutated
    from fuzz.seeds import seeds

    known = seeds(reader)
    seed = known[name]
    if not number:
        return dict(seed.files)
    rng = Random(f"{reader}/{name}/{number}")
    chosen = rng.choice(sorted(seed.files))
    ending = chosen.rpartition(".")[2]
    others = [data for other in known.values() for file, data in other.files.items() if file.endswith(ending)]
    return {**seed.files, chosen: mutated(seed.files[chosen], name=chosen, rng=rng, others=others)}


@cache
def stem() -> Any:
    """Returns the front end of the tests' trunk."""
    from metatransformer.trunk import load_encoder

    return load_encoder("test").stem


@cache
def recipe_of(reader: str, settings: str) -> Any:
    """Returns the recipe of a modality with some settings, written as JSON."""
    from common import tiny_recipe

    from metatransformer.modalities import get_modality

    return tiny_recipe(get_modality(reader), json.loads(settings))


class Reading:
    """How a modality reads what is handed in, as the command ``check`` does."""

    def __init__(self, reader: str, name: str) -> None:
        from fuzz.seeds import seeds
        from metatransformer.modalities import get_modality

        self.seed = seeds(reader)[name]
        self.modality = get_modality(reader)
        self.recipe = recipe_of(reader, json.dumps({**self.seed.settings, "task.target": self.seed.target}))
        self.stem = stem()

    def read(self, path: Path) -> int:
        """Returns how many samples were read.

        Raises:
            MetaTransformerError: none; or whatever should not be raised.
        """
        from metatransformer.core.errors import MetaTransformerError
        from metatransformer.infer.sources import read_index
        from metatransformer.pipeline import make_reader

        labelled = bool(self.seed.target)
        target = self.seed.target
        index = read_index(self.modality, path, options=self.recipe.input, target=target, labelled=labelled)
        reader = make_reader(self.recipe, self.modality.name, stem=self.stem)
        records, bad = [], None
        for record in list(index.records)[:40]:
            try:
                records.append((record, reader.raw(record)))
            except MetaTransformerError as error:
                bad = error
        if not records and bad is not None:
            raise bad
        reader.transform.fit(view for _, view in records)
        count = 0
        for record, _ in records:
            try:
                reader.view(record)
                count += 1
            except MetaTransformerError as error:
                bad = error
        if not count and bad is not None:
            raise bad
        return count


def memory_words(error: BaseException) -> str:
    """Returns what in a chain of errors says that memory was asked for that is not there, "" where nothing does."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen)
        if isinstance(seen, MemoryError) or any(words in text.lower() for words in _MEMORY):
            return f"{type(seen).__name__}: {text[:200]}"
        seen = seen.__cause__ or seen.__context__
    return ""


_MEMORY = ("bad_alloc", "cannot allocate", "unable to allocate", "out of memory", "malloc", "not enough memory")


def place_of(error: BaseException) -> str:
    """Returns the innermost line of the package that an error came through, and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}metatransformer{os.sep}" in frame.filename] or frames
    spots = [f"{Path(frame.filename).name}:{frame.name}:{frame.lineno}" for frame in (ours[-1], frames[-1])]
    return " < ".join(dict.fromkeys(spots))


class Child:
    """Reads the inputs of its jobs and notes what should not have come out."""

    def __init__(self, state: State, findings: Any) -> None:
        self.state, self.findings = state, findings
        self.noise = os.memfd_create("noise")
        os.dup2(self.noise, 2)
        os.dup2(self.noise, 1)
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=base))
        self.large_kb = 0

    def run(self, jobs: Sequence[Sequence[Any]]) -> int:
        """Returns the exit status."""
        done = 0
        try:
            while self.state.values[0] < len(jobs):
                reader, name, first, last = jobs[self.state.values[0]]
                reading = Reading(reader, name)
                self._ready(reading)
                for number in range(max(first, self.state.values[1]), last):
                    self._one(reading, number)
                    done += 1
                    if done >= LIFE or _peak_kb() > self.large_kb:
                        self.state.values[1] = number + 1
                        self.state.write()
                        return AGAIN
                self.state.values[0] += 1
                self.state.values[1] = 0
                self.state.write()
            return 0
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _ready(self, reading: Reading) -> None:
        """Loads what the modality needs on a whole file, then sets the limits."""
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self._show(0.0)
        self._quietly(reading, dict(reading.seed.files), name="whole")
        size_kb = int(Path("/proc/self/statm").read_text().split()[0]) * (resource.getpagesize() >> 10)
        self.large_kb = max(self.large_kb, _peak_kb() + LARGE_KB) if self.large_kb else _peak_kb() + LARGE_KB
        most = (size_kb << 10) + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

    def _show(self, start: float) -> None:
        self.state.values[2] = start
        self.state.write()

    def _one(self, reading: Reading, number: int) -> None:
        self.state.values[1] = number
        files = changed(reading.modality.name, reading.seed.name, number)
        self._show(time.monotonic())
        before = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, HANG_S)
        kind, detail = self._quietly(reading, files, name=str(number))
        signal.setitimer(signal.ITIMER_PROF, 0)
        spent = time.process_time() - before
        if kind in ("sample", "refused") and spent > SLOW_S:
            kind, detail = "slow", f"{spent:.1f} s of processor time"
        if kind in ("sample", "refused") and (peak := _peak_kb()) > self.large_kb:
            kind, detail = "memory", f"{(peak - self.large_kb + LARGE_KB) >> 10} MB in use"
        printed = os.fstat(self.noise).st_size
        if printed > NOISE and kind in ("sample", "refused"):
            kind, detail = "noise", f"{printed} bytes, such as {os.pread(self.noise, 80, 0)!r}"
        if printed:
            os.ftruncate(self.noise, 0)
            os.lseek(self.noise, 0, os.SEEK_SET)
        values = self.state.values
        values[3] += kind == "sample"
        values[4] += kind == "refused"
        values[6] += spent
        if kind not in ("sample", "refused"):
            values[5] += 1
            about = {"reader": reading.modality.name, "seed": reading.seed.name, "number": number}
            self.findings.write(json.dumps({**about, "kind": kind, "detail": detail}) + "\n")
            self.findings.flush()
        self._show(0.0)

    def _quietly(self, reading: Reading, files: dict[str, bytes], *, name: str) -> tuple[str, str]:
        """Returns what came out of reading the files: "sample", "refused", or the kind of a finding and its detail."""
        from metatransformer.core.errors import DataError

        # A name of its own, because what is read is kept by name.
        folder = self.folder / name
        folder.mkdir()
        for file, data in files.items():
            (folder / file).write_bytes(data)
        path = folder / reading.seed.main if reading.seed.main else folder
        try:
            reading.read(path)
            return "sample", ""
        except DataError as error:
            if words := memory_words(error):
                return "memory", words
            if len(str(error)) > 4000:
                return "words", f"a message of {len(str(error))} letters: {str(error)[:100]}"
            return "refused", ""
        except BaseException as error:  # noqa: BLE001 - all of them are what is looked for
            kind = "memory" if memory_words(error) else "error"
            return kind, f"{type(error).__name__}: {str(error)[:200]} ({place_of(error)})"
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_child(jobs: Sequence[Sequence[Any]], *, state: Path, findings: Path) -> int:
    """Returns the exit status of a process that was forked to read the inputs of ``jobs``, as far as it came."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # die with the parent
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("error")
    with findings.open("a", encoding="utf-8") as file:
        return Child(State(state), file).run(jobs)
