"""Many Shards in several agent processes fire together, as the Run itself shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.embedded import quick_plan, running

pytestmark = [pytest.mark.e2e, pytest.mark.conformance]

SKEW_P99_MS_MAX = 50


def test_a_hundred_shards_of_ten_start_within_50_ms(tmp_path: Path) -> None:
    plan = quick_plan(
        sandbox_count=1_000,
        sandboxes_per_shard=10,
        fleet={"driver": "local", "shards_per_host": 25},
        probe_interval_s=2,
        create_timeout_s=8,
        ready_timeout_s=5,
        world={"profile": "e2b"},
    )
    with running(tmp_path) as site:
        code = site.launch(plan)
        run = site.until_state(code, "sealed", timeout_s=150)
    found = {row["check"]: row["value"] for row in run["verdict"]["findings"]}
    assert run["certificate"]["clean"], run["certificate"]
    assert run["outcomes"]["success"] == 1_000
    assert found["shards_lost_pct"] == 0
    assert found["start_skew_p99_ms"] <= SKEW_P99_MS_MAX
