"""The machines that carry a Run's Shards."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from runs.errors import FleetError
from runs.fleets.base import Fleet, Order
from runs.fleets.local import LocalFleet

__all__ = ["Fleet", "Order", "fleet_for"]


@lru_cache(maxsize=8)
def fleet_for(driver: str) -> LocalFleet:
    if driver == "local":
        return LocalFleet(settings.DATA / "agents", settings.AGENT_PYTHON)
    raise FleetError(f"no fleet driver is called {driver!r}", retryable=False)
