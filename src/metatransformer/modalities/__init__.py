"""The modalities by name: each file here, and each module announced under ``metatransformer.modalities``.

A thirteenth modality is one new file in this folder, or a module of a package of your own (see ``core.registry``), with
a constant ``MODALITY``, whose module's docstring says File, Tokens, Sources, Errors.
"""

from metatransformer.core.modality import Modality
from metatransformer.core.registry import Registry

MODALITIES: Registry[Modality] = Registry(
    __name__, kind="modality", constant="MODALITY", base="metatransformer.core.modality:Modality"
)
modality_names = MODALITIES.names
modality_module = MODALITIES.module
usable_modalities = MODALITIES.usable
get_modality = MODALITIES.get
