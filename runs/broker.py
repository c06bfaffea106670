"""What each worker process does besides its messages: it looks after the Runs."""

from __future__ import annotations

import logging
import threading
from typing import Any

import dramatiq
from django.conf import settings
from django.db import close_old_connections

log = logging.getLogger(__name__)


class LookAfter(dramatiq.Middleware):
    """Starts a Ticker in every worker process, embedded or `manage.py rundramatiq`."""

    def __init__(self) -> None:
        self._ticker: Ticker | None = None

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        self._ticker = Ticker()
        self._ticker.start()

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        if self._ticker is not None:
            self._ticker.stop()


class Ticker(threading.Thread):
    """Calls look_after each second until stopped; a failing broker is waited out."""

    def __init__(self) -> None:
        super().__init__(name="ticker", daemon=True)
        self._stop_asked = threading.Event()

    def run(self) -> None:
        from runs.actors import look_after  # the actors need the broker first

        while not self._stop_asked.wait(settings.RUN_TICK_INTERVAL_S):
            try:
                look_after()
            except Exception:  # the broker or the database is away: try again
                log.warning("cannot send ticks", exc_info=log.isEnabledFor(10))
            finally:
                close_old_connections()

    def stop(self) -> None:
        self._stop_asked.set()
