"""The modalities by name: each file here, and each module announced under ``metatransformer.modalities``.

A thirteenth modality is one new file in this folder, or, in a package of your own, a module with a constant
``MODALITY`` and in that package's pyproject.toml::

    [project.entry-points."metatransformer.modalities"]
    sonar = "my_package.sonar"
"""

import importlib
import importlib.metadata
import pkgutil
from types import ModuleType

from metatransformer.core.errors import UsageError, nearest
from metatransformer.core.modality import Modality

ENTRY_POINTS = "metatransformer.modalities"


def modality_names() -> list[str]:
    """Returns the names of all modalities, sorted, without importing them."""
    return sorted(_modules())


def get_modality(name: str) -> Modality:
    """Returns the modality of that name.

    Raises:
        UsageError: there is none; the message lists the valid names.
    """
    module = modality_module(name)
    modality = module.MODALITY
    if modality.name != name:
        raise UsageError(
            f"modality module {module.__name__}",
            must=f"define a MODALITY named '{name}', as it is announced",
            found=repr(modality.name),
        )
    return modality


def modality_module(name: str) -> ModuleType:
    """Returns the module that defines the modality of that name; its docstring says File, Tokens, Sources, Errors.

    Raises:
        UsageError: there is none; the message lists the valid names.
    """
    modules = _modules()
    if name not in modules:
        raise UsageError("modality", must="be a known one", found=repr(name), do=nearest(name, modules))
    return importlib.import_module(modules[name])


def _modules() -> dict[str, str]:
    own = {
        module.name: f"{__name__}.{module.name}"
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_")
    }
    announced = {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    if twice := own.keys() & announced.keys():
        raise UsageError(
            f"entry point group {ENTRY_POINTS}",
            must="not redefine a modality of this package",
            found=", ".join(sorted(twice)),
        )
    return own | announced
