"""The modalities by name: each file here, and each module announced under ``metatransformer.modalities``.

A thirteenth modality is one new file in this folder, or, in a package of your own, a module with a constant
``MODALITY`` and in that package's pyproject.toml::

    [project.entry-points."metatransformer.modalities"]
    sonar = "my_package.sonar"
"""

import importlib
import importlib.metadata
import logging
import pkgutil
from types import ModuleType

from metatransformer.core.errors import UsageError, nearest
from metatransformer.core.modality import Modality

ENTRY_POINTS = "metatransformer.modalities"

_log = logging.getLogger(__name__)


def modality_names() -> list[str]:
    """Returns the names of all modalities, sorted, without importing them."""
    return sorted(_modules())


def get_modality(name: str) -> Modality:
    """Returns the modality of that name.

    Raises:
        UsageError: there is none; the message lists the valid names. Or a package announces one that cannot be used.
    """
    module = modality_module(name)
    modality = getattr(module, "MODALITY", None)
    if not isinstance(modality, Modality) or modality.name != name:
        raise UsageError(
            f"modality module {module.__name__}",
            must=f"define a MODALITY named '{name}', as it is announced",
            found="none" if modality is None else repr(getattr(modality, "name", modality)),
        )
    return modality


def usable_modalities() -> list[Modality]:
    """Returns all modalities, sorted by name; one that a package announces and that cannot be used is only told."""
    found = []
    for name in modality_names():
        try:
            found.append(get_modality(name))
        except UsageError as error:
            _log.warning("%s", error)
    return found


def modality_module(name: str) -> ModuleType:
    """Returns the module that defines the modality of that name; its docstring says File, Tokens, Sources, Errors.

    Raises:
        UsageError: there is none; the message lists the valid names. Or a package announces a module that cannot be
            imported.
    """
    modules = _modules()
    if name not in modules:
        raise UsageError("modality", must="be a known one", found=repr(name), do=nearest(name, modules))
    if modules[name].startswith(f"{__name__}."):
        return importlib.import_module(modules[name])
    try:
        return importlib.import_module(modules[name])
    except ImportError as error:
        do = "Mend or uninstall the package that announces it."
        where = f"modality '{name}', module {modules[name]}"
        raise UsageError(where, must="be importable", found=f"'{error}'", do=do) from error


def _modules() -> dict[str, str]:
    own = {
        module.name: f"{__name__}.{module.name}"
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_")
    }
    announced: dict[str, str] = {}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if announced.setdefault(point.name, point.module) != point.module:
            found = f"{announced[point.name]} and {point.module}"
            raise UsageError(f"modality '{point.name}'", must="be announced by one package", found=found)
    if twice := own.keys() & announced.keys():
        raise UsageError(
            f"entry point group {ENTRY_POINTS}",
            must="not redefine a modality of this package",
            found=", ".join(sorted(twice)),
        )
    return own | announced
