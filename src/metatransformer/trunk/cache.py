"""Where what was fetched or computed is kept for a later call."""

import os
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
