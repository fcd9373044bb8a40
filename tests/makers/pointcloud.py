"""Clouds of 97 points on a pipe and a mesh of a roof, in every format; and what goes wrong with them."""

import struct
from pathlib import Path

import laspy
import numpy as np

COUNT = 97
ROOF = np.array([[0, 0, 0], [4, 0, 0], [4, 3, 0], [0, 3, 0], [0, 1.5, 2], [4, 1.5, 2]])
# Two triangles and two squares, counter-clockwise seen from outside.
FACES = ((0, 4, 3), (1, 2, 5), (0, 1, 5, 4), (2, 3, 4, 5))


def make(folder: Path) -> None:
    """Writes one good file a format, and broken ones."""
    rng = np.random.default_rng(0)
    turn, height = rng.uniform(0, 2 * np.pi, size=COUNT), rng.uniform(0, 3, size=COUNT)
    normals = np.stack([np.cos(turn), np.sin(turn), np.zeros(COUNT)], axis=1)
    points = (normals * 0.5 + height[:, None] * [0, 0, 1]).astype(np.float32)
    colours = rng.integers(0, 256, size=(COUNT, 3))
    _make_text(folder, points, normals, colours)
    _make_ply(folder, points, colours)
    _make_meshes(folder)
    _make_arrays(folder, points, normals)
    _make_las(folder, points, colours)


def _make_text(folder: Path, points: np.ndarray, normals: np.ndarray, colours: np.ndarray) -> None:
    plain = [" ".join(f"{value:.4f}" for value in row) for row in points]
    (folder / "good.xyz").write_text("\n".join(plain) + "\n")
    (folder / "good.pts").write_text("\n".join([str(COUNT), *plain]) + "\n")
    rows = [",".join(f"{value:.4f}" for value in row) for row in np.concatenate([points, normals, colours], axis=1)]
    (folder / "good.csv").write_text("\n".join(["x,y,z,nx,ny,nz,r,g,b", *rows]) + "\n")
    (folder / "good.txt").write_text("\n".join(["//X;Y;Z", *(";".join(row.split()) for row in plain)]) + "\n")
    (folder / "good_nan.xyz").write_text("\n".join([*plain[:40], "1 nan 2", *plain[40:]]) + "\n")
    broken = {
        "few": plain[:11],
        "repeated": plain[:11] * 9,
        "ragged": [*plain[:40], "1 2", *plain[40:]],
        "word": [*plain[:40], "1 2 three", *plain[40:]],
        "two_columns": [line.rsplit(" ", maxsplit=1)[0] for line in plain],
        "only_count": [str(COUNT)],
    }
    for name, lines in broken.items():
        (folder / f"broken_{name}.xyz").write_text("\n".join(lines) + "\n")
    (folder / "broken_columns.csv").write_text("\n".join(["x,y,w", *(",".join(r.split()) for r in plain)]) + "\n")


def _header(form: str, vertex: tuple[str, ...], *, count: int = COUNT, faces: int = 0) -> bytes:
    lines = ["ply", f"format {form} 1.0", "comment made by tests/makers", f"element vertex {count}"]
    lines += [f"property {one}" for one in vertex]
    if faces:
        lines += [f"element face {faces}", "property list uchar int vertex_indices"]
    return "\n".join([*lines, "end_header\n"]).encode()


def _make_ply(folder: Path, points: np.ndarray, colours: np.ndarray) -> None:
    place = ("float x", "float y", "float z")
    painted = (*place, "uchar red", "uchar green", "uchar blue")
    rows = [struct.pack(">3f3B", *p, *c) for p, c in zip(points, colours.tolist(), strict=True)]
    (folder / "good_big_endian.ply").write_bytes(_header("binary_big_endian", painted) + b"".join(rows))
    text = "".join(f"{x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in points)
    (folder / "good_text.ply").write_bytes(_header("ascii", place) + text.encode())
    body = points.astype("<f4").tobytes()
    head = _header("binary_little_endian", place)
    (folder / "good.ply").write_bytes(head + body)
    (folder / "broken_truncated.ply").write_bytes(head + body[: len(body) // 2])
    (folder / "broken_truncated_text.ply").write_bytes(_header("ascii", place) + text[: len(text) // 2].encode())
    (folder / "broken_header.ply").write_bytes(head[: len(head) // 2])
    (folder / "broken_type.ply").write_bytes(head.replace(b"float z", b"half z") + body)
    (folder / "broken_no_points.ply").write_bytes(_header("binary_little_endian", place, count=0))
    (folder / "broken_no_place.ply").write_bytes(head.replace(b"float z", b"float w") + body)
    (folder / "broken_empty.ply").write_bytes(b"")
    (folder / "broken_foreign.ply").write_text("This is a text file.\n")
    bad = points.copy()
    bad[[3, 5], [0, 2]] = np.nan, np.inf
    (folder / "good_infinite.ply").write_bytes(head + bad.astype("<f4").tobytes())
    (folder / "broken_all_nan.ply").write_bytes(head + np.full_like(bad, np.nan).tobytes())


def _make_meshes(folder: Path) -> None:
    place = ("double x", "double y", "double z")
    corners = [struct.pack("<3d", *row) for row in ROOF]
    faces = [struct.pack(f"<B{len(face)}i", len(face), *face) for face in FACES]
    mesh = _header("binary_little_endian", place, count=len(ROOF), faces=len(FACES)) + b"".join(corners + faces)
    (folder / "good_mesh.ply").write_bytes(mesh)
    (folder / "broken_truncated_mesh.ply").write_bytes(mesh[:-7])
    vertices = [" ".join(f"{value:g}" for value in row) for row in ROOF]
    polygons = [" ".join(map(str, (len(face), *face))) for face in FACES]
    counts = f"{len(ROOF)} {len(FACES)} 0"
    (folder / "good.off").write_text("\n".join(["OFF", "# a roof", counts, *vertices, *polygons]) + "\n")
    (folder / "good_run_on.off").write_text("\n".join([f"OFF{counts}", *vertices, *polygons]) + "\n")
    (folder / "broken_truncated.off").write_text("\n".join(["OFF", counts, *vertices, *polygons[:-1]]) + "\n")
    (folder / "broken_face.off").write_text("\n".join(["OFF", counts, *vertices, *polygons[:-1], "3 0 1 6"]) + "\n")
    obj = [f"v {line}" for line in vertices]
    obj += ["f " + " ".join(f"{corner + 1}//1" for corner in face) for face in FACES]
    (folder / "good.obj").write_text("\n".join(["# a roof", "o roof", "vn 0 0 1", *obj]) + "\n")
    (folder / "broken_face.obj").write_text("\n".join([*obj, "f 1 2 7"]) + "\n")
    (folder / "broken_flat.obj").write_text("\n".join([*obj[: len(ROOF)], "f 1 2 2"]) + "\n")
    (folder / "broken_foreign.obj").write_text("This is a text file.\n")
    triangles = [(face[0], face[i], face[i + 1]) for face in FACES for i in range(1, len(face) - 1)]
    body = [struct.pack("<12fH", 0, 0, 0, *ROOF[list(t)].ravel(), 0) for t in triangles]
    stl = bytes(80) + struct.pack("<I", len(triangles)) + b"".join(body)
    (folder / "good.stl").write_bytes(stl)
    (folder / "broken_truncated.stl").write_bytes(stl[:-31])
    (folder / "broken_foreign.glb").write_bytes(b"This is no GLB file, but a text.")


def _make_arrays(folder: Path, points: np.ndarray, normals: np.ndarray) -> None:
    np.save(folder / "good.npy", points)
    np.savez(folder / "good.npz", points=points, normals=normals.astype(np.float32))
    np.savez(folder / "broken_length.npz", points=points, normals=normals[1:])
    np.savez(folder / "broken_names.npz", points=points, labels=np.arange(COUNT))
    np.save(folder / "broken_axes.npy", points.T)
    data = (folder / "good.npy").read_bytes()
    (folder / "broken_truncated.npy").write_bytes(data[: len(data) // 2])
    np.save(folder / "broken_text.npy", points.astype("U7"))


def _make_las(folder: Path, points: np.ndarray, colours: np.ndarray) -> None:
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.offsets, header.scales = (431_000.0, 5_410_000.0, 0.0), (0.001, 0.001, 0.001)
    las = laspy.LasData(header)
    las.xyz = points.astype(np.float64) + (431_234.0, 5_412_345.0, 210.0)
    las.red, las.green, las.blue = (colours.astype(np.uint16) * 257).T
    las.intensity = np.arange(COUNT, dtype=np.uint16) * 31
    for name in ("good.las", "good.laz"):
        las.write(folder / name)
        data = (folder / name).read_bytes()
        (folder / f"broken_truncated{Path(name).suffix}").write_bytes(data[: len(data) * 3 // 4])
    (folder / "broken_foreign.las").write_text("This is a text file.\n" * 20)
