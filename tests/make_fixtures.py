"""Makes the small files in ``tests/fixtures``: per format a good one and broken ones.
are broken.

Run ``python tests/make_fixtures.py`` from the repository's root. Everything follows from seeds; a
file is below 20 kB. The name says what to expect: ``good*`` loads, ``broken_<why>*`` raises
DataError.
"""

import importlib.util
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from PIL import Image

ROOT = Path(__file__).parent / "fixtures"
RATE_HZ = 8000
MOTION_HZ = 50


def make_images(folder: Path) -> None:
    """Writes 13 x 17 pictures: RGB, grey of 16 bits, JPEG; and what goes wrong with pictures."""
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, size=(13, 17, 3), dtype=np.uint8)
    Image.fromarray(colour).save(folder / "good.png")
    Image.fromarray(colour).save(folder / "good.jpg", quality=90)
    grey = rng.integers(0, 65536, size=(13, 17), dtype=np.uint16)
    Image.fromarray(grey).save(folder / "good_grey16.png")
    for name in ("good.png", "good.jpg"):
        data = (folder / name).read_bytes()
        half = folder / f"broken_truncated{Path(name).suffix}"
        half.write_bytes(data[: len(data) // 2])
    data = bytearray((folder / "good.png").read_bytes())
    data[len(data) // 2] ^= 0xFF  # one wrong byte in the compressed pixels
    (folder / "broken_byte.png").write_bytes(data)
    (folder / "broken_foreign.png").write_text("This is a text file.\n")
    (folder / "broken_empty.png").write_bytes(b"")
    (folder / "broken_bomb.png").write_bytes(_png_header(side=40_009))


def _png_header(*, side: int) -> bytes:
    """Returns a PNG that announces ``side ** 2`` pixels in a few bytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + check

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(101)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


def make_audio(folder: Path) -> None:
    """Writes a stereo tone of 0.1 s, a mono FLAC; and what goes wrong with recordings."""
    time_s = np.arange(809) / RATE_HZ
    tone = 0.5 * np.sin(2 * np.pi * 443 * time_s)
    soundfile.write(folder / "good.wav", np.stack([tone, -0.5 * tone], axis=1), RATE_HZ)
    soundfile.write(folder / "good.flac", tone, RATE_HZ)
    soundfile.write(folder / "broken_no_samples.wav", np.zeros(0), RATE_HZ)
    bad = tone.astype(np.float32)
    bad[[5, 7]] = np.nan, np.inf
    soundfile.write(folder / "broken_nan.wav", bad, RATE_HZ, subtype="FLOAT")
    loud = (tone * 32768).astype(np.float32)
    soundfile.write(folder / "broken_scale.wav", loud, RATE_HZ, subtype="FLOAT")
    for name in ("good.wav", "good.flac"):
        data = (folder / name).read_bytes()
        half = folder / f"broken_truncated{Path(name).suffix}"
        half.write_bytes(data[: len(data) // 2])
    (folder / "broken_foreign.wav").write_text("This is a text file.\n")
    (folder / "broken_empty.wav").write_bytes(b"")


def make_tables(folder: Path) -> None:
    """Writes 23 rows of mixed columns with gaps and a target; and what goes wrong with tables."""
    rng = np.random.default_rng(0)
    rows = 23
    frame = pd.DataFrame(
        {
            "age": rng.integers(17, 91, size=rows),
            "weight": rng.normal(70, 11, size=rows).round(2),
            "colour": rng.choice(["red", "green", "dark blue"], size=rows),
            "code": rng.choice(["007", "101"], size=rows),
            "label": rng.choice(["no", "yes"], size=rows),
        }
    )
    text = frame.to_csv(index=False, lineterminator="\n")
    lines = text.splitlines()
    lines[3] = lines[3].replace(str(frame.loc[2, "weight"]), "?")
    lines[5] = "," + lines[5].split(",", 1)[1]
    good = "\n".join(lines) + "\n"
    (folder / "good.csv").write_text(good)
    frame.to_parquet(folder / "good.parquet", index=False)
    data = (folder / "good.parquet").read_bytes()
    (folder / "broken_truncated.parquet").write_bytes(data[: len(data) // 2])
    (folder / "broken_ragged.csv").write_text("\n".join([*lines[:5], "1,2.5", *lines[5:]]) + "\n")
    (folder / "broken_quote.csv").write_text(good.replace("dark blue", '"dark blue', 1))
    (folder / "broken_duplicate.csv").write_text(good.replace("weight", "age", 1))
    latin = good.replace("green", "grün").encode("latin-1")
    (folder / "broken_encoding.csv").write_bytes(latin)
    (folder / "broken_header_only.csv").write_text(lines[0] + "\n")
    (folder / "broken_empty.csv").write_bytes(b"")


def make_xrays(folder: Path) -> None:
    """Writes pictures and DICOM files of a dark disc on light ground; and what goes wrong there."""
    y, x = np.mgrid[0:31, 0:29]
    light = np.where((y - 15) ** 2 + (x - 13) ** 2 < 81, 0.25, 0.75)
    Image.fromarray((light * 255).astype(np.uint8)).save(folder / "good.png")
    Image.fromarray((light * 255).astype(np.uint8)).save(folder / "good.jpg", quality=90)
    twelve = (light * 4095).astype(np.uint16)
    Image.fromarray(twelve).save(folder / "good_12bit.png")
    write_dicom(folder / "good.dcm", twelve, WindowCenter=2048, WindowWidth=4096)
    write_dicom(folder / "good_inverted.dcm", 4095 - twelve, PhotometricInterpretation="MONOCHROME1")
    write_dicom(folder / "good_frames.dcm", np.stack([twelve[:7, :5]] * 3), NumberOfFrames=3)
    write_dicom(folder / "broken_window.dcm", twelve, WindowCenter=2048, WindowWidth=0)
    write_dicom(folder / "broken_colour.dcm", twelve, PhotometricInterpretation="PALETTE COLOR")
    write_dicom(folder / "broken_no_pixels.dcm", None)
    data = (folder / "good.dcm").read_bytes()
    (folder / "broken_truncated.dcm").write_bytes(data[: len(data) // 2])
    (folder / "broken_foreign.dcm").write_text("This is a text file.\n" * 11)
    (folder / "broken_empty.dcm").write_bytes(b"")
    (folder / "broken_empty.png").write_bytes(b"")


def write_dicom(path: Path, pixels: np.ndarray | None, **elements: object) -> None:
    """Writes uint8 or uint16 ``pixels`` [h, w] as a DICOM file; ``elements`` are set by keyword."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3.4"
    dataset.Modality = "CR"
    if pixels is not None:
        bits = 8 * pixels.itemsize
        dataset.Rows, dataset.Columns = pixels.shape[-2:]
        dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored = bits, min(bits, 12)
        dataset.HighBit = dataset.BitsStored - 1
        body = pixels.tobytes()
        dataset.PixelData = body + bytes(len(body) % 2)
        dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)


def make_infrared(folder: Path) -> None:
    """Writes 40 x 24 pictures of a module with a hot cell; degrees C; and what goes wrong there."""
    import tifffile

    rng = np.random.default_rng(0)
    counts = rng.integers(90, 120, size=(40, 24), dtype=np.uint8)
    counts[5:11, 3:9] += 80
    for ending in ("png", "jpg", "tif"):
        Image.fromarray(counts).save(folder / f"good.{ending}")
    Image.fromarray(counts.astype(np.uint16) * 57).save(folder / "good_16bit.png")
    colour = np.stack([counts, 255 - counts, counts // 2], axis=-1)
    tifffile.imwrite(folder / "good_colour.tif", colour.astype(np.uint16) * 257, photometric="rgb")
    degrees = 20 + counts.astype(np.float32) / 7
    tifffile.imwrite(folder / "celsius.tif", degrees)  # good where input.unit=celsius
    tifffile.imwrite(folder / "broken_celsius.tif", degrees)  # without it
    pages = np.stack([counts[:7, :5]] * 2)
    tifffile.imwrite(folder / "broken_pages.tif", pages, photometric="minisblack")
    alpha = np.stack([counts, counts], axis=-1)
    tifffile.imwrite(folder / "broken_alpha.tif", alpha, photometric="minisblack", extrasamples=[2])
    data = (folder / "good.tif").read_bytes()
    (folder / "broken_truncated.tif").write_bytes(data[: len(data) // 2])
    (folder / "broken_foreign.tif").write_text("This is a text file.\n")
    (folder / "broken_empty.tif").write_bytes(b"")


def make_motion(folder: Path) -> None:
    """Writes six axes at 50 Hz for about a second in every format; and what goes wrong with them."""
    rng = np.random.default_rng(0)
    times_s = np.arange(53) / MOTION_HZ
    phases = rng.uniform(0, 6, size=6)
    values = np.sin(8.1 * times_s[:, None] + phases) + rng.normal(0, 0.1, size=(53, 6))
    values = values.round(4)
    frame = pd.DataFrame(values, columns=[f"axis_{i}" for i in range(1, 7)])
    frame.insert(0, "time_s", times_s.round(3))
    text = frame.to_csv(index=False, lineterminator="\n")
    (folder / "good.csv").write_text(text)
    (folder / "good.tsv").write_text(text.replace(",", "\t"))
    frame.to_parquet(folder / "good.parquet", index=False)
    np.save(folder / "good.npy", values)
    series = {"frequency": MOTION_HZ, "data": [{"axis": row} for row in values.tolist()]}
    (folder / "good.json").write_text(json.dumps({"device": "watch", "imu": series}))
    header = "@timeStamps false\n@dimensions 6\n@equalLength true\n@seriesLength 53\n@classLabel false\n"
    case = ":".join(",".join(map(str, axis)) for axis in values.T)
    (folder / "good.ts").write_text(f"{header}@data\n{case}\n")
    (folder / "broken_truncated.ts").write_text(f"{header}@data\n{case[: len(case) // 2]}\n")
    (folder / "broken_missing.ts").write_text(f"{header}@data\n?{case[case.index(',') :]}\n")
    (folder / "broken_no_data.ts").write_text(header)
    np.save(folder / "broken_axes.npy", values[None])
    values[[5, 7], 2] = np.nan, np.inf
    np.save(folder / "broken_nan.npy", values)
    (folder / "broken_two_lists.json").write_text(json.dumps({"a": [{"x": 1}], "b": [{"x": 1}]}))
    for suffix in ("json", "npy", "parquet"):
        data = (folder / f"good.{suffix}").read_bytes()
        (folder / f"broken_truncated.{suffix}").write_bytes(data[: len(data) // 2])
    _break_motion_tables(folder, lines=text.splitlines(keepends=True))


def _break_motion_tables(folder: Path, *, lines: list[str]) -> None:
    """Writes what goes wrong with a table of time steps."""
    time_s, _, rest = lines[4].split(",", 2)
    broken = {
        "missing": [*lines[:4], f"{time_s},,{rest}", *lines[5:]],
        "gap": [*lines[:20], *lines[30:]],
        "repeated": [*lines[:7], lines[6], *lines[7:]],
        "unit_of_time": ["time,x\n", *(f"{20 * i},{i % 3}\n" for i in range(11))],
        "text": ["time_s,x,activity\n", *(f"{i / 50},left,walk\n" for i in range(11))],
        "one_step": lines[:2],
        "empty": [],
    }
    for name, content in broken.items():
        (folder / f"broken_{name}.csv").write_text("".join(content))


MAKERS = {
    "image": make_images,
    "audio": make_audio,
    "tabular": make_tables,
    "xray": make_xrays,
    "infrared": make_infrared,
    "imu": make_motion,
}


def makers() -> dict[str, Callable[[Path], None]]:
    """Returns the makers by modality: those of this file, and ``make`` of each file in ``tests/makers``."""
    found = dict(MAKERS)
    for file in sorted((Path(__file__).parent / "makers").glob("*.py")):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[file.stem] = module.make
    return found


def main(root: Path = ROOT) -> None:
    """Makes every fixture anew."""
    for name, make in makers().items():
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)


if __name__ == "__main__":
    main()
