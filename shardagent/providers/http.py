"""The thin client under the REST adapters: one attempt a call, timed at the socket.

Connections are kept and never limited, so nothing queues here; no answer is asked for
twice, not even where a kept connection turns out to be closed; redirects are answers.
DNS, connect and TLS are timed apart from the request (aiohttp's traces; the TLS
handshake begins where the context wraps the socket).
"""

from __future__ import annotations

import asyncio
import errno
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from statistics import median
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import aiohttp
import orjson
from aiohttp import ClientRequest, ClientResponse

from shardagent import __version__
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Created, Sent
from shardagent.providers.taxonomy import Rule, cause_of, words_of
from shardagent.scrub import Scrubber

BODY_BYTES_MAX = 32 * 1_048_576  # of one answer; a listing of thousands fits
ERROR_BYTES_SHOWN = 20_000  # of a body whose words are looked for
LEAVE_S = 2.0  # for sockets to be closed, when all is
FRAME_MAX = 4 * 1_048_576  # bytes of one message of a WebSocket
FRAMES_MAX = 10_000  # of one answer
KEEP_S = 75.0  # a connection unused for so long is closed
DNS_TTL_S = 300
# Our own machine ran out of something: nothing to do with who was called.
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL}


@dataclass(slots=True)
class Timing:
    """Of one request, in µs; None where the connection was there already."""

    reused: bool = True
    dns_us: int | None = None
    connect_us: int | None = None
    tls_us: int | None = None
    began_ns: int = 0
    resolved_ns: int = 0
    wrapped_ns: int = 0

    def created(self, provider_id: str) -> Created:
        return Created(
            provider_id, self.reused, self.dns_us, self.connect_us, self.tls_us
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    timing: Timing

    def json(self) -> Any:
        """The body as JSON; a ProviderError where it is none."""
        try:
            return orjson.loads(self.body)
        except ValueError:
            said = words_of(None, self.text)[:200]
            raise unintelligible(f"no JSON: {said}", self.status) from None

    def object(self) -> dict[str, Any]:
        """The body as a JSON object."""
        found = self.json()
        if not isinstance(found, dict):
            raise unintelligible("no JSON object", self.status)
        return found

    @property
    def text(self) -> str:
        return self.body[:ERROR_BYTES_SHOWN].decode(errors="replace")


class Http:
    """One vendor's HTTP, for one Shard. base: where paths that begin with / lead."""

    def __init__(
        self,
        base: str,
        headers: Mapping[str, str],
        *,
        secrets: Sequence[str] = (),
        rules: Sequence[Rule] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.base = base.rstrip("/")
        self._headers = {"User-Agent": f"holdfast/{__version__}", **headers}
        self._scrubber = Scrubber(secrets)
        self._rules = rules
        self._tls = tls
        self._opened: aiohttp.ClientSession | None = None
        self._plain: aiohttp.ClientSession | None = None
        self._seen: WeakSet[Any] = WeakSet()  # connections that are no news
        self._leaving: set[asyncio.Future[bool]] = set()  # sockets that are closing
        self.connect_us: int | None = None  # to open one, the median of a warm-up

    async def warm(self, connections: int, base: str = "") -> int:
        """Resolve, connect and shake hands, so often at once; how many are held.

        Nothing is requested: that would use up the vendor's rate.
        """
        opened_us: list[int] = []

        async def one() -> aiohttp.connector.Connection:
            began_ns = time.monotonic_ns()
            connection = await self._connect(base or self.base)
            if connection.protocol not in self._seen:
                opened_us.append((time.monotonic_ns() - began_ns) // 1_000)
                self._seen.add(connection.protocol)
            return connection

        ways = (one() for _ in range(connections))
        found = await asyncio.gather(*ways, return_exceptions=True)
        held = [one for one in found if isinstance(one, aiohttp.connector.Connection)]
        if opened_us:
            self.connect_us = int(median(opened_us))
        for connection in held:
            connection.release()
        for failure in found:
            if isinstance(failure, BaseException) and not held:
                raise failure
        return len(held)

    async def ask(
        self,
        verb: str,
        method: str,
        url: str,
        *,
        sent: Sent | None = None,
        json: object = None,
        data: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        also: Sequence[int] = (),
    ) -> Reply:
        """One request and its whole answer; ProviderError unless 2xx or in `also`."""
        body = orjson.dumps(json) if json is not None else data
        extra = {"Content-Type": "application/json"} if json is not None else {}
        timing = Timing()
        _timing.set(timing)
        leaving = _sent.set(sent)
        # Only of a create it is told how it was connected; traces cost as much as a
        # sixth of a request.
        session = self._session() if verb == "create" else self._untraced()
        try:
            async with session.request(
                method,
                url if "://" in url else self.base + url,
                data=body,
                params=params,
                headers={**extra, **(headers or {})},
                allow_redirects=False,
                trace_request_ctx=timing,
            ) as answer:
                reply = Reply(
                    answer.status, answer.headers, await _read(answer), timing
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failed(error) from None
        finally:
            _sent.reset(leaving)  # none of another request's, however this one ended
        if 200 <= reply.status < 300 or reply.status in also:
            return reply
        raise self.refused(verb, reply)

    async def lines(
        self, verb: str, url: str, *, params: Mapping[str, str] | None = None
    ) -> AsyncIterator[bytes]:
        """The lines of an answer that stays open, as they come; errors as of `ask`."""
        timing = Timing()
        rest = b""
        try:
            async with self._untraced().get(
                url if "://" in url else self.base + url,
                params=params,
                allow_redirects=False,
            ) as answer:
                if answer.status != 200:
                    body = await _read(answer)
                    reply = Reply(answer.status, answer.headers, body, timing)
                    raise self.refused(verb, reply)
                async for part in answer.content.iter_any():
                    *whole, rest = (rest + part).split(b"\n")
                    if len(rest) > BODY_BYTES_MAX:
                        raise unintelligible(f"a line of over {BODY_BYTES_MAX} bytes")
                    for line in whole:
                        yield line
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failed(error) from None

    async def talk(
        self,
        verb: str,
        url: str,
        messages: Sequence[object],
        *,
        sent: Sent,
        until: Sequence[str],
    ) -> list[dict[str, Any]]:
        """Say these over a WebSocket; every JSON object that comes back, up to one
        whose "type" is in `until`. `sent` is told as the handshake begins."""
        found: list[dict[str, Any]] = []
        try:
            sent()
            where = url if "://" in url else self.base + url
            socket = await self._session().ws_connect(where, max_msg_size=FRAME_MAX)
            try:
                for message in messages:
                    await socket.send_str(orjson.dumps(message).decode())
                async for frame in socket:
                    found.append(_object(frame.data))
                    if found[-1].get("type") in until or len(found) > FRAMES_MAX:
                        break
            finally:
                # Behind the answer: its time is none of the command's.
                leaving = asyncio.ensure_future(socket.close())
                self._leaving.add(leaving)
                leaving.add_done_callback(self._left)
        except aiohttp.WSServerHandshakeError as error:
            said = f"no WebSocket: {error.message}"
            raise self.error(verb, error.status, said) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failed(error) from None
        return found

    def _left(self, leaving: asyncio.Future[bool]) -> None:
        self._leaving.discard(leaving)
        if not leaving.cancelled():
            leaving.exception()  # whatever it was, the answer is there already

    def refused(self, verb: str, reply: Reply) -> ProviderError:
        """What an answer that was no success means."""
        try:
            said = words_of(orjson.loads(reply.body), reply.text)
        except ValueError:
            said = words_of(None, reply.text)
        after = reply.headers.get("Retry-After")
        if after:
            said = f"{said} (Retry-After: {after})" if said else f"Retry-After: {after}"
        return self.error(verb, reply.status, said)

    def error(self, verb: str, status: int | None, said: str) -> ProviderError:
        """The vendor's words, classed, secrets removed."""
        cause = cause_of(verb, status, said, self._rules)
        origin = Origin.NETWORK if cause is Cause.NETWORK else Origin.PROVIDER
        return ProviderError(cause, origin, self._scrubber.clean(said), status=status)

    async def close(self) -> None:
        opened, self._opened = self._opened, None
        if self._plain is not None:
            self._plain.detach()  # the connector is the other's
            self._plain = None
        if self._leaving:
            _, late = await asyncio.wait([*self._leaving], timeout=LEAVE_S)
            for leaving in late:
                leaving.cancel()
        if opened is not None:
            await opened.close()

    def _failed(self, error: Exception) -> ProviderError:
        text = self._scrubber.clean(f"{_kind(error)}: {error}")
        if isinstance(error, OSError) and error.errno in _OURS:
            return ProviderError(Cause.HARNESS, Origin.HARNESS, text)
        # A certificate that does not fit is a ValueError, too.
        if isinstance(error, ValueError) and not isinstance(error, OSError):
            return ProviderError(Cause.HARNESS, Origin.HARNESS, text)
        if isinstance(error, aiohttp.ClientResponseError):  # not HTTP
            return ProviderError(Cause.PROVIDER_ERROR, Origin.PROVIDER, text)
        return ProviderError(Cause.NETWORK, Origin.NETWORK, text)

    async def _connect(self, base: str) -> aiohttp.connector.Connection:
        async def connect(req: ClientRequest, handler: object) -> ClientResponse:
            connector = self._session().connector
            assert connector is not None
            raise _Connected(
                await connector.connect(req, traces=[], timeout=aiohttp.ClientTimeout())
            )

        try:
            await self._session().get(base, middlewares=(connect,))
        except _Connected as connected:
            return connected.connection
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failed(error) from None
        raise AssertionError("connected without a connection")

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            connector = aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=KEEP_S,
                ttl_dns_cache=DNS_TTL_S,
                ssl=_timed(self._tls),
            )
            self._opened = self._on(connector, [_traces()])
        return self._opened

    def _untraced(self) -> aiohttp.ClientSession:
        """The same connections, in a session that times none of their making."""
        if self._plain is None:
            connector = self._session().connector
            assert connector is not None
            self._plain = self._on(connector, [])
        return self._plain

    def _on(
        self, connector: aiohttp.BaseConnector, traces: list[aiohttp.TraceConfig]
    ) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_Request,
            trace_configs=traces,
        )
        # It would send a GET, PUT or DELETE again by itself; it has no public
        # switch. tests/shardagent/providers/test_http.py sees that it is off.
        session._retry_connection = False
        return session


class _Connected(Exception):
    def __init__(self, connection: aiohttp.connector.Connection) -> None:
        super().__init__()
        self.connection = connection


_timing: ContextVar[Timing | None] = ContextVar("_timing", default=None)
_sent: ContextVar[Sent | None] = ContextVar("_sent", default=None)


class _Request(ClientRequest):
    """Tells `_sent` as it leaves.

    The head is kept back and leaves with the body, in a task of its own: in a burst,
    after the heads of all others are made.
    """

    async def write_bytes(self, *args: Any, **kwargs: Any) -> None:
        """The body, and the head before it."""
        _tell_sent()
        await super().write_bytes(*args, **kwargs)

    async def send(self, conn: Any) -> ClientResponse:
        """The head alone, where there is no body."""
        answer = await super().send(conn)
        if not self.body:
            _tell_sent()
        return answer


def _tell_sent() -> None:
    sent = _sent.get()
    if sent is not None:
        sent()


class _TimedContext(ssl.SSLContext):
    """Notes when the handshake of the request at hand begins."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        timing = _timing.get()
        if timing is not None:
            timing.wrapped_ns = time.monotonic_ns()
        return super().wrap_bio(*args, **kwargs)


def trusting(authorities: str) -> ssl.SSLContext:
    """Trust these certificates (PEM) alone; ValueError where they are none."""
    context = _TimedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authorities)
    return context


def _timed(given: ssl.SSLContext | None) -> ssl.SSLContext:
    if given is not None:
        return given
    context = _TimedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return context


def _traces() -> aiohttp.TraceConfig:
    config = aiohttp.TraceConfig()

    async def begins(session: object, here: SimpleNamespace, _: object) -> None:
        timing = _of(here)
        timing.reused = False
        timing.began_ns = timing.resolved_ns = time.monotonic_ns()

    async def resolved(session: object, here: SimpleNamespace, _: object) -> None:
        timing = _of(here)
        timing.resolved_ns = time.monotonic_ns()
        timing.dns_us = (timing.resolved_ns - timing.began_ns) // 1_000

    async def connected(session: object, here: SimpleNamespace, _: object) -> None:
        timing, now = _of(here), time.monotonic_ns()
        until = timing.wrapped_ns or now
        timing.connect_us = max(0, until - timing.resolved_ns) // 1_000
        if timing.wrapped_ns:
            timing.tls_us = (now - timing.wrapped_ns) // 1_000

    config.on_connection_create_start.append(begins)
    config.on_dns_resolvehost_end.append(resolved)
    config.on_connection_create_end.append(connected)
    return config


def _of(here: SimpleNamespace) -> Timing:
    timing: Timing | None = here.trace_request_ctx
    return timing or Timing()  # of a warm-up, that is timed as a whole


async def _read(answer: ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in answer.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > BODY_BYTES_MAX:
            raise unintelligible(f"more than {BODY_BYTES_MAX} bytes", answer.status)
    return b"".join(parts)


def _object(data: object) -> dict[str, Any]:
    """One message of a WebSocket."""
    try:
        found = orjson.loads(data) if isinstance(data, str | bytes) else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise unintelligible("a message of the WebSocket is no JSON object")
    return found


def _kind(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "DNS"
        case aiohttp.ClientSSLError() | ssl.SSLError() | ssl.CertificateError():
            return "TLS"
        case aiohttp.ClientConnectorError():
            return "connect"
        case aiohttp.ClientPayloadError():
            return "the answer broke off"
        case aiohttp.ServerDisconnectedError() | ConnectionResetError():
            return "reset"
        case aiohttp.ClientResponseError():
            return "not HTTP"
        case _:
            return type(error).__name__


def unintelligible(what: str, status: int | None = None) -> ProviderError:
    """The vendor answered, but not as its API says."""
    return ProviderError(
        Cause.PROVIDER_ERROR,
        Origin.PROVIDER,
        f"unintelligible answer: {what}",
        status=status,
    )
