"""Readouts by name: each file here, and each module announced under ``metatransformer.readouts``.

A readout says what of the trunk's tokens a head gets. A new one is one file in this folder, or a module of a package of
your own (see ``core.registry``), with a constant ``READOUT``: a subclass of ``core.readout.Readout``.
"""

from metatransformer.core.readout import Facts, Readout
from metatransformer.core.registry import Registry


def _is_readout(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, Readout)


READOUTS = Registry(__name__, kind="readout", constant="READOUT", check=_is_readout)


def make_readout(name: str, facts: Facts) -> Readout:
    """Returns the readout of that name.

    Raises:
        UsageError: there is none, or it cannot read such tokens.
    """
    return READOUTS.get(name)(facts)
