"""A server under load and under attack, on this machine alone: ``python tests/load_serve.py RUN PICTURES --out FILE``.

RUN is a model of pictures, PICTURES a folder of them. Told are: the rate of ``predict`` on the same files (before and
after), the rate of the server at the highest load that it holds, by one picture a request and (a fifth of the time) by
several, what becomes of three times that (half of the time), its memory, and the statuses of hostile requests, each of
which must be a 4xx. Bounded: ``--seconds`` for the first load, ``--hostile`` requests.
"""

import argparse
import asyncio
import base64
import gzip
import io
import itertools
import json
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

CLIENTS = 48  # that each send one request after the other, fewer where a request has several pictures
TOGETHER = 8  # pictures of a large request
PATIENCE_S = 90.0  # of a client; whoever waits longer has met a request that hangs
ALIKE = 8  # hostile requests at a time

OFFLINE = """
import json, sys, time
from pathlib import Path
from metatransformer.infer.joined import read_dataset
from metatransformer.infer.predict import predict
from metatransformer.machine.console import Console
from metatransformer.saved import load_pipeline
paths = [Path(line) for line in sys.stdin.read().splitlines()]
pipeline, quiet = load_pipeline(Path(sys.argv[1])), Console(quiet=True)
examples = read_dataset(paths, pipeline.recipe, labelled=False).examples
predict(pipeline, examples.take(range(32)), console=quiet)
begun = time.monotonic()
predict(pipeline, examples, console=quiet)
print(len(paths) / (time.monotonic() - begun))
"""


def offline_rate(run: Path, paths: list[Path]) -> float:
    """Returns how many pictures a second ``predict`` answers."""
    text = "\n".join(map(str, paths))
    done = subprocess.run([sys.executable, "-c", OFFLINE, run], input=text, capture_output=True, text=True, check=True)
    return float(done.stdout)


class Server:
    """The command in a process of its own."""

    def __init__(self, run: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = ["-m", "metatransformer", "serve", f"model={run}", "--port", str(self.port)]
        self.log = log.open("w")
        self.process = subprocess.Popen([sys.executable, *words], stdout=self.log, stderr=self.log)
        self.url = f"http://127.0.0.1:{self.port}"
        for _ in range(600):
            try:
                httpx.get(f"{self.url}/health")
                return
            except httpx.HTTPError:
                time.sleep(0.5)
        raise SystemExit("the server does not answer")

    def memory_mb(self) -> float:
        """Returns the memory of the process and all below it, shared pages counted once."""
        found, pids = 0, [self.process.pid]
        for pid in pids:
            try:
                pids += [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            found += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return found / 1024

    def end(self) -> int:
        """Ends it as a supervisor does, and returns its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)


def summary(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100) if len(times) > 1 else times * 99
    return {"p50_s": round(cuts[49], 3), "p99_s": round(cuts[98], 3), "max_s": round(max(times), 3)}


async def ask(client: httpx.AsyncClient, paths: Sequence[Path], found: list[tuple[int, float]]) -> None:
    begun = time.monotonic()
    answer = await client.post("/predict", files=[("files", (path.name, path.read_bytes())) for path in paths])
    found.append((answer.status_code, time.monotonic() - begun))


async def held(server: Server, paths: list[Path], seconds: float, *, each: int = 1) -> dict[str, Any]:
    """Returns what becomes of clients that send one request of ``each`` pictures after the other."""
    found: list[tuple[int, float]] = []
    rest, until = itertools.cycle(paths), time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, limits=httpx.Limits()) as client:

        async def one() -> None:
            while time.monotonic() < until:
                await ask(client, list(itertools.islice(rest, each)), found)

        begun = time.monotonic()
        await asyncio.gather(*(one() for _ in range(max(2, CLIENTS // each))))
        taken = time.monotonic() - begun
    good = [spent for status, spent in found if status == 200]
    rate = round(len(good) * each / taken, 2)  # of pictures
    return {"rate": rate, "statuses": dict(Counter(s for s, _ in found)), **summary(good)}


async def flooded(server: Server, paths: list[Path], seconds: float, rate: float) -> dict[str, Any]:
    """Returns what becomes of requests that come at a rate, whether or not others were answered."""
    found: list[tuple[int, float]] = []
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, limits=httpx.Limits()) as client:
        begun, tasks = time.monotonic(), []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
            tasks.append(asyncio.ensure_future(ask(client, [paths[number % len(paths)]], found)))
        failed = [one for one in await asyncio.gather(*tasks, return_exceptions=True) if one is not None]
        taken = time.monotonic() - begun
    good = [spent for status, spent in found if status == 200]
    told = {"asked_rate": round(rate, 2), "rate": round(len(good) / taken, 2), "failed": [repr(f) for f in failed[:5]]}
    return {**told, "statuses": dict(Counter(s for s, _ in found)), **summary(good)}


# --- strangers


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(side: int) -> bytes:
    """Returns a picture whose header claims ``side`` x ``side`` pixels, with a stream of as many zeros as are cheap."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )


def picture(kind: str, side: int = 40) -> bytes:
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)).save(held, format=kind)
    return held.getvalue()


SVG = b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>'
HLS = b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
NAMES = ("../../../etc/passwd", "/etc/passwd", "..\\..\\x.png", "x.png\0.csv", "a" * 5000 + ".png", "\r\nX: y.png", "")


def hostile(rng: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields hostile requests without end: a name of their kind, and what httpx is given."""
    bombs = [png_bomb(side) for side in (20_000, 300_001, 2**31 - 1)]
    jpeg = picture("JPEG")

    def files(content: bytes, name: str = "x.png", count: int = 1) -> dict[str, Any]:
        return {"files": [("files", (name, content)) for _ in range(count)]}

    def raw(content: Any, kind: str = "application/json") -> dict[str, Any]:
        return {"content": content, "headers": {"content-type": kind}}

    def encoded(content: bytes, name: Any = "x.png") -> dict[str, Any]:
        return {"json": {"inputs": [{"base64": base64.b64encode(content).decode(), "name": name}]}}

    makers: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        ("bomb", lambda: files(rng.choice(bombs))),
        ("bomb in json", lambda: encoded(rng.choice(bombs))),
        ("gzip bomb", lambda: files(gzip.compress(bytes(10**6)), "x.png.gz")),
        ("traversal", lambda: files(rng.randbytes(99), rng.choice(NAMES))),
        ("svg", lambda: files(SVG, rng.choice(["x.svg", "x.png"]))),
        ("playlist", lambda: files(HLS, rng.choice(["x.m3u8", "x.png", "x.gif"]))),
        ("manifest", lambda: files(b"path,label\n/etc/passwd,a\n", rng.choice(["m.csv", "m.png"]))),
        ("noise", lambda: files(rng.randbytes(rng.randrange(4000)), rng.choice(["x.png", "x.jpg", "x.tif", "x.webp"]))),
        ("cut off", lambda: files(jpeg[: rng.randrange(20, len(jpeg) // 4)], "x.jpg")),
        ("too many files", lambda: files(b"x", count=70)),
        ("huge", lambda: files(bytes(33 * 2**20))),
        ("endless", lambda: {}),
        ("path", lambda: {"json": {"inputs": [rng.choice(["/etc/passwd", "x.png", "file:///etc/passwd"])]}}),
        ("file of nobody", lambda: {"json": {"inputs": [{"file": "/etc/passwd"}]}}),
        ("url", lambda: {"json": {"inputs": [{"url": "http://169.254.169.254/latest/meta-data"}]}}),
        ("deep", lambda: raw(b'{"inputs":' + b"[" * rng.randrange(10**3, 10**6))),
        ("no json", lambda: raw(rng.randbytes(50))),
        ("no number", lambda: raw(b'{"inputs": [[NaN]]}')),
        ("long number", lambda: raw(b'{"rows": [{"a": ' + b"9" * 6000 + b"}]}")),
        ("wrong types", lambda: {"json": {"inputs": rng.choice([1, True, None, "", {}, [], [[]], [None], [{}]])}}),
        ("ragged", lambda: {"json": {"inputs": [[[1, 2], [3]]]}}),
        ("wrong model", lambda: {"json": {"model": rng.choice(["x", "../model", 7]), "inputs": ["a"]}}),
        ("unknown field", lambda: {"json": {"inputs": ["a"], "exec": "rm"}}),
        ("no base64", lambda: {"json": {"inputs": [{"base64": "!!", "name": "x.png"}]}}),
        ("no name", lambda: {"json": {"inputs": [{"base64": "AAAA"}]}}),
        ("no boundary", lambda: raw(b"x" * 500, "multipart/form-data")),
        (
            "damaged form",
            lambda: raw(b"--b\r\nContent-Disposition: nonsense\r\n\r\n", "multipart/form-data; boundary=b"),
        ),
        ("other content", lambda: raw(b"x", "application/xml")),
        ("surrogates", lambda: raw(b'{"inputs": ["\\ud800"], "model": "\\udfff"}')),
        ("other route", lambda: {"route": "/predict/../../etc/passwd", **files(b"x")}),
        ("embeddings", lambda: {"route": "/v1/embeddings", "json": {"input": [1, 2, 3], "dimensions": -1}}),
        ("neighbours", lambda: {"route": "/neighbours", "json": {"inputs": ["a"], "k": 10**9}}),
    ]
    yield from ((name, make()) for name, make in itertools.cycle(makers))


async def attacked(server: Server, count: int) -> dict[str, Any]:
    """Returns the statuses of hostile requests, by kind where one is no 4xx, and of slow ones beside them."""
    found: Counter[int] = Counter()
    odd: list[tuple[str, Any]] = []
    times: list[float] = []
    requests = itertools.islice(hostile(random.Random(0)), count)
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:

        async def one() -> None:
            for name, given in requests:
                begun = time.monotonic()
                try:
                    if name == "endless":
                        status = await endlessly(server.port)
                    else:
                        status = (await client.post(given.pop("route", "/predict"), **given)).status_code
                except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError, ValueError) as error:
                    status = 0  # the server hung up without an answer that could be read
                    odd.append((name, repr(error)))
                times.append(time.monotonic() - begun)
                found[status] += 1
                if status and not 400 <= status < 500:
                    odd.append((name, status))

        slow = [asyncio.ensure_future(slowly(server.port)) for _ in range(20)]
        await asyncio.gather(*(one() for _ in range(ALIKE)))
        dripping = Counter(await asyncio.gather(*slow))
    told = {"statuses": dict(found), "odd": odd[:20], "odd_count": len(odd)}
    return {**told, "slow": {str(k): n for k, n in dripping.items()}, **summary(times)}


async def endlessly(port: int) -> int:
    """Returns the status that answers a body without end, 0 for none; who sends it looks for the answer meanwhile."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head)
    answer = asyncio.ensure_future(reader.readline())
    while not answer.done():
        writer.write(b"%x\r\n" % 2**18 + b" " * 2**18 + b"\r\n")
        await asyncio.wait({answer, asyncio.ensure_future(writer.drain())}, timeout=1)
    writer.close()
    return int(answer.result().split(b" ")[1]) if answer.result() else 0


async def slowly(port: int) -> str:
    """Returns the first line of the answer to a body of which a byte comes every second, or to half a header."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    whole = random.random() < 0.5
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(head + (b"Content-Length: 9999\r\n\r\n" if whole else b"X-Slow: "))
    begun, answer = time.monotonic(), asyncio.ensure_future(reader.readline())
    while not answer.done() and time.monotonic() - begun < PATIENCE_S:
        try:
            writer.write(b"x")
            await writer.drain()
        except OSError:
            break
        await asyncio.wait({answer}, timeout=1)
    done = answer.done()
    line = (await answer).decode().split(" ")[1:2] if done and not answer.exception() else []
    writer.close()
    return (line[0] if line else "hung up") if done else "hangs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--hostile", type=int, default=2000)
    options = parser.parse_args()
    paths = sorted(path for path in options.pictures.rglob("*.jpg"))[:512]
    told: dict[str, Any] = {"cores": os.cpu_count(), "load_before": os.getloadavg()}

    def tell(name: str, value: Any) -> None:
        told[name] = value
        print(name, json.dumps(value), flush=True)
        options.out.write_text(json.dumps(told, indent=1))

    tell("offline_before", round(offline_rate(options.run, paths[:256]), 2))
    server = Server(options.run, options.out.with_suffix(".server.log"))
    try:
        # What is made once, and what as many requests as the queue takes need, is there before memory is looked at.
        asyncio.run(held(server, paths, 10))
        asyncio.run(flooded(server, paths, 20, 150))
        tell("memory_mb", [round(server.memory_mb())])
        tell("held", asyncio.run(held(server, paths, options.seconds)))
        tell("held_together", asyncio.run(held(server, paths, options.seconds / 5, each=TOGETHER)))
        tell("memory_mb", [*told["memory_mb"], round(server.memory_mb())])
        tell("flooded", asyncio.run(flooded(server, paths, options.seconds / 2, 3 * told["held"]["rate"])))
        tell("memory_mb", [*told["memory_mb"], round(server.memory_mb())])
        tell("offline_after", round(offline_rate(options.run, paths[:256]), 2))
        tell("attacked", asyncio.run(attacked(server, options.hostile)))
        tell("memory_mb", [*told["memory_mb"], round(server.memory_mb())])
        tell("still", asyncio.run(held(server, paths, 5))["statuses"])
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        tell("metrics", [line for line in lines if "restarts_total" in line or "rejected_total" in line])
    finally:
        tell("status", server.end())
        tell("load_after", os.getloadavg())


if __name__ == "__main__":
    main()
