"""Point clouds: what each format says, what is kept of large files, and which files are refused."""

import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import trimesh
from common import FIXTURES

import metatransformer.modalities.pointcloud.ply as ply_module
import metatransformer.modalities.pointcloud.read as cloud_module
from metatransformer.core.errors import DataError
from metatransformer.modalities.pointcloud.read import Cloud, cloud_in_memory, gather, make_cloud, read_cloud, sampled

FOLDER = FIXTURES / "pointcloud"
SAME = ["good.xyz", "good.pts", "good.txt", "good.csv", "good_text.ply", "good_big_endian.ply", "good.ply", "good.npz"]


# --- points


@pytest.mark.parametrize("name", SAME)
def test_all_formats_hold_the_same_points(name: str):
    cloud = read_cloud(FOLDER / name)
    expected = np.load(FOLDER / "good.npy")
    np.testing.assert_allclose(cloud.points, expected, atol=6e-5)  # text has four decimals
    assert cloud.points.dtype == np.float64 and cloud.total == 97 and cloud.faces is None


@pytest.mark.parametrize("name", ["good.las", "good.laz"])
def test_las_has_its_scale_and_offset_applied(name: str):
    cloud = read_cloud(FOLDER / name)
    expected = np.load(FOLDER / "good.npy") + np.array([431_234.0, 5_412_345.0, 210.0])
    np.testing.assert_allclose(cloud.points, expected, atol=6e-4)  # the file's scale is 1 mm
    assert cloud.names == ("red", "green", "blue", "intensity", "classification") and cloud.top == 0
    np.testing.assert_array_equal(cloud.extras[:3, 3], [0, 31, 62])


def test_columns_are_found_by_their_usual_names():
    cloud = read_cloud(FOLDER / "good.csv")
    assert cloud.names == ("nx", "ny", "nz", "red", "green", "blue")
    np.testing.assert_allclose(np.linalg.norm(cloud.extras[:, :3], axis=1), 1, atol=2e-4)  # four decimals
    named = make_cloud(np.eye(6), names=("Z", "Y", "X", "normal_x", "scalar_intensity", "ring"), where="x")
    assert named.names == ("nx", "intensity", "ring")
    np.testing.assert_array_equal(named.points[2], [1, 0, 0])


def test_whole_colours_state_their_range():
    assert read_cloud(FOLDER / "good_big_endian.ply").top == 255
    assert read_cloud(FOLDER / "good.csv").top == 0
    points = np.zeros((2, 3))
    assert cloud_in_memory({"points": points, "colors": np.zeros((2, 3), np.uint16)}, where="x").top == 65535
    assert cloud_in_memory({"points": points, "colors": np.zeros((2, 3))}, where="x").top == 0


def test_points_without_coordinates_are_left_out_and_counted():
    cloud = read_cloud(FOLDER / "good_infinite.ply")
    expected = np.delete(np.load(FOLDER / "good.npy"), [3, 5], axis=0)
    np.testing.assert_array_equal(cloud.points, expected)
    assert (cloud.gaps, cloud.total) == (2, 97)
    assert read_cloud(FOLDER / "good_nan.xyz").gaps == 1
    assert cloud_in_memory(vars(cloud), where="x").gaps == 2
    mesh = vars(read_cloud(FOLDER / "good_mesh.ply"))
    mesh["points"][2, 1] = np.nan
    with pytest.raises(DataError, match="must have finite coordinates; found 1 point of 6"):
        cloud_in_memory(mesh, where="x")


# --- tables of text


@pytest.mark.parametrize(
    "text",
    [
        '"X","Y","Z","M3C2 distance"\n0.5,1,2,7\n3,4,5,8\n',
        "//X Y Z M3C2\n0.5 1 2 7\n\n// a comment\n3 4 5 8\n",
        "x;y;z;d\n0,5;1,0;2;7\n3;4;5,0;8\n",
        "x y z d\n0,5 1,0 2 7\n3 4 5,0 8\n",
        "# caf\xe9 \x85 9 9 9\nx, y, z, d\n0.5, 1, 2, 7\n3, 4, 5, 8,\n",
        "\ufeffx\ty\tz\td\n0.5\t1\t2\t7\n3\t4\t5\t8\t\n",
        "x,y,class,z,d\n0.5,1,tree,2,7\n3,4,ground,5,8\n",
        "2\n0.5 1 2 7\n3 4 5 8\n",
        "0.5\t1\t2\t7\n3\t4\t5\t8\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_tables_of_every_dialect_hold_the_same_points(text: str, encoding: str, tmp_path: Path):
    if "\ufeff" in text:
        encoding = "utf-8"
    (tmp_path / "a.csv").write_bytes(text.replace("\n", "\r\n").encode(encoding))
    cloud = read_cloud(tmp_path / "a.csv")
    np.testing.assert_array_equal(cloud.points, [[0.5, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(cloud.extras, [[7], [8]])


def test_an_empty_cell_is_no_number_and_a_short_row_is_refused(tmp_path: Path):
    (tmp_path / "a.csv").write_text("x,y,z,intensity\n0,1,2,\n3,,5,7\n6,7,8,9\n")
    cloud = read_cloud(tmp_path / "a.csv")
    np.testing.assert_array_equal(cloud.extras, [[np.nan], [9]])
    assert cloud.gaps == 1
    (tmp_path / "a.csv").write_text("x,y,z,intensity\n0,1,2,3\n3,4,5\n")
    with pytest.raises(DataError, match="a.csv, line 3: must have 4 columns, as above; found 3"):
        read_cloud(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("x,y,z,class\n0,1,2,tree\n3,4,high,tree\n")
    with pytest.raises(DataError, match="a.csv, line 3: must hold numbers; found 'high'"):
        read_cloud(tmp_path / "a.csv")


@pytest.mark.parametrize("text", ["9" * 5000, '"' * 200_001, "\0" * 999, "1 2 3\n4 5 " + "6" * 200_000 + "z"])
def test_text_of_any_bytes_is_read_or_refused(text: str, tmp_path: Path):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(DataError, match="a.txt"):
        read_cloud(tmp_path / "a.txt")


# --- other formats


@pytest.mark.parametrize("form", ["ascii", "binary", "binary_compressed"])
def test_pcd_is_read_with_its_columns(form: str, tmp_path: Path):
    points = np.load(FOLDER / "good.npy")
    colours = np.random.default_rng(0).integers(0, 256, size=(97, 3)).astype(np.uint32)
    packed = (colours @ np.array([65536, 256, 1], dtype=np.uint32)).astype(np.uint32).view(np.float32)
    kinds = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4"), ("i", "<u2"), ("_", "V3")]
    table = np.zeros(97, dtype=kinds)
    table["x"], table["y"], table["z"], table["rgb"], table["i"] = *points.T, packed, np.arange(97)
    head = "# caf\xe9\nVERSION 0.7\nFIELDS x y z rgb i _\nSIZE 4 4 4 4 2 1\nTYPE F F F F U U\nCOUNT 1 1 1 1 1 3\n"
    head += f"WIDTH 97\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 97\nDATA {form}\n"
    body = table.tobytes()
    if form == "ascii":
        rows = [
            [*(f"{v:.9g}" for v in (*p, c)), str(i), "0 0 0"]
            for i, (p, c) in enumerate(zip(points, packed, strict=True))
        ]
        body = "\n".join(" ".join(row) for row in rows).encode() + b"\n"
    if form == "binary_compressed":
        columns = b"".join(table[name].tobytes() for name in table.dtype.names)
        packed_bytes = imagecodecs.lzf_encode(columns)
        body = struct.pack("<II", len(packed_bytes), len(columns)) + packed_bytes
    path = tmp_path / "a.pcd"
    path.write_bytes(head.encode("latin-1") + body)
    cloud = read_cloud(path)
    np.testing.assert_array_equal(cloud.points, points)
    assert cloud.names == ("red", "green", "blue", "intensity") and cloud.top == 255 and cloud.total == 97
    np.testing.assert_array_equal(cloud.extras, np.concatenate([colours, np.arange(97)[:, None]], axis=1))
    whole = path.read_bytes()
    for length in (10, len(head) - 3, len(head) + 5, len(whole) - 9):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="a.pcd"):
            read_cloud(path)
    path.write_bytes(whole.replace(b"POINTS 97", b"POINTS 97000000000"))
    with pytest.raises(DataError, match="a.pcd: must hold"):
        read_cloud(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("SIZE 4 4 4", "SIZE 4 4", "must state FIELDS, SIZE, TYPE and POINTS, as many of each"),
        ("SIZE 4 4 4", "SIZE 4 4 3", "found 'z' as F3 x 1"),
        ("POINTS 1", "POINTS many", "must state whole numbers"),
        ("DATA ascii", "DATA morse", "found 'morse'"),
        ("0 1 2", "0 1 two", r"a damaged one \(numpy"),
        ("DATA ascii", "", "must have a header that ends with the line DATA"),
    ],
)
def test_pcd_that_makes_no_sense_says_why(old: str, new: str, message: str, tmp_path: Path):
    text = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 1\nDATA ascii\n0 1 2\n"
    (tmp_path / "a.pcd").write_text(text.replace(old, new))
    with pytest.raises(DataError, match=f"a.pcd.*{message}"):
        read_cloud(tmp_path / "a.pcd")


@pytest.mark.parametrize(("name", "columns"), [("a.bin", 4), ("a.pcd.bin", 5)])
def test_bare_floats_of_laser_scanners(name: str, columns: int, tmp_path: Path):
    table = np.random.default_rng(0).normal(size=(7, columns)).astype("<f4")
    (tmp_path / name).write_bytes(table.tobytes())
    cloud = read_cloud(tmp_path / name)
    np.testing.assert_array_equal(cloud.points, table[:, :3])
    assert cloud.names == ("intensity", "ring")[: columns - 3]
    (tmp_path / name).write_bytes(table.tobytes()[:-3])
    with pytest.raises(DataError, match=f"{name}: must hold {columns} numbers of 4 bytes a point"):
        read_cloud(tmp_path / name)


def test_arrays_with_rows_and_columns_or_names(tmp_path: Path):
    points = np.random.default_rng(0).normal(size=(5, 7, 3))
    points[2, 3] = np.nan  # nothing came back
    np.save(tmp_path / "organised.npy", points)
    cloud = read_cloud(tmp_path / "organised.npy")
    np.testing.assert_array_equal(cloud.points, np.delete(points.reshape(-1, 3), 17, axis=0))
    assert cloud.gaps == 1
    named = np.zeros(7, dtype=[("z", "f4"), ("label", "U3"), ("x", "f8"), ("y", "f8"), ("red", "u1")])
    named["x"], named["y"], named["z"], named["red"] = *points[0].T, np.arange(7)
    np.save(tmp_path / "named.npy", named)
    cloud = read_cloud(tmp_path / "named.npy")
    np.testing.assert_allclose(cloud.points, points[0], atol=1e-6)  # float32
    assert cloud.names == ("red",) and cloud.top == 255


def test_ply_with_lines_that_are_no_comments_and_any_bytes(tmp_path: Path):
    whole = (FOLDER / "good.ply").read_bytes()
    old = whole.replace(b"comment made by tests/makers", "Erstellt von M\xfcller".encode("latin-1"))
    (tmp_path / "a.ply").write_bytes(old)
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.ply").points, read_cloud(FOLDER / "good.ply").points)
    whole = (FOLDER / "good_big_endian.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(whole.replace(b"property uchar red", b"propertx uchar red"))
    with pytest.raises(DataError, match="in its header; found 'propertx uchar red'"):
        read_cloud(tmp_path / "a.ply")


def test_lists_of_any_length_in_a_binary_mesh(tmp_path: Path):
    head = b"ply\nformat binary_big_endian 1.0\nelement face 3\nproperty list uchar float weights\n"
    head += b"property list ushort int64 vertex_index\nproperty uchar tag\nelement vertex 5\nproperty float x\n"
    head += b"property float y\nproperty float z\nend_header\n"
    faces = [((1.5,), (0, 1, 2)), ((), (0, 1, 2, 3, 4)), ((1.0, 2.0), (2, 3, 4))]
    body = b"".join(struct.pack(f">B{len(w)}fH{len(face)}qB", len(w), *w, len(face), *face, 9) for w, face in faces)
    points = np.random.default_rng(0).normal(size=(5, 3)).astype(">f4")
    (tmp_path / "a.ply").write_bytes(head + body + points.tobytes())
    cloud = read_cloud(tmp_path / "a.ply")
    np.testing.assert_array_equal(cloud.points, points)
    np.testing.assert_array_equal(cloud.faces, [[0, 1, 2], [0, 1, 2], [0, 2, 3], [0, 3, 4], [2, 3, 4]])


@pytest.mark.parametrize("name", ["a.obj", "a.stl", "a.off"])
def test_comments_of_meshes_may_hold_any_bytes(name: str, tmp_path: Path):
    texts = {
        "a.obj": "# caf\xe9 \x85 v 1 2 3\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
        "a.off": "OFF\n# caf\xe9 \x85 1 2 3\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
        "a.stl": "solid caf\xe9\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\n"
        "endloop\nendfacet\nendsolid\n",
    }
    (tmp_path / name).write_bytes(texts[name].encode("latin-1"))
    cloud = read_cloud(tmp_path / name)
    np.testing.assert_array_equal(cloud.points, [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(cloud.faces, [[0, 1, 2]])


def test_gltf_finds_its_buffer_beside_it_and_old_files_are_named(tmp_path: Path):
    files = trimesh.exchange.gltf.export_gltf(trimesh.Scene(trimesh.creation.box((1, 2, 3))))
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    cloud = read_cloud(tmp_path / "model.gltf")
    assert cloud.faces is not None and len(cloud.faces) == 12
    np.testing.assert_allclose(np.ptp(cloud.points, axis=0), [1, 2, 3])
    (tmp_path / "old.glb").write_bytes(b"glTF" + struct.pack("<II", 1, 40) + bytes(28))
    with pytest.raises(DataError, match=r"old.glb: must be a whole glTF file; found a damaged one \(trimesh: '"):
        read_cloud(tmp_path / "old.glb")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("OFF\n353535235358 6 0\n0 0 0\n", "must hold 353535235358 vertices and 6 faces, .* found 1 and 0"),
        ("OFF\n20000000 0 0\n", "must hold 20000000 vertices"),
        ("OFF\ninf 0 0\n", "whole numbers; found 'inf 0 0'"),
        ("OFF\n1e400 0 0\n", "whole numbers; found '1e400 0 0'"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n99999999999999999999 0 1 2\n", "whole numbers"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n-3 0 1 2\n", "must have -3 corners"),
        ("OFF\n", "must state the numbers of vertices and faces"),
    ],
)
def test_an_off_header_is_a_claim(text: str, message: str, tmp_path: Path):
    (tmp_path / "a.off").write_text(text)
    with pytest.raises(DataError, match=f"a.off.*{message}"):
        read_cloud(tmp_path / "a.off")


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("rows", ["9" * 17, "9" * 19, "9" * 5000])
def test_a_ply_header_is_a_claim(form: str, rows: str, tmp_path: Path):
    head = f"ply\nformat {form} 1.0\nelement face {rows}\nproperty list uchar int vertex_indices\n"
    head += f"element vertex {rows}\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    (tmp_path / "a.ply").write_text(head + "3 0 1 2\n0 0 0\n")
    with pytest.raises(DataError, match="a.ply: must"):
        read_cloud(tmp_path / "a.ply")


def test_unnamed_columns_stay_unnamed():
    cloud = cloud_in_memory(np.arange(10.0).reshape(2, 5), where="x")
    assert cloud.names == ("", "")
    np.testing.assert_array_equal(cloud.extras, [[3, 4], [8, 9]])


def test_what_was_loaded_can_be_handed_in_again():
    cloud = read_cloud(FOLDER / "good_mesh.ply")
    again = cloud_in_memory(vars(cloud), where="x")
    np.testing.assert_array_equal(again.points, cloud.points)
    np.testing.assert_array_equal(again.faces, cloud.faces)


# --- large files


def test_rows_of_a_large_table_are_kept_in_order_with_equal_chances():
    chunks = [np.arange(i, i + 101.0)[:, None] for i in range(0, 1010, 101)]
    kept, total = gather(chunks, limit=211)
    assert total == 1010 and len(kept) == 211
    assert (np.diff(kept[:, 0]) > 0).all()
    # 211 of 1010 numbers: the mean's standard error is 18, four of them 71.
    assert abs(kept.mean() - 504.5) < 71
    np.testing.assert_array_equal(gather(chunks, limit=211)[0], kept)
    assert gather(chunks, limit=1010)[0].shape == (1010, 1)
    assert gather([], limit=3) == (pytest.approx(np.zeros((0, 3))), 0)


@pytest.mark.parametrize("name", ["good.xyz", "good.ply", "good_text.ply", "good.npy", "good.las", "good.npz"])
def test_a_large_file_is_thinned_while_it_is_read(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cloud_module, "LIMIT", 31)
    monkeypatch.setattr(ply_module, "_ROWS", 13)
    cloud = read_cloud(FOLDER / name)
    assert cloud.points.shape == (31, 3) and cloud.total == 97
    whole = {tuple(row) for row in read_whole(FOLDER / name, monkeypatch).points.tolist()}
    assert {tuple(row) for row in cloud.points.tolist()} < whole


def read_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    monkeypatch.setattr(cloud_module, "LIMIT", 1000)
    return read_cloud(path)


# --- meshes


@pytest.mark.parametrize("name", ["good.off", "good_run_on.off", "good.obj", "good_mesh.ply", "good.stl"])
def test_all_formats_hold_the_same_mesh(name: str):
    cloud = read_cloud(FOLDER / name)
    assert cloud.faces is not None and cloud.faces.shape == (6, 3)
    mesh = trimesh.Trimesh(cloud.points, cloud.faces)
    # Two gables of 3 x 2 / 2, two sides of 4 x 2.5.
    assert mesh.area == pytest.approx(26)
    reference = trimesh.load_mesh(FOLDER / "good.off")
    np.testing.assert_allclose(mesh.bounds, reference.bounds)


def test_gltf_that_claims_more_than_it_holds_is_refused_before_memory_is_asked_for(tmp_path: Path):
    data = trimesh.creation.box((1, 2, 3)).export(file_type="glb")
    length = struct.unpack_from("<I", data, 12)[0]
    (tmp_path / "chunk.glb").write_bytes(data[:12] + struct.pack("<I", 2**31) + data[16:])
    text = data[20 : 20 + length].replace(b'"count":36', b'"count":2147483647').replace(b'"bufferView":0,', b"")
    text += b" " * (-len(text) % 4)
    whole = data[:12] + struct.pack("<I", len(text)) + data[16:20] + text + data[20 + length :]
    (tmp_path / "accessor.glb").write_bytes(whole)
    for name, fault in (
        ("chunk", "a chunk of 2,147,483,648 bytes"),
        ("accessor", "an accessor of 2,147,483,647 values"),
    ):
        with pytest.raises(DataError, match=f"{name}.glb: must be a whole glTF file; .*{fault}"):
            read_cloud(tmp_path / f"{name}.glb")


def test_glb_is_read(tmp_path: Path):
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "box.glb")
    cloud = read_cloud(tmp_path / "box.glb")
    assert cloud.faces is not None and cloud.faces.shape == (12, 3)
    np.testing.assert_allclose(np.ptp(cloud.points, axis=0), [1, 2, 3])


def test_obj_counts_from_the_end_and_may_hold_points_alone(tmp_path: Path):
    path = tmp_path / "a.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2/7 \\\n -1/7/9\n")
    np.testing.assert_array_equal(read_cloud(path).faces, [[0, 1, 2]])
    path.write_text("v 0 0 0 0.5 0.5 0.5\nv 1 0 0 1 1 1\n")
    cloud = read_cloud(path)
    assert cloud.faces is None and cloud.points.shape == (2, 3)


def test_polygons_of_different_length_are_cut_into_fans(tmp_path: Path):
    path = tmp_path / "a.ply"
    head = "ply\nformat ascii 1.0\nelement face 2\nproperty uchar tag\nproperty list uchar int vertex_index\n"
    head += "element vertex 5\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    path.write_text(head + "9 3 0 1 2\n9 5 0 1 2 3 4\n" + "0 0 0\n1 0 0\n1 1 0\n0 1 0\n-1 1 0\n")
    cloud = read_cloud(path)
    np.testing.assert_array_equal(cloud.faces, [[0, 1, 2], [0, 1, 2], [0, 2, 3], [0, 3, 4]])
    np.testing.assert_array_equal(cloud.points[4], [-1, 1, 0])


def test_a_surface_is_sampled_evenly():
    # A square of 3 x 3 beside one of 1 x 1, upright; both of two triangles.
    points = np.array([[0, 0, 0], [3, 0, 0], [3, 0, 3], [0, 0, 3], [5, 0, 0], [6, 0, 0], [6, 0, 1], [5, 0, 1.0]])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    mesh = Cloud(points, points[:, :1] * 2, ("ring",), faces=faces, total=8)
    cloud = sampled(mesh, count=4001, seed=3, where="x")
    assert cloud.faces is None and cloud.total == 4001 and cloud.names == ("ring", "nx", "ny", "nz")
    np.testing.assert_allclose(cloud.extras[:, 0], 2 * cloud.points[:, 0])  # linear between vertices
    np.testing.assert_allclose(cloud.extras[:, 1:], [[0, -1, 0]] * 4001)
    large = cloud.points[:, 0] <= 3
    assert large.mean() == pytest.approx(0.9, abs=0.02)  # four standard errors of 0.0047
    np.testing.assert_allclose(cloud.points[large].mean(axis=0), [1.5, 0, 1.5], atol=0.06)
    np.testing.assert_array_equal(sampled(mesh, count=4001, seed=3, where="x").points, cloud.points)


# --- what is refused


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken_all_nan.ply", "must have finite coordinates; found 97 points of 97 with NaN or infinity"),
        ("broken_ragged.xyz", "must have 3 columns, as above; found 2. Correct the line; at the end"),
        ("broken_word.xyz", "line 41: must hold numbers"),
        ("broken_columns.csv", "line 1: must be numbers, below at most one line that names the columns x, y, z"),
        ("broken_only_count.xyz", "must hold at least one point"),
        ("broken_truncated.ply", "must hold 97 rows of 'vertex', as its header says; found that row 48"),
        ("broken_truncated_mesh.ply", "must hold 4 rows of 'face', as its header says; found that row 3"),
        ("broken_type.ply", "found 'property half z'"),
        ("broken_no_place.ply", "must have the columns x, y, z; found no 'z' among x, y, w"),
        ("broken_face.off", r"must have faces among its vertices 0\.\.5; found vertex 6"),
        ("broken_face.obj", r"must have faces among its vertices 0\.\.5; found vertex 6"),
        ("broken_truncated.off", "must hold 6 vertices and 4 faces, as its header says; found 6 and 3"),
        ("broken_length.npz", r"normals: must be \[97, 3\], one row a point"),
        ("broken_names.npz", "found points, labels"),
        ("broken_axes.npy", r"must be numbers \[points, columns\], with 3 to 64 columns; found .*\(3, 97\)"),
        ("broken_empty.ply", "found a file of 0 bytes"),
    ],
)
def test_messages_say_what_is_wrong_and_where(name: str, message: str):
    with pytest.raises(DataError, match=message):
        read_cloud(FOLDER / name)


def test_a_cut_off_array_is_told_to_be_copied_again(tmp_path: Path):
    np.save(tmp_path / "whole.npy", np.ones((97, 3)))
    (tmp_path / "half.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:1031])
    with pytest.raises(DataError, match="half.npy: must be a whole NPY file of numbers.*Copy it again"):
        read_cloud(tmp_path / "half.npy")


def test_wrong_arrays_are_refused():
    with pytest.raises(DataError, match="one: must have points and any of normals"):
        cloud_in_memory({"normals": np.zeros((3, 3))}, where="one")
    with pytest.raises(DataError, match="more than once"):
        make_cloud(np.zeros((3, 5)), names=("x", "y", "z", "r", "red"), where="one")
    with pytest.raises(DataError, match="must have faces with an area"):
        sampled(Cloud(np.zeros((3, 3)), np.zeros((3, 0)), faces=np.array([[0, 1, 2]])), count=5, seed=0, where="one")


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("good*")))
def test_every_truncation_is_read_or_refused(name: str, tmp_path: Path):
    data = (FOLDER / name).read_bytes()
    path = tmp_path / name
    for length in range(0, len(data), max(1, len(data) // 29)):
        path.write_bytes(data[:length])
        try:
            cloud = read_cloud(path)
        except DataError as error:
            assert name in str(error)
        else:  # a text may end after any character of its last number
            assert path.suffix not in (".las", ".laz", ".npy", ".npz", ".stl") and len(cloud.points)
            lines = (".xyz", ".txt", ".csv", ".obj")
            assert b"binary" not in data[:40] and (path.suffix in lines or length > len(data) - 30), length


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("good*")))
def test_every_changed_byte_is_read_or_refused(name: str, tmp_path: Path):
    data = bytearray((FOLDER / name).read_bytes())
    path = tmp_path / name
    rng = np.random.default_rng(0)
    for place in rng.integers(0, min(len(data), 700), size=41):
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            assert np.isfinite(read_cloud(path).points).all()
        except DataError as error:
            assert name in str(error)


def test_a_list_of_points_that_was_cut_is_refused(tmp_path: Path):
    path = tmp_path / "a.pts"
    path.write_text("# a scan\n3\n0 0 0\n1 0 0\n")
    with pytest.raises(DataError, match="must hold 3 points, as its first line says; found 2"):
        read_cloud(path)
    path.write_text("# x y z\n2\n0 0 0\n1 0 0\n# the end\n")
    assert len(read_cloud(path).points) == 2


def test_a_list_longer_than_the_file_is_refused(tmp_path: Path):
    path = tmp_path / "a.ply"
    head = b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty double x\nproperty double y\n"
    head += b"property double z\nelement face 1\nproperty list int int vertex_indices\nend_header\n"
    path.write_bytes(head + struct.pack("<3di", 0, 0, 0, 2_000_000_000))
    with pytest.raises(DataError, match="must hold 1 rows of 'face'"):
        read_cloud(path)


# 295: the points of a chunk, in the record of LASzip
@pytest.mark.parametrize(("name", "place"), [("good.las", 100), ("good.laz", 100), ("good.laz", -1), ("good.laz", 295)])
def test_las_that_announces_more_than_it_holds_is_refused_before_it_is_unpacked(name: str, place: int, tmp_path: Path):
    data = bytearray((FOLDER / name).read_bytes())
    if place == -1:  # the number of chunks in the table, whose place stands before the points
        points = int.from_bytes(data[96:100], "little")
        place = int.from_bytes(data[points : points + 8], "little") + 4
    data[place : place + 4] = b"\xff\xff\xff\x7f"
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match="must be a whole LAS or LAZ file; found '(a header|a table|chunks)"):
        read_cloud(tmp_path / name)


def test_values_of_no_bytes_are_refused_however_many_are_announced(tmp_path: Path):
    header = b"{'descr': [], 'fortran_order': False, 'shape': (2147483648, 5, 3)}"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match="a.npy: must hold numbers; found values of the type .*, which have no bytes"):
        read_cloud(tmp_path / "a.npy")


def test_a_surface_beyond_all_measures_is_refused(tmp_path: Path):
    (tmp_path / "a.off").write_text("OFF\n3 1 0\n0 0 0\n1e300 0 0\n0 1e300 0\n3 0 1 2\n")
    cloud = read_cloud(tmp_path / "a.off")
    with pytest.raises(DataError, match=r"must have faces with an area; found corners at up to 1e\+300"):
        sampled(cloud, count=8, seed=0, where="a.off")


def test_a_line_of_quotes_alone_is_no_end(tmp_path: Path):
    (tmp_path / "a.txt").write_text('1;2;3\n"\n4;5;6\n')
    with pytest.raises(DataError, match="a.txt"):
        read_cloud(tmp_path / "a.txt")
