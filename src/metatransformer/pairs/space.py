"""One space that two sides share: two towers, or what ``align`` brought together. Classes, similarities and captions.

What nobody aligned is refused here, with the way out.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from metatransformer.core.errors import UsageError, nearest
from metatransformer.data.examples import Examples
from metatransformer.infer.embed import embed
from metatransformer.infer.joined import read_told
from metatransformer.machine.console import Console
from metatransformer.machine.device import choose_device
from metatransformer.modalities import get_modality
from metatransformer.modalities._picture.pixels import as_rgb
from metatransformer.pairs.batches import square
from metatransformer.pairs.captions import ranked, read_captions
from metatransformer.pairs.files import TEXT, Loaded, read_towers
from metatransformer.pairs.foreign import fetch_towers, read_foreign
from metatransformer.pairs.ledger import LEDGER, Aligned, read_aligned
from metatransformer.pairs.texts import TextSide
from metatransformer.pairs.zero_shot import BATCH, TEMPLATES, class_vectors, shares
from metatransformer.recipe import Recipe, make_recipe, only
from metatransformer.trunk import KNOWN, Pretrained
from metatransformer.trunk.catalog import TOWERS
from metatransformer.trunk.encoder import digest
from metatransformer.trunk.names import Given, Known, parse_name

SPACE = "space"  # how the vectors of a space are pooled, and the key of a manifest that says which one it is
IMAGE, WORDS = "image", "text"  # the sides of two towers, which are called as their modalities
WAYS = (
    "Ways out: a run of 'metatransformer pretrain' or 'metatransformer align'; a folder with CLIP or SigLIP, "
    "both towers and its tokenizer.json; or 'metatransformer fit' with labels."
)


@dataclass(frozen=True)
class Texts:
    """The side of texts: ``of`` makes a vector of length 1 of each; ``knows`` says whether it can read any of one."""

    name: str
    of: Callable[[list[str]], Float[Tensor, "n E"]]
    knows: Callable[[str], bool] = bool
    modality: str = WORDS

    def require_known(self, texts: Sequence[str]) -> None:
        """Raises UsageError for a text that is empty, or of which no word was learned."""
        if unknown := [text for text in texts if not self.knows(text)]:
            must, do = "hold a word that the pairs held", "Align with --text minilm, which reads any word."
            raise UsageError("a text", must=must, found=repr(unknown[0]), do=do)


@dataclass(frozen=True)
class Samples:
    """The side of samples that ``recipe`` reads; ``of`` makes a vector of length 1 of each.

    ``about`` says by what, for the files that hold them. ``out`` [E, D] makes the same of vectors that ``embed`` pools
    by "summary", where that is possible.
    """

    name: str
    modality: str
    recipe: Recipe
    of: Callable[[Examples, Console], Float[Tensor, "n E"]]
    width: int
    about: Mapping[str, str]
    out: Float[Tensor, "E D"] | None = None

    def metadata(self) -> dict[str, str]:
        """Returns what makes two vectors comparable."""
        return dict(self.about)

    def vectors(self, examples: Examples, console: Console) -> np.ndarray:
        """Returns a vector of length 1 a sample."""
        return self.of(examples, console).numpy()

    def read(self, data: Any, console: Console) -> Examples:
        """Returns what was handed in as samples of this side.

        Raises:
            DataError: a bad sample.
        """
        return read_told(data, self.recipe, labelled=False, console=console).examples


@dataclass(frozen=True)
class Space:
    """Both sides; a similarity is ``scale * cosine``, plus ``bias`` where pairs were judged one by one."""

    place: str
    sides: Sequence[Texts | Samples]
    scale: float
    bias: float | None = None

    @property
    def kinds(self) -> list[str]:
        """The modalities of both sides."""
        return [side.modality for side in self.sides]

    def beside_texts(self) -> tuple[Samples, Texts]:
        """Returns the side of samples, and that of texts.

        Raises:
            UsageError: there are no texts.
        """
        first, second = sorted(self.sides, key=lambda side: isinstance(side, Texts))
        if not (isinstance(first, Samples) and isinstance(second, Texts)):
            do = "Align with texts as one input, as --inputs sound=audio(file),words=text(caption)."
            raise UsageError(self.place, must="have aligned samples with texts", found=" and ".join(self.kinds), do=do)
        return first, second

    def side(self, name: str) -> Samples:
        """Returns the side of samples with this name, or of this modality where there is one; "" is the first.

        Raises:
            UsageError: there is no such side, or it is one of texts.
        """
        samples = [side for side in self.sides if isinstance(side, Samples)]
        named = [side for side in samples if side.name == name] or [side for side in samples if side.modality == name]
        if name and len(named) != 1:
            do = nearest(name, [side.name for side in samples])
            raise UsageError("--side", must=f"be one side of {self.place}", found=repr(name), do=do)
        return (named or samples)[0]


def has_space(place: str) -> bool:
    """Returns whether a place looks as if two sides share a space there, and not like a fitted model."""
    marks = (TEXT, LEDGER, "tokenizer.json") if place else ()
    return place in TOWERS or any((Path(place) / name).is_file() for name in marks)


def open_space(place: str, *, device: str = "auto") -> Space:
    """Returns the space of a run of ``pretrain`` or ``align``, or of another library's weights with both towers.

    Raises:
        UsageError: nothing there has a text side, or nobody aligned it.
        WeightsError: what is there is damaged.
    """
    path = Path(place)
    if (path / TEXT).is_file():
        return of_towers(read_towers(path), place=str(path.resolve()), device=device)
    if (path / LEDGER).is_file():
        return of_alignment(path, device=device)
    fitted = [file for file in ("run.json", "model.json", "model/model.json") if (path / file).is_file()]
    if path.is_dir() and fitted:
        found = "a fitted model, or an unfinished run, without a text tower"
        raise UsageError(place, must="share a space with texts", found=found, do=WAYS)
    spec, read = parse_name(place), place
    if isinstance(spec, Known) and spec.entry.name in TOWERS:
        read = str(fetch_towers(TOWERS[spec.entry.name]))
        spec = parse_name(read)
    if not isinstance(spec, Given):
        raise UsageError(f"'{place}'", must="have a text tower", found="an encoder without one", do=WAYS)
    where = place if place in KNOWN else str(path.resolve())
    return of_towers(read_foreign(read, spec, ways=WAYS), place=where, device=device)


def of_alignment(folder: Path, *, device: str) -> Space:
    """Returns the space of an alignment.

    Raises:
        UsageError: nothing was aligned.
        WeightsError: what is there is damaged, or an encoder is another one now.
    """
    aligned = read_aligned(folder, device=device)
    sides = [_aligned_side(aligned, name, place=str(folder.resolve())) for name in aligned.sides]
    return Space(str(folder), sides, aligned.maps.scale)


def _aligned_side(aligned: Aligned, name: str, *, place: str) -> Texts | Samples:
    model, first = aligned.sides[name], name == next(iter(aligned.sides))
    mapped = aligned.maps.of_left if first else aligned.maps.of_right
    if isinstance(model, TextSide):
        return Texts(name, lambda texts: mapped(model.vectors(texts)), model.knows)

    def of(examples: Examples, console: Console) -> Tensor:
        return mapped(torch.from_numpy(embed(model, examples, console=console)).float())

    own = (aligned.maps.left, aligned.maps.left_bias) if first else (aligned.maps.right, aligned.maps.right_bias)
    made = model.identity() + digest({"map": own[0], "bias": own[1]})
    about = _about(model.pipeline.trunk, place=place, side=name, made=made)
    about["precision"] = model.pipeline.recipe.run.precision
    return Samples(name, model.modality, model.pipeline.recipe, of, own[0].shape[1], about)


def _about(trunk: Pretrained, *, place: str, side: str, made: str) -> dict[str, str]:
    """Returns what files of vectors say of them; ``made`` stands for all that they depend on besides their samples."""
    told = {"encoder": trunk.name, "sha256": trunk.sha256, "pooling": SPACE, "precision": "float32"}
    told["fingerprint"] = " ".join(f"{value:g}" for value in trunk.fingerprint)
    return {**told, "model": hashlib.sha256(made.encode()).hexdigest(), SPACE: place, "side": side}


def of_towers(loaded: Loaded, *, place: str, device: str) -> Space:
    """Returns the space of two towers, which take pictures and texts."""
    towers, size = loaded.towers, loaded.encoder.size
    where = choose_device(device)
    towers.to(where)
    load = get_modality(IMAGE).load

    @torch.no_grad()
    def vectors(examples: Examples, console: Console) -> Tensor:
        records = only(examples.inputs, what="input").records
        found = []
        with console.bar("pictures", total=len(records)) as bar:
            for start in range(0, len(records), BATCH):
                some = [records[row] for row in range(start, min(start + BATCH, len(records)))]
                pixels = [square(as_rgb(load(one)["pixels"], where=one.key), size) for one in some]
                found.append(towers.of_pictures(torch.from_numpy(np.stack(pixels)).to(where)).cpu())
                bar.advance(len(some))
        return torch.cat(found)

    recipe = make_recipe(IMAGE, base={}, overrides={"encoder": loaded.encoder.name, "run.device": device})
    bias, out = None if towers.bias is None else towers.bias.item(), towers.vision.out
    made = f"{loaded.encoder.sha256} {size} {digest({n: t.cpu() for n, t in out.state_dict().items()})}"
    about = _about(loaded.encoder, place=place, side=IMAGE, made=made)
    linear = out.weight.detach().cpu() if isinstance(out, torch.nn.Linear) else None
    width = towers.vision.config.outputs
    pictures = Samples(IMAGE, IMAGE, recipe, vectors, width, about, linear)
    return Space(place, (pictures, Texts(WORDS, loaded.of_texts)), towers.scale.item(), bias)


def zero_shot(
    data: Any,
    classes: Sequence[str],
    *,
    encoder: str,
    templates: Sequence[str] | None = None,
    device: str = "auto",
    verbose: bool = False,
) -> pd.DataFrame:
    """Returns ``key``, ``prediction``, ``confidence`` and ``p(CLASS)``, one row a sample, without any training.

    ``data`` is what ``Classifier.predict`` takes; ``encoder`` is a run of ``pretrain`` or ``align``, or a folder with
    weights of CLIP or SigLIP. ``templates`` are texts with ``{}`` where the class stands; of several the mean counts.

    Raises:
        UsageError: the encoder shares no space with texts; not two different classes; a template without ``{}``.
        DataError: a bad sample.
    """
    console = Console(quiet=not verbose)
    space = open_space(encoder, device=device)
    samples, texts = space.beside_texts()
    texts.require_known([] if isinstance(classes, str) else [name for name in classes if name])
    asked = class_vectors(classes, TEMPLATES if templates is None else templates, texts.of)
    examples = samples.read(data, console)
    likely = shares(samples.of(examples, console), asked, scale=space.scale, bias=space.bias)
    best = likely.argmax(dim=1)
    table = {"key": list(examples.keys), "prediction": [classes[place] for place in best.tolist()]}
    columns = {f"p({name})": likely[:, number].numpy() for number, name in enumerate(classes)}
    return pd.DataFrame({**table, "confidence": likely.max(dim=1).values.numpy(), **columns})


def similarity(data: Any, others: Any, *, encoder: str, device: str = "auto") -> np.ndarray:
    """Returns the cosine of each sample with each of the others, float32 ``[n, m]``; arguments are those of
    ``zero_shot``. The others are texts, or samples of the second modality of an alignment without texts.

    Raises:
        UsageError: the encoder shares no space with the others.
        DataError: a bad sample.
    """
    console = Console(quiet=True)
    space = open_space(encoder, device=device)
    if len(both := [side for side in space.sides if isinstance(side, Samples)]) == 2:
        left, right = both
        first, second = (side.of(side.read(x, console), console) for side, x in ((left, data), (right, others)))
        return (first @ second.T).numpy()
    samples, side = space.beside_texts()
    texts = [others] if isinstance(others, str) else list(others)
    if wrong := [text for text in texts if not isinstance(text, str) or os.path.isfile(text)]:
        found = f"the file {wrong[0]}" if isinstance(wrong[0], str) else f"a {type(wrong[0]).__name__}"
        do = f"{encoder} aligns {samples.modality} with text alone: two samples are linked only through text."
        raise UsageError("similarity", must="get texts as the others", found=found, do=do)
    side.require_known(texts)
    return (samples.of(samples.read(data, console), console) @ side.of(texts).T).numpy()


def captions(
    data: Any,
    known: Any,
    *,
    encoder: str,
    k: int = 5,
    device: str = "auto",
    verbose: bool = False,
) -> pd.DataFrame:
    """Returns the ``k`` known captions that are nearest to each sample: ``key``, ``prediction``, and ``caption_1``,
    ``similarity_1`` (a cosine) and so on, one row a sample.

    ``known`` is a list of texts, or a file: one caption a line, or a table with a column text or caption. The other
    arguments are those of ``zero_shot``.

    Raises:
        UsageError: the encoder shares no space with texts; ``k`` below 1.
        DataError: a bad sample; a file without captions.
    """
    console = Console(quiet=not verbose)
    if k < 1:
        raise UsageError("--k", must="be at least 1", found=str(k))
    texts = read_captions(known, console=console)
    samples, side = open_space(encoder, device=device).beside_texts()
    if unknown := [text for text in texts if not side.knows(text)]:
        console.note(f"{len(unknown):,} captions are left out, none of whose words was learned: {unknown[0]!r}")
        texts = [text for text in texts if side.knows(text)]
        side.require_known(unknown[:1] if not texts else [])
    examples = samples.read(data, console)
    return ranked(list(examples.keys), samples.of(examples, console), texts, side.of(texts), count=k)
