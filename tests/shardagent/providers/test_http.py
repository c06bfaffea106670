"""The thin client against servers that misbehave on the wire."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.http import Http

SECRET = "a-secret-of-the-test"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(
    serve: Serve, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if tls else 'http'}://localhost:{port}"
    finally:
        server.close()


def saying(text: str, *, cut: bool = False) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text.encode())
        await writer.drain()
        if cut:
            writer.transport.abort()

    return serve


def head(status: str, length: int, kind: str = "application/json") -> str:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {length}", f"Content-Type: {kind}")
    return "\r\n".join(lines) + "\r\n\r\n"


async def failure(base: str) -> ProviderError:
    http = Http(base, {"X-Key": SECRET}, secrets=[SECRET])
    try:
        with pytest.raises(ProviderError) as caught:
            (await http.ask("create", "POST", "/", json={})).object()
    finally:
        await http.close()
    return caught.value


HTML = "<html><body><h1>503 Service Unavailable</h1></body></html>"


@pytest.mark.parametrize(
    ("serve", "cause", "origin", "words"),
    [
        (
            saying(head("200 OK", 500) + '{"id": "x', cut=True),
            Cause.NETWORK,
            Origin.NETWORK,
            "",
        ),
        (
            saying(head("200 OK", 50) + '{"id": "x'),
            Cause.NETWORK,
            Origin.NETWORK,
            "broke off",
        ),
        (saying("", cut=True), Cause.NETWORK, Origin.NETWORK, ""),
        (saying(""), Cause.NETWORK, Origin.NETWORK, "reset"),
        (
            saying(head("200 OK", len(HTML), "text/html") + HTML),
            Cause.PROVIDER_ERROR,
            Origin.PROVIDER,
            "503 Service Unavailable",
        ),
        (
            saying(head("503 Unavailable", len(HTML), "text/html") + HTML),
            Cause.PROVIDER_ERROR,
            Origin.PROVIDER,
            "503 Service Unavailable",
        ),
        (
            saying(head("200 OK", 2) + "[]"),
            Cause.PROVIDER_ERROR,
            Origin.PROVIDER,
            "no JSON object",
        ),
        (
            saying("SSH-2.0-OpenSSH_9.2\r\n\r\n"),
            Cause.PROVIDER_ERROR,
            Origin.PROVIDER,
            "not HTTP",
        ),
        (
            saying("HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"),
            Cause.RATE_LIMITED,
            Origin.PROVIDER,
            "Retry-After: 7",
        ),
        (
            saying(
                "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"
            ),
            Cause.PROVIDER_ERROR,
            Origin.PROVIDER,
            "",
        ),
        (
            saying(head("401 No", len(SECRET) + 14) + f'{{"message":"{SECRET}"}}'),
            Cause.AUTH,
            Origin.PROVIDER,
            "[removed]",
        ),
    ],
    ids=[
        "half a body, reset",
        "half a body",
        "reset",
        "closed without an answer",
        "HTML instead of JSON",
        "HTML with 503",
        "another JSON",
        "no HTTP",
        "429 with Retry-After",
        "a redirect",
        "our key in the answer",
    ],
)
async def test_each_failure_on_the_wire_has_its_cause(
    serve: Serve, cause: Cause, origin: Origin, words: str
) -> None:
    async with serving(serve) as base:
        found = await failure(base)
    assert (found.cause, found.origin) == (cause, origin)
    assert words in found.message
    assert SECRET not in found.message


async def test_a_name_that_does_not_resolve_is_the_network() -> None:
    found = await failure("http://nobody.invalid")
    assert (found.cause, found.origin) == (Cause.NETWORK, Origin.NETWORK)
    assert found.message.startswith("DNS")


async def test_a_port_that_nobody_listens_on_is_the_network() -> None:
    async with serving(saying("")) as base:
        pass
    found = await failure(base)
    assert (found.cause, found.origin) == (Cause.NETWORK, Origin.NETWORK)
    assert found.message.startswith("connect")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {path} -out {path}.crt "
        f"-days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost && "
        f"cat {path}.crt >> {path}",
        shell=True,
        check=True,
        capture_output=True,
    )
    return path


async def test_a_certificate_of_nobody_is_the_network_and_named_tls(
    certificate: Path,
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    async with serving(saying(""), tls) as base:
        found = await failure(base)
    assert (found.cause, found.origin) == (Cause.NETWORK, Origin.NETWORK)
    assert found.message.startswith("TLS")


def answering(seen: list[bytes], *, times: int = 1_000) -> Serve:
    """A server that answers so often on a connection, then closes it unasked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(times):
            try:
                line = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            seen.append(line.split()[0])
            writer.write((head("200 OK", 2) + "{}").encode())
            await writer.drain()
        # The next request arrives on a connection that is being closed.
        line = await reader.readuntil(b"\r\n\r\n")
        seen.append(line.split()[0])
        writer.transport.abort()

    return serve


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "POST"])
async def test_nothing_is_sent_twice_when_a_kept_connection_breaks(
    method: str,
) -> None:
    seen: list[bytes] = []
    async with serving(answering(seen, times=1)) as base:
        http = Http(base, {})
        await http.ask("list", method, "/")
        with pytest.raises(ProviderError) as caught:
            await http.ask("list", method, "/")
        await http.close()
    assert caught.value.cause is Cause.NETWORK
    assert seen == [method.encode()] * 2


async def test_warm_connections_are_used_and_cold_ones_are_timed(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    seen: list[bytes] = []
    async with serving(answering(seen), tls) as base:
        http = Http(base, {})
        cold = await http.ask("create", "GET", "/")
        assert await http.warm(5) == 5
        assert seen == [b"GET"]  # warming requests nothing
        asked = (http.ask("create", "GET", "/") for _ in range(5))
        warm = await asyncio.gather(*asked)
        await http.close()
    assert not cold.timing.reused
    assert cold.timing.dns_us is not None
    assert cold.timing.connect_us is not None
    assert (cold.timing.tls_us or 0) > 0
    assert all(one.timing.reused for one in warm)
    assert all(one.timing.tls_us is None for one in warm)


@pytest.mark.parametrize("body", [None, b"x" * 10, b"x" * 500_000])
async def test_sent_is_called_once_whatever_the_body(body: bytes | None) -> None:
    calls: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(body or b""))
        writer.write((head("200 OK", 2) + "{}").encode())
        await writer.drain()

    async with serving(serve) as base:
        http = Http(base, {})
        await http.ask("create", "POST", "/", data=body, sent=lambda: calls.append(1))
        await http.close()
    assert calls == [1]


async def test_of_a_burst_each_is_sent_when_its_bytes_leave() -> None:
    """Not when its head is made: in between lie the heads of all others."""
    count = 50

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write((head("200 OK", 2) + "{}").encode())
        await writer.drain()

    made: list[float] = []
    sent: list[float] = []

    async def one(http: Http) -> None:
        made.append(time.perf_counter())
        await http.ask(
            "create",
            "POST",
            "/",
            json={},
            sent=lambda: sent.append(time.perf_counter()),
        )

    async with serving(serve) as base:
        http = Http(base, {})
        await http.warm(count)
        await asyncio.gather(*(one(http) for _ in range(count)))
        await http.close()
    # All were made before the first left.
    assert len(sent) == count
    assert sys.version_info >= (3, 12) or max(made) < min(sent)


async def test_a_request_that_never_left_is_not_told_by_the_next_one() -> None:
    told: list[str] = []
    http = Http("http://127.0.0.1:1", {})  # nobody listens there
    with pytest.raises(ProviderError):
        await http.ask("create", "POST", "/", data=b"x", sent=lambda: told.append("a"))
    assert told == []
    refusing = saying(head("403 Forbidden", 0))
    async with serving(refusing) as base:
        with pytest.raises(ProviderError):
            await http.talk(
                "execute", base, [], sent=lambda: told.append("b"), until=["end"]
            )
        lines = http.lines("create", base)
        with pytest.raises(ProviderError):
            await anext(lines)
    await http.close()
    assert told == ["b"]


async def test_sent_is_called_once_and_before_the_answer() -> None:
    seen: list[bytes] = []
    calls: list[int] = []
    async with serving(answering(seen)) as base:
        http = Http(base, {})
        await http.ask("create", "POST", "/", sent=lambda: calls.append(len(seen)))
        await http.close()
    assert calls == [0]
