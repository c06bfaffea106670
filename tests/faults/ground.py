"""Where a drill takes place: one embedded site, one Run, and ways to harm them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardagent.providers.local_processes import labelled
from tests.embedded import ROOT, Site, quick_plan
from tests.faults.record import Record

SEAL_S = 180
PHASE_S = 90
POLL_S = 0.02
INTO_BURST_US = 900_000  # after T0: half of the creates are under way
INTO_S = {"holding": 2.0, "tearing_down": 0.5}
STATES = (
    "draft",
    "queued",
    "provisioning",
    "arming",
    "bursting",
    "holding",
    "tearing_down",
    "collecting",
    "sealed",
)
ENVIRONMENT = {"RUN_LEASE_S": "5", "RUN_COLLECT_TIMEOUT_S": "40"}


@dataclass(slots=True)
class Ground:
    """What a drill may touch."""

    site: Site
    plan: dict[str, Any]
    code: str = ""
    fault_us: int = 0
    undo: list[Callable[[], object]] = field(default_factory=list)

    @property
    def record(self) -> Record:
        return Record(self.site.data / "objects" / "raw", self.code)

    def struck(self) -> None:
        """The fault strikes now."""
        self.fault_us = time.time_ns() // 1_000

    def launch(self, **changes: Any) -> None:
        self.code = self.site.launch(quick_plan(**{**self.plan, **changes}))

    def reach(self, phase: str) -> None:
        """Wait until the Run is in this phase or a later one."""
        later = STATES[STATES.index(phase) :]
        self.wait(lambda: self.site.run(self.code)["state"] in later, phase)

    def reach_into(self, phase: str) -> None:
        """The same, and on to where the phase's work is under way."""
        self.reach(phase)
        if phase == "bursting":
            due_us = self.site.run(self.code)["instants"]["t0_us"] + INTO_BURST_US
            time.sleep(max(0.0, due_us / 1e6 - time.time()))
        time.sleep(INTO_S.get(phase, 0.0))

    def wait(
        self, found: Callable[[], Any], what: str, limit_s: float = PHASE_S
    ) -> Any:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            value = found()
            if value:
                return value
            time.sleep(POLL_S)
        raise AssertionError(f"waited {limit_s} s for {what}")

    def until_sealed(self, limit_s: float = SEAL_S) -> Any:
        return self.site.until_state(self.code, "sealed", timeout_s=limit_s)

    # Agents.

    def agents(self) -> dict[int, int]:
        """host → pid of every agent of this Run."""
        return dict(_agents(self.site.data / "agents" / self.code))

    def agent(self, host: int) -> int:
        pid: int = self.wait(lambda: self.agents().get(host), f"agent {host}")
        return pid

    def signal(self, host: int, number: int) -> int:
        pid = self.agent(host)
        self.struck()
        os.kill(pid, number)
        return pid

    def hold_barrier(self, host: int) -> Callable[[], None]:
        """Stop one host, so that the Run stays in arming; call to let it go on."""
        pid = self.agent(host)
        os.kill(pid, signal.SIGSTOP)
        return lambda: _signal(pid, signal.SIGCONT)

    def second_agent(self, host: int, folder: Path) -> subprocess.Popen[bytes]:
        """Another process with the same token, and a spool of its own."""
        environ = Path(f"/proc/{self.agent(host)}/environ").read_bytes().split(b"\0")
        pairs = dict(entry.decode().split("=", 1) for entry in environ if b"=" in entry)
        command = Path(f"/proc/{self.agent(host)}/cmdline").read_bytes().split(b"\0")
        words = [word.decode() for word in command if word]
        words[words.index("--spool") + 1] = str(folder)
        folder.mkdir(parents=True)
        with (folder / "out").open("ab") as out:
            return subprocess.Popen(words, env=pairs, cwd=ROOT, stdout=out, stderr=out)

    def alive_after(self) -> int:
        """Sandboxes alive after the reaper: of the world's truth, or of this host."""
        if self.plan.get("provider") != "local":
            return self.record.alive_after_reaping()
        return sum(one.labels.get("run") == self.code for one in labelled())

    # The site's children.

    def child(self, word: str) -> int:
        """The pid of the site's object store (rclone) or broker (redis)."""
        found = [
            pid
            for pid, words, parent in _processes()
            if parent == self.site.pid and words and word in Path(words[0]).name
        ]
        assert found, word
        return found[0]

    def kill_child(self, word: str) -> None:
        pid = self.child(word)
        self.struck()
        os.kill(pid, signal.SIGKILL)

    def kill_site(self, down_s: float) -> None:
        self.struck()
        self.site.kill()
        time.sleep(down_s)
        self.site.start()


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _agents(folder: Path) -> Iterator[tuple[int, int]]:
    for pid, words, _ in _processes():
        if "shardagent" in words and "--spool" in words:
            spool = Path(words[words.index("--spool") + 1])
            if spool.parent == folder:
                yield int(spool.name), pid


def _processes() -> Iterator[tuple[int, list[str], int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except (OSError, UnicodeDecodeError):
                continue
            if stat[0] != "Z":
                yield int(entry.name), words, int(stat[1])


def differences(site: Site, code: str) -> list[str]:
    """What verify_run finds."""
    done = site.manage("verify_run", code, "--json", check=False)
    assert done.returncode in (0, 1), done.stderr
    found: list[str] = json.loads(done.stdout)["differences"]
    return found
