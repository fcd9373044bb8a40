"""A saved model as one graph that other programs run, and as a repository of the Hub."""

from pathlib import Path
from typing import Any


def prepared(run: str | Path, data: Any, out: str | Path) -> list[Path]:
    """Writes samples as the NPZ files that an exported folder of prepared tensors takes; returns their paths.

    ``data`` is what ``predict RUN`` is given; ``out`` a folder.
    """
    from metatransformer.export.folder import write_prepared

    return write_prepared(Path(run), data, Path(out))
