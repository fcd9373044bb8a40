"""A readout: from the trunk's tokens to the features that a head predicts from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from metatransformer.core.tokens import Tokens


@dataclass(frozen=True)
class Facts:
    """What a readout is built from.

    ``axes`` is by input, of those that the task sees and in their order, how many axes its tokens' grid has (0 = in
    no order). ``blocks`` are the numbers of blocks after which tokens are read, ``width`` that of a token, ``pool`` and
    ``cells`` the recipe's (``head.pool``, ``head.cells``), ``direct`` is by input how many features come beside the
    trunk, and ``at_places`` how many each place of a sample brings beside it.
    """

    axes: Mapping[str, int]
    blocks: tuple[int, ...]
    width: int
    pool: str
    cells: int
    direct: Mapping[str, int] = field(default_factory=dict)
    at_places: int = 0


class Readout(nn.Module, ABC):
    """Tokens after each of ``blocks`` -> features; ``features`` is how many a sample (or a token) has.

    ``name`` is what it is found by.

    The last ``direct`` of them did not come through the trunk. ``fixed`` says that it has no parameters, so that the
    features of a frozen tokenizer and trunk can be computed once.
    """

    name: ClassVar[str]
    fixed: ClassVar[bool] = True

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.facts = facts
        self.blocks = facts.blocks
        self.direct = sum(facts.direct.values())

    @property
    @abstractmethod
    def features(self) -> int:
        """How many features there are, the direct ones with them."""

    @property
    def owners(self) -> Tensor | None:
        """For each feature the place of its input in ``facts.axes``, -1 where it is of none; None where there is one
        input, or features mix them.
        """
        return None

    def gaps(self, features: Tensor) -> Tensor:
        """Returns features ``[S, F]`` with NaN for what is of an input that a sample lacks."""
        return features

    @abstractmethod
    def forward(self, layers: Sequence[Tokens]) -> Tensor:
        """Returns the features in float32, ``[S, F]`` for one vector a sample."""
