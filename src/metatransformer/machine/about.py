"""What computed a result: versions, commit, processor."""

import functools
import platform
import re
import subprocess
from pathlib import Path

import torch

from metatransformer.machine.versions import version_of

LIBRARIES = ("metatransformer", "torch", "numpy", "scikit-learn", "pandas", "pyarrow", "pillow")


def about_machine(*, threads: int = 0) -> dict[str, str]:
    """Returns the versions, the commit of a source checkout, and what the machine computes with.

    ``threads`` are those of the processes that compute, where they are others than this one.
    """
    versions = {name: version_of(name) for name in LIBRARIES}
    system = f"{platform.system()} {platform.machine()}, {_processor()}"
    count = threads or torch.get_num_threads()
    hardware = f"{system}, {count} thread{'s' if count > 1 else ''}{' a process' if threads else ''}"
    return {"revision": revision(), "python": platform.python_version(), **versions, "hardware": hardware}


def _processor() -> str:
    """Returns the processor's name, as far as the system tells it."""
    table = Path("/proc/cpuinfo")
    if not table.is_file():
        return platform.processor() or "processor unknown"
    found = re.search(r"^model name\s*: *(.+)$", table.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else "processor unknown"


@functools.cache
def revision() -> str:
    """Returns the commit of a source checkout, "-dirty" behind it where a file was changed since; empty elsewhere.

    An installed package may lie inside somebody's own repository, whose commit says nothing of it.
    """
    source, root = Path(__file__).parents[2:4]
    if source.name != "src" or not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
