"""The server in this process: routes, forms of samples, limits, and what strangers may send."""

import base64
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from metatransformer.core.errors import UsageError
from metatransformer.faces.cli import main
from metatransformer.infer.embed import embed
from metatransformer.infer.joined import read_dataset
from metatransformer.infer.predict import predict
from metatransformer.machine.console import Console
from metatransformer.saved import load_pipeline
from metatransformer.serve.app import make_app
from metatransformer.serve.hosted import load_hosted, load_index
from metatransformer.serve.limits import Limits

QUIET = Console(quiet=True)
LIMITS = Limits(body_bytes=2**20, files=5, samples=31, queue=7, receive_s=5, decode_s=20, decoders=1)


@pytest.fixture(scope="module")
def client(trained: Path) -> Iterator[TestClient]:
    """Asks a server of one tiny model of pictures, and of the plain vectors of its trunk."""
    hosted = load_hosted([f"pictures={trained}"], trunk="", encoder="test", device="cpu", console=QUIET)
    with TestClient(make_app(hosted, limits=LIMITS), raise_server_exceptions=False) as client:
        yield client


def png(seed: int = 0, side: int = 19) -> bytes:
    """Returns the bytes of a picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, size=(side, side, 3), dtype=np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, format="PNG")
    return held.getvalue()


def in_json(content: bytes, name: str = "x.png") -> dict[str, str]:
    """Returns a file as JSON has it."""
    return {"base64": base64.b64encode(content).decode(), "name": name}


def test_predicts_as_the_command_does(client: TestClient, trained: Path, pictures: Path):
    paths = sorted(pictures.rglob("*.png"))[:5]
    pipeline = load_pipeline(trained, device="cpu")
    expected = predict(pipeline, read_dataset(paths, pipeline.recipe, labelled=False).examples, console=QUIET)
    form = [("files", (path.name, path.read_bytes())) for path in paths]
    answer = client.post("/predict", files=form, data={"model": "pictures"})
    assert answer.status_code == 200, answer.text
    found = answer.json()["predictions"]
    assert [one["key"] for one in found] == [path.name for path in paths]
    assert [one["prediction"] for one in found] == expected["prediction"].tolist()
    for one, (_, row) in zip(found, expected.iterrows(), strict=True):
        for name, share in one["probabilities"].items():
            assert share == pytest.approx(row[f"p({name})"], abs=1e-5)
    inputs = [in_json(path.read_bytes(), path.name) for path in paths]
    same = client.post("/predict", json={"model": "pictures", "inputs": inputs}).json()
    assert [one["prediction"] for one in same["predictions"]] == expected["prediction"].tolist()


def test_vectors_in_openais_form_are_those_of_embed(client: TestClient, tmp_path: Path):
    path = tmp_path / "x.png"
    path.write_bytes(png())
    model = load_hosted([], trunk="", encoder="test", device="cpu", console=QUIET)["test/image"].vectors
    examples = read_dataset([path], model.pipeline.recipe, labelled=False).examples
    expected = embed(model, examples, console=QUIET)[0]
    asked = {"model": "test", "modality": "image", "input": [in_json(png())]}
    answer = client.post("/v1/embeddings", json=asked).json()
    assert answer["object"] == "list" and answer["usage"]["total_tokens"] > 0
    np.testing.assert_allclose(answer["data"][0]["embedding"], expected, atol=1e-5)
    packed = client.post("/v1/embeddings", json={**asked, "encoding_format": "base64", "dimensions": 3}).json()
    unpacked = struct.unpack("<3f", base64.b64decode(packed["data"][0]["embedding"]))
    np.testing.assert_allclose(unpacked, expected[:3], atol=1e-5)


def test_tells_of_itself(client: TestClient):
    assert client.get("/health").json()["status"] == "ok"
    models = {one["name"]: one for one in client.get("/models").json()["models"]}
    assert models["pictures"]["tasks"]["classify"]["classes"] == ["a", "b"]
    kinds = {one["name"]: one for one in client.get("/modalities").json()["modalities"]}
    assert ".png" in kinds["image"]["suffixes"] and "pictures" in kinds["image"]["models"]
    page = client.get("/docs").text
    assert "/v1/embeddings" in page and "http" not in page.replace("http-", "").split("<pre>")[0]
    assert set(client.get("/openapi.json").json()["paths"]) >= {"/predict", "/v1/embeddings", "/neighbours"}
    assert b"metatransformer_requests_total" in client.get("/metrics").content


BOMB = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", 300_001, 2, 8, 2, 0, 0, 0)


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        ({"json": {}}, 422, "bring 'inputs', 'rows' or files"),
        ({"json": []}, 400, "JSON object"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "must be JSON"),
        ({"content": b"[" * 9999, "headers": {"content-type": "application/json"}}, 400, "must be JSON"),
        ({"content": b'{"inputs": NaN}', "headers": {"content-type": "application/json"}}, 400, "NaN"),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "application/json"),
        ({"json": {"inputs": ["/etc/passwd"]}}, 422, "one form that 'image' takes"),
        ({"json": {"inputs": [{"path": "/etc/passwd"}]}}, 422, "passwd"),
        ({"json": {"inputs": [{"file": "/etc/passwd"}]}}, 422, "No file was sent"),
        ({"json": {"inputs": [{"url": "http://127.0.0.1/x.png"}]}}, 403, "fetches nothing"),
        ({"json": {"inputs": [{"base64": "?", "name": "x.png"}]}}, 422, "base64"),
        ({"json": {"inputs": [in_json(b"x", "x.svg")]}}, 422, "end in"),
        ({"json": {"inputs": [in_json(b"path,label\n/etc/passwd,a\n", "x.csv")]}}, 422, "end in"),
        ({"json": {"inputs": [in_json(b"no picture")]}}, 422, "x.png"),
        ({"json": {"inputs": [in_json(BOMB)]}}, 422, "x.png"),
        ({"json": {"inputs": [in_json(png())], "nonsense": 1}}, 422, "nonsense"),
        ({"json": {"inputs": [in_json(png())], "model": "other"}}, 404, "pictures"),
        ({"json": {"inputs": [in_json(png())], "model": 7}}, 422, "be a text"),
        ({"json": {"inputs": [in_json(png())] * 6}}, 422, "at most 5 files"),
        ({"files": [("files", ("x.png", b"y" * 2**20))]}, 413, "at most 1,048,576 bytes"),
        ({"files": [("files", (f"{n}.png", png()))for n in range(6)]}, 400, "Too many files"),
        ({"files": [("files", ("../../x.png", b"none"))]}, 422, "x.png"),
    ],
)  # fmt: skip
def test_refuses_with_one_message(client: TestClient, sent: dict, status: int, message: str):
    answer = client.post("/predict", **sent)
    assert answer.status_code == status and message in answer.json()["error"]["message"], answer.text
    root = str(client.app.state.server.root)
    assert root not in answer.text and "Traceback" not in answer.text and "/tmp" not in answer.text
    assert not [*client.app.state.server.root.iterdir()]  # nothing stays


def test_counts_bytes_whatever_the_header_says(client: TestClient):
    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            yield b" " * 4096

    answer = client.post("/predict", content=endless(), headers={"content-type": "application/json"})
    assert answer.status_code == 413 and answer.headers["connection"] == "close"


def test_says_503_beyond_the_queue(client: TestClient):
    server = client.app.state.server
    server.inside = LIMITS.queue
    try:
        answer = client.post("/predict", json={"inputs": [in_json(png())], "model": "pictures"})
    finally:
        server.inside = 0
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1


def test_asks_for_the_token(trained: Path):
    hosted = load_hosted([f"pictures={trained}"], trunk="", encoder="", device="cpu", console=QUIET)
    with TestClient(make_app(hosted, limits=LIMITS, token="0123456789abcdef")) as client:
        assert client.get("/health").status_code == 200
        refused = client.get("/models")
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert client.get("/models", headers={"Authorization": "Bearer 0123456789abcdeF"}).status_code == 401
        assert client.get("/models", headers={"Authorization": "Bearer 0123456789abcdef"}).status_code == 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "get a RUN"),
        (["nowhere"], "model.json"),
        (["--encoder", "test", "--queue", "0"], "above 0"),
        (["--encoder", "test", "--token-file", "nowhere"], "readable"),
    ],
)
def test_the_command_says_what_is_wrong(words: list[str], message: str, capsys):
    assert main(["serve", *words]) == 2
    assert message in capsys.readouterr().err


def test_two_models_share_a_trunk_and_not_a_name(trained: Path):
    given = {"trunk": "", "encoder": "", "device": "cpu", "console": QUIET}
    both = load_hosted([f"a={trained}", f"b={trained}"], **given)
    assert both["a"].pipeline.model.encoder is both["b"].pipeline.model.encoder
    with pytest.raises(UsageError, match="different names"):
        load_hosted([str(trained), str(trained)], **given)


def test_answers_are_json_whatever_a_stranger_calls_things(client: TestClient):
    answer = client.post("/predict", content=json.dumps({"inputs": [in_json(b"x", "\ud800\n.png")]}),
                         headers={"content-type": "application/json"})  # fmt: skip
    assert answer.status_code == 422 and "message" in answer.json()["error"]


def test_finds_neighbours_in_what_embed_wrote(trained: Path, pictures: Path, tmp_path: Path):
    out = tmp_path / "vectors.parquet"
    assert main(["embed", str(pictures), "--model", str(trained), "--out", str(out), "--device", "cpu"]) == 0
    index = load_index(str(out), model="", device="cpu", console=QUIET)
    path = sorted(pictures.rglob("*.png"))[3]
    with TestClient(make_app({}, index=index, limits=LIMITS)) as client:
        answer = client.post("/neighbours", files={"files": ("x.png", path.read_bytes())}, data={"k": "3"})
        assert answer.status_code == 200, answer.text
        near = answer.json()["neighbours"]
        assert [one["rank"] for one in near] == [1, 2, 3] and near[0]["query"] == "x.png"
        assert near[0]["id"] == path.relative_to(pictures).as_posix() and near[0]["similarity"] > 0.999
        assert str(pictures) not in answer.text
        assert client.post("/neighbours", json={"inputs": [in_json(png())], "k": 0}).status_code == 422
