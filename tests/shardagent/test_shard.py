"""The Shard's machine in virtual time."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from shardagent.calls import Call, Verb
from shardagent.errors import Cause, Origin
from shardagent.providers.base import Answer, Listed
from shardagent.wire import Finish, Lease, Load, Shape
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


def on(verb: Verb, reply: Reply, *, sandbox: int | None = None) -> Any:
    """All is well but for one verb, of one Sandbox or of all."""

    def answer(call: Call, now: int) -> Reply:
        if call.verb is verb and sandbox in (None, call.sandbox):
            return reply
        return obliging(call, now)

    return answer


def test_a_quiet_run_proves_all_and_destroys_after_t_destroy() -> None:
    drive = Drive(make_plan()).run()
    assert drive.shard.finish is Finish.DONE
    assert drive.shard.counts().destroyed == 4
    assert drive.shard.alive == 0
    instants = drive.script.instants
    for event in drive.of("destroy_sent"):
        assert event["at"] >= instants.t_destroy_us
    finals = [event for event in drive.of("probe_ok") if event["final"]]
    assert [one["sent_us"] - instants.t_end_us for one in finals] == [
        0,
        1_250_000,
        2_500_000,
        3_750_000,
    ]
    assert [one["kind"] for one in drive.events if "sandbox" not in one] == [
        "armed",
        "released",
        "settled",
        "holding",
        "teardown",
        "agent_finished",
    ]


def test_probes_follow_each_other_at_the_interval() -> None:
    drive = Drive(make_plan()).run()
    ordinary = [
        event["sent_us"]
        for event in drive.of("probe_ok")
        if event["sandbox"] == 2 and not event["final"]
    ]
    gaps = {b - a for a, b in zip(ordinary, ordinary[1:], strict=False)}
    assert gaps == {5 * SECOND}


@pytest.mark.parametrize("offset_us", [0, 5 * SECOND, -5 * SECOND])
def test_creates_fire_at_t0_of_the_runs_clock(offset_us: int) -> None:
    plan = make_plan()
    drive = Drive(plan, script=SiteScript(plan, clock_offset_us=offset_us)).run()
    t0 = drive.agent_us(drive.script.instants.t0_us)
    for event in drive.of("create_sent"):
        assert abs(event["at"] - t0) <= 1
        assert event["intended_us"] == event["at"]


def test_staggered_shards_interleave() -> None:
    plan = make_plan(
        sandbox_count=8,
        shard_count=2,
        load=Load(shape=Shape.STAGGERED, stagger_us=1_000),
    )
    drive = Drive(plan, lease=Lease(shard=1, attempt=0)).run()
    t0 = drive.script.instants.t0_us
    places = [event["intended_us"] - t0 for event in drive.of("create_sent")]
    assert places == [1_000, 3_000, 5_000, 7_000]


def test_a_staircase_goes_up_step_by_step() -> None:
    plan = make_plan(load=Load(shape=Shape.STAIRCASE, steps=2, step_s=3))
    drive = Drive(plan).run()
    t0 = drive.script.instants.t0_us
    places = [event["intended_us"] - t0 for event in drive.of("create_sent")]
    assert places == [0, 0, 3 * SECOND, 3 * SECOND]


def test_sequential_sandboxes_never_overlap() -> None:
    plan = make_plan(load=Load(shape=Shape.SEQUENTIAL))
    drive = Drive(plan).run()
    assert drive.shard.finish is Finish.DONE
    life = ["create_sent", "created", "ready", "probe_ok", "destroy_sent", "destroyed"]
    facts = [event for event in drive.events if "sandbox" in event]
    assert [event["kind"] for event in facts] == life * 4
    assert [event["sandbox"] for event in facts[::6]] == [0, 1, 2, 3]
    assert all(event["final"] for event in drive.of("probe_ok"))
    for sent, before in zip(
        drive.of("create_sent")[1:], drive.of("destroyed"), strict=False
    ):
        assert sent["intended_us"] == before["at"]


def test_a_refused_create_leaves_nothing_to_destroy() -> None:
    reply = on(Verb.CREATE, (5_000, failure(Cause.QUOTA)), sandbox=1)
    drive = Drive(make_plan(), reply).run()
    assert drive.kinds(1) == ["create_sent", "create_failed"]
    assert drive.of("agent_finished")[0]["orphans"] == 0
    assert not any(call.verb is Verb.LIST for _, call in drive.calls)


def test_a_create_that_timed_out_is_an_orphan_unless_listed() -> None:
    def reply(call: Call, now: int) -> Reply:
        if call.verb is Verb.CREATE and call.sandbox in (1, 2):
            return 10**12, None
        if call.verb is Verb.LIST:
            return 10_000, [Listed("late-2", {"sandbox": "2"})]
        return obliging(call, now)

    drive = Drive(make_plan(), reply).run()
    assert drive.kinds(1) == ["create_sent", "create_failed", "orphaned"]
    assert drive.of("orphaned")[0]["provider_id"] is None
    assert drive.kinds(2)[-2:] == ["destroy_sent", "destroyed"]
    assert drive.of("create_failed")[0]["cause"] == "timeout"
    assert drive.of("agent_finished")[0]["orphans"] == 1


def test_readiness_is_tried_every_100_ms_until_its_time_is_over() -> None:
    plan = make_plan(ready_timeout_s=1, sandbox_count=1)
    drive = Drive(plan, on(Verb.READY, (20_000, Answer(0, "no")))).run()
    tries = drive.of("ready_probe_failed")
    assert [event["cause"] for event in tries] == ["command_failed"] * len(tries)
    gaps = {b["sent_us"] - a["at"] for a, b in zip(tries, tries[1:], strict=False)}
    assert gaps == {100_000}
    (end,) = drive.of("readiness_failed")
    assert SECOND - 120_000 <= end["latency_us"] <= SECOND
    assert drive.kinds(0)[-2:] == ["destroy_sent", "destroyed"]


def test_the_output_of_the_readiness_command_is_checked() -> None:
    plan = make_plan(ready_expect="^v22", sandbox_count=1)
    tries = iter([Answer(0, "v18"), Answer(1, "v22"), Answer(0, "v22")])

    def reply(call: Call, now: int) -> Reply:
        if call.verb is Verb.READY:
            return 10_000, next(tries)
        return obliging(call, now)

    drive = Drive(plan, reply).run()
    (ready,) = drive.of("ready")
    assert ready["tries"] == 3
    assert ready["latency_us"] == 230_000
    assert ready["tti_us"] == 240_000


def dying(cause: Cause, origin: Origin = Origin.PROVIDER) -> Any:
    """Sandbox 1 answers so from 8 s after the start."""

    def reply(call: Call, now: int) -> Reply:
        late = now > START_US + 8 * SECOND
        if call.verb is Verb.PROBE and call.sandbox == 1 and late:
            return 10_000, failure(cause, origin)
        return obliging(call, now)

    return reply


def test_a_sandbox_that_is_not_found_is_dead_at_once() -> None:
    drive = Drive(make_plan(), dying(Cause.NOT_FOUND)).run()
    assert drive.kinds(1)[-4:] == ["probe_failed", "dead", "destroy_sent", "destroyed"]
    assert len([e for e in drive.of("probe_failed") if e["sandbox"] == 1]) == 1


@pytest.mark.parametrize("origin", list(Origin))
def test_three_failures_over_an_interval_are_a_death(origin: Origin) -> None:
    drive = Drive(make_plan(), dying(Cause.PROVIDER_ERROR, origin)).run()
    failed = drive.of("probe_failed")
    assert len(failed) == 3
    assert failed[-1]["at"] - failed[0]["at"] >= 5 * SECOND
    assert failed[1]["sent_us"] - failed[0]["at"] == 2_500_000
    assert drive.of("dead")[0]["origin"] == origin


def test_failures_that_come_quickly_wait_for_the_interval() -> None:
    plan = make_plan(probe_failures_max=1)
    drive = Drive(plan, dying(Cause.TIMEOUT)).run()
    failed = drive.of("probe_failed")
    assert len(failed) == 3
    assert failed[-1]["at"] - failed[0]["at"] >= 5 * SECOND


@pytest.mark.parametrize("cause", [Cause.RATE_LIMITED, Cause.QUOTA])
def test_a_throttled_probe_kills_nothing(cause: Cause) -> None:
    drive = Drive(make_plan(), dying(cause)).run()
    assert drive.of("dead") == []
    assert drive.of("probe_failed")
    assert drive.kinds(1)[-1] == "destroyed"


@pytest.mark.parametrize("cause", [Cause.RATE_LIMITED, Cause.QUOTA])
def test_a_throttled_probe_does_not_complete_a_death(cause: Cause) -> None:
    """One failure that counts, then only refusals: an interval later it still lives."""
    counted = []

    def reply(call: Call, now: int) -> Reply:
        late = now > START_US + 8 * SECOND
        if call.verb is Verb.PROBE and call.sandbox == 1 and late:
            counted.append(now)
            why = Cause.TIMEOUT if len(counted) == 1 else cause
            return 10_000, failure(why, Origin.PROVIDER)
        return obliging(call, now)

    drive = Drive(make_plan(probe_failures_max=1), reply).run()
    assert len(counted) > 2
    assert drive.of("dead") == []


def test_a_final_probe_is_tried_until_it_succeeds() -> None:
    seen = []

    def reply(call: Call, now: int) -> Reply:
        if call.final and call.sandbox == 0:
            seen.append(now)
            if len(seen) < 4:
                return 10_000, failure(Cause.NETWORK, Origin.NETWORK)
        return obliging(call, now)

    drive = Drive(make_plan(), reply).run()
    assert len(seen) == 4
    assert drive.of("dead") == []
    assert drive.shard.counts().destroyed == 4


@pytest.mark.parametrize(
    ("origin", "deaths"),
    [(Origin.PROVIDER, 1), (Origin.NETWORK, 1), (Origin.HARNESS, 0)],
)
def test_a_final_probe_that_never_succeeds(origin: Origin, deaths: int) -> None:
    def reply(call: Call, now: int) -> Reply:
        if call.final and call.sandbox == 0:
            return 10_000, failure(Cause.PROVIDER_ERROR, origin)
        return obliging(call, now)

    drive = Drive(make_plan(), reply).run()
    assert len(drive.of("dead")) == deaths
    t_destroy = drive.script.instants.t_destroy_us
    assert all(event["at"] < t_destroy for event in drive.of("dead"))
    assert all(event["at"] >= t_destroy for event in drive.of("destroy_sent"))


def test_a_probe_still_in_flight_delays_no_final_one() -> None:
    def reply(call: Call, now: int) -> Reply:
        slow = call.verb is Verb.PROBE and not call.final
        return (9 * SECOND, Answer(0, "")) if slow else obliging(call, now)

    drive = Drive(make_plan(), reply).run()
    finals = [event for event in drive.of("probe_ok") if event["final"]]
    t_end = drive.script.instants.t_end_us
    places = [event["sent_us"] - t_end for event in finals]
    assert places == [0, 1_250_000, 2_500_000, 3_750_000]


def test_the_witness_is_asked_with_each_probe() -> None:
    nonces: dict[int, str] = {}
    challenges = set()

    def reply(call: Call, now: int) -> Reply:
        if call.verb is Verb.WITNESS:
            nonces[call.sandbox] = call.secret
        if call.verb is Verb.PROBE:
            challenges.add(call.secret)
            right = hashlib.sha256((nonces[call.sandbox] + call.secret).encode())
            digest = right.hexdigest() if call.sandbox else "0" * 64
            return 10_000, Answer(0, "", 7, digest)
        return obliging(call, now)

    drive = Drive(make_plan(witness=True), reply, witness=True).run()
    probes = drive.of("probe_ok")
    assert len(drive.of("witness_started")) == 4
    assert len(challenges) == len(probes)
    assert {e["witness_ok"] for e in probes if e["sandbox"] == 0} == {False}
    assert {e["witness_ok"] for e in probes if e["sandbox"] != 0} == {True}
    assert {event["ticks"] for event in probes} == {7}


def test_a_witness_that_does_not_start_costs_no_sandbox() -> None:
    reply = on(Verb.WITNESS, (10_000, failure(Cause.COMMAND_FAILED)), sandbox=3)
    drive = Drive(make_plan(witness=True), reply, witness=True).run()
    assert drive.shard.counts().ready == 4
    assert {e["witness_ok"] for e in drive.of("probe_ok")} == {False}


def test_without_t_end_the_hold_deadline_tears_down() -> None:
    plan = make_plan()
    script = SiteScript(plan, deaf_from_us=START_US + 5 * SECOND)
    drive = Drive(plan, script=script).run()
    (teardown,) = drive.of("teardown")
    assert teardown["autonomous"] is True
    waits_s = plan.create_timeout_s + plan.ready_timeout_s + plan.hold_s + 60
    assert teardown["t_end_us"] == script.instants.t0_us + waits_s * SECOND
    assert drive.shard.finish is Finish.DONE
    assert drive.shard.counts().destroyed == 4


def test_before_release_silence_ends_it() -> None:
    plan = make_plan()
    drive = Drive(plan, script=SiteScript(plan, silent=True)).run()
    assert drive.shard.finish is Finish.ABORTED
    assert drive.now - START_US == 120 * SECOND
    assert drive.of("create_sent") == []


def test_told_to_leave_before_release_it_does() -> None:
    plan = make_plan()
    script = SiteScript(plan, leave_at_us=START_US, t0_ahead_us=0)
    drive = Drive(plan, script=script).run()
    assert drive.shard.finish is Finish.ABORTED
    assert drive.of("create_sent") == []


def test_told_to_leave_after_release_it_follows_the_instants() -> None:
    plan = make_plan(load=Load(shape=Shape.STAGGERED, stagger_us=SECOND))
    script = SiteScript(plan, leave_at_us=START_US + 3_500_000)
    drive = Drive(plan, script=script).run()
    assert drive.shard.finish is Finish.ABORTED
    assert 0 < len(drive.of("create_sent")) < 4
    assert len(drive.of("destroyed")) == len(drive.of("create_sent"))
    assert all(
        event["at"] >= script.instants.t_destroy_us
        for event in drive.of("destroy_sent")
    )


def test_a_fenced_shard_destroys_what_it_holds_at_once() -> None:
    plan = make_plan()
    script = SiteScript(plan, fence_at_us=START_US + 6 * SECOND)
    drive = Drive(plan, script=script).run()
    assert drive.shard.finish is Finish.FENCED
    assert len(drive.of("destroyed")) == 4
    assert drive.now < START_US + 7 * SECOND


def test_a_late_joiner_does_not_run() -> None:
    plan = make_plan()
    reply = on(Verb.WARM, (6 * SECOND, 4))
    script = SiteScript(plan)
    script.instants = script.instants.model_copy(
        update={"t0_us": START_US + 2 * SECOND}
    )
    drive = Drive(plan, reply, script=script).run()
    assert drive.shard.finish is Finish.ABORTED
    assert drive.of("create_sent") == []
    assert any("too late" in line for line in drive.lines)


def test_connections_are_warmed_again_shortly_before_t0() -> None:
    plan = make_plan()
    script = SiteScript(plan, t0_ahead_us=30 * SECOND)
    drive = Drive(plan, script=script).run()
    warmed = [at for at, call in drive.calls if call.verb is Verb.WARM]
    assert len(warmed) == 2
    assert 0 < script.instants.t0_us - warmed[1] <= 10 * SECOND


def test_told_to_terminate_it_counts_what_was_cut() -> None:
    reply = on(Verb.DESTROY, (10**12, None), sandbox=2)
    drive = Drive(make_plan(), reply, stop_at_us=START_US + 8 * SECOND).run()
    assert drive.now == START_US + 13 * SECOND
    assert drive.shard.finish is Finish.ABORTED
    assert drive.shard.cut_count == 1
    assert drive.of("orphaned")[0]["provider_id"] == "box-2"
    assert any("1 cut" in line for line in drive.lines)


def test_a_destroy_that_never_works_ends_as_an_orphan() -> None:
    reply = on(Verb.DESTROY, (5_000, failure(Cause.PROVIDER_ERROR)), sandbox=3)
    drive = Drive(make_plan(destroy_timeout_s=20), reply).run()
    tries = drive.of("destroy_failed")
    assert 4 < len(tries) < 20
    assert len([e for e in drive.of("destroy_sent") if e["sandbox"] == 3]) == len(tries)
    assert drive.of("agent_finished")[0]["orphans"] == 1


def test_the_ttl_outlasts_the_autonomous_teardown() -> None:
    drive = Drive(make_plan(), script=None).run()
    sent_us, create = next(
        (at, call) for at, call in drive.calls if call.verb is Verb.CREATE
    )
    plan = make_plan()
    longest_s = 120 + 90 + plan.hold_s + 60 + 5 + 3 * 10
    assert create.ttl_s >= longest_s + 60
    assert sent_us >= START_US


def test_a_rehearsal_fires_at_t0_and_creates_nothing() -> None:
    drive = Drive(make_plan(rehearsal=True)).run()
    assert drive.shard.finish is Finish.DONE
    assert drive.of("create_sent") == []
    (settled,) = drive.of("settled")
    t0_us = drive.script.instants.t0_us
    assert t0_us is not None
    assert 0 <= settled["at"] - t0_us < 1_000
