"""Which packages are installed, in which version."""

import importlib.metadata
import importlib.util
from collections.abc import Sequence


def version_of(package: str) -> str:
    """Returns the installed version of a distribution, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def missing_packages(packages: Sequence[str]) -> list[str]:
    """Returns those of ``packages`` (names to import) that cannot be imported here; nothing is imported to find out."""
    return [name for name in packages if importlib.util.find_spec(name) is None]
