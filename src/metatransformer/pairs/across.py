"""Search across kinds of data: what ``embed`` wrote is asked by texts, or by samples of the other side of its space.

A list holds similarities either within one kind of data or across two, whose scales differ. What is aligned with a
third kind only is refused: similarities do not pass on from one alignment to the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from metatransformer.core.errors import UsageError
from metatransformer.data.stored import Stored, open_stored
from metatransformer.infer.embed import embed
from metatransformer.infer.joined import read_told
from metatransformer.infer.search import Nearest, find, model_of, nearest_rows, require_same
from metatransformer.machine.console import Console
from metatransformer.nn.near import unit
from metatransformer.pairs.ledger import LEDGER, read_ledger, require_aligned
from metatransformer.pairs.space import IMAGE, SPACE, WORDS, Samples, Space, Texts, has_space, open_space
from metatransformer.trunk.encoder import require_alike


@dataclass(frozen=True)
class Asked:
    """What is looked for: ``texts``, or the samples in ``data``, of the side of the index unless ``side`` names one."""

    data: Any = None
    texts: Sequence[str] = ()
    side: str = ""


@dataclass(frozen=True)
class Link:
    """Two sides, name -> modality, that share a space at ``place``; ``told`` is the ledger entry, where it is one."""

    place: str
    sides: Mapping[str, str]
    told: Mapping[str, Any] | None = None

    @property
    def kinds(self) -> set[str]:
        """The modalities."""
        return set(self.sides.values())


def search(
    index: str | Path,
    data: Any = None,
    *,
    text: str | Sequence[str] | None = None,
    k: int = 10,
    side: str = "",
    through: Sequence[str] = (),
    model: str = "",
    device: str = "auto",
    verbose: bool = False,
) -> pd.DataFrame:
    """Returns what is nearest in an index that ``metatransformer embed`` wrote: ``query``, ``rank`` from 1, ``id``,
    ``similarity`` (a cosine) and ``path``, ``k`` rows a query.

    Asked for are samples (``data``, as ``Embedder`` takes them; ``side`` names theirs in an aligned pair) or texts.
    ``through`` lists runs of ``pretrain`` or ``align`` that may link the two, beside the one that the index is of;
    ``model`` is where that lies now, if it was moved.

    Raises:
        UsageError: neither or both; no index; nothing aligns the two directly, or no better than chance.
        WeightsError: an encoder is no longer the one that was aligned.
    """
    texts = [text] if isinstance(text, str) else list(text or ())
    if bool(texts) == (data is not None):
        raise UsageError("search", must="get either data or text", found="both" if texts else "neither")
    if k < 1:
        raise UsageError("k", must="be at least 1", found=str(k))
    asked, console = Asked(data, texts, side), Console(quiet=not verbose)
    return nearest_in(
        open_stored(Path(index)),
        asked,
        through=through,
        model=model,
        nearest=nearest_rows,
        count=k,
        device=device,
        console=console,
    )


def nearest_in(
    stored: Stored,
    asked: Asked,
    *,
    through: Sequence[str],
    model: str,
    nearest: Nearest,
    count: int,
    device: str,
    console: Console,
) -> pd.DataFrame:
    """Returns what ``search`` does.

    Raises:
        UsageError, WeightsError: what ``search`` raises.
    """
    if asked.texts and asked.side:
        raise UsageError("--side", must="go with samples", found="a text")
    if through and not (asked.texts or asked.side):
        raise UsageError("--through", must="go with --text or --side", found="samples as those of the index")
    manifest, listed = stored.manifest, partial(find, stored, nearest=nearest, count=count, console=console)
    if SPACE in manifest:
        space, own = _space_of(stored, model=model, device=device)
        if (side := _asked_side(space, own, asked)) is not None:
            return listed(*_queries(side, asked, console))
        raise _refusal(stored, asked, [_link(place) for place in (space.place, *through)])
    if not asked.texts and not asked.side:
        made = model_of(stored, run=model, device=device, console=console)
        examples = read_told(asked.data, made.pipeline.recipe, labelled=False, console=console).examples
        vectors = torch.from_numpy(embed(made, examples, console=console))
        return listed(list(examples.keys), vectors)
    encoder = model or str(manifest.get("encoder", ""))
    places = [*([encoder] if has_space(encoder) else []), *through]
    towers = [place for place in places if not (Path(place) / LEDGER).is_file()]
    if asked.texts and towers and manifest["modality"] == IMAGE:
        space = open_space(towers[0], device=device)
        pictures, texts = space.beside_texts()
        out = _require_summary(stored, pictures, where=towers[0])
        do = f"'embed --model {towers[0]}' reads their middle squares, as its training did"
        console.note(f"{stored.place} holds whole pictures; {do}")
        if nearest is not nearest_rows:
            do = f"Embed again: metatransformer embed PATH... --model {towers[0]} --out INDEX."
            raise UsageError("--approximate", must="go with vectors of the space", found="plain ones", do=do)
        mapped = partial(nearest_rows, mapped=lambda x: unit(x @ out.T))
        return listed(*_queries(texts, asked, console), nearest=mapped)
    raise _refusal(stored, asked, [_link(place) for place in places])


def _space_of(stored: Stored, *, model: str, device: str) -> tuple[Space, Samples]:
    """Returns the space of an index, and the side that it is of.

    Raises:
        UsageError: it is no longer there, or another one.
    """
    place, name = model or stored.manifest[SPACE], stored.manifest["side"]
    if not model and not has_space(place) and not Path(place).exists():
        do = "Name where it lies now with --model."
        raise UsageError(stored.place, must=f"find its space at {place}", found="nothing there", do=do)
    space = open_space(place, device=device)
    own = next((side for side in space.sides if side.name == name), None)
    if not isinstance(own, Samples):
        found = ", ".join(side.name for side in space.sides)
        raise UsageError(space.place, must=f"have the side '{name}' of {stored.place}", found=found)
    require_same(stored, own.about["model"], where=space.place)
    return space, own


def _asked_side(space: Space, own: Samples, asked: Asked) -> Texts | Samples | None:
    """Returns the side that the queries are of, None where the space has none such.

    Raises:
        UsageError: samples of the side of texts.
    """
    if asked.texts:
        return next((side for side in space.sides if isinstance(side, Texts)), None)
    if not asked.side:
        return own
    named = next((side for side in space.sides if asked.side in (side.name, side.modality)), None)
    if isinstance(named, Texts):
        raise UsageError("--side", must="be one of samples", found=repr(asked.side), do="Ask for words with --text.")
    return None if named is None else space.side(asked.side)


def _queries(side: Texts | Samples, asked: Asked, console: Console) -> tuple[list[str], torch.Tensor]:
    """Returns what the queries are called, and their vectors."""
    if isinstance(side, Texts):
        texts = list(asked.texts)
        side.require_known(texts)
        return texts, side.of(texts)
    examples = side.read(asked.data, console)
    return list(examples.keys), side.of(examples, console)


def _require_summary(stored: Stored, pictures: Samples, *, where: str) -> torch.Tensor:
    """Returns what brings vectors of a plain index to the space of towers.

    Raises:
        UsageError: they are of another encoder, or pooled otherwise than the tower does.
    """
    manifest, do = stored.manifest, f"Embed again: metatransformer embed PATH... --model {where} --out INDEX."
    if manifest.get("sha256") != pictures.about["sha256"]:
        must = f"be of the vision tower in {where}, {pictures.about['sha256'][:12]}"
        raise UsageError(stored.place, must=must, found=f"another encoder's, {manifest.get('sha256', '')[:12]}", do=do)
    if manifest["pooling"] != "summary" or "run" in manifest or pictures.out is None:
        found = f"vectors pooled by '{manifest['pooling']}'" + (", of a fitted model" if "run" in manifest else "")
        must = "be pooled as the tower does" if pictures.out is None else "be pooled by 'summary', as the tower does"
        raise UsageError(stored.place, must=must, found=found, do=do)
    return pictures.out


def _link(place: str) -> Link:
    """Returns what is linked at a place.

    Raises:
        UsageError: nothing is.
        WeightsError: a damaged entry.
    """
    if (Path(place) / LEDGER).is_file():
        told = read_ledger(Path(place))
        return Link(place, {name: about["modality"] for name, about in told["sides"].items()}, told)
    if not has_space(place):
        open_space(place)
    return Link(place, {IMAGE: IMAGE, WORDS: WORDS})


def _refusal(stored: Stored, asked: Asked, links: Sequence[Link]) -> UsageError:
    """Returns why an index cannot be asked, with the way out.

    Raises:
        UsageError, WeightsError: what would link the two has no right to.
    """
    own = str(stored.manifest["modality"])
    names = {name: kind for link in links for name, kind in link.sides.items()}
    other = WORDS if asked.texts else names.get(asked.side, asked.side)
    for link in links:
        if link.kinds == {own, other}:
            _require_fit(stored, link, own)
            do = f"Embed again: metatransformer embed PATH... --model {link.place} --out INDEX."
            found = f"vectors of '{stored.manifest.get('encoder')}' as they are"
            return UsageError(stored.place, must=f"hold vectors of the space in {link.place}", found=found, do=do)
    inputs = ",".join(f"{kind}={kind}({'caption' if kind == WORDS else 'file'})" for kind in (own, other))
    do = f"Align the two from pairs: metatransformer align TABLE --inputs {inputs} --out RUN"
    do += ", then embed PATH... --model RUN --out INDEX, and search in that."
    must = f"be aligned with {other} directly"
    if between := _between(links, own, other):
        do = f"Similarities do not pass on from one alignment to the next. {do}"
        return UsageError(stored.place, must=must, found=f"a link only through {' and '.join(between)}", do=do)
    found = f"vectors of '{stored.manifest.get('encoder')}', which nothing aligns with {other}"
    return UsageError(stored.place, must=must, found=found, do=do)


def _require_fit(stored: Stored, link: Link, kind: str) -> None:
    """Raises UsageError or WeightsError where an entry says that nothing was aligned, or another encoder was."""
    if link.told is None:
        return
    require_aligned(link.told, where=link.place)
    about = next(about for about in link.told["sides"].values() if about["modality"] == kind)
    found = [float(value) for value in str(stored.manifest.get("fingerprint", "")).split()]
    if found and about.get("sha256") == stored.manifest.get("sha256"):
        require_alike(about["fingerprint"], found, where=f"{stored.place}, asked through {link.place}")


def _between(links: Sequence[Link], first: str, last: str) -> list[str]:
    """Returns the kinds of data on the shortest way from one to another, nothing where there is no way."""
    ways = [[first]]
    for way in ways:  # grows while it is walked through
        for kind in sorted({kind for link in links if way[-1] in link.kinds for kind in link.kinds} - set(way)):
            if kind == last:
                return way[1:]
            ways.append([*way, kind])
    return []
