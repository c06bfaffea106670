"""The Run that `make demo` shows: small, quick, and with every Outcome in it."""

from __future__ import annotations

import os
from typing import Any

SANDBOXES = 1_000


def demo_plan() -> dict[str, Any]:
    """1,000 simulated sandboxes in 10 Shards, some of which fail in every way."""
    sandboxes = int(os.environ.get("SCALE") or SANDBOXES)
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
            "profile": "blaxel",
            "create_errors": 6 * thousands,
            "create_hangs": 3 * thousands,
            "never_ready": 7 * thousands,
            "deaths": 8 * thousands,
            "rack_size": 12,
            "rack_at_s": 22,
            "flaky_probes": 0.001,
        },
    }
