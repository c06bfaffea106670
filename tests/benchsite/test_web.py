"""The web server over real sockets: what waits costs nothing, and nothing is lost."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from benchsite.web import Server

LARGE = 3_000_000
LIMIT_S = 20.0


def application(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    body = environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/large":
        body = b"x" * LARGE
    elif environ["PATH_INFO"] == "/slow":
        time.sleep(0.05)
    elif environ["PATH_INFO"] == "/fails":
        raise RuntimeError("so it was told")
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]


class Site:
    def __init__(self, **options: Any) -> None:
        listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = listening.getsockname()[1]
        self.server = Server(application, listening, threads=4, **options)
        self.server.start()

    def open(self) -> http.client.HTTPConnection:
        made = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        made.connect()
        return made

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_S)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site(max_request_body_size=1_000_000, connection_limit=1_000)
    yield made
    made.server.close()


def said(connection: http.client.HTTPConnection, path: str, body: bytes = b"") -> bytes:
    connection.request("POST", path, body)
    return connection.getresponse().read()


def test_idle_connections_are_asked_once_a_sweep_and_not_at_each_request(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[tuple[str, int]] = Counter()

    def readable(channel: Any) -> bool:
        asked[channel.addr] += 1
        return original(channel)

    from waitress.channel import HTTPChannel

    original = HTTPChannel.readable
    with ExitStack() as opened:
        every = [site.open() for _ in range(200)]
        for connection in every:
            opened.callback(connection.close)
            assert said(connection, "/", b"first") == b"first"
        monkeypatch.setattr(HTTPChannel, "readable", readable)
        monkeypatch.setattr("benchsite.web.SWEEP_S", LIMIT_S)
        time.sleep(1.1)  # the last sweep of before
        asked.clear()
        for number in range(100):
            body = str(number).encode()
            assert said(every[number % 7], "/", body) == body
        busy, idle = every[:7], every[7:]
        assert sum(asked[one.sock.getsockname()] for one in busy) >= 100
        assert max(asked[one.sock.getsockname()] for one in idle) <= 1
        for connection in idle:  # they are still heard
            assert said(connection, "/", b"again") == b"again"


def test_many_at_once_are_all_answered(site: Site) -> None:
    answers: list[bytes] = []

    def ask(number: int) -> None:
        connection = site.open()
        for turn in range(5):
            answers.append(said(connection, "/slow", f"{number}.{turn}".encode()))
        connection.close()

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert sorted(answers) == sorted(
        f"{n}.{turn}".encode() for n in range(20) for turn in range(5)
    )


def test_slow_senders_and_readers_hold_no_thread(site: Site) -> None:
    with ExitStack() as opened:
        for _ in range(8):  # twice the threads
            sender = opened.enter_context(site.raw())
            sender.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")
        for _ in range(8):
            reader = opened.enter_context(site.raw())
            reader.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        connection = site.open()
        opened.callback(connection.close)
        assert said(connection, "/", b"meanwhile") == b"meanwhile"
        sender.sendall(b"cde")
        heard = b""
        while not heard.endswith(b"abcde"):
            heard += sender.recv(1_000) or pytest.fail("it broke off")
        got = 0
        while got < LARGE:
            part = len(reader.recv(1 << 16))
            assert part
            got += part


def test_requests_sent_without_waiting_are_answered_in_order(site: Site) -> None:
    with site.raw() as connection:
        for body in (b"one", b"two", b"six"):
            connection.sendall(
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n" + body
            )
        heard = b""
        while heard.count(b"HTTP/1.1 200") < 3 or not heard.endswith(b"six"):
            part = connection.recv(4_096)
            assert part
            heard += part
    assert heard.index(b"one") < heard.index(b"two") < heard.index(b"six")


@pytest.mark.filterwarnings("ignore")
def test_failures_and_large_bodies_are_answered_and_the_server_goes_on(
    site: Site,
) -> None:
    failing = site.open()
    failing.request("GET", "/fails")
    assert failing.getresponse().status == 500
    with site.raw() as large:
        large.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n")
        assert b" 413 " in large.recv(1_000)
    rude = site.open()
    assert said(rude, "/", b"first") == b"first"
    rude.request("GET", "/slow")
    rude.close()
    connection = site.open()
    assert said(connection, "/", b"well") == b"well"
    connection.close()
    failing.close()


def test_who_says_nothing_for_long_is_dropped() -> None:
    site = Site(channel_timeout=1, cleanup_interval=1)
    with site.raw() as silent:
        silent.settimeout(LIMIT_S)
        assert silent.recv(1) == b""
    site.server.close()


def test_no_connection_is_taken_once_it_is_closed() -> None:
    site = Site()
    site.server.close()
    with pytest.raises(OSError, match="refused"):
        site.raw()
