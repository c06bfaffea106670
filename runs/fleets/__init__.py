"""The machines that carry a Run's Shards.

A driver is found by the entry point group `holdfast.fleets`: its name is the Plan's
fleet.driver, its value a callable that takes no argument and returns a Fleet.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from runs.errors import FleetError
from runs.fleets.base import (
    Fleet,
    Launched,
    Machine,
    MachineState,
    Order,
    usual,
)
from shardagent.wire import FleetSpec

__all__ = ["Fleet", "Launched", "Machine", "MachineState", "Order", "fleet_for"]

GROUP = "holdfast.fleets"
OWN = tuple(
    EntryPoint(name, f"runs.fleets.{name}:open_fleet", GROUP)
    for name in ("local", "ssh", "ec2", "kubernetes")
)


def drivers() -> dict[str, EntryPoint]:
    """Every driver by its name, ours first; one of ours cannot be replaced."""
    found = {entry.name: entry for entry in OWN}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, entry)
    return found


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


def usd_per_h(spec: FleetSpec, machines: int) -> float | None:
    """What so many would cost an hour; None where nobody knows, or may open it."""
    try:
        each = fleet_for(spec.driver).usd_per_h([usual(spec)])
    except FleetError:
        return None  # what is wrong with it, a launch says
    return None if each is None else each * machines
