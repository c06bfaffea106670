"""A thousand real agents on machines of a stand-in arm and fire as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.embedded import running
from tests.fleets.cloud import cloud
from tests.fleets.processes import agents
from tests.fleets.test_ec2_machines import make_plan, make_site

pytestmark = [pytest.mark.fleets, pytest.mark.e2e, pytest.mark.timeout(900)]
AGENTS, MACHINES = 1_000, 10
SKEW_P99_MS_MAX = 200


def test_a_thousand_agents_arm_and_fire_as_one(tmp_path: Path, wheels: Path) -> None:
    plan = make_plan(
        sandbox_count=AGENTS,
        sandboxes_per_shard=1,
        fleet={"shards_per_host": AGENTS // MACHINES},
        heartbeat_interval_s=2,
        flush_interval_s=20,  # one machine stores what a thousand would
        hold_s=10,
        probe_interval_s=5,
        probe_timeout_s=5,
        create_timeout_s=20,
        ready_timeout_s=20,
        final_spread_s=5,
    )
    with cloud() as there:
        site = make_site(tmp_path, there, AGENT_WHEELHOUSE=str(wheels))
        site.environment_add(RUN_LEASE_S="30")
        with running(site):
            code = site.launch(plan)
            site.until_state(code, "arming", timeout_s=60)
            rows = there.machines(code)
            assert len(rows) == MACHINES
            with agents(site, there, code, tmp_path) as machines:
                for row in rows:
                    machines.boot(row)
                site.until_state(code, "tearing_down", timeout_s=180)
                machines.until_over(120)
                statuses = [one.returncode for one in machines.processes.values()]
            assert statuses == [0] * MACHINES
            run = site.until_state(code, "sealed", timeout_s=600)
    values: dict[str, Any] = {
        found["check"]: found["value"] for found in run["verdict"]["findings"]
    }
    print(f"start skew P99 {values['start_skew_p99_ms']} ms, {run['fleet']}")
    assert run["outcomes"]["success"] == AGENTS
    assert values["start_skew_p99_ms"] <= SKEW_P99_MS_MAX
    assert values["shared_egress"] == AGENTS
    assert run["fleet"]["launch_to_armed_s"] > 0
    assert run["fleet"]["types"] == {"t3.small": MACHINES}
