"""What lives of a Run, and the end of it, at the pace that its engine can bear.

A thousand machines take an engine a second to list, and us as long to read; ticks come
each second, in every worker.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from runs.fleets import fleet_for
from runs.fleets.base import LIVING, Machine

SHARE = 4  # after a listing that took 1 s none for as many seconds


@dataclass(slots=True)
class _Look:
    """The last listing of one Run. Of none living nothing is remembered."""

    machines: list[Machine] = field(default_factory=list)
    due_s: float = float("-inf")
    ended_s: dict[bool, float] = field(default_factory=dict)  # by hard
    looking: threading.Lock = field(default_factory=threading.Lock)


_looks: dict[tuple[str, str], _Look] = {}
_making = threading.Lock()


def living(driver: str, run: str) -> list[Machine]:
    """Machines that may still do something, as of late; one thread looks at a time."""
    fleet, look = fleet_for(driver), _look(driver, run)
    if not look.looking.acquire(blocking=not look.machines):
        return look.machines  # somebody is asking just now
    try:
        began_s = time.monotonic()
        if not look.machines or began_s >= look.due_s:
            look.machines = [m for m in fleet.list(run) if m.state in LIVING]
            now_s = time.monotonic()
            pace_s = max(fleet.look_interval_s, SHARE * (now_s - began_s))
            look.due_s = now_s + (pace_s if fleet.look_interval_s else 0)
            if not look.machines:
                _looks.pop((driver, run), None)
        return look.machines
    finally:
        look.looking.release()


def end(driver: str, run: str, *, hard: bool) -> int:
    """End all of a Run's machines; how many were told. Again only at that pace."""
    fleet, look = fleet_for(driver), _look(driver, run)
    now_s = time.monotonic()
    if now_s < look.ended_s.get(hard, float("-inf")) + fleet.look_interval_s:
        return 0
    look.ended_s[hard] = now_s
    told = fleet.kill(run, hard=hard)
    look.due_s = float("-inf")
    return told


def _look(driver: str, run: str) -> _Look:
    with _making:
        return _looks.setdefault((driver, run), _Look())
