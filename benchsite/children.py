"""Child processes of an embedded installation: started, minded, ended with it.

Each child is on a leash: the kernel kills it when the site's process dies, however that
happens, so that a restart finds its ports and folders free.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runs.errors import ServiceError

log = logging.getLogger(__name__)

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 4.0
RESTARTS_MAX = 100
# Fault drills hold a dead child down for longer.
RESTART_PAUSE_S = float(os.environ.get("HOLDFAST_TEST_CHILD_DOWN_S") or 1.0)
_PR_SET_PDEATHSIG = 1
_LEASH = (
    "import ctypes, os, signal, sys;"
    f"ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, signal.SIGKILL);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass(slots=True)
class Child:
    """One service. `ready` raises or returns False until the service answers."""

    name: str
    command: Sequence[str]
    log_file: Path
    ready: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _restarts: int = 0
    _died_at: float = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start and wait until it answers; ServiceError says why it does not.

        To be called from the main thread: the leash is tied to the starting thread.
        """
        self._spawn()
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                break
            if self._answers():
                return
            time.sleep(0.05)
        raise ServiceError(
            f"the {self.name} did not start ({self._last_words()}); "
            f"its log is {self.log_file}"
        )

    def mind(self) -> None:
        """Start it again if it died. Returns at once."""
        if self._process is None or self._process.poll() is None:
            return
        now = time.monotonic()
        if not self._died_at:
            self._died_at = now
            log.warning("the %s died; starting it again", self.name)
        if now - self._died_at < RESTART_PAUSE_S:
            return
        if self._restarts >= RESTARTS_MAX:
            raise ServiceError(
                f"the {self.name} died {RESTARTS_MAX} times; its log is {self.log_file}"
            )
        self._restarts += 1
        self._died_at = 0.0
        self._spawn()

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def _spawn(self) -> None:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-c", _LEASH, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environment or None,
                start_new_session=True,  # Ctrl-C is the site's to handle
            )

    def _answers(self) -> bool:
        try:
            return self.ready()
        except Exception:  # not yet there, in whatever way its client says so
            return False

    def _last_words(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1][-300:] if lines else "it said nothing"
