"""Figures of the verdict that no Run of the other tests shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from runs.clickhouse import curves, facts, ingest, rig, sandboxes, shards
from runs.clickhouse.client import ObjectStore
from shardagent.wire import Plan

T0 = 1_000_000_000
SECOND = 1_000_000
PLAN = Plan(
    code="alpha-rig",
    provider="sim",
    sandbox_count=12,
    sandboxes_per_shard=4,
    shard_count=3,
    target=12,
    egress_limit_per_s=10,
)


@pytest.fixture(scope="module")
def found(
    engine: None, object_store: ObjectStore, put: Callable[[str, bytes], None]
) -> Iterator[rig.Rig]:
    """Shards 0 and 1 share an address, 2 has its own; of Shard 1 half comes later."""
    objects = {}
    for shard, egress in enumerate(["a", "a", "b"]):
        events = [
            {"at": T0 - SECOND, "kind": "agent_started", "egress": egress},
            {"at": T0, "kind": "clock", "offset_us": 0, "half_rtt_us": 0},
        ]
        for place in range(4):
            late = 3 * SECOND if shard == 1 and place > 1 else 0
            box = shard * 4 + place
            events.append({"at": T0 + late, "kind": "create_sent", "sandbox": box})
            probe = {"sent_us": T0 + SECOND, "latency_us": 9, "final": False}
            fault = {"cause": "timeout", "origin": "provider", "sandbox": box}
            at = T0 + 3 * SECOND
            events.append({"at": at, "kind": "probe_failed", **probe, **fault})
        lines = [json.dumps({"v": 1, "n": n, **e}) for n, e in enumerate(events)]
        key = f"runs/{PLAN.code}/shards/{shard:05d}/00/events-000000.ndjson"
        objects[key] = "\n".join(lines).encode() + b"\n"
    # The world was asked twice for Sandbox 5, and of Sandbox 6 nobody told it.
    asked = [{"sandbox": box, "create": "timeout"} for box in (4, 5, 5, 7)]
    truth = "\n".join(json.dumps(line) for line in asked)
    objects[f"runs/{PLAN.code}/truth-000000.ndjson"] = truth.encode() + b"\n"
    journal = json.dumps({"kind": "released", "at_us": T0, "t0_us": T0})
    objects[f"runs/{PLAN.code}/journal-000000.ndjson"] = journal.encode() + b"\n"
    for key, body in objects.items():
        put(key, body)
    ingest.replace_run(object_store, PLAN, list(objects))
    run = facts.run_facts(PLAN)
    sandboxes.classify(run, None, final=True)
    yield rig.rig(run, PLAN, shards.shards(run))
    ingest.forget_run(PLAN.code)


def test_a_clock_so_bad_that_nothing_is_proven_is_seen(
    engine: None, object_store: ObjectStore, put: Callable[[str, bytes], None]
) -> None:
    """Heartbeats took 40 s: ten proven seconds are shrunk to none, by our own fault."""
    plan = Plan(
        code="beta-rig", provider="sim", sandbox_count=1, sandboxes_per_shard=1,
        shard_count=1, target=1,
    )  # fmt: skip
    probe = {"sent_us": T0 + 12 * SECOND, "latency_us": 9, "final": True}
    events = [
        {"at": T0, "kind": "clock", "offset_us": 0, "half_rtt_us": 20 * SECOND},
        {"at": T0, "kind": "create_sent", "sandbox": 0},
        {"at": T0 + SECOND, "kind": "created", "sandbox": 0, "latency_us": SECOND},
        {"at": T0 + 2 * SECOND, "kind": "ready", "sandbox": 0, "latency_us": SECOND},
        {"at": T0 + 13 * SECOND, "kind": "probe_ok", "sandbox": 0, **probe},
    ]
    lines = [json.dumps({"v": 1, "n": n, **event}) for n, event in enumerate(events)]
    key = "runs/beta-rig/shards/00000/00/events-000000.ndjson"
    put(key, "\n".join(lines).encode() + b"\n")
    ingest.replace_run(object_store, plan, [key])
    run = facts.run_facts(plan)
    sandboxes.classify(run, None, final=True)
    (row,) = shards.shards(run)
    assert curves.peak(run).proven == 0
    assert curves.clock_bound(run) is None
    figure = rig.rig(run, plan, [row]).shards[0]["clock_bound_ms"]
    assert figure == 20_001.2  # the worse end: 12 s from the sample at 100 ppm
    ingest.forget_run(plan.code)


def test_egress_demand_is_the_busiest_second_of_one_address(found: rig.Rig) -> None:
    assert found.egress_demand_pct == 60  # 4 of Shard 0 and 2 of Shard 1, of 10


def test_calls_of_every_kind_are_demand_where_the_limit_is_of_calls(
    found: rig.Rig,
) -> None:
    plan = PLAN.model_copy(update={"egress_calls_per_s": 10.0})
    both = rig.rig(facts.run_facts(plan), plan, [])
    assert both.egress_demand_pct == 80  # the second second: 8 probes of two Shards


def test_resends_are_what_the_world_heard_and_no_event_tells(found: rig.Rig) -> None:
    assert found.resends == 1


def test_an_agent_that_never_finished_is_lost(found: rig.Rig) -> None:
    assert found.shards_started == 0
