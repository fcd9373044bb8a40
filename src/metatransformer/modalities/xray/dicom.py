"""Grey pictures of DICOM files as a person sees them: 0 is black, 1 is white.

Stored values -> modality LUT (rescale slope and intercept, or a table) -> VOI LUT (a table, or the first window; where
there is neither, the picture's own range) -> inverted for MONOCHROME1; what is padding is black. Colour and palettes
become their luminance.
Sources: DICOM PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT, with its three window functions), C.7.6.3 (photometric
interpretation, pixel padding); PS3.10 7.1 for the preamble, which some archives leave out.
Limits: of several frames the middle one is read. Overlays and presentation states are not applied;
compressed pixels need pylibjpeg and its decoders.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.data.limits import Bounded, require_pixels
from metatransformer.modalities._picture.pixels import luminance
from metatransformer.modalities._picture.tiff import require_coded_size

_GREY = ("MONOCHROME1", "MONOCHROME2")
_PALETTE = "PALETTE COLOR"
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", _PALETTE)
# What a file without preamble begins with: group 0002 or 0008, in either byte order.
_BARE = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")


class _Window(NamedTuple):
    center: float
    width: float
    function: str


class _Grey(NamedTuple):
    """A picture behind its modality LUT: ``values`` [h, w], where it is ``padding``, and its window or what the table
    makes of it as ``shown``, 0..1; None where the file has none.
    """

    values: np.ndarray
    padding: np.ndarray
    window: _Window | None
    shown: np.ndarray | None


def read_dicom(path: str | Path) -> tuple[np.ndarray, int]:
    """Returns ``[h, w]`` float32 of 0 (black) to 1 (white), and how many frames the file has (the middle one is read).

    Raises:
        DataError: no such file, no DICOM, no pixels, another kind of picture, a damaged file.
        MissingDependencyError: pydicom, or the decoder of a compressed file, is not installed.
    """
    path = Path(path)
    dataset = _open(path)
    with _border(path):
        has_pixels, modality = bool(dataset.get("PixelData")), dataset.get("Modality", "unknown")
        kind, bits = str(dataset.get("PhotometricInterpretation", "missing")), dataset.get("BitsAllocated", "missing")
        frames = int(dataset.get("NumberOfFrames") or 1)
    if not has_pixels:
        raise DataError(path, must="hold a picture", found=f"none (modality {modality})", do="Remove it.")
    if kind not in (*_GREY, *_COLOURS):
        raise DataError(path, must=f"be grey or colour ({', '.join((*_GREY, *_COLOURS))})", found=kind)
    if bits not in (1, 8, 16, 32):
        raise DataError(path, must="have 1, 8, 16 or 32 bits a pixel", found=str(bits))
    with _border(path):
        height, width = int(dataset.Rows), int(dataset.Columns)
        for name in ("ModalityLUTSequence", "VOILUTSequence"):  # programs that remove names leave them empty
            if not any(table.get("LUTDescriptor") and table.get("LUTData") for table in dataset.get(name) or ()):
                dataset.pop(name, None)
    require_pixels(path, height=height, width=width)
    _require_decoder(dataset, path=path)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        from pydicom.encaps import get_frame

        with _border(path):
            coded = get_frame(dataset.PixelData, frames // 2, number_of_frames=frames)
        require_coded_size(path, coded, height=height, width=width)
    if kind not in _GREY:
        return _colour(dataset, kind=kind, frame=frames // 2, path=path), frames
    grey = _grey(dataset, frame=frames // 2, path=path)
    light = _light(grey, where=path)
    light = 1.0 - light if kind == "MONOCHROME1" else light
    return np.where(grey.padding, 0.0, light).astype(np.float32), frames


def _open(path: Path) -> Any:
    """Returns the dataset of a file; what of it is read later may still be damaged."""
    try:
        import pydicom
        from pydicom import uid
    except ImportError as error:
        raise MissingDependencyError("pydicom", extra="xray", purpose="reading DICOM") from error
    if not path.is_file():
        raise DataError(path, must="be a DICOM file", found="nothing there or a folder")
    if path.stat().st_size == 0:
        raise DataError(path, must="be a DICOM file", found="a file of 0 bytes", do="Remove it.")
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] != b"DICM" and not start.startswith(_BARE):
        found, do = "no mark 'DICM' behind the first 128 bytes", "Remove it, or save it anew with a DICOM program."
        raise DataError(path, must="be a DICOM file", found=found, do=do)
    with Bounded(path) as file, _border(path):
        dataset = pydicom.dcmread(file, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            known = {(True, True): "ImplicitVRLittleEndian", (False, True): "ExplicitVRLittleEndian"}
            name = known.get((bool(implicit), bool(little)), "ExplicitVRBigEndian")
            dataset.file_meta.TransferSyntaxUID = getattr(uid, name)
        return dataset


def _border(path: Path) -> foreign:
    return foreign(path, "pydicom", must="be a whole DICOM file", do="Remove it or copy it again.")


def _require_decoder(dataset: Any, *, path: Path) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    with _border(path):
        syntax = dataset.file_meta.TransferSyntaxUID
        packed = syntax.is_compressed
    if not packed:
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise DataError(path, must="be compressed by a method for pictures", found=f"'{syntax.name}'") from error
    if not decoder.is_available:
        purpose = f"{path}: pixels compressed by '{syntax.name}'"
        raise MissingDependencyError("pylibjpeg", extra="xray", purpose=purpose)


def _colour(dataset: Any, *, kind: str, frame: int, path: Path) -> np.ndarray:
    """Returns the luminance ``[h, w]`` of a colour picture or of one with a palette."""
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    with _border(path):
        colours = pixel_array(dataset, index=frame)
        full = 2.0 ** int(dataset.BitsStored) - 1
        if kind == _PALETTE:
            colours = apply_color_lut(colours, dataset)
            full = 255.0 if colours.max() <= 255 else 65535.0  # entries of 8 bits stand in 16 as often as not
    if colours.ndim != 3 or colours.shape[2] != 3:
        raise DataError(path, must="hold a picture [rows, columns, 3]", found=f"the shape {colours.shape}")
    return np.clip(luminance(colours) / np.float32(full), 0, 1)


def _grey(dataset: Any, *, frame: int, path: Path) -> _Grey:
    """Returns a grey picture with all that says how it is shown."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi
    from pydicom.pixels.utils import pixel_array

    window = shown = None
    with _border(path):
        stored = pixel_array(dataset, index=frame)
        values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
        if dataset.get("VOILUTSequence"):
            full = 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
            shown = np.asarray(apply_voi(np.rint(values).astype(np.int64), dataset), dtype=np.float64) / full
        elif dataset.get("WindowWidth") is not None:
            center, width = (np.ravel(value)[0] for value in (dataset.WindowCenter, dataset.WindowWidth))
            window = _Window(float(center), float(width), str(dataset.get("VOILUTFunction") or "LINEAR").upper())
        padding = np.zeros(stored.shape, dtype=bool)
        if (value := dataset.get("PixelPaddingValue")) is not None:
            limit = dataset.get("PixelPaddingRangeLimit", value)
            ends = [_as_stored(end, stored.dtype, where=path) for end in (value, limit)]
            padding = (stored >= min(ends)) & (stored <= max(ends))
    if values.ndim != 2:
        raise DataError(path, must="hold a picture [rows, columns]", found=f"the shape {values.shape}")
    if not np.isfinite(values).all():
        do = "Repair RescaleSlope and RescaleIntercept."
        raise DataError(path, must="have finite values once rescaled", found="NaN or infinity", do=do)
    return _Grey(values, padding, window, shown)


def _as_stored(value: Any, kind: np.dtype, *, where: Path) -> int:
    """Returns a value with or without a sign, as the pixels have it: many files write it the other way.

    Raises:
        DataError: it is no whole number.
    """
    try:
        return int(np.array(int(value), dtype=np.int64).astype(kind))
    except (TypeError, ValueError, OverflowError) as error:
        must, do = "state one whole number as the value of padding", "Repair or remove PixelPaddingValue."
        raise DataError(where, must=must, found=repr(value)[:60], do=do) from error


def _light(grey: _Grey, *, where: Path) -> np.ndarray:
    """Returns how bright the values are, 0..1: by the table, by the window, or over their own range."""
    if grey.shown is not None:
        return np.clip(grey.shown, 0.0, 1.0)
    if grey.window is None:
        real = grey.values[~grey.padding]
        low, high = (real.min(), real.max()) if real.size else (0.0, 0.0)
        return np.clip((grey.values - low) / max(high - low, 1e-9), 0.0, 1.0)
    center, width, function = grey.window
    if not (width >= 1 if function == "LINEAR" else width > 0):
        must = f"have a window width {'of at least 1' if function == 'LINEAR' else 'above 0'}"
        raise DataError(where, must=must, found=f"{width:g}", do="Repair or remove the window.")
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(-4.0 * (grey.values - center) / width))
    if function == "LINEAR":  # between the centres of the first and the last grey level
        center, width = center - 0.5, max(width - 1.0, 1e-6)
    return np.clip((grey.values - center) / width + 0.5, 0.0, 1.0)
