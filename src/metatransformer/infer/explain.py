"""Seeing inside: what an answer loses where a part of the sample is covered (occlusion).

Each place of each input is covered once, together with its neighbours where places lie on a fine grid, and the model
answers again: tokenizer, trunk, head, and whatever the head reads beside them. A place is worth how far the score of
the answer falls, on average over the copies in which it is covered; so values are in the score's own unit, positive
ones speak for the answer, and their sum means nothing: two places that say the same are worth little each. A sample
costs as many answers as it has places.

Sources: Zeiler and Fergus 2014 (arXiv 1311.2901). Whether such values tell of the model at all, a control shows whose
head was shuffled (Adebayo et al. 2018, arXiv 1810.03292): if it finds the same places, they are the sample's, not the
model's.
"""

import copy
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from metatransformer.core.batch import collate
from metatransformer.core.errors import UsageError
from metatransformer.core.inside import Inside, Places, Seen
from metatransformer.core.samples import Record, Sample, View
from metatransformer.core.task import Support
from metatransformer.core.tokens import Tokens
from metatransformer.data.examples import Examples
from metatransformer.data.write import atomic_file, write_json
from metatransformer.machine.console import Console
from metatransformer.machine.device import choose_device
from metatransformer.nn.head import Head
from metatransformer.nn.lowrank import Adapters
from metatransformer.pipeline import Pipeline, Reader, Route
from metatransformer.trunk.encoder import Encoder

PLACES = 100  # of an input: 8 x 8 cells of a picture of 112 or 224 pixels
BATCH = 32  # copies that go through the trunk together
CHANGED = 1e-4  # of a token's largest number: less is rounding
DPI = 130


@dataclass(frozen=True, eq=False)
class Part:
    """What one input of a sample means to an answer: a value for each of its ``places``.

    ``absent`` is how far the score falls where the sample lacks this input, None where it has no other one.
    """

    input: str
    modality: str
    places: Places
    values: np.ndarray
    absent: float | None
    covered: str
    seen: Seen
    inside: Inside

    def table(self) -> pd.DataFrame:
        """Returns ``input``, ``place``, ``value``, and where each place lies, the most important first."""
        where = dict(zip(self.places.columns, self.places.where.T, strict=True))
        found = pd.DataFrame({"input": self.input, "place": list(self.places.names), "value": self.values, **where})
        return found.iloc[np.argsort(-np.abs(self.values), kind="stable")].reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What an answer rests on.

    ``answer`` in words; ``score`` is what is measured, in words ``unit``, of the sample as it is. ``copies`` is how
    many answers it took. ``control`` is the rank correlation (Spearman) of the sizes of all values with those of the
    same model with a shuffled head, None where it was not asked for: near 1, the values do not tell of the model.
    """

    key: str
    task: str
    answer: str
    unit: str
    score: float
    parts: Mapping[str, Part]
    copies: int
    control: float | None = None

    def table(self) -> pd.DataFrame:
        """Returns one row a place: ``input``, ``place``, ``value``, and where it lies."""
        return pd.concat([part.table() for part in self.parts.values()], ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as JSON values, NaN as None."""
        parts = {
            name: {
                "modality": part.modality,
                "absent": part.absent,
                "covered": part.covered,
                "grid": list(part.places.grid),
                "places": [_told(row) for row in part.table().drop(columns="input").to_dict("records")],
            }
            for name, part in self.parts.items()
        }
        told = {name: getattr(self, name) for name in ("key", "task", "answer", "unit", "score", "copies", "control")}
        return {**told, "inputs": parts}

    def plot(self) -> Any:
        """Returns a matplotlib figure: each input as its modality paints it, what speaks for the answer red, what
        speaks against it blue.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.2 * len(self.parts), 3.6), layout="constrained")
        figure.suptitle(f"{self.answer} ({self.unit} {self.score + 0.0:.3g})", fontsize=9, parse_math=False)
        every = figure.subplots(1, len(self.parts), squeeze=False)[0]
        for axes, (name, part) in zip(every, self.parts.items(), strict=True):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=7)
            part.inside.paint(axes, part.seen, part.places, part.values)
            if part.absent is not None:
                axes.set_title(f"{name}: {part.absent:+.3g} without it", fontsize=8, parse_math=False)
        return figure

    def png(self) -> bytes:
        """Returns that figure as a PNG file."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure = self.plot()
            FigureCanvasAgg(figure)
            figure.savefig(file, format="png", dpi=DPI, facecolor="white")
        return file.getvalue()

    def save(self, place: Path) -> tuple[Path, Path]:
        """Writes PLACE.png and PLACE.json and returns both.

        Raises:
            DataError: they cannot be written.
        """
        picture, numbers = place.with_name(f"{place.name}.png"), place.with_name(f"{place.name}.json")
        with atomic_file(picture) as temporary:
            temporary.write_bytes(self.png())
        write_json(numbers, self.to_dict())
        return picture, numbers


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}


def explain(
    pipeline: Pipeline,
    examples: Examples,
    *,
    answer: str = "",
    places: int = PLACES,
    control: bool = False,
    console: Console,
) -> Iterator[Explanation]:
    """Yields what the answer of the one task to each sample rests on; ``answer`` names another one than the model's.

    ``places``: about how many each input is parted into at most; each costs one answer. ``control`` asks the model with
    a shuffled head too, at twice the cost.

    Raises:
        UsageError: a task whose answers are of places already; an unknown answer; a modality without places.
        DataError: a bad sample.
    """
    require_explained(pipeline)
    if places < 1:
        raise UsageError("places", must="be at least 1", found=str(places))
    with console.bar("explaining", total=len(examples)) as bar:
        for row in range(len(examples)):
            covered = cover(pipeline.route, examples, row, inputs=_inputs(pipeline), places=places)
            yield explained(pipeline, covered, answer=answer, control=control)
            bar.advance()


def _inputs(pipeline: Pipeline) -> Sequence[str]:
    return pipeline.recipe.inputs_of(pipeline.task_name)


def require_explained(pipeline: Pipeline) -> None:
    """Raises UsageError where nothing can be told of a pipeline's one task and its inputs.

    Raises:
        UsageError: see ``explain``.
    """
    if pipeline.task.kit:
        do = "'metatransformer predict' shows its answers."
        must = "have one answer a sample: an answer for every place says by itself where it is"
        raise UsageError("explain", must=must, found=f"the task '{pipeline.task.name}'", do=do)
    for name in _inputs(pipeline):
        modality = pipeline.route[name].modality
        if modality.inside is None:
            must = "be of a modality that says what can be covered (Modality.inside)"
            raise UsageError(f"input '{name}'", must=must, found=f"'{modality.name}'")


class _LeavingOut(nn.Module):
    """A trunk that does not see tokens which differ from those of the sample as it is.

    Behind the trunk they stand as the mean of the others, so that what pools a grid finds it whole. ``config`` is the
    trunk's.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.config = encoder, encoder.config
        self.leaves_out = False
        self._known: dict[tuple[str, ...], Tensor] = {}

    def read(self, tokens: Tokens, *, after: Sequence[int], adapters: Adapters | None = None) -> list[Tokens]:
        """Returns what the trunk makes of the tokens that are as they were; what it is asked first is the sample."""
        before = self._known.setdefault(tuple(span.input for span in tokens.spans), tokens.x)
        kept = self._kept(tokens, before) if self.leaves_out else tokens.mask
        layers = self.encoder.read(replace(tokens, mask=kept), after=after, adapters=adapters)
        return [replace(layer, x=_filled(layer, tokens.mask & ~kept), mask=tokens.mask) for layer in layers]

    @staticmethod
    def _kept(tokens: Tokens, before: Tensor) -> Tensor:
        """Returns which tokens the trunk sees: all where there are others than before, or none would be left."""
        copies, rest = divmod(len(tokens.x), len(before))
        if rest or tokens.x.shape[1:] != before.shape[1:]:
            return tokens.mask
        was = before.repeat(copies, 1, 1)
        moved = (tokens.x - was).abs().amax(dim=-1) > CHANGED * was.abs().amax(dim=-1)
        kept = tokens.mask & (~moved | tokens.summaries())
        left = (kept & ~tokens.summaries()).any(dim=1, keepdim=True)
        return torch.where(left, kept, tokens.mask)


def _filled(layer: Tokens, gaps: Tensor) -> Tensor:
    """Returns tokens of which those in gaps are the mean of the others of their row."""
    others = (layer.mask & ~layer.summaries()).unsqueeze(-1).to(layer.x.dtype)
    mean = (layer.x * others).sum(dim=1, keepdim=True) / others.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(gaps.unsqueeze(-1), mean, layer.x)


@dataclass(frozen=True, eq=False)
class Covered:
    """One sample, and by input its places and copies with them covered, by rows of ``Places.covers``."""

    sample: Sample
    seen: Mapping[str, Seen]
    places: Mapping[str, Places]
    copies: Mapping[str, Sequence[View]]

    def to_paint(self, route: Route) -> "Covered":
        """Returns it without what only covering needs: raw arrays that no picture shows, and transforms."""
        bare = {name: View(one.raw.key, {}) for name, one in self.seen.items()}
        raw = {name: one.raw if _inside(route[name]).paints_raw else bare[name] for name, one in self.seen.items()}
        return replace(self, seen={name: Seen(raw[name], one.view, None) for name, one in self.seen.items()})


def cover(route: Route, examples: Examples, row: int, *, inputs: Sequence[str], places: int = PLACES) -> Covered:
    """Returns a sample with its copies: all that is read and decoded for ``explained``.

    Raises:
        DataError: a bad sample.
    """
    records = {name: examples.inputs[name][row] for name in inputs}
    seen = {name: _seen(route[name], one) for name, one in records.items() if one is not None}
    found = {name: _inside(route[name]).places(one, places) for name, one in seen.items()}
    copies = {name: _copies(route[name], one, found[name]) for name, one in seen.items()}
    sample = Sample(examples.keys[row], {name: seen[name].view if name in seen else None for name in inputs})
    return Covered(sample, seen, found, copies)


def _inside(reader: Reader) -> Inside:
    inside = reader.modality.inside
    assert inside is not None, reader.modality.name
    return inside


def _copies(reader: Reader, seen: Seen, places: Places) -> list[View]:
    inside, modality, found = _inside(reader), reader.modality, []
    make = inside.cover(seen, places)
    raw = inside.cover_raw(seen, places) if reader.plain and inside.cover_raw is not None else None
    for hidden in places.covers():
        view = make(hidden)
        if reader.plain:
            view = replace(view, plain=modality.plain(seen.raw if raw is None else raw(hidden), view))
        found.append(view)
    return found


def explained(pipeline: Pipeline, covered: Covered, *, answer: str = "", control: bool = False) -> Explanation:
    """Returns what the answer of the one task to a covered sample rests on; see ``explain``.

    Raises:
        UsageError: an unknown answer.
    """
    pipeline.model.to(choose_device(pipeline.recipe.run.device)).eval()
    asked, head = _Asked(pipeline, covered), pipeline.head
    support = pipeline.task.support(asked.outputs(head, [covered.sample])[0], answer)
    found = asked.explained(head, support)
    if not control:
        return found
    other = asked.explained(_shuffled(head, seed=pipeline.recipe.run.seed), support)
    return replace(found, control=_alike(found, other), copies=found.copies + other.copies)


class _Asked:
    """A model that is asked of one sample and of its copies."""

    def __init__(self, pipeline: Pipeline, covered: Covered) -> None:
        self.pipeline, self.covered = pipeline, covered
        self.trunk = _LeavingOut(pipeline.model.encoder)
        self.model = pipeline.model.with_heads({})
        self.model.add_module("encoder", self.trunk)

    def explained(self, head: Head, support: Support) -> Explanation:
        """Returns what an answer rests on with this head."""
        covered, count = self.covered, 1
        before, parts = float(support.score(self.outputs(head, [covered.sample]))[0]), {}
        for name, places in covered.places.items():
            reader, absent = self.pipeline.route[name], None
            if len(covered.seen) > 1:
                absent = before - float(support.score(self.outputs(head, [self._with(name, None)]))[0])
            inside, copies = _inside(reader), [self._with(name, view) for view in covered.copies[name]]
            found = support.score(self.outputs(head, copies, leaves_out=inside.left_out)).double().numpy()
            covers = places.covers()
            values = (before - found) @ covers / covers.sum(axis=0)
            count += len(copies) + (absent is not None)
            kind, words = reader.modality.name, inside.covered
            parts[name] = Part(name, kind, places, values, absent, words, covered.seen[name], inside)
        task = self.pipeline.task_name
        return Explanation(covered.sample.key, task, support.words, support.unit, before, parts, count)

    def _with(self, name: str, view: View | None) -> Sample:
        sample = self.covered.sample
        return replace(sample, views={**sample.views, name: view})

    @torch.no_grad()
    def outputs(self, head: Head, samples: Sequence[Sample], *, leaves_out: bool = False) -> Tensor:
        """Returns what a head answers to samples, in float32: a fall is a small difference. ``leaves_out``: the trunk
        does not see tokens that differ from the sample's.
        """
        self.trunk.leaves_out = leaves_out
        fields = {name: self.pipeline.route[name].modality.fields for name in self.covered.sample.views}
        device, found = choose_device(self.pipeline.recipe.run.device), []
        for start in range(0, len(samples), BATCH):
            batch = collate(samples[start : start + BATCH], fields=fields).to(device)
            read_out = partial(self.model.read_out, batch, head.readout)
            found.append(head.answer(batch, read_out).float().cpu())
        return torch.cat(found)


def _seen(reader: Reader, record: Record) -> Seen:
    return Seen(reader.raw(record), reader.view(record), reader.transform)


def _shuffled(head: Head, *, seed: int) -> Head:
    """Returns the head with the weights of each layer in another order."""
    other, generator = copy.deepcopy(head), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in other.state_dict().items():
            if name.endswith("weight") and not name.startswith("readout.") and weights.ndim > 1:
                order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
                weights.copy_(weights.flatten()[order].reshape(weights.shape))
    return other


def _alike(found: Explanation, other: Explanation) -> float:
    """Returns the rank correlation of the sizes of all values, 0 where one of both has only one size."""
    sizes = [np.abs(np.concatenate([part.values for part in one.parts.values()])) for one in (found, other)]
    ranks = [pd.Series(values).rank().to_numpy() for values in sizes]
    if min(np.ptp(rank) for rank in ranks) == 0:
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])
