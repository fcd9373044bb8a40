"""Masks: the class of every pixel of a picture, as people keep them beside it.

A mask is a PNG, or another picture without loss, of its picture's size: numbers of classes (8 or 16 bit, with a palette
or without), or colours, which a label map must name. Or polygons of a COCO file, drawn one over the other in its order.
A folder pairs them by name: ``images/a.jpg`` and ``masks/a.png``, ``train/a.jpg`` and ``trainannot/a.png``, ``a.jpg``
and ``a_mask.png``, or ``a.jpg`` and ``a.png``; a manifest has the columns path (or image) and mask.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, UnlabelledError
from metatransformer.core.labels import Colour, Legend, PlaceLabels
from metatransformer.core.modality import Answer, Cut, Dense, Transform
from metatransformer.core.samples import View
from metatransformer.data.folder import scan
from metatransformer.data.given import Files, Folder, Sheet, recognise
from metatransformer.data.index import index_files
from metatransformer.data.legend import find_legend, read_legend
from metatransformer.data.limits import Bounded
from metatransformer.data.manifest import index_manifest
from metatransformer.data.records import Index, Records, counted, listing, natural_key, split_name
from metatransformer.data.write import atomic_file
from metatransformer.modalities._picture.coco import coco_files, index_coco
from metatransformer.modalities._picture.local import local_pixels
from metatransformer.modalities._picture.read import open_picture, require_content
from metatransformer.modalities._picture.tiles import cut_pixels
from metatransformer.modalities._picture.transform import PictureTransform

MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")
_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "WEBP")
# Words that name masks and pictures in folders and behind names of files, as data sets spell them.
_MASKS = {"mask", "masks", "label", "labels", "annot", "annots", "annotation", "annotations", "gt", "groundtruth"}
_MASKS |= {"ground_truth", "segmentation", "segmentations", "segmentationclass", "labelids", "lbl", "target", "targets"}
_IMAGES = {"image", "images", "img", "imgs", "jpegimages", "picture", "pictures", "photos", "rgb", "raw", "leftimg8bit"}
_BEHIND = re.compile(rf"[ _.-]?({'|'.join(sorted(_MASKS, key=len, reverse=True))})$", re.IGNORECASE)
NOTHING: Mapping[str, Any] = MappingProxyType({})
# CamVid (frozen focus-s14, half its size, validation split): a line on the tokens of four blocks.
DEFAULTS: dict[str, Any] = {
    "tune": "head",
    "input.size": 448,
    "input.tiles": "auto",
    "head.read": (0.5, 0.67, 0.83, -1),
    "head.centres": 0,
    "data.batch_size": 8,
}


def read_mask(path: Path, colours: Mapping[int, Colour]) -> np.ndarray:
    """Returns the codes ``[h, w]`` of a mask; those of colours are the codes that ``colours`` gives them.

    Raises:
        DataError: no picture, one that loses values (JPEG), fractions, or a colour that has no code.
    """
    require_content(path)
    with Bounded(path) as file:
        image = open_picture(file, path=path, formats=_FORMATS)
        if image is None:
            must, do = f"be a mask without loss ({', '.join(_FORMATS)})", "Write it as PNG."
            raise DataError(path, must=must, found="another format", do=do)
        with foreign(path, "Pillow", must="be a whole picture", do="Remove it or copy it again."):
            palette = image.mode == "P" and bool(colours) and _by_palette(image, colours)
            pixels = np.asarray(image.convert("RGB") if palette or image.mode not in _GREY else image)
    if pixels.dtype == bool:
        return pixels.astype(np.int64)
    if pixels.ndim == 2 and pixels.dtype.kind in "ui":
        return pixels.astype(np.int64)
    if pixels.ndim != 3:
        raise DataError(path, must="hold whole numbers or colours", found=str(pixels.dtype), do="Write it as PNG.")
    return _coded(pixels, colours, path=path)


_GREY = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


def _by_palette(image: Image.Image, colours: Mapping[int, Colour]) -> bool:
    """Returns whether codes of a label map are colours, so that a palette's numbers say nothing."""
    return min(colours) >= 2**16 or not {code for _, code in image.getcolors() or ()} <= set(colours)


def _coded(pixels: np.ndarray, colours: Mapping[int, Colour], *, path: Path) -> np.ndarray:
    """Returns colours ``[h, w, 3]`` as codes."""
    wide = pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    if not colours:
        if (pixels == pixels[..., :1]).all():  # grey, written in three channels
            return pixels[..., 0].astype(np.int64)
        found = counted(len(np.unique(wide)), "colour")
        do = "Put a file labels.txt beside the folders, with a line such as '128 64 128 Road' for each class."
        raise DataError(path, must="hold numbers of classes where no label map names colours", found=found, do=do)
    values, places = np.unique(wide, return_inverse=True)
    known = {red << 16 | green << 8 | blue: code for code, (red, green, blue) in colours.items()}
    unknown = [int(value) for value in values if int(value) not in known]
    if unknown:
        count = int(np.isin(wide, unknown).sum())
        listed = listing((f"({v >> 16}, {v >> 8 & 255}, {v & 255})" for v in unknown), most=3)
        do = "Add it to the label map, or correct the mask; a mask that was resized must be resized without smoothing."
        found = f"{listed} on {counted(count, 'pixel')}"
        raise DataError(path, must="hold colours of the label map alone", found=found, do=do)
    return np.array([known[int(value)] for value in values])[places].reshape(wide.shape)


def index_masks(
    data: Any, *, suffixes: tuple[str, ...], options: Any, labelled: bool, labels: str = "", target: str = ""
) -> Index:
    """Returns one record a picture with its mask as target: of a folder, a COCO file, or a manifest.

    Without ``labelled`` masks are left out, and whatever ``index_files`` takes is taken.

    Raises:
        DataError: what ``index_files`` raises, a picture without a mask, two masks of one, a damaged label map.
    """
    del options
    given = recognise(data)
    if isinstance(given, Sheet) and {"image", "mask"} & set(given.columns):
        return _index_manifest(given, suffixes=suffixes, labelled=labelled, labels=labels, target=target)
    if isinstance(given, Files) and given.one is not None and given.one.suffix.lower() == ".json":
        return index_coco([given.one], labelled=labelled)
    if isinstance(given, Folder):
        if files := coco_files(given.path):
            return index_coco(files, labelled=labelled)
        manifest = _one_manifest(given)
        if manifest is not None:
            return _index_manifest(manifest, suffixes=suffixes, labelled=labelled, labels=labels, target=target)
        return _index_folder(given.path, suffixes=suffixes, labelled=labelled, labels=labels)
    if labelled:
        must = "be a folder with images and masks, a COCO file, or a manifest with path and mask"
        raise UnlabelledError(
            "the data", must=must, found="something else", do="See 'metatransformer modalities NAME'."
        )
    return index_files(given, suffixes=suffixes, require_labels=False)


def _one_manifest(folder: Folder) -> Sheet | None:
    """Returns the one table of a folder that names pictures and masks."""
    sheets = [Sheet(path) for path in folder.tables]
    found = [sheet for sheet in sheets if {"image", "path"} & set(sheet.columns) and "mask" in sheet.columns]
    return found[0] if len(found) == 1 else None


def _index_manifest(sheet: Sheet, *, suffixes: tuple[str, ...], labelled: bool, labels: str, target: str) -> Index:
    frame = sheet.read(header=True, text=True, missing=("",))
    column = target or "mask"
    if "path" not in frame.columns and "image" in frame.columns:
        frame = frame.rename(columns={"image": "path"})
    for name in ("path", column) if labelled else ("path",):
        if name in frame.columns and (bare := frame[name].isna().to_numpy().nonzero()[0]).size:
            where, do = f"{sheet.where}, row {bare[0] + 1}, column '{name}'", "Fill the cells, or remove the rows."
            raise DataError(where, must="name a file", found=f"nothing in {counted(bare.size, 'row')}", do=do)
    root = Path.cwd() if sheet.path is None else sheet.path.parent
    named = Sheet(frame=frame.assign(path=[str(root / str(path)) for path in frame["path"]]))
    index = index_manifest(named, suffixes=suffixes, label_column=column, require_labels=labelled)
    records = index.records
    keys = [_relative(str(path), root) for path in frame["path"]] if "key" not in frame.columns else records.keys
    records = records.replace(keys=keys)
    if not labelled:
        return Index(records.replace(targets=[None] * len(keys)), index.notes, root)
    masks = [root / str(path) for path in frame[column]]
    missing = [place for place, path in enumerate(masks) if not path.is_file()]
    if missing:
        where = f"{sheet.where}, row {missing[0] + 1}, column '{column}'"
        found = f"'{frame[column].iloc[missing[0]]}', which is not there; {counted(len(missing), 'mask')} missing"
        raise DataError(where, must="name the mask of its picture", found=found)
    legend = read_legend(Path(labels)) if labels else find_legend(root)
    return _with_masks(Index(records, index.notes, root), masks, legend)


def _relative(path: str, root: Path) -> str:
    full = root / path
    return full.relative_to(root).as_posix() if full.is_relative_to(root) else full.as_posix()


def _with_masks(index: Index, masks: Sequence[Path], legend: Legend) -> Index:
    targets = [mask_of(path, legend) for path in masks]
    return replace(index, records=index.records.replace(targets=targets))


def mask_of(path: Path, legend: Legend) -> PlaceLabels:
    """Returns the labels of a picture that a mask holds; without a label map a palette says the colours."""
    about = path.stat()
    read = partial(read_mask, path, dict(legend.colours))
    return PlaceLabels(str(path), read, legend, f"{about.st_size} {about.st_mtime_ns}")


def _index_folder(root: Path, *, suffixes: tuple[str, ...], labelled: bool, labels: str) -> Index:
    names, notes = scan(root, suffixes=tuple({*suffixes, *MASK_SUFFIXES}))
    pictures, masks = _sorted_out(names, suffixes=suffixes)
    if not labelled:
        keys = sorted(pictures.values(), key=natural_key)
        return Index(Records(keys, paths=[root / key for key in keys]), tuple(notes), root)
    if not masks:
        must = "hold a mask for each picture, as images/a.jpg and masks/a.png"
        raise UnlabelledError(root, must=must, found=f"{counted(len(pictures), 'picture')} and no mask")
    order = sorted(pictures, key=lambda name: natural_key(pictures[name]))
    if missing := [pictures[name] for name in order if name not in masks]:
        do = "Add the masks, or take the pictures away; a mask is called as its picture."
        found = f"{counted(len(missing), 'picture')} without one: {listing(missing, most=3)}"
        raise DataError(root, must="hold a mask for each picture", found=found, do=do)
    if alone := sorted(masks[name] for name in masks.keys() - pictures.keys()):
        notes = [*notes, f"{counted(len(alone), 'mask')} without a picture left out: {listing(alone, most=3)}"]
    keys = [pictures[name] for name in order]
    splits = [next(filter(None, map(split_name, name.split("/")[:-1])), None) for name in order]
    records = Records(keys, paths=[root / key for key in keys], splits=splits)
    legend = read_legend(Path(labels)) if labels else find_legend(root)
    return _with_masks(Index(records, tuple(notes), root), [root / masks[name] for name in order], legend)


def _sorted_out(names: Sequence[str], *, suffixes: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns pictures and masks by what their names have in common.

    Raises:
        DataError: two pictures, or two masks, that are called alike.
    """
    marked = {name: bare for name in names if (bare := _bare(name, masks=True)) is not None}
    pictures: dict[str, str] = {}
    masks: dict[str, str] = {}
    if not marked:  # side by side: of a.jpg and a.png the one without loss is the mask
        lossy = {name.rpartition(".")[0] for name in names if not name.lower().endswith(MASK_SUFFIXES)}
        marked = {
            name: str(_bare(name, masks=False))
            for name in names
            if name.lower().endswith(MASK_SUFFIXES) and name.rpartition(".")[0] in lossy
        }
    for name in sorted(names, key=natural_key):
        kind, bare = (masks, marked[name]) if name in marked else (pictures, str(_bare(name, masks=False)))
        if kind is pictures and not name.lower().endswith(suffixes):
            continue
        if bare in kind:
            found = f"'{kind[bare]}' and '{name}'"
            raise DataError("the folder", must="call pictures apart, and have one mask for each", found=found)
        kind[bare] = name
    return pictures, masks


def _bare(name: str, *, masks: bool) -> str | None:
    """Returns a name without its ending and the words for pictures or masks; None where it has no word for masks."""
    *folders, file = name.rpartition(".")[0].split("/")
    kept, found = [], False
    for folder in folders:
        low = folder.lower()
        if masks and low in _MASKS:
            found = True
        elif masks and (cut := _BEHIND.sub("", folder)) != folder and split_name(cut):
            found = True
            kept.append(cut)
        elif low not in _IMAGES:
            kept.append(folder)
    if masks and (cut := _BEHIND.sub("", file)) != file and cut:
        found, file = True, cut
    return "/".join([*kept, file]) if found or not masks else None


def at_pixels(values: Tensor, places: np.ndarray, chosen: np.ndarray | None) -> Tensor:
    """Returns values on a grid of tokens ``[r, c, F]`` at pixels ``[m, F]``, linear between the middles of patches."""
    height, width = (int(side) for side in places)
    grid = values.permute(2, 0, 1)[None]
    if chosen is None:
        whole = F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
        return whole[0].flatten(1).T
    rows, columns = np.divmod(chosen, width)
    where = np.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], axis=-1)
    points = torch.from_numpy(where).to(values)[None, None]
    found = F.grid_sample(grid, points, mode="bilinear", padding_mode="border", align_corners=False)
    return found[0, :, 0].T


def picture_of(answer: Answer) -> Image.Image:
    """Returns numbers of classes ``[h, w]`` with a palette: 8 bits, or 16 without one beyond 256 classes."""
    if len(answer.names) > 256:
        return Image.fromarray(answer.numbers.astype(np.uint16))
    image = Image.fromarray(answer.numbers.astype(np.uint8))
    image.putpalette([value for colour in answer.colours for value in colour])
    return image


def write_mask(path: Path, raw: Callable[[], View], answer: Answer) -> Path:
    """Writes numbers of classes ``[h, w]`` as a PNG."""
    del raw
    image = picture_of(answer)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        image.save(temporary, format="PNG")
    return path


def _grey(raw: View) -> np.ndarray:
    """Returns a picture in grey levels of 0..1, ``[h, w, 1]``."""
    pixels = np.asarray(raw.inputs["pixels"], dtype=np.float64)
    grey = pixels.reshape(*pixels.shape[:2], -1).mean(axis=2)
    low, high = np.percentile(grey, (1, 99))
    return np.clip((grey - low) / max(high - low, 1e-9), 0, 1)[..., None]


def paint_grey(axes: Any, raw: View) -> None:
    """Paints a picture in grey on matplotlib axes."""
    axes.imshow(_grey(raw), cmap="gray", vmin=-0.2, vmax=1.0)
    axes.axis("off")


def paint_mask(axes: Any, raw: View, numbers: np.ndarray, colours: Sequence[Colour]) -> None:
    """Paints classes over a faint picture on matplotlib axes; black ones, as ground often is, and -1 leave it alone."""
    grey, chosen = _grey(raw), numbers.clip(min=0)
    over = np.array(colours, dtype=np.float64)[chosen] / 255
    painted = (numbers >= 0) & over.any(axis=-1)
    shown = np.where(painted[..., None], 0.4 * grey + 0.6 * over, grey)
    axes.imshow(shown)
    axes.axis("off")


def picture_dense(suffixes: tuple[str, ...], *, more: Mapping[str, Any] = NOTHING) -> Dense:
    """Returns what pictures of files that end so have for dense tasks, with ``more`` defaults."""
    return Dense(
        index=partial(index_masks, suffixes=suffixes),
        places=picture_sides,
        shape=picture_shape,
        at=at_pixels,
        local=local_pixels,
        cut=_cut,
        write=write_mask,
        paint=paint_mask,
        suffix=".png",
        files="masks (PNG, one a picture)",
        defaults=DEFAULTS | dict(more),
        settings=("tiles",),
    )


def _cut(transform: Transform, inputs: Mapping[str, Tensor]) -> Sequence[Cut] | None:
    assert isinstance(transform, PictureTransform)
    return cut_pixels(inputs, tile=transform.tile_, patch=transform.patch) if transform.tile_ else None


def picture_sides(raw: View, view: View, transform: Transform) -> np.ndarray:
    """Returns a picture's height and width."""
    del view, transform
    return np.array(np.asarray(raw.inputs["pixels"]).shape[:2])


def picture_shape(places: np.ndarray) -> tuple[int, ...]:
    """Returns ``(h, w)``."""
    return tuple(places.tolist())
