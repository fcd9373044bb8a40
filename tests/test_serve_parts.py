"""The parts of the server by themselves: addresses, the owner of the models, readers that crash, the border."""

import asyncio
import http.server
import io
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from common import FIXTURES, make_records, run_alone, tiny_pipeline
from fastapi import Request

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.samples import Sample
from metatransformer.infer.embed import embedding
from metatransformer.modalities import get_modality, modality_names
from metatransformer.serve import fetch as fetching
from metatransformer.serve import run as running
from metatransformer.serve.app import _unless_gone
from metatransformer.serve.border import Border
from metatransformer.serve.decoders import Decoders, _Careful
from metatransformer.serve.engine import Engine, Work, compute
from metatransformer.serve.fetch import fetch, is_public, public_address
from metatransformer.serve.hosted import Hosted
from metatransformer.serve.limits import Limits
from metatransformer.serve.metrics import Metrics
from metatransformer.serve.problems import Problem
from metatransformer.serve.reading import Asked, Most, Read, Spec, read
from metatransformer.serve.run import read_token
from metatransformer.serve.samples import asked_of
from metatransformer.serve.uploads import Uploads


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("nonsense", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool):
    assert is_public(address) is public


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "[::1]"])
def test_fetches_nothing_from_inside(host: str, tmp_path: Path):
    with pytest.raises(DataError, match="public host|is known|address"):
        fetch(f"http://{host}/x.png", Uploads(tmp_path, most=3), most=99, seconds=5)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a.org/x", "http://u:p@a.org/", "http://a.org:22/", "x", ""]
)
def test_fetches_only_from_the_web(url: str, tmp_path: Path):
    with pytest.raises(DataError, match="address"):
        fetch(url, Uploads(tmp_path, most=3), most=99, seconds=5)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets the name files.test stand for a server on this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/inside":
                self.send_response(302)
                self.send_header("Location", "http://127.0.0.1/x.png")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * (5 if self.path == "/small.png" else 500))

        def log_message(self, *given: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(fetching, "PORTS", {"http": server.server_address[1]})
    real = public_address
    monkeypatch.setattr(
        fetching, "public_address", lambda host, port: "127.0.0.1" if host == "files.test" else real(host, port)
    )
    yield
    server.shutdown()
    server.server_close()


def test_fetches_what_is_small_enough_and_looks_at_redirections(web: None, tmp_path: Path):
    uploads = Uploads(tmp_path, most=9)
    assert fetch("http://files.test/small.png", uploads, most=99, seconds=5).read_bytes() == b"xxxxx"
    with pytest.raises(DataError, match="at most 99 bytes"):
        fetch("http://files.test/large.png", uploads, most=99, seconds=5)
    with pytest.raises(DataError, match="inside"):
        fetch("http://files.test/inside", uploads, most=99, seconds=5)


# --- the owner of the models


@pytest.fixture(scope="module")
def hosted() -> Hosted:
    pipeline = tiny_pipeline("image")
    return Hosted("model", pipeline, embedding(pipeline, pool=""))


def samples_of(hosted: Hosted, count: int, *, seed: int = 0) -> list[Sample]:
    records = make_records(get_modality("image"), train=count, seed=seed)
    return [Sample(record.key, {"image": hosted.pipeline.reader.view(record)}) for record in records]


@pytest.fixture(params=[1, 2])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    threads = torch.get_num_threads()
    engine = Engine(limits=Limits(tokens=13, wait_s=0.001), metrics=Metrics(), owners=request.param)
    yield engine
    engine.close()
    assert torch.get_num_threads() == threads


def test_answers_many_requests_as_each_alone(hosted: Hosted, engine: Engine):
    parts = [samples_of(hosted, count, seed=count) for count in (1, 3, 7, 2)]
    works = [Work(hosted, part, vectors=bool(n % 2)) for n, part in enumerate(parts)]
    for work in works:
        engine.submit(work)
    engine.start()
    answers = [
        work.future.result(60) for work in works
    ]  # all of them, for the engine counts what goes through the model
    for work, found in zip(works, answers, strict=True):
        alone = compute(hosted, work.samples, vectors=work.vectors)
        assert found.keys() == alone.keys()
        for name in found:
            torch.testing.assert_close(found[name], alone[name], atol=1e-5, rtol=1e-5)
    # Sixteen patches and a summary, of the picture and its mirror image.
    assert engine.tokens(works[0])[0] == pytest.approx(34, rel=0.05)


def test_who_has_gone_is_not_answered_and_a_bad_one_spoils_no_other(hosted: Hosted, engine: Engine):
    good, gone = Work(hosted, samples_of(hosted, 2), vectors=False), Work(hosted, samples_of(hosted, 2), vectors=False)
    view = samples_of(hosted, 1)[0].views["image"]
    assert view is not None
    broken = {name: value[..., :2] for name, value in view.inputs.items()}
    bad = Work(hosted, [Sample("bad", {"image": replace(view, inputs=broken)})], vectors=False)
    gone.gone = True
    for work in (gone, bad, good):
        engine.submit(work)
    engine.start()
    assert len(good.future.result(60)["classify"]) == 2
    assert bad.future.exception(60) is not None and not gone.future.done()


def test_a_large_request_takes_turns_with_others(hosted: Hosted, engine: Engine):
    large, small = (Work(hosted, samples_of(hosted, count), vectors=False) for count in (9, 1))
    order: list[str] = []
    for name, work in (("large", large), ("small", small)):
        work.future.add_done_callback(lambda _, name=name: order.append(name))
        engine.submit(work)
    engine.start()
    assert len(large.future.result(60)["classify"].outputs) == 9
    assert order == ["small", "large"]


def test_what_was_to_be_done_alone_is_done_at_the_end(hosted: Hosted):
    engine = Engine(limits=Limits(), metrics=Metrics())
    alone = engine.run_alone(lambda: 7)
    engine.start()
    engine.close()
    assert alone.result(1) == 7


def test_requests_of_one_model_pass_those_of_another_between_them(hosted: Hosted, engine: Engine):
    works = [Work(hosted, samples_of(hosted, 2), vectors=vectors) for vectors in (False, True, False, True)]
    for work in works:  # alike but for what they ask
        engine.submit(work)
    engine.start()
    for work in works:
        assert len(next(iter(work.future.result(60).values())).outputs) == 2


def test_what_is_done_alone_meets_no_other(hosted: Hosted, engine: Engine):
    works = [Work(hosted, samples_of(hosted, 3, seed=n), vectors=False) for n in range(4)]
    for work in works[:2]:
        engine.submit(work)
    alone = [engine.run_alone(lambda: engine._busy), engine.run_alone(lambda: 1 // 0)]
    for work in works[2:]:
        engine.submit(work)
    engine.start()
    assert alone[0].result(60) == 1 and isinstance(alone[1].exception(60), ZeroDivisionError)
    assert all(len(work.future.result(60)["classify"].outputs) == 3 for work in works)


def test_what_is_done_alone_takes_turns_with_requests(hosted: Hosted, engine: Engine):
    order: list[str] = []
    work = Work(hosted, samples_of(hosted, 1), vectors=False)
    work.future.add_done_callback(lambda _: order.append("request"))
    alone = [engine.run_alone(lambda: order.append("alone")) for _ in range(4)]
    engine.submit(work)
    engine.start()
    for one in alone:
        one.result(60)
    assert len(work.future.result(60)["classify"].outputs) == 1
    assert order == ["alone", "request", "alone", "alone", "alone"]


# --- readers


class Evil:
    """Does something where it is unpickled."""

    def __init__(self, call: Any, *given: Any) -> None:
        self.given = call, given

    def __reduce__(self) -> Any:
        return self.given


@pytest.fixture(scope="module")
def decoders(hosted: Hosted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decoders]:
    limits = Limits(decode_s=0.5, decoders=1)
    root = tmp_path_factory.mktemp("root")
    decoders = Decoders({"model": Spec.of(hosted.pipeline)}, writable=root, limits=limits, metrics=Metrics())
    decoders.start()
    yield decoders
    decoders.close()


@pytest.mark.parametrize("evil", [Evil(os.abort), Evil(time.sleep, 60), Evil(os._exit, 0), Evil(os.system, "true")])
def test_a_reader_that_breaks_down_is_replaced(decoders: Decoders, hosted: Hosted, evil: Evil):
    arrays = [record.value for record in make_records(get_modality("image"), train=2)]
    with pytest.raises(DataError, match="broke down|more than"):
        decoders._read(Asked("model", rows=[{"x": evil}]))
    object.__setattr__(decoders, "_deadline_s", 60.0)
    found = decoders._read(Asked("model", arrays=arrays))
    object.__setattr__(decoders, "_deadline_s", 0.5)
    assert len(found.samples) == 2 and found.samples[0].views["image"] is not None


def test_what_a_reader_answers_is_not_believed():
    with pytest.raises(pickle.UnpicklingError, match="no part of an answer"):
        _Careful(io.BytesIO(pickle.dumps(Evil(os.system, "true")))).load()


SANDBOX = """
import ctypes, os, socket, sys
from pathlib import Path
from metatransformer.serve.sandbox import restrict
root = Path(sys.argv[1])
held = restrict(writable=root, memory_bytes=2**30)
def tried(call):
    try:
        call()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"
libc = ctypes.CDLL(None)
print(held, tried(lambda: open("/etc/passwd")), tried(lambda: os.listdir("/root")), libc.open(b"/etc/passwd", 0),
      tried(lambda: (root / "x").write_text("x")), tried(lambda: bytearray(2**32)),
      tried(lambda: socket.create_connection(("127.0.0.1", 9))), tried(lambda: __import__("wave")))
"""


def test_where_strangers_files_are_read_nothing_else_is(tmp_path: Path):
    done = run_alone(["-c", SANDBOX, tmp_path])
    assert done.returncode == 0, done.stderr
    held, opened, listed, foreign, written, large, connected, imported = done.stdout.split()
    assert (opened, listed, written, large, imported) == (
        "PermissionError",
        "PermissionError",
        "done",
        "MemoryError",
        "done",
    )
    assert connected == "PermissionError" and (held == "False" or foreign == "-1")


# --- the border


def test_what_nobody_waits_for_is_given_up():
    ended = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def made() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def gone() -> None:
        await _unless_gone(Request({"type": "http"}, receive), made())

    with pytest.raises(Problem) as told:
        asyncio.run(gone())
    assert told.value.status == 499 and ended == [True]


def asked(border: Border, messages: list[dict[str, Any]], *, headers: dict[str, str] | None = None) -> tuple[int, dict]:
    """Returns status and headers of the answer to a request of these messages, behind which nothing comes."""
    sent: list[Any] = []
    rest = list(messages)

    async def receive() -> Any:
        return rest.pop(0) if rest else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    given = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": given}
    asyncio.run(border(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


async def reads(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})


@pytest.mark.parametrize(
    ("messages", "headers", "status"),
    [
        ([{"type": "http.request", "body": b"x" * 7}], {}, 200),
        ([{"type": "http.request", "body": b"x" * 7, "more_body": True}] * 2, {}, 413),
        ([{"type": "http.request", "body": b"x", "more_body": True}], {}, 408),
        ([], {"content-length": "12"}, 413),
        ([], {"content-length": "9" * 5000}, 413),
        ([{"type": "http.request", "body": b"x"}], {"sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_the_border(messages: list[dict[str, Any]], headers: dict[str, str], status: int):
    limits = Limits(body_bytes=11, receive_s=0.05)
    border = Border(reads, limits=limits, metrics=Metrics(), token="")
    found, told = asked(border, messages, headers=headers)
    assert found == status and told[b"x-content-type-options"] == b"nosniff"
    assert (b"connection" in told) == (status != 200)


def test_tokens_come_from_a_file_or_the_environment(tmp_path: Path):
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n", encoding="utf-8")
    assert read_token(str(path), {}) == read_token("", {"METATRANSFORMER_SERVE_TOKEN": "0123456789abcdef"})
    assert read_token("", {}) == ""
    path.write_text("short", encoding="utf-8")
    with pytest.raises(UsageError, match="at least 16"):
        read_token(str(path), {})


# --- every kind of data


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Hosted], Decoders, Path]]:
    """Returns a model of every modality, and a process that reads for them."""
    pipelines = {name: tiny_pipeline(name) for name in modality_names()}
    hosted = {name: Hosted(name, own, embedding(own, pool="")) for name, own in pipelines.items()}
    root, specs = tmp_path_factory.mktemp("root"), {name: Spec.of(one.pipeline) for name, one in hosted.items()}
    decoders = Decoders(specs, writable=root, limits=Limits(decoders=1, decode_s=60), metrics=Metrics())
    decoders.start()
    yield hosted, decoders, root
    decoders.close()


def outcome(call: Callable[[Asked], Read], asked: Asked) -> str | int:
    try:
        return len(call(asked).samples)
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("name", modality_names())
def test_every_kind_is_read_apart_as_it_is_here(name: str, kinds: tuple[dict[str, Hosted], Decoders, Path]):
    hosted, decoders, root = kinds
    spec = Spec.of(hosted[name].pipeline)
    route, most, found = spec.route(), Most(999, 2**28), []
    for path in sorted(path for path in (FIXTURES / name).glob("good*") if path.is_file() and path.suffix != ".hdr"):
        uploads = Uploads(root, most=9)
        for one in (path, path.with_suffix(".hdr")):
            if one.is_file():
                uploads.place(one.name).write_bytes(one.read_bytes())
        asked = asked_of(hosted[name], inputs=None, rows=None, uploads=uploads)
        there = outcome(decoders._read, asked)
        assert there == outcome(lambda asked: read(asked, spec.recipe, route, most), asked), path.name
        found.append(there)
    assert found
    assert decoders._metrics.restarts._value.get() == 0


# --- connections


def test_a_connection_is_kept_between_requests_and_half_headers_are_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(running, "HEADERS_S", 0.2)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def asked() -> None:
        config = uvicorn.Config(app, http=running._Prompt, log_level="critical", lifespan="off", timeout_keep_alive=75)
        config.load()
        state = uvicorn.Server(config).server_state
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: running._Prompt(config, state, {}), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        whole = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
        for _ in range(2):
            writer.write(whole)
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.5)  # longer than headers may take
        writer.write(whole[:9])
        assert await asyncio.wait_for(reader.read(), timeout=5) == b""  # the second request's headers did not end
        reader, other = await asyncio.open_connection(*address)
        other.write(whole[:9])
        assert await asyncio.wait_for(reader.read(), timeout=5) == b""
        for one in (writer, other):
            one.close()
        server.close()

    asyncio.run(asked())
