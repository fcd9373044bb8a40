"""A modality: the one constant that ties reader, transform, tokenizer and default task together.

A file ``modalities/<name>.py`` holds one ``MODALITY``; the thirteenth modality is one new file, or one module
of another package that announces itself under the entry point group ``metatransformer.modalities``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from metatransformer.core.fields import Field
from metatransformer.core.inside import Inside
from metatransformer.core.samples import Counts, Record, View
from metatransformer.core.tokens import Tokens


class Transform(ABC):
    """The numpy side of a modality: raw arrays of one sample in, the tokenizer's arrays out.

    A transform is built from the modality's options. What it learns from the training split ends in ``_`` and goes to
    disk as JSON, through ``state`` and ``load_state``.
    """

    def fit(self, views: Iterable[View]) -> None:
        """Learns statistics, columns or a vocabulary from raw training samples; most modalities learn nothing."""
        del views

    @abstractmethod
    def __call__(self, view: View) -> View:
        """Returns the tokenizer's arrays: deterministic, and without a change to its input."""

    def augment(self, view: View, rng: np.random.Generator) -> View:
        """Returns a randomly changed *transformed* sample; used in training only. The default changes nothing."""
        del rng
        return view

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should be told after ``fit``: how the data was understood, what was left out."""
        return ()

    def doubts(self) -> tuple[str, ...]:
        """Returns what was odd, but no error, in the samples since it was last asked; most modalities find nothing."""
        return ()

    def state(self) -> dict[str, Any]:
        """Returns what ``fit`` learned, as JSON values."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state`` returned."""
        assert not state, state


@dataclass(frozen=True)
class Stem:
    """The image front end that came with a trunk's weights; what it lacks is None.

    ``patch`` is the kernel ``[D, 3, p, p]`` for pixels normalised with ``mean`` and ``std`` (RGB, 0..1 before);
    ``positions`` is ``[h, w, D]``; ``class_token`` ``[D]`` already includes its own position.
    """

    patch: Tensor | None = None
    bias: Tensor | None = None
    positions: Tensor | None = None
    class_token: Tensor | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def patch_size(self) -> int:
        """The side of a patch in pixels; 16 when the weights brought no kernel."""
        return 16 if self.patch is None else self.patch.shape[-1]

    def tensors(self) -> dict[str, Tensor]:
        """Returns the tensors that it has, by name."""
        found = {name: getattr(self, name) for name in ("patch", "bias", "positions", "class_token")}
        return {name: tensor for name, tensor in found.items() if tensor is not None}


class Tokenizer(nn.Module, ABC):
    """The torch side of a modality: a batch of its arrays in, ``Tokens`` of the trunk's width out.

    ``native`` says whether its weights came with the trunk; only then does it carry meaning before any training.
    ``axes`` is the number of axes of its tokens' grid, 0 where they lie in no order; ``direct`` the number of features
    that its tokens bring to the head beside the trunk, ``at_places`` of those that each place of a sample brings.
    ``hides`` says that not only padding may be masked, but tokens by the values of a sample.
    """

    native: bool = False
    hides: bool = False
    axes: int = 0
    direct: int = 0
    at_places: int = 0

    @abstractmethod
    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns embeddings + positions + the modality's own summary token."""

    def uniform_fields(self, fields: Mapping[str, Field]) -> Mapping[str, Field]:
        """Returns the fields as ``forward`` takes them in uniform batches (``core.uniform``)."""
        return fields

    @property
    def lengths(self) -> Mapping[str, range]:
        """By axis of the fields that differs from sample to sample: the lengths that it may have, where not any."""
        return {}

    def uniform_inputs(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns a batch without padding in the form of ``uniform_fields``."""
        return inputs


class SummaryToken(nn.Module):
    """The learnable summary token that a tokenizer puts first; started from the trunk's class token if it has one."""

    def __init__(self, *, width: int, stem: Stem) -> None:
        super().__init__()
        start = torch.zeros(width) if stem.class_token is None else stem.class_token.clone()
        if stem.class_token is None:
            nn.init.trunc_normal_(start, std=0.02)
        self.token = nn.Parameter(start)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ``[B, 1 + N, D]`` and ``[B, 1 + N]`` with the summary token in front."""
        batch = x.shape[0]
        summary = self.token.to(x.dtype).expand(batch, 1, -1)
        real = torch.ones(batch, 1, dtype=torch.bool, device=mask.device)
        return torch.cat([summary, x], dim=1), torch.cat([real, mask], dim=1)


@dataclass(frozen=True)
class Source:
    """What a user may hand in as data of one modality, and how it becomes records.

    ``kind`` is ``files`` (one file a sample: a folder per class, a manifest, single files, in-memory arrays) or
    ``table`` (one row a sample). ``suffixes`` are the file endings that are accepted, lower case with the dot.
    ``parts`` opens a file that may hold several samples and returns what becomes ``Record.part``, and the label (None =
    none), of each; nothing for a file that is one sample.

    ``index`` replaces all of this where neither kind fits (cubes with label maps, windows of series, frames):
    ``index(data, target=str, labelled=bool, header=bool, options=its options) -> data.records.Index``. ``kind``
    then only says whether a sample is more like a file or like a row, and ``suffixes`` what is accepted.
    ``inside`` are endings of another modality's files that may hold this one as well, as films hold sound: they are
    read where a table or a list names them, not looked for in folders; ``holds`` says whether a file does.
    ``named`` is the modality's setting that names the columns of a table, where it has one. ``continues`` says that
    a prediction goes on from the target's own column, which then is named for it too.
    """

    kind: str
    suffixes: tuple[str, ...]
    parts: Callable[[Path], Sequence[tuple[int | str, Any]]] | None = None
    index: Callable[..., Any] | None = None
    named: str = ""
    continues: bool = False
    inside: tuple[str, ...] = ()
    holds: Callable[[Path], bool] | None = None

    @property
    def rows(self) -> bool:
        """Whether a sample is a row of a table, by the package's own index."""
        return self.kind == "table" and self.index is None


class Cut(NamedTuple):
    """A part of a sample that is read by itself: where it lies in the grid of tokens, and its inputs ``[1, ...]``."""

    where: tuple[slice, ...]
    inputs: Mapping[str, Tensor]


class Answer(NamedTuple):
    """The classes of all places of a sample: ``numbers`` in its shape; by number ``names``, ``colours`` and ``codes``,
    which training labels had; ``source`` is the sample's file, None = it is in memory.
    """

    numbers: np.ndarray
    names: Sequence[str]
    colours: Sequence[tuple[int, int, int]]
    codes: Sequence[int]
    source: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What a modality has for tasks whose answers are of parts of a sample, not of the whole.

    ``index(data, options=..., labelled=..., labels=FILE)`` is the door to labelled samples: an index whose targets are
    such labels; ``labels`` is a label map, "" looks for one.
    ``places(raw, view, transform)`` says where the places of a sample lie, ``shape(places)`` how they are numbered:
    ``(h, w)`` for pixels, ``(n,)`` for points.
    ``files`` are labels in words; ``defaults`` are changes to the modality's own.
    """

    index: Callable[..., Any]
    places: Callable[[View, View, Transform], np.ndarray]
    shape: Callable[[np.ndarray], tuple[int, ...]]
    files: str
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Boxed(Kit):
    """What a modality has for tasks that find objects; its targets are ``core.boxes.BoxLabels``.

    ``paint(axes, raw)`` paints a sample, faint, on matplotlib axes whose units are its pixels. Raw samples have
    ``pixels`` ``[h, w, ...]``.
    """

    paint: Callable[[Any, View], None]


@dataclass(frozen=True, kw_only=True)
class Dense(Kit):
    """What a modality has for tasks that answer for every place of a sample, each pixel or each point; its targets are
    ``core.labels.PlaceLabels``.

    ``at(values, places, chosen)`` returns values of tokens ``[*grid, F]`` at places ``[m, F]``: those whose flat
    numbers are ``chosen`` [m], or all. ``plain(places)`` [n, P] are numbers that a place is known by beside the tokens;
    a tokenizer says how many (``at_places``).
    ``cut(transform, inputs)`` are the parts, which may overlap, that a sample is read in, each input ``[1, ...]``
    without padding; None where it is read at once.
    ``local(raw, places, chosen)`` [m, F] is what a plain model knows the chosen places by, or all.
    ``write(path, raw, answer)`` writes an answer into a file that other programs read, called with ``suffix`` or as the
    sample's own file, and returns it; ``raw()`` is the sample. ``paint(axes, raw, numbers, colours)`` paints it for
    people. ``settings`` are those of the modality's settings that mean nothing elsewhere.
    """

    at: Callable[[Tensor, np.ndarray, np.ndarray | None], Tensor]
    local: Callable[[View, np.ndarray, np.ndarray | None], np.ndarray]
    write: Callable[[Path, Callable[[], View], Answer], Path]
    paint: Callable[[Any, View, np.ndarray, Sequence[tuple[int, int, int]]], None]
    suffix: str
    plain: Callable[[np.ndarray], np.ndarray] | None = None
    cut: Callable[[Transform, Mapping[str, Tensor]], Sequence[Cut] | None] | None = None
    settings: Sequence[str] = ()


@dataclass(frozen=True)
class Modality:
    """Everything that the rest of the package knows of one kind of data.

    ``load`` reads one record into raw arrays; ``transform`` and ``tokenizer`` are built from ``options`` (a frozen
    dataclass of typed settings with defaults) and the trunk's stem. ``defaults`` are recipe overrides that make the
    default recipe good for this modality, ``defaults_for`` those of a task by its name. ``features`` gives the plain
    baseline's vector of a transformed sample, or with ``raw_features`` of a sample as ``load`` gave it: where the
    transform takes away what a plain model would use, as brightness, a baseline behind it would be too weak;
    ``beside`` says that a head may read them beside
    the trunk's (``head.features``). ``draw`` paints a transformed sample on matplotlib axes; ``synthesize`` makes a
    sample of class ``label`` for tests and self-checks, and ``synthetic`` holds recipe settings that its samples need.
    ``before`` names settings that came after models were saved, with the values at which they change nothing: older
    models are read with these. ``title`` is its name in a report, where that is not the name with a capital.
    ``threads`` says that several threads may read at once and gain by it: a decoder outside Python does the work.
    ``native`` says in words what is used of the trunk's own front end, ``example`` what a typical ``fit`` is given,
    where that is no folder with one folder a class and no plain table.

    ``arrange(records, table)`` turns the table of predictions (a DataFrame, one row a record, in their order) into the
    one that people expect (a forecast in long form); ``illustrate(records, table, folder)`` writes pictures of
    predictions (a label map, a forecast) into a folder, which it makes, and returns their paths. ``dense`` and
    ``boxed`` are what it has for tasks that answer for every place of a sample, and that find objects, ``inside`` what
    shows which places of a sample an answer rests on; None where it has nothing.
    """

    name: str
    summary: str
    source: Source
    fields: Mapping[str, Field]
    options: type[Any]
    load: Callable[[Record], Mapping[str, Any]]
    transform: Callable[[Any, Stem], Transform]
    tokenizer: Callable[[Any, Transform, int, Stem], Tokenizer]
    features: Callable[[View], np.ndarray | Counts]
    draw: Callable[[Any, View], None]
    synthesize: Callable[[np.random.Generator, int], Mapping[str, Any]]
    native: str
    units: str
    task: str = "classify"
    metric: str = "accuracy"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    synthetic: Mapping[str, Any] = field(default_factory=dict)
    baseline: str = "logistic"
    raw_features: bool = False
    beside: bool = True
    threads: bool = True
    requires: Sequence[str] = ()
    extra: str = ""
    example: str = ""
    title: str = ""
    defaults_for: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    before: Mapping[str, Any] = field(default_factory=dict)
    arrange: Callable[[Sequence[Record], Any], Any] | None = None
    illustrate: Callable[[Sequence[Record], Any, Path], Sequence[Path]] | None = None
    dense: Dense | None = None
    boxed: Boxed | None = None
    inside: Inside | None = None

    def kit(self, name: str) -> Kit | None:
        """Returns what it has for a task of this kit (``Task.kit``), None where it has nothing."""
        return {"dense": self.dense, "boxed": self.boxed}.get(name)

    def plain(self, raw: View, view: View) -> np.ndarray | Counts:
        """Returns the plain features of a sample, as it was loaded and as it was transformed."""
        return self.features(raw if self.raw_features else view)

    def made_up(self, rng: np.random.Generator, label: int, *, key: str) -> Record:
        """Returns a made-up sample of a class as a user hands it in: the one array, or the mapping of several."""
        raw = self.synthesize(rng, label)
        return Record(key, value=next(iter(raw.values())) if len(raw) == 1 else raw, target=label)
