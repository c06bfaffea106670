"""Plans by which the harness certifies itself: small worlds, each with its own ills."""

from __future__ import annotations

import math
from random import Random
from typing import Any

PROFILES = ("e2b", "daytona", "modal")
SHARD_SIZE = 100
HOSTS = 4


def certifying_plan(seed: int, sandboxes: int) -> dict[str, Any]:
    """A Plan whose world is drawn from the seed; the same seed, the same world.

    Every kind of trouble that the simulated world knows comes up within a few seeds,
    mixed with others. Times are short, so that a Run takes about half a minute.
    """
    chance = Random(f"certify/{seed}")
    large = sandboxes > 2_000
    shards = math.ceil(sandboxes / SHARD_SIZE)
    return {
        "provider": "sim",
        "sandbox_count": sandboxes,
        "sandboxes_per_shard": SHARD_SIZE,
        "fleet": {"shards_per_host": math.ceil(shards / HOSTS)},
        "seed": seed,
        "hold_s": 12 if large else chance.choice([6, 7, 8]),
        "probe_interval_s": 6 if large else chance.choice([1, 1.5, 2]),
        "probe_timeout_s": 4 if large else 1,
        "create_timeout_s": 12 if large else 6,
        "ready_timeout_s": 8 if large else 4,
        "final_spread_s": 8 if large else 2,
        "heartbeat_interval_s": 1,
        "flush_interval_s": 1,
        "destroy_timeout_s": 20,
        "witness": seed % 5 != 3,
        "load": _load(seed, sandboxes),
        "world": _world(seed, chance, sandboxes),
    }


def _load(seed: int, sandboxes: int) -> dict[str, Any]:
    if seed % 7 == 2:
        return {"shape": "staggered", "stagger_us": 3_000_000 // sandboxes}
    if seed % 7 == 4:
        return {"shape": "staircase", "steps": 3, "step_s": 2}
    return {"shape": "burst"}


def _world(seed: int, chance: Random, sandboxes: int) -> dict[str, Any]:
    percent = max(1, sandboxes // 100)

    def few() -> int:
        return chance.randint(1, percent)

    ills: list[dict[str, Any]] = [
        {"deaths": 2 * few(), "death_window_s": (1.0, 12.0)},
        {"rack_size": 3 * few(), "rack_at_s": chance.choice([4.0, 7.0, 10.0])},
        {"hibernate_after_s": chance.choice([0.3, 0.8, 1.2]), "wake_ms": 100.0},
        {"rate_per_s": sandboxes / 2, "rate_burst": max(1, sandboxes // 2)},
        {"capacity": sandboxes - 3 * percent},
        {"late_creates": few(), "create_hangs": few()},
        {"never_ready": 2 * few(), "before_ready": "refuse"},
        {"flaky_probes": 3 * few()},
        {"slow_shards": 1, "slow_factor": 2.0},
        {"ttl_max_s": chance.choice([6.0, 9.0])},
        {"quota": sandboxes - percent, "create_errors": few()},
        {"death_rate_per_s": 0.004},
    ]
    main = seed % len(ills)
    others = [ill for place, ill in enumerate(ills) if place != main]
    world: dict[str, Any] = {
        "profile": chance.choice(PROFILES),
        "latency_scale": 0.5,
        "exec_ms": chance.choice([5.0, 15.0, 40.0]),
    }
    for ill in [*chance.sample(others, chance.randint(1, 3)), ills[main]]:
        world |= ill
    return world
