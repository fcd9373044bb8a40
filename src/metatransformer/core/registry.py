"""What is found by name: each file of a folder of this package, and each module that another package announces.

A file defines one constant. A package of your own names its module in pyproject.toml under the entry point group that
is called as the folder::

    [project.entry-points."metatransformer.modalities"]
    sonar = "my_package.sonar"
"""

import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import os
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, Generic, TypeVar

from metatransformer.core.errors import UsageError, nearest

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Registry(Generic[T]):
    """The modules of ``group``, a folder of this package and an entry point group; what is installed while
    a process runs is found, too.

    ``kind`` is what they are, in words; ``constant`` what each defines: an instance of ``base``, or, where that is
    abstract, a subclass, with the attribute ``name`` as it is found by. ``base`` is written ``module:class`` and
    imported with the first one that is asked for, since names alone must answer at once. Files that begin with an
    underscore are none.
    """

    group: str
    kind: str
    constant: str
    base: str

    def names(self) -> list[str]:
        """Returns all names, sorted, without importing the modules."""
        return sorted(self._modules())

    def get(self, name: str) -> T:
        """Returns the constant of that name.

        Raises:
            UsageError: there is none; the message lists the valid names. Or a package announces one that cannot be
                used.
        """
        module, base = self.module(name), pkgutil.resolve_name(self.base)
        found: Any = getattr(module, self.constant, None)
        subclasses = inspect.isabstract(base)
        is_one = isinstance(found, type) and issubclass(found, base) if subclasses else isinstance(found, base)
        if not is_one or found.name != name:
            raise UsageError(
                f"{self.kind} module {module.__name__}",
                must=f"define a {self.constant} named '{name}', as it is announced",
                found=repr(found.name) if is_one else "none" if found is None else repr(found),
            )
        return found

    def usable(self) -> list[T]:
        """Returns all constants, sorted by name; one that a package announces and that cannot be used is only told."""
        found = []
        for name in self.names():
            try:
                found.append(self.get(name))
            except UsageError as error:
                _log.warning("%s", error)
        return found

    def module(self, name: str) -> ModuleType:
        """Returns the module of that name.

        Raises:
            UsageError: there is none; the message lists the valid names. Or a package announces a module that cannot
                be imported.
        """
        modules = self._modules()
        if name not in modules:
            raise UsageError(self.kind, must="be a known one", found=repr(name), do=nearest(name, modules))
        try:
            return importlib.import_module(modules[name])
        except ImportError as error:
            if modules[name].startswith(f"{self.group}."):
                raise
            do = "Mend or uninstall the package that announces it."
            where = f"{self.kind} '{name}', module {modules[name]}"
            raise UsageError(where, must="be importable", found=f"'{error}'", do=do) from error

    def _modules(self) -> dict[str, str]:
        """Returns the module by name, own ones and announced ones."""
        # Where packages are looked for, and when something was last installed or removed there.
        searched = ((place, os.stat(place).st_mtime_ns) for place in sys.path if os.path.exists(place))
        own, announced = known_modules(self.group, tuple(searched))
        for name, modules in announced.items():
            if len(modules) > 1:
                found = " and ".join(modules)
                raise UsageError(f"{self.kind} '{name}'", must="be announced by one package", found=found)
        if twice := own.keys() & announced.keys():
            raise UsageError(
                f"entry point group {self.group}",
                must=f"not redefine a {self.kind} of this package",
                found=", ".join(sorted(twice)),
            )
        return {**own, **{name: modules[0] for name, modules in announced.items()}}


@lru_cache(maxsize=64)
def known_modules(
    group: str, searched: tuple[tuple[str, int], ...]
) -> tuple[Mapping[str, str], Mapping[str, tuple[str, ...]]]:
    """Returns the modules of a folder of this package by name, and by name those that packages announce in its group.

    Kept, because looking takes 20 ms where many packages are installed, and each sample that a server reads asks.
    """
    package = importlib.util.find_spec(group)
    assert package is not None, group
    own = {
        module.name: f"{group}.{module.name}"
        for module in pkgutil.iter_modules(package.submodule_search_locations)
        if not module.name.startswith("_")
    }
    announced: dict[str, tuple[str, ...]] = {}
    for point in importlib.metadata.entry_points(group=group):
        modules = announced.get(point.name, ())
        announced[point.name] = tuple(dict.fromkeys((*modules, point.module)))
    return own, announced
