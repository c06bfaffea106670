"""The simulated Provider's adapter: one socket to the world, many calls in flight."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import orjson

from shardagent.errors import Cause, ConfigError, Origin, ProviderError
from shardagent.providers.base import (
    About,
    Answer,
    Created,
    Forget,
    Listed,
    Sent,
    Ticking,
    Waiting,
    Wanted,
)
from shardagent.wire import Plan

LINE = orjson.OPT_APPEND_NEWLINE
BATCH_MAX = 1_000  # requests of a line
ANSWER_BYTES_MAX = 16 * 1_048_576

Build = Callable[..., Created | Answer | None]  # an answer's values as what they mean


class SimProvider:
    """config: `address` ("host:port" or "unix:/path") and `secret`."""

    slug = "sim"
    about = About(
        title="Simulated (known truth)",
        waits_for="the world's own create latency",
        maps=frozenset({"cpu", "memory_mb"}),
    )
    supports_witness = True
    connect_us: int | None = None

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        try:
            self._address = config["address"]
            self._secret = config["secret"]
        except KeyError as missing:
            raise ConfigError(f"sim needs {missing} in its configuration") from None
        self._lines: _Lines | None = None

    async def warm(self, connections: int) -> int:
        """One multiplexed connection carries every call; so there is one."""
        await self._connected()
        return min(1, connections)

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        reused = self._lines is not None and self._lines.open
        wire = await self._connected()
        connect_us = None if reused else self.connect_us
        values = await wire.call(
            sent, "create", wanted.sandbox, dict(wanted.labels), wanted.ttl_s
        )
        return Created(str(values[0]), reused=reused, connect_us=connect_us)

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        wire = await self._connected()
        code, output = await wire.call(
            sent, "exec", provider_id, list(command), timeout_s
        )
        return Answer(code, output)

    async def start_witness(self, provider_id: str, nonce: str, sent: Sent) -> None:
        wire = await self._connected()
        await wire.call(sent, "witness", provider_id, nonce)

    async def probe(
        self,
        provider_id: str,
        command: Sequence[str],
        challenge: str | None,
        sent: Sent,
        timeout_s: float,
    ) -> Answer:
        wire = await self._connected()
        code, output, ticks, digest = await wire.call(
            sent, "probe", provider_id, list(command), challenge
        )
        return Answer(code, output, ticks, digest)

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        wire = await self._connected()
        await wire.call(sent, "destroy", provider_id)

    def create_quickly(self, wanted: Wanted, waiting: Waiting) -> Forget | None:
        values = (wanted.sandbox, dict(wanted.labels), wanted.ttl_s)
        return self._begin(waiting, _created, ("create", *values))

    def execute_quickly(
        self,
        provider_id: str,
        command: Sequence[str],
        timeout_s: float,
        waiting: Waiting,
    ) -> Forget | None:
        values = (provider_id, list(command), timeout_s)
        return self._begin(waiting, Answer, ("exec", *values))

    def start_witness_quickly(
        self, provider_id: str, nonce: str, waiting: Waiting
    ) -> Forget | None:
        return self._begin(waiting, _confirmed, ("witness", provider_id, nonce))

    def probe_quickly(
        self,
        provider_id: str,
        command: Sequence[str],
        challenge: str | None,
        waiting: Waiting,
    ) -> Forget | None:
        values = ("probe", provider_id, list(command), challenge)
        return self._begin(waiting, Answer, values)

    def destroy_quickly(self, provider_id: str, waiting: Waiting) -> Forget | None:
        return self._begin(waiting, _confirmed, ("destroy", provider_id))

    def _begin(
        self, waiting: Waiting, build: Build, asked: tuple[object, ...]
    ) -> Forget | None:
        wire = None if self._lines is None else self._lines.wire
        if wire is None or not wire.open:
            return None
        return wire.begin(waiting, build, asked)

    async def list(self, labels: Mapping[str, str]) -> list[Listed]:
        wire = await self._connected()
        found: list[Listed] = []
        offset: int | None = 0
        while offset is not None:
            page, offset = await wire.call(_nothing, "list", dict(labels), offset)
            found += [Listed(provider_id, carried) for provider_id, carried in page]
        return found

    async def drill(self, verb: str, *values: object) -> Any:
        """Verbs that no vendor has (stats, finish, hibernate, kill)."""
        wire = await self._connected()
        return await wire.call(_nothing, verb, *values)

    async def close(self) -> None:
        if self._lines is not None:
            self._lines.leave()
            self._lines = None

    async def _connected(self) -> _Wire:
        if self._lines is None:
            self._lines = _lines(self._address, self._secret)
            self._lines.users += 1
        wire = await self._lines.connected()
        self.connect_us = self._lines.connect_us
        return wire


class _Lines:
    """The connection to one world that all Shards of a process share."""

    def __init__(self, address: str, secret: str) -> None:
        self.users = 0
        self.connect_us: int | None = None
        self._address = address
        self._secret = secret
        self.wire: _Wire | None = None
        self._connecting = asyncio.Lock()

    @property
    def open(self) -> bool:
        return self.wire is not None and self.wire.open

    def leave(self) -> None:
        self.users -= 1
        if self.users <= 0 and self.wire is not None:
            self.wire.close()
            self.wire = None

    async def connected(self) -> _Wire:
        wire = self.wire
        if wire is not None and wire.open:
            return wire
        async with self._connecting:
            if self.wire is not None and self.wire.open:
                return self.wire
            loop = asyncio.get_running_loop()
            before = time.monotonic_ns()
            try:
                if self._address.startswith("unix:"):
                    path = self._address.removeprefix("unix:")
                    _, wire = await loop.create_unix_connection(_Wire, path)
                else:
                    host, _, port = self._address.rpartition(":")
                    _, wire = await loop.create_connection(_Wire, host, int(port))
            except OSError as error:
                raise _lost(f"cannot connect: {error}") from error
            self.connect_us = (time.monotonic_ns() - before) // 1_000
            try:
                await wire.call(_nothing, "hello", self._secret)
            except BaseException:
                wire.close()
                raise
            self.wire = wire
            return wire


_shared: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[tuple[str, str], _Lines]
] = weakref.WeakKeyDictionary()


def _lines(address: str, secret: str) -> _Lines:
    """The one to this world on the running loop."""
    known = _shared.setdefault(asyncio.get_running_loop(), {})
    return known.setdefault((address, secret), _Lines(address, secret))


class _Wire(asyncio.Protocol):
    """One connection; see runs/simworld/server.py for what is said on it.

    What is written in one turn of the loop leaves in one write, and `sent` is called
    right before it: that is when the first byte reaches the socket.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._next_id = 0
        self._calls: dict[int, asyncio.Future[list[Any]]] = {}
        self._quick: dict[int, tuple[Waiting, Build]] = {}
        self._out: list[tuple[object, ...]] = []
        self._sent: list[Sent] = []
        self._sent_quick: list[Waiting] = []
        self.open = False

    async def call(self, sent: Sent, verb: str, *values: object) -> list[Any]:
        """One request and its answer; raises what the answer says."""
        if not self.open:
            raise _lost("the connection is closed")
        self._sent.append(sent)
        request_id = self._ask((verb, *values))
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        self._calls[request_id] = answer
        try:
            return await answer
        finally:
            self._calls.pop(request_id, None)

    def begin(
        self, waiting: Waiting, build: Build, asked: tuple[object, ...]
    ) -> Forget:
        """One request whose end is told to `waiting`; returns what forgets it."""
        self._sent_quick.append(waiting)
        request_id = self._ask(asked)
        self._quick[request_id] = (waiting, build)
        return partial(self._quick.pop, request_id, None)

    def _ask(self, asked: tuple[object, ...]) -> int:
        self._next_id = request_id = self._next_id + 1
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append((request_id, *asked))
        return request_id

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._fail(_lost(f"connection lost: {exc or 'closed by the other side'}"))

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            if len(self._rest) > ANSWER_BYTES_MAX:
                raise ValueError("answer too long")
            for line in lines:
                self._all_answered(_answers(line))
        except (ValueError, TypeError) as error:
            self._fail(_lost(f"unintelligible answer: {error}"))
            self.close()

    def _all_answered(self, answers: Iterable[list[Any]]) -> None:
        """These came on one line: at one instant."""
        clock: Ticking | None = None
        at = 0
        for request_id, failed, *values in answers:
            quick = self._quick.pop(request_id, None)
            if quick is None:
                self._answered(request_id, failed, values)
                continue
            waiting, build = quick
            if waiting.clock is not clock:
                clock = waiting.clock
                at = clock.now_us()
            if failed:
                waiting.ended(None, _provider_error(*values), at)
            else:
                waiting.ended(build(*values), None, at)

    def _answered(self, request_id: int | None, failed: int, values: list[Any]) -> None:
        if request_id is None:
            self._fail(_provider_error(*values))
            return
        answer = self._calls.get(request_id)
        if answer is None or answer.done():
            return  # its caller has given up
        if failed:
            answer.set_exception(_provider_error(*values))
        else:
            answer.set_result(values)

    def _flush(self) -> None:
        for sent in self._sent:
            sent()
        clock: Ticking | None = None
        at = 0
        for waiting in self._sent_quick:
            if waiting.clock is not clock:
                clock = waiting.clock
                at = clock.now_us()
            waiting.sent(at)
        out, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            for start in range(0, len(out), BATCH_MAX):
                batch = out[start : start + BATCH_MAX]
                self._transport.write(orjson.dumps(batch, option=LINE))
        self._sent.clear()
        self._sent_quick.clear()

    def _fail(self, error: ProviderError) -> None:
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(
                    ProviderError(error.cause, error.origin, error.message)
                )
        quick, self._quick = self._quick, {}
        for waiting, _ in quick.values():
            lost = ProviderError(error.cause, error.origin, error.message)
            waiting.ended(None, lost, waiting.clock.now_us())


def _answers(line: bytes) -> list[list[Any]]:
    found: list[list[Any]] = orjson.loads(line)
    if not isinstance(found, list) or not found:
        raise ValueError("not an array of answers")
    return found


def _created(provider_id: Any) -> Created:
    return Created(str(provider_id), reused=True)


def _confirmed(*_: Any) -> None:
    """For verbs whose answer is that it is done."""


def _provider_error(cause: str, status: int, message: str) -> ProviderError:
    return ProviderError(Cause(cause), Origin.PROVIDER, message, status=status)


def _lost(message: str) -> ProviderError:
    return ProviderError(Cause.NETWORK, Origin.NETWORK, message)


def _nothing() -> None:
    """For calls whose sending nobody measures."""
