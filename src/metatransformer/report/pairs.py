"""A page of pairs that are nearly the same, with thumbnails where they are pictures."""

import base64
import io
from importlib import resources
from pathlib import Path

import pandas as pd
from PIL import Image

from metatransformer.core.errors import MetaTransformerError
from metatransformer.core.samples import Record
from metatransformer.data.stored import Stored
from metatransformer.infer.search import ABOVE
from metatransformer.modalities import get_modality
from metatransformer.modalities._picture.pixels import as_rgb
from metatransformer.report.page import write_html

SIDE = 160  # pixels of a thumbnail
SHOWN = 500  # pairs on a page


def write_pairs(table: pd.DataFrame, path: Path, *, stored: Stored, total: int, above: float | None) -> None:
    """Writes the page of ``infer.search.find_duplicates``: the most similar pairs.

    Raises:
        DataError: the file cannot be written.
    """
    pairs = []
    for row in table.iloc[:SHOWN].itertuples(index=False):
        twins = [(row.id, row.path), (row.twin, row.path_of_twin)]
        shown = [(name, thumbnail(stored.manifest["modality"], file)) for name, file in twins]
        pairs.append((f"{row.similarity:.4f}", shown))
    above = ABOVE if above is None else above
    lead = f"{total:,} pairs of {len(stored):,} samples with a cosine of at least {above:g}"
    lead += f"; the {SHOWN:,} most similar ones are shown" if total > SHOWN else ""
    template = resources.files("metatransformer.report").joinpath("pairs.html").read_text(encoding="utf-8")
    write_html(path, template, {"title": stored.place.name, "lead": lead, "pairs": pairs})


def thumbnail(modality: str, file: str | None) -> str:
    """Returns a small PNG of a picture as a ``data:`` address; "" for what is none, or is no longer there."""
    if file is None or not Path(file).is_file() or "pixels" not in get_modality(modality).fields:
        return ""
    try:
        pixels = get_modality(modality).load(Record(file, path=Path(file)))["pixels"]
        picture = Image.fromarray(as_rgb(pixels, where=file, top=65535))
    except MetaTransformerError:
        return ""
    picture.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    picture.save(data, format="png")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
