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
LOOKS_MAX = 1_000  # Runs of which the last listing is remembered
_NEVER = float("-inf")


@dataclass(slots=True)
class _Look:
    """The last listing of one Run."""

    machines: list[Machine] = field(default_factory=list)
    looked_s: float = _NEVER
    due_s: float = _NEVER
    ended_s: dict[bool, float] = field(default_factory=dict)  # by hard
    looking: threading.Lock = field(default_factory=threading.Lock)


_looks: dict[tuple[str, str], _Look] = {}
_making = threading.Lock()


def living(driver: str, run: str) -> list[Machine]:
    """Machines that may still do something, as of late; one thread looks at a time.

    One that comes to light later is the sweep's (reaper.sweep_machines).
    """
    fleet, look = fleet_for(driver), _look(driver, run)
    if not look.looking.acquire(blocking=look.looked_s == _NEVER):
        return look.machines  # somebody is asking just now
    try:
        began_s = time.monotonic()
        if began_s >= look.due_s:
            look.machines = [m for m in fleet.list(run) if m.state in LIVING]
            look.looked_s = time.monotonic()
            pace_s = max(fleet.look_interval_s, SHARE * (look.looked_s - began_s))
            look.due_s = look.looked_s + (pace_s if fleet.look_interval_s else 0)
        return look.machines
    finally:
        look.looking.release()


def end(driver: str, run: str, *, hard: bool) -> int:
    """End all of a Run's machines; how many were told. Again only at that pace."""
    fleet, look = fleet_for(driver), _look(driver, run)
    now_s = time.monotonic()
    if now_s < look.ended_s.get(hard, _NEVER) + fleet.look_interval_s:
        return 0
    look.ended_s[hard] = now_s
    told = fleet.kill(run, hard=hard)
    look.due_s = _NEVER
    return told


def _look(driver: str, run: str) -> _Look:
    with _making:
        while len(_looks) >= LOOKS_MAX and (driver, run) not in _looks:
            del _looks[min(_looks, key=lambda key: _looks[key].looked_s)]
        return _looks.setdefault((driver, run), _Look())
