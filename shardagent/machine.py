"""What carries this agent, as whoever started it says in the environment.

HOLDFAST_MACHINE_ID, _NODE, _TYPE, _REGION, _ZONE, _EGRESS and _INDEX; a fleet's driver
or its machines' first script sets them (runs/fleets). None has to be there.
"""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Mapping
from typing import Any

from shardagent import __version__
from shardagent.wire import Machine

PREFIX = "HOLDFAST_MACHINE_"
_FACTS = ("id", "node", "type", "region", "zone", "egress")


def machine(environ: Mapping[str, str] = os.environ) -> Machine:
    """This machine; one that was given no name takes a random one."""
    said = {
        fact: environ.get(PREFIX + fact.upper(), "").strip()[:limit]
        for fact, limit in zip(_FACTS, (100, 253, 100, 100, 100, 100), strict=True)
    }
    said["id"] = said["id"] or f"{platform.node()[:60]}-{uuid.uuid4().hex[:12]}"
    said["node"] = said["node"] or platform.node()[:253]
    return Machine(**said, kernel=platform.release()[:200])


def wanted_index(environ: Mapping[str, str] = os.environ) -> int | None:
    """The host that it would rather have, where it has a number of its own."""
    said = environ.get(PREFIX + "INDEX", "")
    return int(said) if said.isdecimal() else None


def told(carrier: Machine, seen_from: str) -> dict[str, Any]:
    """Fields of `agent_started`; the address that the site saw where it knows none."""
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "version": __version__,
        "cpu_count": os.cpu_count(),
        "machine": carrier.id or None,
        "node": carrier.node or None,
        "machine_type": carrier.type or None,
        "region": carrier.region or None,
        "zone": carrier.zone or None,
        "egress": carrier.egress or seen_from or None,
        "kernel": carrier.kernel or None,
    }
