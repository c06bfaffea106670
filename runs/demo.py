"""The Run that `make demo` shows: small, quick, and with every Outcome in it."""

from __future__ import annotations

import os
from typing import Any

from shardagent.wire import SHARDS_PER_HOST_MAX

SANDBOXES = 1_000
SCALED_MIN = 10_000  # from here on the Run is spread and probed as a large one
LARGE_MIN = 300_000  # and from here on as the largest
PROCESSES = 2  # agents that carry it, one for each of two cores
TICK_MS = 5  # the simulated world answers so often: fewer wakings on both sides
PROFILE = "blaxel"


def demo_plan() -> dict[str, Any]:
    """1,000 simulated sandboxes in 10 Shards, some of which fail in every way.

    SCALE=n in the environment asks for n sandboxes, created over 60 s (10 min from
    LARGE_MIN on), so that two cores can carry them without being the bottleneck.
    """
    sandboxes = int(os.environ.get("SCALE") or SANDBOXES)
    if sandboxes >= SCALED_MIN:
        return _scaled(sandboxes)
    thousands = max(1, sandboxes // 1_000)
    return {
        "provider": "sim",
        "sandbox_count": sandboxes,
        "sandboxes_per_shard": 100,
        # Spread over a second or so: two cores cannot send 1,000 creates at one
        # instant without being the bottleneck, and the verdict would say so.
        "load": {"shape": "staggered", "stagger_us": 1_000},
        "hold_s": 20,
        "probe_interval_s": 3,
        "probe_timeout_s": 2,
        "create_timeout_s": 12,
        "ready_timeout_s": 8,
        "final_spread_s": 3,
        "note": "The demo: a simulated provider whose truth is known.",
        "world": {
            "profile": PROFILE,
            "create_errors": 6 * thousands,
            "create_hangs": 3 * thousands,
            "never_ready": 7 * thousands,
            "deaths": 8 * thousands,
            "rack_size": 12,
            "rack_at_s": 22,
            "flaky_probes": 0.001,
        },
    }


def _scaled(sandboxes: int) -> dict[str, Any]:
    """Spread evenly; SHAPE=burst asks for all of it at one instant instead."""
    large = sandboxes >= LARGE_MIN
    over_s = 600 if large else 60
    interval_s = 60 if large else 10
    shards = -(-sandboxes // 100)
    processes = max(PROCESSES, -(-shards // SHARDS_PER_HOST_MAX))
    burst = os.environ.get("SHAPE") == "burst"
    spread = {"shape": "staggered", "stagger_us": max(1, over_s * 10**6 // sandboxes)}
    return {
        "provider": "sim",
        "sandbox_count": sandboxes,
        "sandboxes_per_shard": 100,
        "load": {"shape": "burst"} if burst else spread,
        "hold_s": 60,
        "probe_interval_s": interval_s,
        "probe_timeout_s": 5,
        "create_timeout_s": 30,
        "ready_timeout_s": 20,
        "final_spread_s": interval_s,
        "heartbeat_interval_s": 10 if large else 2,
        "flush_interval_s": 60 if large else 20,  # a PUT for each Shard costs, too
        "arm_timeout_s": 600 if large else 120,
        "fleet": {"driver": "local", "shards_per_host": -(-shards // processes)},
        "note": f"{sandboxes:,} simulated sandboxes on one machine.",
        "world": {
            "profile": PROFILE,
            "create_errors": sandboxes // 1_000,
            "never_ready": sandboxes // 1_000,
            "deaths": sandboxes // 500,
            "rack_size": 12,
            "rack_at_s": over_s + 30,
            "tick_ms": TICK_MS,
        },
    }
