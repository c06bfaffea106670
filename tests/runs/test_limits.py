from __future__ import annotations

import re
from typing import Any

import pytest

from runs import limits, prices
from runs.plan import has_world, is_simulated, lane_of, parse_plan
from shardagent import providers
from shardagent.wire import Plan

DATE = re.compile(r"^20\d\d-\d\d-\d\d$")


def plan(**changes: Any) -> Plan:
    asked = {"provider": "e2b", "sandbox_count": 50, **changes}
    return parse_plan(asked, sandbox_count_max=1_000_000)


def test_every_limit_and_price_is_dated_and_has_a_source() -> None:
    for slug, tiers in limits.LIMITS.items():
        assert slug in providers.known()
        for tier in tiers:
            assert tier.source.startswith("https://")
            assert DATE.match(tier.as_of)
    for slug, price in prices.PRICES.items():
        if slug not in ("sim", "local"):
            assert price.source
            assert DATE.match(price.as_of)


def test_the_published_limit_of_an_address_is_frozen_with_the_plan() -> None:
    assert limits.resolved(plan()).egress_calls_per_s == pytest.approx(40_000 / 60)
    own = plan(egress_calls_per_s=50)
    assert limits.resolved(own).egress_calls_per_s == 50
    assert limits.resolved(plan(endpoint="simcloud")).egress_calls_per_s is None
    assert limits.resolved(plan(provider="sim")).egress_calls_per_s is None


def test_a_plan_above_the_published_limits_is_told_which() -> None:
    said = limits.warnings(plan(sandbox_count=5_000))
    assert [line.partition(":")[0] for line in said] == [
        "sandboxes at once",
        "creates a second",
        "calls a second per address",
    ]
    assert "5,000" in said[0]
    assert "100 (https://e2b.dev" in said[0]


def test_a_granted_quota_silences_them_and_so_does_a_slow_load() -> None:
    granted = {"quota_granted": 5_000, "quota_granted_on": "2026-11-01"}
    assert limits.warnings(plan(sandbox_count=5_000, **granted)) == []
    slow = {"load": {"shape": "staggered", "stagger_us": 1_000_000}}
    assert limits.warnings(plan(**slow)) == []


def test_a_provider_without_published_limits_has_no_warnings() -> None:
    assert limits.warnings(plan(provider="sim")) == []


def test_vercels_price_counts_creates() -> None:
    cost = prices.cost_usd("vercel", 0, cpu=1, memory_mb=2_048, sandboxes=1_000_000)
    assert cost == pytest.approx(0.60)


@pytest.mark.parametrize(
    ("asked", "world", "simulated"),
    [
        ({"provider": "sim"}, True, True),
        ({"provider": "local"}, False, False),
        ({"provider": "e2b"}, False, False),
        ({"provider": "e2b", "endpoint": "simcloud"}, True, True),
        ({"provider": "e2b", "endpoint": "https://api.e2b.app/"}, False, False),
        ({"provider": "e2b", "endpoint": "http://127.0.0.1:9"}, False, True),
        ({"provider": "agent-sandbox", "endpoint": "https://10.0.0.1"}, False, False),
        ({"provider": "agent-sandbox", "endpoint": "http://localhost:9"}, False, True),
    ],
)
def test_only_the_vendors_own_address_is_the_vendor(
    asked: dict[str, Any], world: bool, simulated: bool
) -> None:
    found = plan(**asked)
    assert (has_world(found), is_simulated(found)) == (world, simulated)


def test_accounts_and_stand_ins_have_lanes_of_their_own() -> None:
    lanes = {
        lane_of(plan()),
        lane_of(plan(), 7),
        lane_of(plan(), 8),
        lane_of(plan(endpoint="simcloud")),
    }
    assert len(lanes) == 4
