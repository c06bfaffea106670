"""Agents as processes of this machine. They outlive the site's process.

A machine is found again by its command line, so that nothing depends on what the site
managed to write down before it was killed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from django.conf import settings

from runs.errors import FleetError
from runs.fleets.base import Launched, Machine, MachineState, Order, useful

LAUNCHES_MAX = 200  # at one call
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
_CHECKOUT = Path(__file__).resolve().parents[2]
_PASSED_PREFIX = "HOLDFAST_TEST_"  # faults that tests inject into agents


def open_fleet() -> LocalFleet:
    return LocalFleet(settings.DATA / "agents", settings.AGENT_PYTHON)


class LocalFleet:
    look_interval_s = 0.0

    def __init__(self, folder: Path, python: str = "") -> None:
        self._folder = folder  # spools and last words of agents
        self._python = python  # with the agent installed; empty: this checkout's own
        self._children: list[subprocess.Popen[bytes]] = []

    def launch(self, order: Order) -> Launched:
        there = self.list(order.run)
        short = order.machines - len(useful(there, order.written_off))
        short = min(max(short, 0), LAUNCHES_MAX)
        first = self._next_slot(order.run)
        for slot in range(first, first + short):
            self._start(order, slot)
            there.append(Machine(f"{slot:05d}", MachineState.RUNNING))
        return Launched(there, started=short)

    def list(self, run: str) -> list[Machine]:
        return [Machine(slot, MachineState.RUNNING) for slot, _ in self._processes(run)]

    def kill(
        self, run: str, ids: Collection[str] | None = None, *, hard: bool = False
    ) -> int:
        told = 0
        for slot, pid in self._processes(run):
            if ids is None or slot in ids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if hard else signal.SIGTERM)
                    told += 1
        return told

    def runs(self) -> set[str]:
        return {spool.parent.name for spool, _ in self._agents()}

    def usd_per_h(self, machines: Iterable[Machine]) -> float | None:
        return 0.0

    def _start(self, order: Order, slot: int) -> None:
        folder = self._folder / order.run / f"{slot:05d}"
        command = [
            *(self._python or sys.executable, "-m", "shardagent"),
            *("--site", order.site_url, "--run", order.run, "--spool", str(folder)),
        ]
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in _KEPT_VARIABLES or name.startswith(_PASSED_PREFIX)
        }
        environment |= {
            "HOLDFAST_AGENT_TOKEN": order.token,
            "HOLDFAST_MACHINE_ID": folder.name,
            "HOLDFAST_MACHINE_INDEX": str(slot),
            "HOLDFAST_MACHINE_NODE": platform.node(),
            "HOLDFAST_MACHINE_TYPE": "local",
        }
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

    def _next_slot(self, run: str) -> int:
        folder = self._folder / run
        taken = [int(p.name) for p in folder.glob("*") if p.name.isdecimal()]
        return max(taken, default=-1) + 1

    def _processes(self, run: str) -> Iterator[tuple[str, int]]:
        """(slot, pid) of this installation's agents of the Run."""
        for spool, pid in self._agents():
            if spool.parent.name == run:
                yield spool.name, pid

    def _agents(self) -> Iterator[tuple[Path, int]]:
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
            if spool.parent.parent == self._folder:
                yield spool, int(entry.name)
