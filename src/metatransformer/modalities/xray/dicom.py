"""Grey pictures of DICOM files as a person sees them: 0 is black, 1 is white.

Stored values -> modality LUT (rescale slope and intercept, or a table) -> VOI LUT (a table, or the
first window; where there is neither, the picture's own range) -> inverted for MONOCHROME1.
Sources: DICOM PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT, with its three window functions),
C.7.6.3 (photometric interpretation, pixel padding).
Limits: one frame of one sample a pixel, 8 to 16 bits. Overlays and presentation states are not
applied; compressed pixels need pylibjpeg and its decoders.
"""

from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError, MissingDependencyError

# What broken files make the library and its decoders raise. RuntimeError: no decoder could read the
# pixels; the others: an element is missing, short, or of another kind than the standard says.
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
)


def read_dicom(path: str | Path) -> np.ndarray:
    """Returns ``[h, w]`` float32 of 0 (black) to 1 (white).

    Raises:
        DataError: no such file, no DICOM, no pixels, several frames, colour, a damaged file.
        MissingDependencyError: pydicom, or the decoder of a compressed file, is not installed.
    """
    path = Path(path)
    pydicom = _pydicom()
    if not path.is_file():
        raise DataError(path, must="be a DICOM file", found="nothing there or a folder")
    if path.stat().st_size == 0:
        raise DataError(path, must="be a DICOM file", found="a file of 0 bytes", do="Remove it.")
    try:
        dataset = pydicom.dcmread(path)
    except pydicom.errors.InvalidDicomError as error:
        raise DataError(
            path,
            must="be a DICOM file",
            found="no mark 'DICM' behind the first 128 bytes",
            do="Remove it, or save it anew with a DICOM program.",
        ) from error
    except _BROKEN as error:
        raise _damaged(path, error) from error
    _require_grey(dataset, path=path)
    _require_decoder(dataset, path=path)
    try:
        return _display(dataset, where=path)
    except DataError:
        raise
    except _BROKEN as error:
        raise _damaged(path, error) from error


def _require_grey(dataset: Any, *, path: Path) -> None:
    """Refuses what is no single grey picture."""
    if "PixelData" not in dataset:
        kind = dataset.get("Modality", "unknown")
        raise DataError(path, must="hold a picture", found=f"none (modality {kind})", do="Remove it.")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise DataError(
            path,
            must="hold one frame",
            found=f"{frames} frames",
            do="Save each frame as a file of its own.",
        )
    kind = dataset.get("PhotometricInterpretation", "missing")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(
            path,
            must="be grey (photometric interpretation MONOCHROME1 or MONOCHROME2)",
            found=str(kind),
        )
    bits = dataset.get("BitsAllocated", "missing")
    if bits not in (8, 16):
        raise DataError(path, must="have 8 or 16 bits a pixel", found=str(bits))


def _require_decoder(dataset: Any, *, path: Path) -> None:
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    from pydicom.pixels import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise DataError(path, must="be compressed by a method for pictures", found=f"'{syntax.name}'") from error
    if not decoder.is_available:
        purpose = f"{path}: pixels compressed by '{syntax.name}'"
        raise MissingDependencyError("pylibjpeg", extra="xray", purpose=purpose)


def _display(dataset: Any, *, where: Path) -> np.ndarray:
    """Returns the pixels through both tables, 0..1, MONOCHROME1 inverted."""
    from pydicom.pixels import apply_modality_lut

    stored = dataset.pixel_array
    values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    if dataset.get("VOILUTSequence"):
        light = _table(values, dataset)
    elif dataset.get("WindowWidth") is not None:
        light = _window(values, dataset, where=where)
    else:
        return _own_range(values, dataset, padding=_padding(stored, dataset))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        light = 1.0 - light
    return light.astype(np.float32)


def _table(values: np.ndarray, dataset: Any) -> np.ndarray:
    from pydicom.pixels import apply_voi

    bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
    shown = apply_voi(np.rint(values).astype(np.int64), dataset)
    return np.clip(np.asarray(shown, dtype=np.float64) / (2**bits - 1), 0.0, 1.0)


def _window(values: np.ndarray, dataset: Any, *, where: Path) -> np.ndarray:
    """Returns the values through the first window, by the function that the file names."""
    center, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if width < 1 if function == "LINEAR" else width <= 0:
        raise DataError(
            where,
            must=f"have a window width {'of at least 1' if function == 'LINEAR' else 'above 0'}",
            found=f"{width:g}",
            do="Repair or remove the window.",
        )
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(-4.0 * (values - center) / width))
    if function == "LINEAR":  # between the centres of the first and the last grey level
        center, width = center - 0.5, max(width - 1.0, 1e-6)
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def _first(value: Any) -> float:
    return float(value if isinstance(value, str | int | float) else value[0])


def _own_range(values: np.ndarray, dataset: Any, *, padding: np.ndarray) -> np.ndarray:
    """Returns the values spread from the picture's least to its greatest; what is padding is black."""
    real = values[~padding]
    low, high = (real.min(), real.max()) if real.size else (0.0, 0.0)
    light = np.clip((values - low) / max(high - low, 1e-9), 0.0, 1.0)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        light = 1.0 - light
    return np.where(padding, 0.0, light).astype(np.float32)


def _padding(stored: np.ndarray, dataset: Any) -> np.ndarray:
    """Returns which stored values stand for "no picture here"."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    limit = dataset.get("PixelPaddingRangeLimit", value)
    return (stored >= min(value, limit)) & (stored <= max(value, limit))


def _damaged(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    do = "Remove it or copy it again."
    return DataError(path, must="be a whole DICOM file", found=f"a damaged one ({reason})", do=do)


def _pydicom() -> Any:
    try:
        import pydicom
        import pydicom.errors
    except ImportError as error:
        raise MissingDependencyError("pydicom", extra="xray", purpose="reading DICOM") from error
    return pydicom
