"""A whole embedded site in this process, at rest: nothing ticks. For measurements."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_S = 0.05


@contextmanager
def site_at_rest(data: Path) -> Iterator[None]:
    """Web, store, broker and ClickHouse are up; nobody works the queues."""
    os.environ["DATA"] = str(data)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchsite.settings")
    os.environ.setdefault("LOG_LEVEL", "WARNING")
    sys.path.insert(0, str(ROOT))
    import django

    django.setup()
    from benchsite.embedded import Installation

    installation = Installation(8_000, any_port=True)
    installation.start()
    installation.stop_working()
    try:
        yield
    finally:
        installation.stop()


class Memory:
    """The highest resident memory of this process while it is watched."""

    def __init__(self) -> None:
        self.idle_mb = self.peak_mb = 0.0
        self._over = threading.Event()

    def __enter__(self) -> Memory:
        self.idle_mb = self.peak_mb = rss_mb()
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self.peak_mb = max(self.peak_mb, rss_mb())


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def settle(seconds: float = 3.0) -> None:
    """Idle means idle: what starting left to do is done."""
    time.sleep(seconds)


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
