"""A server so light that its own queue does not count: it answers as a stand-in did,
after exactly so long.

It stands before the stand-in and passes everything on, at first. The answer to each
POST is kept, and from then on given again, a fixed time after the request was read.
What is left of a create's latency is the client's.
"""

from __future__ import annotations

import asyncio
from typing import cast

Key = tuple[bytes, bytes]  # method, path
HEAD_END = b"\r\n\r\n"


class Metronome:
    """Answers that are known, and where to ask for the others."""

    def __init__(self, behind: str, vendor_s: float) -> None:
        host, _, port = behind.rpartition(":")
        self.behind = (host, int(port))
        self.vendor_s = vendor_s
        self.known: dict[Key, bytes] = {}

    async def serve(self) -> str:
        """Listen on a free port; its address."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Front(self), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        self._server = server
        return f"{host}:{port}"


class Front(asyncio.Protocol):
    """One connection of the client: one request after the other."""

    def __init__(self, all_: Metronome) -> None:
        self._all = all_
        self._loop = asyncio.get_running_loop()
        self._read = b""
        self._back: Back | None = None
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._read = self._read + data if self._read else data
        size = whole(self._read)
        if size is None:
            return
        request, self._read = self._read[:size], self._read[size:]
        method, target = request.split(b" ", 2)[:2]
        key = method, target.partition(b"?")[0]
        answer = self._all.known.get(key)
        if answer is not None:
            due = self._loop.time() + self._all.vendor_s
            self._loop.call_at(due, self._say, answer)
        else:
            self._opening = self._loop.create_task(self._pass_on(key, request))

    def connection_lost(self, error: Exception | None) -> None:
        if self._back is not None:
            self._back.transport.close()

    def _say(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)

    async def _pass_on(self, key: Key, request: bytes) -> None:
        if self._back is None or self._back.transport.is_closing():
            host, port = self._all.behind
            _, self._back = await self._loop.create_connection(
                lambda: Back(self._all, self.transport), host, port
            )
        self._back.ask(key, request)


class Back(asyncio.Protocol):
    """The connection to the stand-in behind one of the client's."""

    def __init__(self, all_: Metronome, client: asyncio.Transport) -> None:
        self._all = all_
        self._client = client
        self._key: Key = (b"", b"")
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, key: Key, request: bytes) -> None:
        self._key, self._read = key, b""
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if not self._client.is_closing():
            self._client.write(data)
        if self._key[0] != b"POST":
            return
        self._read += data
        if whole(self._read) is not None and self._read.split(b" ", 2)[1][:1] == b"2":
            self._all.known[self._key] = self._read


def whole(message: bytes) -> int | None:
    """The length of an HTTP message once it is complete; None before."""
    end = message.find(HEAD_END)
    if end < 0:
        return None
    head = message[:end].lower()
    if b"transfer-encoding: chunked" in head:
        last = message.find(b"0" + HEAD_END, end)
        return None if last < 0 else last + 5
    length = 0
    at = head.find(b"content-length:")
    if at >= 0:
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
    size = end + len(HEAD_END) + length
    return size if len(message) >= size else None
