"""The routes. Each takes a request apart, has its samples read and answered, and says what is wrong in one shape."""

import asyncio
import json
import re
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from metatransformer.core.errors import DataError, MetaTransformerError, UsageError
from metatransformer.infer.explain import explained
from metatransformer.infer.search import find, nearest_rows
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.serve import page, pages
from metatransformer.serve.answers import encoded, plain, predictions
from metatransformer.serve.border import Border, busy
from metatransformer.serve.decoders import Decoders
from metatransformer.serve.engine import Engine, Outputs, Work, owners_of
from metatransformer.serve.fetch import fetch
from metatransformer.serve.hosted import Hosted, Index, UnknownModelError, about_modality, chosen
from metatransformer.serve.limits import Limits
from metatransformer.serve.metrics import Metrics
from metatransformer.serve.problems import Problem
from metatransformer.serve.reading import Read, Spec
from metatransformer.serve.samples import asked_of
from metatransformer.serve.uploads import Uploads, resolve, urls_in

T = TypeVar("T")
FOLDERS = re.compile(r"(?<![\w./:])/(?:[^\s/'\"]+/)+")  # of a path: where things lie here concerns nobody
FIELDS = {"model", "modality", "inputs", "rows"}
MOST_NEAREST = 100
DECODED = 4  # times what one request may decode to: beyond it others wait to be read


@dataclass
class Server:
    """What the routes share."""

    hosted: Mapping[str, Hosted]
    index: Index | None
    limits: Limits
    urls: bool
    engine: Engine
    decoders: Decoders
    metrics: Metrics
    root: Path
    inside: int = 0
    decoded: int = 0  # bytes of samples that wait for their answer
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    fetching: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    seconds: float = 1.0  # that a request took, lately

    @property
    def models(self) -> dict[str, Hosted]:
        """All that samples are read for."""
        return {**self.hosted, **({self.index.hosted.name: self.index.hosted} if self.index else {})}

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Holds one of the places in the queue.

        Raises:
            Problem: there is none.
        """
        if self.inside >= self.limits.queue:
            self.metrics.rejected.labels("queue").inc()
            raise busy(min(60, max(1, round(self.seconds))))
        self.inside += 1
        self.metrics.waiting.set(self.inside)
        begun = time.monotonic()
        try:
            yield
        finally:
            self.inside -= 1
            self.metrics.waiting.set(self.inside)
            self.seconds += 0.1 * (time.monotonic() - begun - self.seconds)

    @asynccontextmanager
    async def samples(
        self, hosted: Hosted, sent: "Sent", *, explained: tuple[str, int] = ("", 0)
    ) -> AsyncIterator[Read]:
        """Yields the samples of a request, read when those of others leave room for them; ``explained`` is as ``Asked``
        has it.
        """
        while self.decoded > DECODED * self.limits.sample_bytes:
            self.freed.clear()
            await self.freed.wait()
        read = await self._read(hosted, sent, explained)
        size = sum(sample.nbytes for sample in read.samples)
        self.decoded += size
        try:
            yield read
        finally:
            self.decoded -= size
            self.freed.set()

    async def _read(self, hosted: Hosted, sent: "Sent", explained: tuple[str, int]) -> Read:
        uploads, most = sent.uploads, self.limits.body_bytes
        urls = list(dict.fromkeys(urls_in(sent.fields.get("inputs"))))
        if urls and not self.urls:
            raise Problem(403, "this server fetches nothing: send files, or start it with --urls.", kind="forbidden")
        if len(urls) > self.limits.files:
            raise DataError("a request", must=f"have at most {self.limits.files} files", found="more")
        fetched: dict[str, Path] = {}
        for url in urls:
            async with self.fetching:  # a slow host is not to take every thread
                fetched[url] = await asyncio.to_thread(fetch, url, uploads, most=most, seconds=self.limits.receive_s)
        inputs = await asyncio.to_thread(resolve, sent.fields.get("inputs"), uploads, fetched)
        rows = await asyncio.to_thread(resolve, sent.fields.get("rows"), uploads, {})
        asked = replace(asked_of(hosted, inputs=inputs, rows=rows, uploads=uploads), explained=explained)
        begun = time.monotonic()
        read = await self.decoders.read(asked)
        self.metrics.decoding.observe(time.monotonic() - begun)
        return read

    async def answer(self, work: Work) -> Outputs:
        """Returns the outputs of samples; who no longer waits takes them out of the queue."""
        self.engine.submit(work)
        try:
            return await asyncio.shield(asyncio.wrap_future(work.future))
        except asyncio.CancelledError:
            work.gone = True
            raise


@dataclass
class Sent:
    """A request taken apart: its fields, and the files that came with it."""

    uploads: Uploads
    fields: dict[str, Any] = field(default_factory=dict)

    def text(self, name: str, usual: str = "") -> str:
        """Returns a field that is a text.

        Raises:
            DataError: it is something else.
        """
        value = self.fields.get(name)
        if value is not None and not isinstance(value, str):
            raise DataError(f"'{name}'", must="be a text", found=type(value).__name__)
        return value or usual

    def number(self, name: str, *, low: int, high: int, usual: int) -> int:
        """Returns a field that is a whole number from ``low`` to ``high``.

        Raises:
            DataError: it is something else.
        """
        value = self.fields.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            value = int(value)  # of a form, where all is text
        if value is None:
            return usual
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise DataError(f"'{name}'", must=f"be a whole number from {low} to {high}", found=repr(value)[:40])
        return value

    def require_known(self, known: set[str]) -> None:
        """Raises DataError for a field that nobody reads."""
        if unknown := sorted(set(self.fields) - known):
            must = f"have the fields {', '.join(sorted(known))} and no others"
            raise DataError("a request", must=must, found=repr(unknown[0])[:60])


def make_app(
    hosted: Mapping[str, Hosted],
    *,
    index: Index | None = None,
    limits: Limits | None = None,
    token: str = "",
    urls: bool = False,
    backend: str = "eager",
) -> FastAPI:
    """Returns the application; its processes and threads live from its startup to its shutdown."""
    limits, metrics = limits or Limits(), Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="metatransformer-serve-") as folder:
            root = Path(folder).resolve()
            known = {**hosted, **({index.hosted.name: index.hosted} if index else {})}
            specs = {name: Spec.of(one.pipeline) for name, one in known.items()}
            decoders = Decoders(specs, writable=root, limits=limits, metrics=metrics)
            owners = owners_of(known.values(), backend)
            engine = Engine(limits=limits, metrics=metrics, backend=backend, owners=owners)
            await asyncio.to_thread(decoders.start)
            engine.start()
            app.state.server = Server(hosted, index, limits, urls, engine, decoders, metrics, root)
            try:
                yield
            finally:
                await asyncio.to_thread(engine.close)
                await asyncio.to_thread(decoders.close)

    app = FastAPI(
        title="metatransformer", version="1", lifespan=lifespan, docs_url=None, redoc_url=None, description=pages.ABOUT
    )
    _answer_errors(app)
    _add_facts(app)
    _add_models(app)
    page.add_page(app)
    app.add_middleware(Border, limits=limits, metrics=metrics, token=token)  # type: ignore[arg-type]
    return app


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        # Starlette's own: an unknown route or method, a form that is damaged or has too many parts.
        return _json(Problem(error.status_code, str(error.detail)).body(), status=error.status_code)

    @app.exception_handler(Problem)
    async def of_problem(request: Request, problem: Problem) -> Response:
        response = _json(problem.body(), status=problem.status)
        response.headers.update(problem.headers)
        return response

    @app.exception_handler(ClientDisconnect)
    async def of_nobody(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)

    @app.exception_handler(MetaTransformerError)
    async def of_ours(request: Request, error: MetaTransformerError) -> Response:
        status = (
            404 if isinstance(error, UnknownModelError) else 422 if isinstance(error, DataError | UsageError) else 500
        )
        message = str(error) if status < 500 else "the server: must be able to answer; found that it is not."
        return _json(
            Problem(status, message, kind="invalid_data" if status == 422 else "unknown").body(), status=status
        )


def _add_facts(app: FastAPI) -> None:
    """Adds what a server tells of itself."""

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> str:
        return pages.docs(app.openapi())

    @app.get("/health", summary="Whether it answers", responses=pages.example(pages.HEALTH))
    async def health(request: Request) -> Response:
        server = _server(request)
        told = {"models": len(server.hosted), "sandbox": server.decoders.held}
        alive = server.engine.alive
        return _json({"status": "ok" if alive else "broken", **told}, status=200 if alive else 503)

    @app.get("/metrics", summary="Counts for Prometheus", response_class=Response)
    async def metrics(request: Request) -> Response:
        return Response(_server(request).metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/models", summary="What it answers with", responses=pages.example(pages.MODELS))
    async def models(request: Request) -> Response:
        return _json({"models": [one.about() for one in _server(request).hosted.values()]})

    @app.get("/modalities", summary="What it takes, and how", responses=pages.example(pages.MODALITIES))
    async def modalities(request: Request) -> Response:
        hosted = _server(request).hosted.values()
        kinds = dict.fromkeys(one.modality for model in hosted for one in model.pipeline.recipe.inputs.values())
        of = {kind: [one.name for one in hosted if kind in _kinds(one)] for kind in kinds}
        return _json({"modalities": [about_modality(get_modality(kind), names) for kind, names in of.items()]})


def _kinds(hosted: Hosted) -> set[str]:
    return {one.modality for one in hosted.pipeline.recipe.inputs.values()}


def _add_models(app: FastAPI) -> None:
    """Adds what the models answer."""

    @app.post("/predict", summary="Predictions for samples", **pages.taking(pages.PREDICT, pages.PREDICTED))
    async def predict(request: Request) -> Response:
        async def made(server: Server, sent: Sent) -> dict[str, Any]:
            sent.require_known(FIELDS)
            one = _chosen(server, sent, trained=True)
            async with server.samples(one, sent) as read:
                outputs = await server.answer(Work(one, read.samples, vectors=False))
                found = await asyncio.to_thread(predictions, one, read, outputs, sent.uploads)
            notes = [_shown(note, sent.uploads) for note in read.notes]
            return {"model": one.name, "predictions": found, "notes": notes}

        return await _handled(request, made)

    @app.post("/explain", summary="What an answer rests on", **pages.taking(pages.EXPLAIN, pages.EXPLAINED))
    async def explain(request: Request) -> Response:
        return await _handled(request, _explained)

    @app.post("/v1/embeddings", summary="Vectors, in OpenAI's form", **pages.taking(pages.EMBED, pages.EMBEDDED))
    async def embeddings(request: Request) -> Response:
        return await _handled(request, _embeddings)

    @app.post("/neighbours", summary="What is near in the index", **pages.taking(pages.NEAR, pages.NEIGHBOURS))
    async def neighbours(request: Request) -> Response:
        return await _handled(request, _neighbours)


async def _embeddings(server: Server, sent: Sent) -> dict[str, Any]:
    sent.fields["inputs"] = sent.fields.pop("input", sent.fields.get("inputs"))
    sent.require_known({*FIELDS, "encoding_format", "dimensions", "user"} - {"rows"})
    form = sent.text("encoding_format", "float")
    if form not in ("float", "base64"):
        raise DataError("'encoding_format'", must="be float or base64", found=repr(form)[:40])
    one = _chosen(server, sent)
    width = one.vectors.width
    dimensions = sent.number("dimensions", low=1, high=width, usual=width)
    given = sent.fields["inputs"]
    if isinstance(given, list) and given and all(isinstance(item, int) for item in given):
        raise DataError("'input'", must="be texts, objects or numbers in nested lists", found="numbers of tokens")
    async with server.samples(one, sent) as read:
        work = Work(one, read.samples, vectors=True)
        vectors = (await server.answer(work))[""].outputs.numpy()[:, :dimensions]
    count = int(server.engine.tokens(work).sum().round())
    data = [{"object": "embedding", "index": n, "embedding": encoded(v, form=form)} for n, v in enumerate(vectors)]
    return {
        "object": "list",
        "data": data,
        "model": one.name,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


async def _explained(server: Server, sent: Sent) -> dict[str, Any]:
    sent.require_known({*FIELDS, "task", "answer", "places"})
    one = _chosen(server, sent, trained=True)
    pipeline, answer = page.explainable(one, sent.text("task")), sent.text("answer")
    places = sent.number("places", low=1, high=page.MOST_PLACES, usual=page.PLACES)
    async with server.samples(one, sent, explained=(pipeline.task_name, places)) as read:
        assert read.covered is not None
        covered = page.at_home(read.covered, pipeline)
        work = server.engine.run_alone(lambda: explained(pipeline, covered, answer=answer))
        found = await asyncio.wrap_future(work)
    told = await asyncio.to_thread(page.told, found)
    return {"model": one.name, **told, "key": _shown(told["key"], sent.uploads)}


async def _neighbours(server: Server, sent: Sent) -> dict[str, Any]:
    sent.require_known({*FIELDS, "k"})
    if server.index is None:
        raise Problem(404, "this server has no index: start it with --index FILE.", kind="unknown")
    index = server.index
    count = sent.number("k", low=1, high=MOST_NEAREST, usual=10)
    async with server.samples(index.hosted, sent) as read:
        vectors = (await server.answer(Work(index.hosted, read.samples, vectors=True)))[""].outputs
    keys = [_shown(key, sent.uploads) for key in read.examples.keys]
    asked = {"nearest": nearest_rows, "count": count, "console": Console(quiet=True)}
    table = await asyncio.to_thread(find, index.stored, keys, vectors, **asked)
    shown = table[["query", "rank", "id", "similarity"]]  # where files lie concerns nobody
    rows = [dict(zip(shown.columns, map(plain, row), strict=True)) for row in shown.itertuples(index=False, name=None)]
    return {"index": len(index.stored), "neighbours": rows}


def _chosen(server: Server, sent: Sent, *, trained: bool = False) -> Hosted:
    return chosen(server.hosted, model=sent.text("model"), modality=sent.text("modality"), trained=trained)


def _server(request: Request) -> Server:
    return request.app.state.server


async def _handled(request: Request, made: Any) -> Response:
    """Returns the answer to a request that brings samples; its files are gone afterwards."""
    server = _server(request)
    uploads = Uploads(server.root, most=server.limits.files)
    try:
        sent = Sent(uploads, await _received(request, uploads, server.limits))
        async with server.place():
            return _json(await _unless_gone(request, made(server, sent)))
    except MetaTransformerError as error:
        raise _without_places(error, uploads) from error
    finally:
        await asyncio.to_thread(uploads.close)


def _without_places(error: MetaTransformerError, uploads: Uploads) -> MetaTransformerError:
    """Returns an error that names files as the client does."""
    parts = [_shown(text, uploads) for text in (error.where, error.must, error.found, error.do)]
    kinds = (UnknownModelError, DataError, UsageError)
    kind = next((kind for kind in kinds if isinstance(error, kind)), MetaTransformerError)
    return kind(parts[0], must=parts[1], found=parts[2], do=parts[3])


def _shown(text: str, uploads: Uploads) -> str:
    return FOLDERS.sub("", uploads.shown(text))


async def _received(request: Request, uploads: Uploads, limits: Limits) -> dict[str, Any]:
    """Returns the fields of a request, once all of it has come; its files are kept.

    Raises:
        Problem: another kind of content, or one that is damaged.
        DataError: too many files.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _parsed(await request.body(), "the request")
    if kind != "multipart/form-data":
        raise Problem(415, "Content-Type: must be application/json or multipart/form-data.")
    fields: dict[str, Any] = {}
    async with request.form(max_files=limits.files, max_fields=16, max_part_size=limits.body_bytes) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                await asyncio.to_thread(uploads.keep, value.filename or "", value.file)
            elif name in fields:
                raise DataError(f"'{name[:60]}'", must="be there once", found="it twice")
            else:
                fields[name] = value
    for name in ("inputs", "rows"):
        if isinstance(fields.get(name), str):
            fields[name] = _parsed(fields[name].encode("utf-8", "replace"), f"'{name}'", any=True)
    return fields


def _parsed(body: bytes, where: str, *, any: bool = False) -> Any:
    """Returns what JSON says, an object unless ``any``; no number that JSON does not have."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number of JSON")

    try:
        found = json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"{where}: must be JSON; found that it is not ({str(error)[:200]}).") from error
    if not any and not isinstance(found, dict):
        raise Problem(400, f"{where}: must be a JSON object.")
    return found


async def _unless_gone(request: Request, made: Awaitable[T]) -> T:
    """Returns what is made, unless the client goes away meanwhile.

    Raises:
        Problem: it has gone; nobody will see it.
    """
    task = asyncio.ensure_future(made)
    gone = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Problem(499, "the client has gone.", kind="gone")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _left(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(content: Any, *, status: int = 200) -> Response:
    """Returns a response of ASCII alone: texts of strangers may hold what UTF-8 cannot."""
    body = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(body, status_code=status, media_type="application/json")
