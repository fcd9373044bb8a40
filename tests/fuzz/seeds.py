"""What the campaign begins with: every fixture of every reader, and small files of the formats that have no fixture."""

import io
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).parents[1] / "fixtures"
FINDINGS = Path(__file__).parent / "findings"


@dataclass(frozen=True)
class Seed:
    """One good or broken input of a reader.

    ``files`` are bytes by name; ``main`` is the one that is handed in, "" for the folder that holds them all.
    ``settings`` and ``target`` are the recipe's.
    """

    reader: str
    name: str
    files: Mapping[str, bytes]
    main: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    target: str = ""

    def write(self, folder: Path) -> Path:
        """Writes the files into a folder and returns what is to be read."""
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return folder / self.main if self.main else folder


@cache
def seeds(reader: str) -> dict[str, Seed]:
    """Returns the seeds of a modality by name."""
    found: dict[str, Seed] = {}
    for path in sorted((FIXTURES / reader).iterdir()):
        if path.is_dir():
            files = {file.name: file.read_bytes() for file in sorted(path.iterdir())}
            found[path.name] = Seed(reader, path.name, files, "")
        elif path.suffix != ".md":
            beside = [path.with_suffix(ending) for ending in (".hdr", ".dat", ".bsq")] if _is_envi(path) else []
            there = {file.name: file.read_bytes() for file in (path, *beside) if file.is_file()}
            found[path.name] = Seed(reader, path.name, there, path.name)
    for name, data in _MADE.get(reader, dict)().items():
        found[name] = Seed(reader, name, {name: data}, name)
    for path in sorted((FINDINGS / reader).glob("*")):
        if path.suffix != ".dat":  # it stands beside its header
            beside = {file.name: file.read_bytes() for file in (path, path.with_suffix(".dat")) if file.is_file()}
            found[f"findings/{path.name}"] = Seed(reader, f"findings/{path.name}", beside, path.name)
    for seed in [*found.values()]:
        for variant, (endings, settings, target) in _VARIANTS.get(reader, {}).items():
            if seed.name.startswith(endings):
                name = f"{seed.name}@{variant}"
                found[name] = Seed(reader, name, seed.files, seed.main, settings, target)
    return found


def _is_envi(path: Path) -> bool:
    return path.suffix in (".hdr", ".dat", ".bsq")


_FORECAST = {"input.sample": "window", "input.lookback": 8, "input.horizon": 4, "task.name": "forecast"}
# The same files with other settings: beginnings of names, settings, target.
_VARIANTS: dict[str, dict[str, tuple[tuple[str, ...], dict[str, Any], str]]] = {
    "infrared": {"celsius": (("celsius", "float"), {"input.unit": "celsius"}, "")},
    "timeseries": {
        "forecast": (("good", "known"), {**_FORECAST, "input.known": ["plan"]}, "load"),
        "long": (("good", "long"), _FORECAST, "y"),
        "filled": (("good",), {**_FORECAST, "input.fill": "line", "input.short": "skip"}, "load"),
    },
    "tabular": {"target": (("good",), {}, "label")},
    "imu": {"windows": (("good",), {"input.sample": "window", "input.window_s": 0.2, "input.max_gap": 50.0}, "")},
}


def _tiffs() -> dict[str, bytes]:
    import tifffile

    rng = np.random.default_rng(0)
    grey = rng.integers(0, 4000, size=(24, 20), dtype=np.uint16)
    colour = rng.integers(0, 256, size=(24, 20, 3), dtype=np.uint8)
    degrees = (20 + grey / 500).astype(np.float32)
    files = {
        "float16.tif": (degrees.astype(np.float16), {}),
        "float_lzw.tif": (degrees, {"compression": "lzw", "predictor": True}),
        "float_lerc.tif": (degrees, {"compression": "lerc"}),
        "zip.tif": (grey, {"compression": "zlib", "predictor": True, "rowsperstrip": 7}),
        "packbits.tif": (colour, {"compression": "packbits", "photometric": "rgb"}),
        "jpeg.tif": (colour, {"compression": "jpeg", "photometric": "ycbcr", "tile": (16, 16)}),
        "jpeg2000.tif": (grey, {"compression": "jpeg2000"}),
        "jpeg2000_tiles.tif": (colour, {"compression": "jpeg2000", "tile": (16, 16), "photometric": "rgb"}),
        "jpegxl.tif": (colour, {"compression": "jpegxl", "photometric": "rgb"}),
        "webp.tif": (colour, {"compression": "webp", "photometric": "rgb"}),
        "zstd.tif": (grey, {"compression": "zstd"}),
        "lzma.tif": (grey, {"compression": "lzma"}),
        "png.tif": (grey, {"compression": "png"}),
        "big.tif": (grey, {"bigtiff": True}),
        "planes.tif": (np.moveaxis(colour, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        "signed.tif": (grey.astype(np.int16), {"photometric": "minisblack"}),
    }
    return {name: _written(lambda out, a=a, o=o: tifffile.imwrite(out, a, **o)) for name, (a, o) in files.items()}


def _written(write: Callable[[Any], object]) -> bytes:
    out = io.BytesIO()
    write(out)
    return out.getvalue()


def _pictures() -> dict[str, bytes]:
    from PIL import Image

    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, size=(13, 17, 3), dtype=np.uint8))
    alpha = colour.convert("RGBA")
    alpha.putalpha(99)
    frames = [colour, colour.rotate(90), colour.rotate(180)]
    files: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "made.bmp": (colour, {}),
        "rle.bmp": (colour.quantize(16), {}),
        "moving.gif": (colour, {"save_all": True, "append_images": frames}),
        "clear.gif": (colour.quantize(8), {"transparency": 3}),
        "made.webp": (alpha, {}),
        "lossless.webp": (alpha, {"lossless": True, "save_all": True, "append_images": [alpha.rotate(90)]}),
        "made.avif": (colour, {}),
        "palette.png": (colour.quantize(16), {"transparency": 3}),
        "bits.png": (colour.convert("1"), {}),
        "alpha.png": (alpha.convert("LA"), {}),
        "moving.png": (colour, {"save_all": True, "append_images": frames}),
        "progressive.jpg": (colour, {"progressive": True}),
        "inks.jpg": (colour.convert("CMYK"), {}),
        "plain.tif": (colour, {}),
        "lzw.tif": (colour.quantize(16), {"compression": "tiff_lzw"}),
        "group4.tif": (colour.convert("1"), {"compression": "group4"}),
        "deflate.tif": (alpha, {"compression": "tiff_adobe_deflate"}),
        "jpeg_by_pillow.tif": (colour, {"compression": "jpeg"}),
        "inks.tif": (colour.convert("CMYK"), {}),
    }
    made = {}
    for name, (image, options) in files.items():
        kind = {"jpg": "JPEG", "tif": "TIFF"}.get(name.rpartition(".")[2], name.rpartition(".")[2].upper())
        made[name] = _written(lambda out, i=image, k=kind, o=options: i.save(out, k, **o))
    turned = Image.Exif()
    turned[274] = 6
    made["turned.jpg"] = _written(lambda out: colour.save(out, "JPEG", exif=turned))
    return made


def _colour16() -> dict[str, bytes]:
    import imagecodecs

    rng = np.random.default_rng(0)
    return {"colour16.png": imagecodecs.png_encode(rng.integers(0, 65536, size=(13, 17, 3), dtype=np.uint16))}


def _sounds() -> dict[str, bytes]:
    import soundfile

    tone = (0.5 * np.sin(np.arange(809) / 3)).astype(np.float32)
    forms = {
        "vorbis.ogg": ("OGG", "VORBIS"),
        "opus.opus": ("OGG", "OPUS"),
        "made.mp3": ("MP3", "MPEG_LAYER_III"),
        "made.aiff": ("AIFF", "PCM_16"),
        "made.au": ("AU", "ULAW"),
        "made.w64": ("W64", "PCM_16"),
        "made.caf": ("CAF", "ALAC_16"),
        "gsm.wav": ("WAV", "GSM610"),
        "adpcm.wav": ("WAV", "IMA_ADPCM"),
        "ms_adpcm.wav": ("WAV", "MS_ADPCM"),
        "alaw.wav": ("WAV", "ALAW"),
        "wide.wav": ("WAVEX", "PCM_24"),
        "rf64.wav": ("RF64", "FLOAT"),
    }
    return {
        name: _written(lambda out, f=form, s=kind: soundfile.write(out, tone, 8000, format=f, subtype=s))
        for name, (form, kind) in forms.items()
    }


def _dicoms() -> dict[str, bytes]:
    import pydicom
    from make_fixtures import write_dicom
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    rng = np.random.default_rng(0)
    grey, made = rng.integers(0, 4000, size=(12, 10), dtype=np.uint16), {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        table = Dataset()
        table.LUTDescriptor, table.LUTData = [16, 0, 16], [*range(0, 65536, 4096)]
        table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
        write_dicom(path, grey, VOILUTSequence=Sequence([table]))
        made["table.dcm"] = path.read_bytes()
        smooth = np.add.outer(np.arange(40), np.arange(36)).astype(np.uint16)  # OpenJPEG takes no smaller picture
        write_dicom(path, smooth, RescaleSlope="2", RescaleIntercept="-7", PixelPaddingValue=3)
        made["scaled.dcm"] = path.read_bytes()
        for name, syntax in (
            ("rle.dcm", pydicom.uid.RLELossless),
            ("jpeg2000.dcm", pydicom.uid.JPEG2000Lossless),
        ):
            dataset = pydicom.dcmread(path)
            dataset.compress(syntax, generate_instance_uid=False)
            made[name] = _written(lambda out, d=dataset: d.save_as(out))
        for name, syntax in (
            ("implicit.dcm", pydicom.uid.ImplicitVRLittleEndian),
            ("deflated.dcm", pydicom.uid.DeflatedExplicitVRLittleEndian),
        ):
            dataset = pydicom.dcmread(path)
            dataset.file_meta.TransferSyntaxUID = syntax
            save = partial(dataset.save_as, implicit_vr=syntax.is_implicit_VR, little_endian=True)
            made[name] = _written(save)
        write_dicom(
            path, rng.integers(0, 256, size=(12, 10, 3), dtype=np.uint8), Rows=12, Columns=10, SamplesPerPixel=3,
            PlanarConfiguration=0, PhotometricInterpretation="RGB",
        )  # fmt: skip
        made["colour.dcm"] = path.read_bytes()
    made["bare.dcm"] = made["scaled.dcm"][132:]
    return made


def _clouds() -> dict[str, bytes]:
    import trimesh
    from imagecodecs import lzf_encode

    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 3)).astype("<f4")
    head = "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 40\nHEIGHT 1\n"
    head += "VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 40\nDATA "
    packed = lzf_encode(points.T.tobytes())
    sizes = len(packed).to_bytes(4, "little") + points.nbytes.to_bytes(4, "little")
    lines = "\n".join(" ".join(f"{value:.3f}" for value in row) for row in points)
    named = np.zeros(40, dtype=[("x", "f4"), ("y", "f4"), ("z", "f4"), ("intensity", "u1")])
    box = trimesh.creation.box()
    return {
        "text.pcd": (head + "ascii\n" + lines + "\n").encode(),
        "binary.pcd": (head + "binary\n").encode() + points.tobytes(),
        "packed.pcd": (head + "binary_compressed\n").encode() + sizes + packed,
        "kitti.bin": rng.normal(size=(40, 4)).astype("<f4").tobytes(),
        "made.glb": box.export(file_type="glb"),
        "made.gltf": _gltf(box),
        "named.npy": _written(lambda out: np.save(out, named)),
        "organised.npy": _written(lambda out: np.save(out, points.reshape(8, 5, 3))),
        "text.stl": box.export(file_type="stl_ascii").encode(),
    }


def _gltf(mesh: Any) -> bytes:
    import base64

    files = mesh.export(file_type="gltf")
    text = next(data for name, data in files.items() if name.endswith(".gltf")).decode()
    for name, data in files.items():
        text = text.replace(f'"{name}"', f'"data:application/octet-stream;base64,{base64.b64encode(data).decode()}"')
    return text.encode()


def _packed(reader: str, *names: str) -> dict[str, bytes]:
    import gzip

    return {f"{name}.gz": gzip.compress((FIXTURES / reader / name).read_bytes(), mtime=0) for name in names}


def _tables() -> dict[str, bytes]:
    lines = '{"a": 1, "b": "x", "c": null}\n{"a": 2.5, "b": "y", "c": true}\n{"a": -3, "b": "z", "c": [1]}\n'
    mixed = 'day;price;share\n2020-01-31;"1.234,5";3 %\n2020-02-29;$7;-\n2020-03-31;1,5;None\n'
    return _packed("tabular", "good.csv") | {"made.jsonl": lines.encode(), "mixed.csv": mixed.encode()}


def _graphs() -> dict[str, bytes]:
    smiles = "CCO ethanol\nc1ccccc1 benzene\n[NH4+] ammonium\nC[C@H](N)C(=O)O alanine\n"
    edges = "0 1 {'weight': 2.5}\n1 2 {}\n2 0 {'a': 1}\n"
    return _packed("graph", "good.sdf", "good.graphml") | {"made.smi": smiles.encode(), "made.edgelist": edges.encode()}


def _arrays() -> dict[str, bytes]:
    import h5py
    import scipy.io
    import scipy.sparse

    rng = np.random.default_rng(0)
    cube = rng.random((5, 6, 7)).astype(np.float32)
    mask = cube[:, :, 0] > 0.5
    scene = {"cube": cube, "wave": np.arange(400.0, 470.0, 10)}
    folded = {"V": rng.random((5, 30)), "nRow": 5.0, "nCol": 6.0}
    cells = np.empty(3, dtype=object)
    cells[:] = [cube[0], "letters", cube[1] * 1j]
    mixed = {"cells": cells, "sparse": scipy.sparse.eye(5).tocsc(), "text": "abc", "cube": cube, "own": {"a": cells}}
    made = {
        "struct.mat": _written(lambda out: scipy.io.savemat(out, {"scene": scene})),
        "mixed.mat": _written(lambda out: scipy.io.savemat(out, mixed)),
        "folded.mat": _written(lambda out: scipy.io.savemat(out, folded)),
        "packed.mat": _written(lambda out: scipy.io.savemat(out, {"cube": cube, "gt": mask}, do_compression=True)),
        "old.mat": _written(lambda out: scipy.io.savemat(out, {"cube": cube[:, :, 0]}, format="4")),
        "complex.npy": _written(lambda out: np.save(out, cube * 1j)),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mat"
        with h5py.File(path, "w") as file:
            file.create_dataset("cube", data=cube, chunks=(5, 6, 7), compression="gzip", shuffle=True)
            file.create_group("about")["wavelengths"] = np.arange(400.0, 470.0, 10)
        made["packed_v73.mat"] = path.read_bytes()
    return made


# Of the formats of TIFF that other readers have too, one reader takes all.
_MADE: dict[str, Callable[[], dict[str, bytes]]] = {
    "image": lambda: _pictures() | _tiffs(),
    "infrared": lambda: _tiffs() | _colour16(),
    "hyperspectral": lambda: _arrays() | _tiffs() | {"palette.png": _pictures()["palette.png"]},
    "xray": _dicoms,
    "audio": _sounds,
    "pointcloud": _clouds,
    "tabular": _tables,
    "graph": _graphs,
    "text": lambda: _packed("text", "good.csv", "good.tsv"),
    "timeseries": lambda: _packed("timeseries", "known.csv"),
}
