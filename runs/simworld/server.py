"""The world's socket: lines of JSON, many requests in flight.

A line is an array: of requests on the way in, of answers on the way out, as many of
each as are at hand (at most BATCH_MAX, and LINE_BYTES_MAX to the world).
Request [id, verb, …], answer [id, 0, …] or [id, 1, cause, status, message]:

  hello     secret                            before anything else
  create    sandbox, labels, ttl_s          → provider_id
  exec      provider_id, argv, timeout_s    → exit_code, output
  witness   provider_id, nonce
  probe     provider_id, argv, challenge    → exit_code, output, ticks, digest
  destroy   provider_id
  list      labels, offset                  → [[provider_id, labels], …], next offset
  stats                                     → {…}
  finish    secret                          → {…}, when the truth is stored
  hibernate provider_id     (drill)
  kill      provider_id     (drill)
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from typing import Any, cast

import orjson

from runs.simworld.engine import Engine
from runs.simworld.timers import Timers

LINE = orjson.OPT_APPEND_NEWLINE
LINE_BYTES_MAX = 1_048_576
BATCH_MAX = 1_000
CONNECTIONS_MAX = 20_000


class BadRequest(Exception):
    """A line that is not of this protocol; the connection is closed."""


class Pending:
    """Where the answer to one request goes."""

    __slots__ = ("_connection", "_id")

    def __init__(self, connection: Connection, request_id: int) -> None:
        self._connection = connection
        self._id = request_id

    def ok(self, *values: Any) -> None:
        self._connection.send([self._id, 0, *values])

    def error(self, cause: str, status: int, message: str) -> None:
        self._connection.send([self._id, 1, cause, status, message])


class Connection(asyncio.Protocol):
    """One client. Answers of one turn of the loop leave in one write."""

    def __init__(self, world: WorldServer) -> None:
        self._world = world
        self._verbs = world.verbs
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._out: list[list[Any]] = []
        self._flush_soon = asyncio.get_running_loop().call_soon
        self._known = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._world.connections) >= CONNECTIONS_MAX:
            self._transport.abort()
            return
        self._world.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._world.connections.discard(self)
        self._transport = None

    def pause_writing(self) -> None:
        """Who does not read its answers may ask no more."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._world.timers.run_due()
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            if len(self._rest) > LINE_BYTES_MAX:
                raise BadRequest("line too long")
            for line in lines:
                for request in _requests(line):
                    self._handle(request)
        except BadRequest as error:
            self.send([None, 1, "invalid_request", 400, str(error)])
            self.close()

    def send(self, answer: list[Any]) -> None:
        if self._transport is None:
            return
        if not self._out:
            self._flush_soon(self._flush)
        self._out.append(answer)

    def close(self) -> None:
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            for start in range(0, len(out), BATCH_MAX):
                batch = out[start : start + BATCH_MAX]
                self._transport.write(orjson.dumps(batch, option=LINE))

    def _handle(self, request: list[Any]) -> None:
        try:
            request_id, verb, *values = request
            pending = Pending(self, request_id)
            if self._known:
                self._verbs[verb](pending, *values)
            elif verb == "hello" and self._world.knows(values[0]):
                self._known = True
                pending.ok()
            else:
                pending.error("auth", 401, "say hello with the secret first")
                self.close()
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise BadRequest(f"not of this protocol: {error!r}") from None


def _requests(line: bytes) -> list[list[Any]]:
    try:
        found: list[list[Any]] = orjson.loads(line)
    except ValueError as error:
        raise BadRequest(f"not of this protocol: {error!r}") from None
    if not isinstance(found, list) or not 0 < len(found) <= BATCH_MAX:
        raise BadRequest(f"not an array of at most {BATCH_MAX} requests")
    return found


class WorldServer:
    """Ties connections to the engine. `on_finish` starts the end of the world."""

    def __init__(
        self,
        engine: Engine,
        timers: Timers,
        secret: str,
        *,
        stats: Callable[[], dict[str, Any]],
        on_finish: Callable[[Pending], None],
    ) -> None:
        self.timers = timers
        self.connections: set[Connection] = set()
        self._secret = secret.encode()
        self._stats = stats
        self._on_finish = on_finish
        self.verbs: dict[str, Callable[..., None]] = {
            "hello": lambda pending, secret: pending.ok(),
            "create": engine.create,
            "exec": engine.execute,
            "witness": engine.witness,
            "probe": engine.probe,
            "destroy": engine.destroy,
            "list": engine.list,
            "hibernate": engine.hibernate,
            "kill": engine.kill,
            "stats": lambda pending: pending.ok(self._stats()),
            "finish": self._finish,
        }

    def knows(self, secret: str) -> bool:
        return hmac.compare_digest(secret.encode(), self._secret)

    def _finish(self, pending: Pending, secret: str) -> None:
        if self.knows(secret):
            self._on_finish(pending)
        else:
            pending.error("auth", 401, "wrong secret")
