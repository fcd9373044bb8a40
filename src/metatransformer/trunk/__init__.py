"""Known trunks, foreign weight files, and the one resolver from a name to a frozen encoder."""

from metatransformer.trunk.catalog import DEFAULT, KNOWN, WeightEntry, WeightSource, list_encoders
from metatransformer.trunk.pretrained import Pretrained
from metatransformer.trunk.resolve import Place, load_encoder, locate

__all__ = [
    "DEFAULT",
    "KNOWN",
    "Place",
    "Pretrained",
    "WeightEntry",
    "WeightSource",
    "list_encoders",
    "load_encoder",
    "locate",
]
