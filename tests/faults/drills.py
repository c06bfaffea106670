"""The drills: what is broken, when, and what must be true afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.ground import Ground

PHASES = ("arming", "bursting", "holding", "tearing_down")
STOP_S = 20.0
SITE_DOWN_S = 4.0
SILENCE_S = 3.5
STORE_DOWN_S = 60.0
HOUR_S = 3_600
SPOOL_BYTES = 1 << 20
# Creates take some seconds, so that a fault can strike in the middle of the burst.
PLAN: Mapping[str, Any] = {
    "seed": 7,
    "world": {"profile": "archil"},
    "create_timeout_s": 4,
    "hold_s": 6,
}
LOCAL_PLAN: Mapping[str, Any] = {
    "provider": "local",
    "ready_command": ["sh", "-c", "echo ready"],
    "ready_expect": "^ready",
    "spec": {"cpu": 1, "memory_mb": 32},
    "create_timeout_s": 30,
    "ready_timeout_s": 30,
    "hold_s": 6,
}
SANDBOXES, SHARDS_PER_HOST, PER_SHARD = 80, 2, 20
OF_A_HOST = SHARDS_PER_HOST * PER_SHARD


class Skip(Exception):
    """The drill cannot be held here; the reason."""


@dataclass(frozen=True, slots=True)
class Drill:
    """One fault. unobserved: how many Sandboxes it may cost, by phase."""

    name: str
    means: str
    strike: Callable[[Ground, str], None]
    phases: tuple[str, ...] = PHASES
    unobserved: Mapping[str, int] = field(default_factory=dict)
    not_attempted: Mapping[str, int] = field(default_factory=dict)
    environment: Callable[[Path], dict[str, str]] | None = None
    plan: Mapping[str, Any] = field(default_factory=lambda: PLAN)
    fails: tuple[str, ...] = ()  # phases in which the Run may end as failed
    aborted: tuple[str, ...] = ()  # phases in which it ends the Run


def kill_agent(ground: Ground, phase: str) -> None:
    if phase != "arming":
        ground.reach_into(phase)
        ground.signal(0, signal.SIGKILL)
        return
    with_barrier(ground, lambda: ground.signal(0, signal.SIGKILL))


def stop_agent(ground: Ground, phase: str) -> None:
    def strike() -> None:
        pid = ground.signal(0, signal.SIGSTOP)
        stopped.append(pid)

    stopped: list[int] = []
    if phase == "arming":
        with_barrier(ground, strike)
    else:
        ground.reach_into(phase)
        strike()
    time.sleep(STOP_S)
    os.kill(stopped[0], signal.SIGCONT)


def kill_site(ground: Ground, phase: str) -> None:
    ground.reach_into(phase)
    ground.kill_site(SITE_DOWN_S)


def kill_store(ground: Ground, phase: str) -> None:
    ground.reach_into(phase)
    ground.kill_child("rclone")


def kill_broker(ground: Ground, phase: str) -> None:
    ground.reach_into(phase)
    ground.kill_child("redis")


def fill_spool(ground: Ground, phase: str) -> None:
    ground.reach(phase)
    filler = ground.site.data / "agents" / "filler"
    ground.struck()
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4_096)
        except OSError:
            pass
    assert shutil.disk_usage(filler.parent).free == 0


def small_spool(data: Path) -> dict[str, str]:
    folder = data / "agents"
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={SPOOL_BYTES}"
    words = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    if (
        os.getuid()
        or subprocess.run(words, capture_output=True, check=False).returncode
    ):
        raise Skip("mounting a small tmpfs needs root")
    return {}


def corrupt_segment(ground: Ground, phase: str) -> None:
    ground.reach(phase)
    folder = ground.record.folder / "shards" / "00001" / "00"
    victim = folder / "events-000000.ndjson.zst"
    ground.wait(victim.exists, "a segment")
    time.sleep(2)  # until the agent has reported it
    body = victim.read_bytes()
    ground.struck()
    victim.write_bytes(body[: len(body) // 2] + b"\0" * 8 + body[len(body) // 2 + 8 :])


def step_clock(seconds: int) -> Callable[[Ground, str], None]:
    def strike(ground: Ground, phase: str) -> None:
        ground.reach_into(phase)
        ground.struck()
        (ground.site.data / "wall_step").write_text(f"{seconds}\n")

    return strike


def stepping_clock(data: Path) -> dict[str, str]:
    data.mkdir(parents=True, exist_ok=True)
    source, library = Path(__file__).with_name("wall_step.c"), data / "wall_step.so"
    words = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
    if shutil.which("cc") is None:
        raise Skip("stepping one process's clock needs a C compiler")
    subprocess.run(words, check=True, capture_output=True)
    step = data / "wall_step"
    step.write_text("0\n")
    return {"LD_PRELOAD": str(library), "HOLDFAST_TEST_WALL_STEP": str(step)}


def second_agent(ground: Ground, phase: str) -> None:
    def strike() -> None:
        folder = ground.site.data / "second" / phase
        ground.struck()
        process = ground.second_agent(0, folder)
        ground.undo += [process.kill, process.wait]

    if phase == "arming":
        with_barrier(ground, lambda: (strike(), time.sleep(3)))
    else:
        ground.reach_into(phase)
        strike()


def kill_fleet(ground: Ground, phase: str) -> None:
    if phase == "arming":
        with_barrier(ground, lambda: ground.signal(0, signal.SIGKILL))
        return
    ground.reach_into(phase)
    ground.struck()
    for pid in ground.agents().values():
        os.kill(pid, signal.SIGKILL)


def abort(ground: Ground, phase: str) -> None:
    if phase != "draft":
        ground.reach_into(phase)
    ground.struck()
    ground.site.post(f"/runs/{ground.code}/abort")


def with_barrier(ground: Ground, strike: Callable[[], object]) -> None:
    """Strike at host 0, armed, while host 1 keeps the Run in arming.

    Until its silence is noticed an armed agent counts as ready; so the barrier opens
    a little later.
    """
    let_go = ground.hold_barrier(1)
    ground.wait(
        lambda: ground.site.run(ground.code)["progress"]["armed"] >= SHARDS_PER_HOST,
        "host 0 to be armed",
    )
    strike()
    time.sleep(SILENCE_S)
    let_go()


_KILLED = dict.fromkeys(("bursting", "holding", "tearing_down"), OF_A_HOST)
_ALL = dict.fromkeys(("bursting", "holding", "tearing_down"), SANDBOXES)

DRILLS: tuple[Drill, ...] = (
    # Creates that it had not flushed are unknown to the record: not attempted.
    Drill("kill_agent", "SIGKILL an agent (a host of 2 Shards)", kill_agent,
          unobserved=_KILLED, not_attempted={"bursting": 40}),
    Drill("stop_agent", "SIGSTOP an agent for 20 s, the lease being 5 s", stop_agent,
          unobserved=_KILLED),
    Drill("kill_site", "SIGKILL the site (web, workers; 4 s down)", kill_site,
          phases=("provisioning", *PHASES, "collecting")),
    Drill("kill_store", "SIGKILL the object store (60 s down)", kill_store,
          phases=(*PHASES, "collecting"),
          environment=lambda _: {"HOLDFAST_TEST_CHILD_DOWN_S": str(STORE_DOWN_S)}),
    Drill("kill_broker", "SIGKILL the broker, its data lost", kill_broker,
          phases=(*PHASES, "collecting")),
    Drill("deliver_twice", "every message of the broker is delivered twice",
          lambda ground, phase: ground.struck(), phases=("whole Run",),
          environment=lambda _: {"HOLDFAST_TEST_DELIVERIES": "2"}),
    Drill("full_spool", "disk full in the agents' spool (a tmpfs)", fill_spool,
          environment=small_spool),
    Drill("corrupt_segment", "a stored segment altered in the bucket", corrupt_segment,
          phases=("bursting", "holding"),
          unobserved=dict.fromkeys(("bursting", "holding"), PER_SHARD)),
    Drill("step_forward", "the site's wall clock steps an hour ahead",
          step_clock(HOUR_S), environment=stepping_clock),
    Drill("step_back", "the site's wall clock steps an hour back",
          step_clock(-HOUR_S), environment=stepping_clock),
    Drill("two_agents", "a second agent with the token of a living one", second_agent,
          phases=("arming", "bursting", "holding")),
    Drill("kill_fleet", "SIGKILL every agent", kill_fleet,
          fails=("bursting", "holding"),
          phases=("bursting", "holding", "tearing_down"), unobserved=_ALL),
    Drill("kill_agent_local", "SIGKILL an agent whose sandboxes are processes here",
          kill_agent, phases=("holding",), unobserved=_KILLED, plan=LOCAL_PLAN),
    Drill("abort", "the Run is aborted", abort,
          phases=("draft", "queued", "provisioning", *PHASES, "collecting"),
          aborted=("draft", "queued", "provisioning", "arming", "bursting", "holding"),
          not_attempted=dict.fromkeys(
              ("draft", "queued", "provisioning", "arming", "bursting"), SANDBOXES)),
)  # fmt: skip
BY_NAME = {drill.name: drill for drill in DRILLS}
