"""Where what was fetched or computed is kept for a later call."""

import os
from collections import defaultdict
from pathlib import Path

CACHE_VARIABLE = "METATRANSFORMER_CACHE"


def cache_folder(cache_dir: Path | None = None) -> Path:
    """Returns where converted weights are kept.

    That is the argument, ``$METATRANSFORMER_CACHE``, or ``metatransformer`` in the user's cache.
    """
    if cache_dir is not None:
        return cache_dir
    if told := os.environ.get(CACHE_VARIABLE):
        return Path(told).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "metatransformer"


def make_room(folder: Path, pattern: str, *, most: int) -> None:
    """Removes what was not used for longest until its files hold at most ``most`` bytes.

    Files that differ in their ending alone go together, the last ending first.
    """
    groups: defaultdict[Path, dict[Path, os.stat_result]] = defaultdict(dict)
    for path in folder.glob(pattern):
        groups[path.with_suffix("")][path] = path.stat()
    left = most - sum(stat.st_size for group in groups.values() for stat in group.values())
    for group in sorted(groups.values(), key=lambda group: max(stat.st_mtime_ns for stat in group.values())):
        if left >= 0:
            return
        for path in sorted(group, reverse=True):
            path.unlink(missing_ok=True)
        left += sum(stat.st_size for stat in group.values())
