"""One space that samples and texts share: two towers, or a frozen trunk that was aligned with texts.

What nobody aligned is refused here, with the way out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from metatransformer.core.errors import UsageError
from metatransformer.data.examples import Examples
from metatransformer.infer.embed import Embedding
from metatransformer.infer.joined import read_dataset
from metatransformer.machine.console import Console
from metatransformer.machine.device import choose_device
from metatransformer.modalities import get_modality
from metatransformer.modalities._picture.pixels import as_rgb
from metatransformer.pairs.align import LEDGER, read_aligned
from metatransformer.pairs.batches import square
from metatransformer.pairs.files import TEXT, Loaded, read_towers
from metatransformer.pairs.foreign import fetch_towers, read_foreign
from metatransformer.pairs.texts import TextSide
from metatransformer.pairs.zero_shot import BATCH, TEMPLATES, class_vectors, shares
from metatransformer.recipe import Recipe, make_recipe, only
from metatransformer.trunk.catalog import TOWERS
from metatransformer.trunk.names import Given, Known, parse_name

WAYS = (
    "Ways out: a run of 'metatransformer pretrain' or 'metatransformer align'; a folder with CLIP or SigLIP, "
    "both towers and its tokenizer.json; or 'metatransformer fit' with labels."
)


@dataclass(frozen=True)
class Space:
    """``vectors`` are of samples of the recipe's inputs, ``texts`` of texts, all of length 1; a similarity is
    ``scale * cosine``, plus ``bias`` where pairs were judged one by one.
    """

    recipe: Recipe
    vectors: Callable[[Examples, Console], Float[Tensor, "n E"]]
    texts: Callable[[list[str]], Float[Tensor, "n E"]]
    scale: float
    bias: float | None = None


def open_space(place: str, *, device: str = "auto") -> Space:
    """Returns the space of a run of ``pretrain`` or ``align``, or of another library's weights with both towers.

    Raises:
        UsageError: nothing there has a text side, or nobody aligned it.
        WeightsError: what is there is damaged.
    """
    path = Path(place)
    if (path / TEXT).is_file():
        return of_towers(read_towers(path), device=device)
    if (path / LEDGER).is_file():
        return of_alignment(path, device=device)
    fitted = [file for file in ("run.json", "model.json", "model/model.json") if (path / file).is_file()]
    if path.is_dir() and fitted:
        found = "a fitted model, or an unfinished run, without a text tower"
        raise UsageError(place, must="share a space with texts", found=found, do=WAYS)
    spec = parse_name(place)
    if isinstance(spec, Known) and spec.entry.name in TOWERS:
        place = str(fetch_towers(TOWERS[spec.entry.name]))
        spec = parse_name(place)
    if not isinstance(spec, Given):
        raise UsageError(f"'{place}'", must="have a text tower", found="an encoder without one", do=WAYS)
    return of_towers(read_foreign(place, spec, ways=WAYS), device=device)


def of_alignment(folder: Path, *, device: str) -> Space:
    """Returns the space of an alignment with texts.

    Raises:
        UsageError: it is one of two other modalities, or nothing was aligned.
    """
    aligned = read_aligned(folder, device=device)
    left, right = aligned.sides
    if not isinstance(left, Embedding) or not isinstance(right, TextSide):
        found = " and ".join(about["modality"] for about in aligned.ledger["sides"].values())
        do = "Align with texts as the second input, as --inputs sound=audio(file),words=text(caption)."
        raise UsageError(folder, must="have aligned samples with texts", found=found, do=do)
    return Space(left.pipeline.recipe, aligned.of_left, aligned.of_texts, aligned.maps.scale)


def of_towers(loaded: Loaded, *, device: str) -> Space:
    """Returns the space of two towers, which takes pictures."""
    towers, size = loaded.towers, loaded.encoder.size
    where = choose_device(device)
    towers.to(where)
    load = get_modality("image").load

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

    recipe = make_recipe("image", base={}, overrides={"encoder": loaded.encoder.name, "run.device": device})
    bias = None if towers.bias is None else towers.bias.item()
    return Space(recipe, vectors, loaded.of_texts, towers.scale.item(), bias)


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
    asked = class_vectors(classes, TEMPLATES if templates is None else templates, space.texts)
    found = read_dataset(data, space.recipe, labelled=False)
    for note in found.notes:
        console.note(note)
    likely = shares(space.vectors(found.examples, console), asked, scale=space.scale, bias=space.bias)
    best = likely.argmax(dim=1)
    table = {"key": list(found.examples.keys), "prediction": [classes[place] for place in best.tolist()]}
    columns = {f"p({name})": likely[:, number].numpy() for number, name in enumerate(classes)}
    return pd.DataFrame({**table, "confidence": likely.max(dim=1).values.numpy(), **columns})


def similarity(data: Any, others: Any, *, encoder: str, device: str = "auto") -> np.ndarray:
    """Returns the cosine of each sample with each of the others, float32 ``[n, m]``; arguments are those of
    ``zero_shot``. The others are texts, or samples of the second modality of an alignment without texts.

    Raises:
        UsageError: the encoder shares no space with texts.
        DataError: a bad sample.
    """
    console, folder = Console(quiet=True), Path(encoder)
    if (folder / LEDGER).is_file():
        aligned = read_aligned(folder, device=device)
        left, right = aligned.sides
        if isinstance(left, Embedding) and isinstance(right, Embedding):
            first, second = (
                read_dataset(x, e.pipeline.recipe, labelled=False).examples for x, e in ((data, left), (others, right))
            )
            return (aligned.of_left(first, console) @ aligned.of_right(second, console).T).numpy()
    space = open_space(encoder, device=device)
    texts = [others] if isinstance(others, str) else list(others)
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise UsageError("similarity", must="get texts as the others", found=f"a {type(wrong[0]).__name__}")
    examples = read_dataset(data, space.recipe, labelled=False).examples
    return (space.vectors(examples, console) @ space.texts(texts).T).numpy()
