"""A trunk as it is handed out, and the pool that lets all models of a process share it."""

import copy
import dataclasses
import functools
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from metatransformer.core.errors import WeightsError
from metatransformer.core.modality import Stem
from metatransformer.trunk.build import assemble, measure
from metatransformer.trunk.catalog import WeightEntry
from metatransformer.trunk.encoder import Encoder, EncoderConfig, require_alike
from metatransformer.trunk.files import Weights


@dataclass(frozen=True)
class Pretrained:
    """A trunk in its frozen state with all that belongs to it.

    ``encoder`` is shared by all who loaded the same weights, so it is never changed: see ``own_copy``. ``sha256`` is
    the digest of all its tensors, front end included: equal for equal weights, from whatever file. ``size`` is the
    input side in pixels that the weights were made for. ``verified`` says that the trunk's fingerprint was compared
    with the one that the table of known trunks holds; ``note`` says what was assumed or never run.
    """

    encoder: Encoder
    stem: Stem
    name: str
    sha256: str
    fingerprint: tuple[float, ...]
    licence: str
    size: int
    verified: bool
    note: str

    def own_copy(self) -> "Pretrained":
        """Returns the same trunk with an encoder that nobody else holds and that may learn; itself where it is that."""
        return replace(self, encoder=copy.deepcopy(self.encoder)) if self.encoder.is_shared else self

    def require_same(self, *, config: Mapping[str, object], fingerprint: Sequence[float], where: str) -> None:
        """Compares this trunk, as it was measured when it was loaded, with what a model recorded of its own.

        Raises:
            WeightsError: another shape, or another function.
        """
        if dataclasses.asdict(self.encoder.config) != config:
            raise WeightsError(where, must=f"have the shape {config}", found=f"{self.encoder.config}")
        require_alike(fingerprint, self.fingerprint, where=where)


@dataclass(frozen=True)
class _Known:
    """What the pool knows of an encoder; nothing here may hold the encoder itself."""

    key: tuple[str, EncoderConfig]
    fingerprint: tuple[float, ...]
    places: dict[Hashable, Callable[..., Pretrained]] = field(default_factory=dict)


class Pool:
    """Every trunk of this process that somebody uses: equal weights are one encoder, measured once.

    It holds them weakly, so that a trunk which nobody uses any more is freed. Whoever looks and adds holds ``lock``.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._trunks: WeakKeyDictionary[Encoder, _Known] = WeakKeyDictionary()

    def at(self, place: Hashable) -> Pretrained | None:
        """Returns what was added from this place, None when nobody uses it any more.

        Raises:
            UsageError: somebody has changed the trunk since.
        """
        for encoder, known in list(self._trunks.items()):
            if place in known.places:
                encoder.require_untouched()
                return known.places[place](encoder=encoder)
        return None

    def add(self, place: Hashable, weights: Weights, entry: WeightEntry | None, *, where: str) -> Pretrained:
        """Returns the trunk of these weights, which came from ``place`` and are those of ``entry`` if it is given.

        Raises:
            WeightsError: it does not compute what was recorded for it.
            UsageError: somebody has changed the trunk that the pool has of these weights.
        """
        encoder, known = self._shared(weights, where=where)
        recorded = entry.fingerprint if entry else None
        expected = weights.fingerprint if recorded is None else recorded
        if expected is not None:
            require_alike(expected, known.fingerprint, where=where)
        known.places[place] = functools.partial(
            Pretrained,
            stem=weights.stem,
            name=where,
            sha256=weights.sha256,
            fingerprint=known.fingerprint,
            licence=weights.licence,
            size=weights.size,
            verified=recorded is not None,
            note=weights.note,
        )
        return known.places[place](encoder=encoder)

    def _shared(self, weights: Weights, *, where: str) -> tuple[Encoder, _Known]:
        """Returns the one encoder of these tensors and settings."""
        key = weights.sha256, weights.config
        for encoder, known in list(self._trunks.items()):
            if known.key == key:
                encoder.require_untouched()
                return encoder, known
        encoder = assemble(weights, where=where)
        known = _Known(key, measure(encoder, where=where))
        encoder.share()
        self._trunks[encoder] = known
        return encoder, known


POOL = Pool()
