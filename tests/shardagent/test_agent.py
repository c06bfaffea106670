"""A whole agent against a real site and store on loopback."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from shardagent.agent import Agent, Options
from shardagent.clock import Clock
from shardagent.wire import Lease, Plan
from tests.shardagent.fake_provider import World
from tests.shardagent.stand_in_site import StandInSite

Event = dict[str, Any]


def make_plan(**overrides: Any) -> Plan:
    fields: dict[str, Any] = {
        "code": "alpha-1",
        "provider": "fake",
        "sandbox_count": 8,
        "shard_count": 2,
        "sandboxes_per_shard": 4,
        "hold_s": 0.6,
        "probe_interval_s": 0.2,
        "probe_timeout_s": 0.15,
        "probe_failures_max": 2,
        "create_timeout_s": 0.3,
        "ready_timeout_s": 0.3,
        "destroy_timeout_s": 1,
        "final_spread_s": 0.2,
        "flush_interval_s": 0.2,
        "heartbeat_interval_s": 0.2,
        "witness": True,
    }
    return Plan(**(fields | overrides))


def make_site(plan: Plan, **overrides: Any) -> StandInSite:
    leases = [Lease(shard=shard, attempt=0) for shard in range(plan.shard_count)]
    return StandInSite(plan=plan, leases=leases, **overrides)


def make_agent(
    site: StandInSite, world: World, spool: Path, clock: Clock | None = None
) -> Agent:
    options = Options(
        site=site.url, run=site.plan.code, host=0, spool=spool, token="the-agent-token"
    )
    return Agent(options, open_provider=world.open, clock=clock)


def kinds(events: list[Event], sandbox: int) -> list[str]:
    return [event["kind"] for event in events if event.get("sandbox") == sandbox]


def check_record(site: StandInSite, shard: int) -> list[Event]:
    """What is true of every complete record."""
    events: list[Event] = site.events(shard)
    assert [event["n"] for event in events] == list(range(len(events)))
    assert events[-1]["kind"] == "agent_finished"
    assert set(site.reported) == set(site.objects)
    by_sandbox: dict[int, list[str]] = defaultdict(list)
    for event in events:
        if "sandbox" in event:
            by_sandbox[event["sandbox"]].append(event["kind"])
    for index, seen in by_sandbox.items():
        assert seen.count("create_sent") == 1, index
        made = "created" in seen
        closed = {"destroyed", "orphaned"} & set(seen)
        assert not made or closed, (index, seen)
    return events


def of_kind(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event["kind"] == kind]


async def test_a_whole_run_is_recorded(tmp_path: Path) -> None:
    world = World(
        refused=frozenset({1}),
        hanging=frozenset({2}),
        lost=frozenset({3}),
        mute=frozenset({4}),
        short_lived=frozenset({5}),
    )
    plan = make_plan()
    async with make_site(plan) as site:
        assert await make_agent(site, world, tmp_path).run() == 0
        first, second = check_record(site, 0), check_record(site, 1)
    assert first[-1]["reason"] == second[-1]["reason"] == "done"
    good = kinds(first, 0)
    assert good[:4] == ["create_sent", "created", "ready", "witness_started"]
    assert good[-3:] == ["probe_ok", "destroy_sent", "destroyed"]
    assert kinds(first, 1) == ["create_sent", "create_failed"]
    assert kinds(first, 2) == ["create_sent", "create_failed", "orphaned"]
    assert kinds(first, 3) == [
        "create_sent",
        "create_failed",
        "destroy_sent",
        "destroyed",
    ]
    assert first[-1]["orphans"] == 1
    assert "readiness_failed" in kinds(second, 4)
    assert kinds(second, 5)[-4:] == [
        "probe_failed",
        "dead",
        "destroy_sent",
        "destroyed",
    ]
    for events in (first, second):
        seen = [event["kind"] for event in events]
        order = ["agent_started", "armed", "released", "settled", "holding", "teardown"]
        assert sorted(order, key=seen.index) == order
    check_teardown(site, first + second, plan)
    check_probes(first + second)
    assert not any("top-secret" in str(event) for event in first)
    assert not any("abcdef0123" in line for line in site.log(0))
    assert files_in(tmp_path) == []


def files_in(spool: Path) -> list[Path]:
    return [path for path in spool.rglob("*") if path.is_file()]


def check_teardown(site: StandInSite, events: list[Event], plan: Plan) -> None:
    instants = site.instants
    assert instants.t_end_us is not None
    assert instants.t_destroy_us is not None
    finals = [event for event in events if event.get("final")]
    assert {event["sandbox"] for event in finals} == {0, 6, 7}
    for event in finals:
        place_us = event["sandbox"] * plan.final_spread_s * 1e6 / plan.sandbox_count
        late_us = event["sent_us"] - instants.t_end_us - place_us
        assert -2_000 < late_us < 100_000
    for event in of_kind(events, "destroy_sent"):
        assert event["at"] > instants.t_destroy_us - 2_000


def check_probes(events: list[Event]) -> None:
    good = of_kind(events, "probe_ok")
    assert len(good) >= 9
    assert all(event["witness_ok"] for event in good)
    assert all(event["ticks"] >= 0 for event in good)
    for event in of_kind(events, "ready"):
        assert event["tti_us"] > event["latency_us"] > 0
        assert event["tries"] == 1
    for event in of_kind(events, "create_sent"):
        assert 0 <= event["at"] - event["intended_us"] < 200_000
