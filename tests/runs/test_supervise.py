"""One tick at a time, with the object store, world and fleet left out."""

from __future__ import annotations

import pytest

from runs import claims, lifecycle, supervise
from runs.models import Attempt, Run, State
from shardagent.wire import Finish, ShardPhase
from tests.runs.factories import make_arming_run, make_run_in, phases

pytestmark = pytest.mark.django_db


def step(run: Run) -> None:
    """The decision of one tick, without journal uploads."""
    supervise._STEPS[State(run.state)](run)
    run.refresh_from_db()


def test_the_barrier_holds_while_a_shard_is_missing() -> None:
    run = make_arming_run(provider="local")  # it is asked for leftovers
    phases(run, ShardPhase.ARMED)
    Attempt.objects.filter(run=run, shard=2).update(phase=ShardPhase.STARTING)
    step(run)
    assert run.state == State.ARMING
    phases(run, ShardPhase.ARMED)
    step(run)
    assert run.state == State.BURSTING
    assert run.t0_us is not None
    assert run.t0_us - lifecycle.now_us(run) > 2_500_000


def test_a_run_whose_machines_nobody_can_look_at_does_not_wait_for_ever() -> None:
    run = make_run_in(State.PROVISIONING)
    step(run)
    assert run.state == State.PROVISIONING
    limit_us = (600 + 150) * 1_000_000
    at_us = lifecycle.now_us(run) - limit_us - 1
    Run.objects.filter(pk=run.pk).update(state_at_us=at_us)
    run.refresh_from_db()
    step(run)
    assert (run.state, run.end_reason) == (State.COLLECTING, "failed")
    assert run.end_detail == "no look at its machines came to an end in 750 s"


def test_the_run_is_abandoned_below_quorum_at_the_deadline() -> None:
    run = make_arming_run()
    phases(run, ShardPhase.STARTING)
    Run.objects.filter(pk=run.pk).update(state_at_us=1)
    run.refresh_from_db()
    step(run)
    assert run.state == State.COLLECTING
    assert run.end_reason == "failed"
    assert "quorum" in run.end_detail


def bursting() -> Run:
    run = make_arming_run(hold_s=30, heartbeat_interval_s=2)
    lifecycle.release(run, lifecycle.now_us(run) - 1_000_000, "all are armed")
    return run


def test_the_hold_begins_when_every_shard_has_settled() -> None:
    run = bursting()
    phases(run, ShardPhase.SETTLED)
    Attempt.objects.filter(run=run, shard=1).update(phase=ShardPhase.BURSTING)
    step(run)
    assert run.state == State.BURSTING
    phases(run, ShardPhase.SETTLED)
    step(run)
    assert run.state == State.HOLDING
    assert run.t_hold_us is not None
    assert run.t_hold_us > lifecycle.now_us(run) + 5_000_000


def test_the_hold_begins_at_the_burst_deadline_at_the_latest() -> None:
    run = bursting()
    phases(run, ShardPhase.BURSTING)
    Run.objects.filter(pk=run.pk).update(
        t0_us=lifecycle.now_us(run) - 211 * 1_000_000  # 120 s create + 90 s ready
    )
    run.refresh_from_db()
    step(run)
    assert run.state == State.HOLDING


def test_a_late_shard_does_not_delay_the_hold() -> None:
    run = bursting()
    phases(run, ShardPhase.SETTLED)
    Attempt.objects.filter(run=run, shard=1).update(
        phase=ShardPhase.STARTING, finished=Finish.ABORTED
    )
    step(run)
    assert run.state == State.HOLDING


def test_the_end_is_set_three_heartbeats_ahead_and_never_early() -> None:
    run = bursting()
    phases(run, ShardPhase.HOLDING)
    t_hold = lifecycle.now_us(run) - 10_000_000
    lifecycle.hold(run, t_hold, "settled")
    step(run)
    assert run.state == State.HOLDING
    Run.objects.filter(pk=run.pk).update(t_hold_us=t_hold - 18_000_000)
    run.refresh_from_db()
    step(run)
    assert run.state == State.TEARING_DOWN
    assert run.t_hold_us is not None
    assert run.t_end_us is not None
    assert run.t_end_us >= run.t_hold_us + 30_000_000
    assert run.t_end_us >= lifecycle.now_us(run) + 5_000_000


def test_a_run_without_agents_is_torn_down_as_failed() -> None:
    run = bursting()
    long_ago = lifecycle.now_us(run) - 200_000_000
    phases(run, ShardPhase.BURSTING, heard_at_us=long_ago)
    run.hosts.update(launched_at_us=long_ago, claimed_at_us=long_ago)
    Run.objects.filter(pk=run.pk).update(listening_since_us=long_ago)
    run.refresh_from_db()
    step(run)
    assert run.state == State.TEARING_DOWN
    assert run.end_reason == "failed"
    assert run.attempts.filter(lost_at_us__isnull=False).count() == 3


def test_silence_while_the_site_was_away_loses_nobody() -> None:
    run = bursting()
    long_ago = lifecycle.now_us(run) - 200_000_000
    phases(run, ShardPhase.BURSTING, heard_at_us=long_ago)
    supervise.listen_again()
    run.refresh_from_db()
    step(run)
    assert run.attempts.filter(lost_at_us__isnull=False).count() == 0


def test_a_tick_that_another_worker_is_at_is_left_alone() -> None:
    run = bursting()
    assert claims.take(run.pk, "tick", 60)
    assert not claims.take(run.pk, "tick", 60)
    before = Run.objects.get(pk=run.pk).state
    supervise.tick(run.pk)
    assert Run.objects.get(pk=run.pk).state == before


@pytest.mark.parametrize(
    ("age_s", "state"), [(5, State.ARMING), (61, State.COLLECTING)]
)
def test_a_run_that_spent_its_time_is_aborted_in_good_order(
    age_s: int, state: State
) -> None:
    run = make_arming_run(max_duration_s=60)
    began = lifecycle.now_us(run) - age_s * 1_000_000
    run.transitions.filter(to_state=State.PROVISIONING).update(at_us=began)
    supervise.tick(run.pk)
    run.refresh_from_db()
    assert run.state == state
    over = state == State.COLLECTING
    assert run.end_detail == ("budget: max_duration_s 60 s reached" if over else "")


def test_whoever_died_armed_does_not_open_the_barrier() -> None:
    run = make_arming_run()
    phases(run, ShardPhase.ARMED)
    silent_us = lifecycle.now_us(run) - 4_000_000
    run.attempts.filter(shard=1).update(heard_at_us=silent_us)
    supervise.tick(run.pk)
    run.refresh_from_db()
    assert run.state == State.ARMING
