"""The outer border of the server: who may ask, how many bytes, how long, and what is counted. Plain ASGI."""

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from metatransformer.serve.limits import Limits
from metatransformer.serve.metrics import Metrics
from metatransformer.serve.problems import Problem, too_large

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = ("/health", "/", "/page.css", "/page.js")  # without a token: the page asks for it
# Nothing of the page may come from elsewhere, and nobody may put it into a frame.
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; frame-ancestors 'none'",
    ),
)
BODIES = 4  # times the queue: so many requests may be coming in at once
LINGER_S = 5.0  # for the rest of a body that was refused already
WHOLE = 16  # times the largest body: so many bytes of all of them may be held


class Border:
    """Counts the bytes of a body as they come, whatever its header says, and ends one that comes too slowly."""

    def __init__(self, app: App, *, limits: Limits, metrics: Metrics, token: str) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._token = token.encode()
        self._bodies = 0
        self.held = 0  # bytes of bodies

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), [0]
        body = _Body(receive, self, most=self._limits.body_bytes, seconds=self._limits.receive_s)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                own = [*HEADERS, *([] if body.whole else [(b"connection", b"close")])]
                message["headers"] = [*message.get("headers", ()), *own]
            elif not (body.whole or message.get("more_body")):
                # A connection that is closed on a client who still sends takes the answer with it.
                await send({**message, "more_body": True})
                await body.linger()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        coming = scope["method"] in ("POST", "PUT", "PATCH")
        body.whole = not coming  # of others nobody reads one
        self._bodies += coming
        try:
            self._admit(scope)
            await self._app(scope, body, told)
        except Problem as problem:
            if not status[0]:
                await respond(problem, told)
        finally:
            self._bodies -= coming
            self.held -= body.size
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status[0])).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - begun)

    def _admit(self, scope: Message) -> None:
        """Raises Problem for a request that is refused whatever is in it."""
        headers = dict(scope["headers"])
        if self._token and scope["path"] not in OPEN:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            same = hmac.compare_digest(given.strip(), self._token)
            if scheme.lower() != b"bearer" or not same:
                message = "Authorization: must be 'Bearer TOKEN' with this server's token."
                raise Problem(401, message, kind="unauthorized", headers={"WWW-Authenticate": "Bearer"})
        if headers.get(b"sec-fetch-site") == b"cross-site" and scope["method"] != "GET":
            raise Problem(403, "a page of another site may not ask this server.", kind="forbidden")
        if self._bodies > BODIES * self._limits.queue:
            self._metrics.rejected.labels("bodies").inc()
            raise busy(1)
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > self._limits.body_bytes:  # what is not declared is counted
            self._metrics.rejected.labels("size").inc()
            raise too_large(self._limits.body_bytes)


class _Body:
    """A request's ``receive``, which counts."""

    def __init__(self, receive: Receive, border: Border, *, most: int, seconds: float) -> None:
        self._receive, self._border, self._most, self._seconds = receive, border, most, seconds
        self._until = time.monotonic() + seconds
        self.size = 0
        self.whole = False

    async def __call__(self) -> Message:
        if self.whole:  # what comes now is that the client has gone
            return await self._receive()
        left = self._until - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, left))
        except TimeoutError as error:
            raise Problem(408, "the request: must come whole in time; found one that did not.") from error
        if message["type"] == "http.request":
            self.size += (size := len(message.get("body", b"")))
            self._border.held += size
            if self.size > self._most:
                raise too_large(self._most)
            if self._border.held > WHOLE * self._most:
                raise busy(1)
            self.whole = not message.get("more_body", False)
        return message

    async def linger(self) -> None:
        """Lets the rest of a refused body come, and drops it; not without end."""
        until, left = time.monotonic() + min(LINGER_S, self._seconds), WHOLE * self._most
        while left > 0:
            try:
                message = await asyncio.wait_for(self._receive(), max(0.0, until - time.monotonic()))
            except TimeoutError:
                return
            left -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return


def busy(seconds: int) -> Problem:
    """Returns the problem of a server that has enough to do."""
    message = "the server: has as many requests as it takes. Come again later."
    return Problem(503, message, kind="overloaded", headers={"Retry-After": str(seconds)})


async def respond(problem: Problem, send: Send) -> None:
    """Sends what is wrong."""
    body = json.dumps(problem.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
