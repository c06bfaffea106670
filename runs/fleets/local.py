"""Agents as processes of this machine. They outlive the site's process.

A host is found again by its command line, so that nothing depends on what the site
managed to write down before it was killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runs.errors import FleetError
from runs.fleets.base import Order

_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
_CHECKOUT = Path(__file__).resolve().parents[2]
_PASSED_PREFIX = "HOLDFAST_TEST_"  # faults that tests inject into agents


class LocalFleet:
    def __init__(self, folder: Path, python: str = "") -> None:
        self._folder = folder  # spools and last words of agents
        self._python = python  # with the agent installed; empty: this checkout's own
        self._children: list[subprocess.Popen[bytes]] = []

    def launch(self, order: Order) -> Mapping[str, Any]:
        folder = self._folder / order.run / f"{order.host:05d}"
        command = [
            *(self._python or sys.executable, "-m", "shardagent"),
            *("--site", order.site_url, "--run", order.run),
            *("--host", str(order.host), "--spool", str(folder)),
        ]
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in _KEPT_VARIABLES or name.startswith(_PASSED_PREFIX)
        }
        environment["HOLDFAST_AGENT_TOKEN"] = order.token
        if not self._python:
            environment["PYTHONPATH"] = str(_CHECKOUT)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "agent.out").open("ab") as out:
                child = subprocess.Popen(
                    command,
                    env=environment,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
        except OSError as error:
            raise FleetError(f"cannot start an agent: {error}") from error
        self._children.append(child)
        return {"pid": child.pid}

    def alive(self, run: str) -> set[int]:
        return {host for host, _ in self._processes(run)}

    def kill(self, run: str, host: int | None = None) -> int:
        told = 0
        for index, pid in self._processes(run):
            if host is None or host == index:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                    told += 1
        return told

    def end(self, run: str) -> int:
        """SIGKILL, for agents that did not leave when told."""
        told = 0
        for _, pid in self._processes(run):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                told += 1
        return told

    def _processes(self, run: str) -> Iterator[tuple[int, int]]:
        """(host, pid) of this installation's agents of the Run."""
        self._children = [c for c in self._children if c.poll() is None]
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            words = [word.decode(errors="replace") for word in line]
            if "shardagent" not in words or "--spool" not in words:
                continue
            spool = Path(words[words.index("--spool") + 1])
            if spool.parent == self._folder / run:
                yield int(spool.name), int(entry.name)
