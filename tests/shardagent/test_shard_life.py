"""Whatever happens to a Shard, what it leaves is whole: random troubles, checked."""

from __future__ import annotations

import os
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from shardagent.calls import Call
from shardagent.errors import Cause, Origin
from shardagent.wire import Finish, Kind, Load, Shape
from tests.shardagent.virtual_time import (
    SECOND,
    START_US,
    Drive,
    Reply,
    SiteScript,
    failure,
    make_plan,
    obliging,
)

EXAMPLES = int(os.environ.get("SHARD_EXAMPLES", "100"))
LATENCIES_US = [0, 1_000, 90_000, 700_000, 6 * SECOND, 10**12]


@st.composite
def drives(draw: st.DrawFn) -> Drive:
    shape = draw(st.sampled_from(list(Shape)))
    plan = make_plan(
        sandbox_count=draw(st.integers(1, 6)),
        sandboxes_per_shard=6,
        load=Load(shape=shape, stagger_us=400_000, steps=3, step_s=2),
        hold_s=draw(st.sampled_from([0, 3, 12])),
        probe_failures_max=draw(st.integers(1, 3)),
        probe_interval_s=draw(st.sampled_from([0.5, 5])),
        create_timeout_s=8,
        ready_timeout_s=draw(st.sampled_from([0.05, 6])),
        probe_timeout_s=2,
        destroy_timeout_s=draw(st.sampled_from([1, 30])),
        witness=True,
    )
    second = st.none() | st.integers(0, 60).map(lambda s: START_US + s * SECOND // 2)
    script = SiteScript(
        plan,
        leave_at_us=draw(second),
        fence_at_us=draw(second),
        deaf_from_us=draw(second),
        clock_offset_us=draw(st.integers(-(10**7), 10**7)),
    )
    chance = draw(st.randoms(use_true_random=False))
    trouble = draw(st.sampled_from([0.0, 0.2, 0.7]))

    def reply(call: Call, now: int) -> Reply:
        if chance.random() >= trouble:
            return obliging(call, now)
        latency_us = chance.choice(LATENCIES_US)
        if chance.random() < 0.3:
            return latency_us, obliging(call, now)[1]
        cause = chance.choice(list(Cause))
        return latency_us, failure(cause, chance.choice(list(Origin)))

    stop_at_us = draw(st.none() | second)
    return Drive(
        plan, reply, script=script, witness=draw(st.booleans()), stop_at_us=stop_at_us
    )


@settings(max_examples=EXAMPLES, deadline=None)
@given(drives())
def test_whatever_happens_every_sandbox_is_accounted_for(drive: Drive) -> None:
    drive.run()
    assert drive.events[-1]["kind"] == "agent_finished"
    assert drive.events[-1]["orphans"] == len(drive.of("orphaned"))
    assert len(drive.of("settled")) <= 1
    assert drive.shard.alive == 0
    check_what_is_told(drive)
    for index in drive.plan.sandboxes_of(0):
        check_life(drive, index)
    check_nobody_destroys_early(drive)


def check_life(drive: Drive, index: int) -> None:
    seen = drive.kinds(index)
    if not seen:
        return
    assert seen[0] == "create_sent"
    once = ["create_sent", "created", "create_failed", "ready", "readiness_failed"]
    for kind in [*once, "dead", "destroyed", "orphaned", "witness_started"]:
        assert seen.count(kind) <= 1, seen
    closed = seen.count("destroyed") + seen.count("orphaned")
    assert closed == 1 if "created" in seen else closed <= 1, seen
    assert not {"ready", "readiness_failed"} <= set(seen)
    assert not {"created", "create_failed"} <= set(seen)
    finals = [
        event["kind"]
        for event in drive.events
        if event.get("sandbox") == index and event.get("final")
    ]
    if "probe_ok" in finals:
        assert finals.index("probe_ok") == len(finals) - 1
        assert "dead" not in seen


def check_what_is_told(drive: Drive) -> None:
    """A heartbeat counts what the record has."""
    ended = Counter(
        (event["kind"], str(event["cause"]), str(event["origin"]))
        for event in drive.events
        if event["kind"] in ("create_failed", "readiness_failed", "dead")
    )
    told = drive.shard.record.causes
    assert {(one.kind, one.cause, one.origin): one.count for one in told} == ended
    for one in told:
        assert one.kind in drive.kinds(one.sandbox)
    finals = {event["sandbox"] for event in drive.of("probe_ok") if event["final"]}
    assert drive.shard.counts().final_ok == len(finals)


def check_nobody_destroys_early(drive: Drive) -> None:
    sequential = drive.plan.load.shape is Shape.SEQUENTIAL
    forced = drive.shard.finish is Finish.FENCED or drive.stop_at_us is not None
    if sequential or forced:
        return
    t_destroy = drive.shard.times.t_destroy_us
    for event in drive.of("destroy_sent"):
        assert event["at"] >= drive.agent_us(t_destroy) - 1
    assert Kind.TEARDOWN in drive.shard.record.tally or not drive.of("created")
