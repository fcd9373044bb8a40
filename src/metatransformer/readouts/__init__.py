"""Readouts by name: each file here, and each module announced under ``metatransformer.readouts``.

A readout says what of the trunk's tokens a head gets. A new one is one file in this folder, or a module of a package of
your own (see ``core.registry``), with a constant ``READOUT``: a subclass of ``core.readout.Readout``.
"""

from metatransformer.core.readout import Readout
from metatransformer.core.registry import Registry

READOUTS: Registry[type[Readout]] = Registry(
    __name__, kind="readout", constant="READOUT", base="metatransformer.core.readout:Readout"
)
