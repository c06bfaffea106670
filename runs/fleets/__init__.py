"""The machines that carry a Run's Shards.

A driver is found by the entry point group `holdfast.fleets`: its name is the Plan's
fleet.driver, its value a callable that takes no argument and returns a Fleet.
"""

from __future__ import annotations

import time
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from runs.errors import FleetError
from runs.fleets.base import LIVING, Fleet, Launched, Machine, MachineState, Order

__all__ = ["Fleet", "Launched", "Machine", "MachineState", "Order", "fleet_for"]

GROUP = "holdfast.fleets"
OWN = tuple(
    EntryPoint(name, f"runs.fleets.{name}:open_fleet", GROUP)
    for name in ("local", "ssh", "ec2", "kubernetes")
)
_listed: dict[tuple[str, str], tuple[float, list[Machine]]] = {}


def drivers() -> dict[str, EntryPoint]:
    """Every driver by its name; one of ours cannot be replaced."""
    return {entry.name: entry for entry in (*entry_points(group=GROUP), *OWN)}


@lru_cache(maxsize=16)
def fleet_for(driver: str) -> Fleet:
    """The driver of that name, opened once a process."""
    entry = drivers().get(driver)
    if entry is None:
        raise FleetError(f"no fleet driver is called {driver!r}", retryable=False)
    try:
        opened: Fleet = entry.load()()
    except ImportError as error:
        raise FleetError(
            f"fleet driver {driver} needs a package that is not installed "
            f"({error.name}); pip install holdfast-shardagent[site,fleets]",
            retryable=False,
        ) from error
    return opened


def living(driver: str, run: str) -> list[Machine]:
    """Machines that may still do something; looked up at the driver's own pace.

    That there are none is never remembered.
    """
    fleet = fleet_for(driver)
    at_s, machines = _listed.get((driver, run), (float("-inf"), []))
    if not machines or time.monotonic() - at_s >= fleet.look_interval_s:
        machines = [m for m in fleet.list(run) if m.state in LIVING]
        _listed.pop((driver, run), None)
        if machines and fleet.look_interval_s:
            _listed[driver, run] = (time.monotonic(), machines)
    return machines
