"""A whole Run of 300 sandboxes in 3 Shards at each stand-in: what is sealed is true."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from runs.simcloud.web import VENDORS
from tests.embedded import Site, quick_plan, running

pytestmark = [pytest.mark.vendors, pytest.mark.timeout(400)]

LOOK_S = 5
WORLD = {
    "profile": "daytona",
    "latency_scale": 2,
    "create_errors": 4,
    "create_hangs": 2,
    "late_creates": 2,
    "never_ready": 5,
    "deaths": 9,
    "death_window_s": [2, 8],
    "flaky_probes": 5,
    "capacity": 297,
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("site")) as site:
        yield site


def sealed(site: Site, code: str) -> Any:
    """The Run, once it is; asked for seldom, as each question costs the agents' CPU."""
    deadline = time.monotonic() + 280
    while (run := site.run(code))["state"] != "sealed":
        assert time.monotonic() < deadline, run["state"]
        time.sleep(LOOK_S)
    return run


@pytest.mark.parametrize("vendor", sorted(VENDORS))
def test_a_whole_run_at_the_stand_in_has_a_clean_certificate(
    site: Site, vendor: str
) -> None:
    plan = quick_plan(
        provider=vendor,
        endpoint="simcloud",
        sandbox_count=300,
        sandboxes_per_shard=100,
        fleet={"driver": "local", "shards_per_host": 1},
        witness=True,
        hold_s=8,
        # Wide, so that a slow machine is not taken for a slow vendor.
        create_timeout_s=30,
        ready_timeout_s=20,
        probe_interval_s=2,
        probe_timeout_s=5,
        probe_failures_max=3,
        # Three agents, the vendor and the site share this machine's cores: a burst
        # would measure those.
        load={"shape": "staggered", "stagger_us": 5_000},
        heartbeat_interval_s=2,
        flush_interval_s=2,
        seed=11,
        world=WORLD,
    )
    run = sealed(site, site.launch(plan))
    assert run["end_reason"] == "completed"
    assert {"simulated", "stand-in"} <= set(run["labels"])
    certificate = run["certificate"]
    assert certificate["violations"] == 0
    assert certificate["misclassified"] == 0
    assert certificate["compared"] == 300
    assert run["outcomes"]["unobserved"] == run["outcomes"]["not_attempted"] == 0
    assert run["outcomes"]["success"] >= 260
    assert run["defects"] == 0
    verdict = run["verdict"]
    print(f"{vendor}: {verdict['level']} {verdict['reasons']}")
    if os.environ.get("IDLE"):  # nothing else runs on this machine
        assert verdict["level"] == "VALID", verdict["reasons"]
