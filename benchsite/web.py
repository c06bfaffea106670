"""Waitress, at a cost that does not grow with the connections that are idle.

Its own loop asks every open connection at every turn what it waits for; with thousands
of agents, each of which keeps its connection between two heartbeats, that is nearly all
that the site does. Here the system remembers (epoll): a connection is asked after
something happened on it, or a thread that serves it says that there is something to do.
"""

from __future__ import annotations

import resource
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from django.conf import settings
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.wasyncore import readwrite

from runs.errors import ServiceError

SWEEP_S = 1.0  # all are asked so often: waitress closes idle ones without telling
READ, WRITE = select.EPOLLIN | select.EPOLLPRI, select.EPOLLOUT
CLOSE_S = 1.0
EVENTS_MAX = 1_024  # looked at in a turn
CONNECTIONS_MAX = 12_000  # agents keep theirs open between heartbeats
BODY_BYTES_MAX = 8 * 1024 * 1024
SILENT_S = 120  # a connection on which nobody says anything is closed
BACKLOG = 1_024


def listen(port: int) -> socket.socket:
    """The site's socket; ServiceError where the port cannot be had. Port 0: any."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.LISTEN, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ServiceError(
            f"port {port} cannot be used ({error.strerror}); choose another with PORT=…"
        ) from None
    return listening


def serve(listening: socket.socket) -> Server:
    """The site on this socket, until it is closed."""
    from benchsite.wsgi import application

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = Server(
        application,
        listening,
        threads=settings.WEB_THREADS,
        max_request_body_size=BODY_BYTES_MAX,
        connection_limit=CONNECTIONS_MAX,
        channel_timeout=SILENT_S,
    )
    server.start()
    return server


class Server:
    """A WSGI application on a listening socket, in threads of its own."""

    def __init__(
        self, application: Callable[..., Any], listening: socket.socket, **options: Any
    ) -> None:
        self._listening = listening
        self._sockets = _Sockets()
        self._server = create_server(
            application, sockets=[listening], map=self._sockets, ident=None, **options
        )
        self._server.channel_class = _Channel
        self._server.pull_trigger = self._pull_trigger
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Take no more connections; what is not answered within CLOSE_S fails."""
        self._closing = True
        self._server.pull_trigger()
        self._thread.join(CLOSE_S)
        self._server.del_channel()
        self._listening.close()
        workers = self._server.task_dispatcher
        workers.shutdown(timeout=CLOSE_S)
        if not workers.threads:  # else one may still write to what is open
            self._sockets.close()

    def _pull_trigger(self) -> None:
        """Wake the loop; in a thread that serves a connection, on its behalf."""
        channel = getattr(_serving, "channel", None)
        if channel is not None:
            self._sockets.told.append(channel._fileno)
        self._server.trigger.pull_trigger()

    def _run(self) -> None:
        while not self._closing:
            self._sockets.turn(SWEEP_S)


_serving = threading.local()


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection that is known while it is served."""

    def service(self) -> None:
        _serving.channel = self
        super().service()


class _Sockets(dict[int, Any]):
    """Waitress's map of what is open by file number, which it asks to be kept."""

    def __init__(self) -> None:
        super().__init__()
        self.told: deque[int | None] = deque()  # by threads: ask these again
        self._epoll = select.epoll()
        self._watched: dict[int, int] = {}  # what each waits for, as the system has it
        self._stirring: set[int] = set()  # may wait for something else by now
        self._sweep_at = 0.0

    def __setitem__(self, fd: int, what: Any) -> None:
        super().__setitem__(fd, what)
        self._stirring.add(fd)

    def __delitem__(self, fd: int) -> None:
        super().__delitem__(fd)
        self._stirring.discard(fd)
        self._watch(fd, 0)

    def close(self) -> None:
        for what in list(self.values()):
            what.handle_close()
        self._epoll.close()

    def turn(self, timeout_s: float) -> None:
        """Wait until something happens, and let it be handled."""
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self._stirring.update(self)
        while self.told:
            fd = self.told.popleft()
            if fd is not None:  # else it is closed
                self._stirring.add(fd)
        for fd in list(self._stirring):
            self._ask(fd)
        for fd, happened in self._epoll.poll(timeout_s, EVENTS_MAX):
            what = self.get(fd)
            if what is None:
                continue
            self._stirring.add(fd)
            if what.readable() or what.writable():
                readwrite(what, happened)
            else:  # it says more, or leaves, before it has its answer
                self._watch(fd, 0)

    def _ask(self, fd: int) -> None:
        what = self.get(fd)
        if what is None or isinstance(what, HTTPChannel):  # who else is there may
            self._stirring.discard(fd)  # change its mind at any time
        if what is None:
            return
        reads, writes = what.readable(), what.writable() and not what.accepting
        if reads or writes:
            self._watch(fd, (READ if reads else 0) | (WRITE if writes else 0))
        # Else it is being served, and stays watched as it was: most have their answer
        # before they say more.

    def _watch(self, fd: int, wanted: int) -> None:
        known = self._watched.get(fd, 0)
        if wanted == known:
            return
        if not wanted:
            del self._watched[fd]
            self._epoll.unregister(fd)
            return
        self._watched[fd] = wanted
        if known:
            self._epoll.modify(fd, wanted)
        else:
            self._epoll.register(fd, wanted)
