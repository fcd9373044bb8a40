"""What a process that reads strangers' files may still do: read the installed packages and one folder, and compute.

Landlock (Linux 5.13 and later) keeps the whole process, C libraries included, from opening other files, and from
Linux 6.7 on from connecting anywhere. Elsewhere, and besides, Python's own audit hook refuses what Python opens.
Source: the kernel's documentation, Documentation/userspace-api/landlock.rst.
"""

import ctypes
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls, the same number on every processor
_NO_NEW_PRIVILEGES = 38
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute (also maps a library), read a file, read a folder
_TCP = 1 << 0 | 1 << 1  # bind, connect
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}  # of files, by the kernel's version of Landlock
_FILE = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14  # rights that a rule for a single file may have


class _Ruleset(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def readable() -> list[str]:
    """Returns the places that reading needs: the interpreter, its packages, the system's libraries and time zones."""
    from metatransformer.trunk.cache import cache_folder

    apart = (os.getcwd(), os.path.expanduser("~"))  # a path of Python's own may be where somebody works
    own = [sys.prefix, sys.base_prefix, str(Path(__file__).parents[2])]
    own += [place for place in sys.path if os.path.isabs(place) and place not in apart]
    system = ["/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/sys/devices/system/cpu"]
    system += ["/proc/self", "/proc/cpuinfo", "/proc/meminfo"]  # not of other processes, whose environment may tell
    system += ["/dev/null", "/dev/urandom", str(cache_folder())]
    return [place for place in dict.fromkeys((*own, *system)) if os.path.exists(place)]


def restrict(*, writable: Path, memory_bytes: int) -> bool:
    """Restricts this process for good: it reads ``readable`` places, reads and writes below ``writable``, and takes
    ``memory_bytes`` beside what it has. Returns whether the kernel sees to it, and not Python alone.
    """
    places = readable()
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    held = sys.platform == "linux" and _landlock(places, writable)
    _audit([*places, "/dev"], writable)
    return held


def _landlock(places: Sequence[str], writable: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    rights = _RIGHTS[min(version, 3)]
    asked = _Ruleset(rights, _TCP if version >= 4 else 0)
    size = 16 if version >= 4 else 8
    rules = libc.syscall(_CREATE, ctypes.byref(asked), ctypes.c_size_t(size), 0)
    if rules < 0:
        return False
    for place, allowed in [*((place, _READ) for place in places), (str(writable), rights)]:
        parent = os.open(place, os.O_PATH | os.O_CLOEXEC)
        own = allowed if os.path.isdir(place) else allowed & _FILE
        rule = _Beneath(own, parent)
        libc.syscall(_ADD, rules, 1, ctypes.byref(rule), 0)
        os.close(parent)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    done = libc.syscall(_RESTRICT, rules, 0) == 0
    os.close(rules)
    return done


def _audit(places: Sequence[str], writable: Path) -> None:
    allowed = tuple(os.path.join(os.path.realpath(place), "") for place in (*places, writable))

    def hook(event: str, given: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
            raise PermissionError(f"{event} is not allowed where strangers' files are read")
        if event in ("open", "os.listdir", "os.scandir") and isinstance(given[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(given[0]))
            if not os.path.join(path, "").startswith(allowed):
                raise PermissionError(13, "not allowed where strangers' files are read", path)

    sys.addaudithook(hook)
