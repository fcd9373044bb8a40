"""The modalities by name: each file here, and each module announced under ``metatransformer.modalities``.

A thirteenth modality is one new file in this folder, or a module of a package of your own (see ``core.registry``), with
a constant ``MODALITY``.
"""

from types import ModuleType

from metatransformer.core.modality import Modality
from metatransformer.core.registry import Registry

MODALITIES = Registry(__name__, kind="modality", constant="MODALITY", check=lambda found: isinstance(found, Modality))


def modality_names() -> list[str]:
    """Returns the names of all modalities, sorted, without importing them."""
    return MODALITIES.names()


def get_modality(name: str) -> Modality:
    """Returns the modality of that name.

    Raises:
        UsageError: there is none; the message lists the valid names. Or a package announces one that cannot be used.
    """
    return MODALITIES.get(name)


def usable_modalities() -> list[Modality]:
    """Returns all modalities, sorted by name; one that a package announces and that cannot be used is only told."""
    return MODALITIES.usable()


def modality_module(name: str) -> ModuleType:
    """Returns the module that defines the modality of that name; its docstring says File, Tokens, Sources, Errors.

    Raises:
        UsageError: as ``get_modality``.
    """
    return MODALITIES.module(name)
