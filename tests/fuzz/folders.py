"""``python -m tests.fuzz.folders``: folders of mixed damaged files, and what the command ``check`` makes of each.

Told by reader: files, exit status, how many of them are named, memory, processor time of all and of the slowest alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent / "src"), str(TESTS)]
FOLDERS = ("image", "xray", "infrared", "hyperspectral", "pointcloud", "audio", "video", "graph", "imu")
MOST_MB, MOST_S = 1024, 10.0


def write_damaged(reader: str, folder: Path, *, files: int) -> tuple[list[str], float]:
    """Writes files of a reader, each of which is refused by itself; returns their names and the seconds of the slowest.

    Tables stand for many samples, so that none is in a folder of files.
    """
    from fuzz.child import Reading, changed
    from fuzz.seeds import seeds
    from metatransformer.core.errors import DataError

    tables = (".csv", ".csv.gz") if reader == "graph" else ()
    names = [name for name, seed in seeds(reader).items() if list(seed.files) == [seed.main]]
    names = [name for name in names if "@" not in name and not name.endswith(tables)]
    rng, found, slowest = Random(reader), [], 0.0
    for number in range(1, 1000):
        for name in rng.sample(names, len(names)):
            if len(found) == files:
                return found, slowest
            (data,) = changed(reader, name, number).values()
            path = folder / f"{len(found):03}_{Path(name).name}"
            path.write_bytes(data)
            before = time.process_time()
            try:
                Reading(reader, name).read(path)
                path.unlink()
            except DataError:
                found.append(path.name)
                slowest = max(slowest, time.process_time() - before)
    return found, slowest


def measure(reader: str, *, files: int) -> bool:
    """Tells what ``check`` makes of a folder of a reader; returns whether that is right."""
    from common import settings_of, words_of

    with tempfile.TemporaryDirectory() as folder:
        names, slowest = write_damaged(reader, Path(folder), files=files)
        command = [sys.executable, "-m", "metatransformer", "check", folder, "--modality", reader]
        command += words_of(settings_of(reader))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
            assert run.stdout is not None
            lines = run.stdout.read().splitlines()
            _, status, usage = os.wait4(run.pid, 0)
            run.returncode = os.waitstatus_to_exitcode(status)
    told = str(json.loads(lines[-1]).get("problems")) if lines else ""
    missing = [name for name in names if name not in told]
    memory, seconds = usage.ru_maxrss >> 10, usage.ru_utime + usage.ru_stime
    print(
        f"{reader}: {len(names)} files, exit status {run.returncode}, {len(names) - len(missing)} named, {memory} MB, "
        f"{seconds:.0f} s of processor time, {slowest:.1f} s the slowest alone",
        *(f"  not named: {name}" for name in missing[:20]),
        sep="\n",
        flush=True,
    )
    return run.returncode == 2 and not missing and memory < MOST_MB and slowest < MOST_S


def main() -> int:
    """Returns 1 where a folder was not judged rightly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200, help="a reader")
    parser.add_argument("--only", nargs="*", choices=FOLDERS, default=FOLDERS)
    options = parser.parse_args()
    return int(not all([measure(reader, files=options.files) for reader in options.only]))


if __name__ == "__main__":
    sys.exit(main())
