"""The order of a Run that tests hand to drivers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runs.fleets import Order
from runs.fleets.base import Wheelhouse
from shardagent.wire import FleetSpec

WHEELS = Wheelhouse(Path("/nowhere"), "ab" * 32, "https://store.example/w?sig=1&x='")


def make_order(machines: int = 3, **changes: Any) -> Order:
    spec = FleetSpec(driver="ec2", **changes.pop("spec", {}))
    return Order(
        **{
            "run": "sim-0001",
            "machines": machines,
            "site_url": "https://site.example",
            "token": "t0ken",
            "lifetime_s": 900,
            "spec": spec,
            "wheelhouse": lambda: WHEELS,
            **changes,
        }
    )
