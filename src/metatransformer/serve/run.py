"""The server as a process: uvicorn with deadlines for what uvicorn waits for without end."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from metatransformer.core.errors import UsageError

VARIABLE = "METATRANSFORMER_SERVE_TOKEN"
HEADERS_S = 10.0  # from the connection, or the first byte of its next request, to the end of the headers
# Between two requests of a connection: longer than clients and balancers keep one (nginx: 60), for who sends while it
# is closed sees an error.
IDLE_S = 75.0
LEAST = 16  # letters of a token
SWITCH_S = 0.0005  # for which one thread may keep another from Python: the model asks for it hundreds of times a batch


class _Prompt(H11Protocol):
    """A connection that ends when no whole headers have come in time."""

    _watch: asyncio.TimerHandle | None = None
    _idle = False  # waits for the next request

    def connection_made(self, transport: Any) -> None:
        """Begins to watch."""
        super().connection_made(transport)
        self._end_in(HEADERS_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends watching."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Watches for the end of the headers that begin here."""
        if self._idle:
            self._idle = False
            self._end_in(HEADERS_S)
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Watches for the next request of the connection."""
        super().on_response_complete()
        self._idle = True
        self._end_in(IDLE_S)

    def _end_in(self, seconds: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self.loop.call_later(seconds, self._end)

    def _end(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def read_token(file: str, environment: Mapping[str, str]) -> str:
    """Returns the token of a file, or of the environment; "" where there is none.

    Raises:
        UsageError: it cannot be read, or is too short to keep anybody out.
    """
    where = f"--token-file {file}" if file else VARIABLE
    if file:
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(where, must="be a readable text file", found=f"'{error}'") from error
    else:
        token = environment.get(VARIABLE, "").strip()
    if (file or token) and (len(token) < LEAST or not token.isascii() or not token.isprintable() or " " in token):
        must, do = f"hold at least {LEAST} letters or digits without blanks", "For example: openssl rand -hex 32"
        raise UsageError(where, must=must, found=f"{len(token)} of them or others", do=do)
    return token


def run(app: FastAPI, *, host: str, port: int, queue: int) -> None:
    """Serves until SIGTERM or SIGINT; what was begun is answered first.

    Raises:
        UsageError: the address cannot be had.
    """
    os.environ.pop(VARIABLE, None)  # who reads files is not to find it
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Prompt,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=8 * queue,
        timeout_keep_alive=int(IDLE_S),
        timeout_graceful_shutdown=60,
        h11_max_incomplete_event_size=2**15,
    )
    server = uvicorn.Server(config)
    sys.setswitchinterval(SWITCH_S)
    # uvicorn raises the signal that ended it once more, for whoever was there before: nobody.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run()
    except SystemExit as error:  # uvicorn's word for an address that cannot be had
        raise UsageError(f"--host {host} --port {port}", must="be free for a server", found="that it is not") from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not server.started:
        raise UsageError(f"--host {host} --port {port}", must="be free for a server", found="that it is not")
