from __future__ import annotations

import orjson
import pytest

from runs import lifecycle
from runs.errors import StateError
from runs.models import EndReason, Run, State
from tests.runs.factories import make_arming_run, make_run

pytestmark = pytest.mark.django_db


def journal(run: Run) -> list[dict[str, object]]:
    return [
        orjson.loads(line)
        for entry in run.journal.order_by("seq")
        for line in entry.body.splitlines()
    ]


def test_a_change_is_journalled_with_its_transition() -> None:
    run = make_arming_run()
    assert lifecycle.release(run, 123, "all are armed")
    assert run.state == State.BURSTING
    assert run.t0_us == 123
    last = run.transitions.last()
    assert last is not None
    assert (last.from_state, last.to_state) == ("arming", "bursting")
    kinds = [line["kind"] for line in journal(run)]
    assert kinds[-2:] == ["released", "state"]
    assert list(run.journal.values_list("seq", flat=True)) == list(
        range(run.journal.count())
    )


def test_who_comes_second_changes_nothing() -> None:
    run = make_arming_run()
    twin = Run.objects.get(pk=run.pk)
    assert lifecycle.release(run, 123, "first")
    entries = run.journal.count()
    assert not lifecycle.release(twin, 456, "second")
    assert twin.t0_us == 123
    assert run.journal.count() == entries


def test_a_state_cannot_be_skipped() -> None:
    run = make_run()
    assert not lifecycle.release(run, 1, "no")
    assert not lifecycle.hold(run, 1, "no")
    assert not lifecycle.seal(run, {}, 1)
    run.refresh_from_db()
    assert run.state == State.DRAFT


def test_one_run_per_credential_lives_and_the_first_queued_goes_first() -> None:
    first, second, third = make_run(), make_run(), make_run(provider="local")
    for run in (first, second, third):
        lifecycle.queue(run, "a test")
    assert not lifecycle.begin_provisioning(second)
    assert lifecycle.begin_provisioning(first)
    assert not lifecycle.begin_provisioning(second)
    assert lifecycle.begin_provisioning(third)  # another credential
    lifecycle.stop_early(first, EndReason.ABORTED, "a test")
    assert not lifecycle.begin_provisioning(second)  # it is collected first
    Run.objects.filter(pk=first.pk).update(state=State.SEALED)
    assert lifecycle.begin_provisioning(second)


@pytest.mark.parametrize(
    ("state", "then"),
    [
        (State.DRAFT, State.COLLECTING),
        (State.QUEUED, State.COLLECTING),
        (State.PROVISIONING, State.COLLECTING),
        (State.ARMING, State.COLLECTING),
        (State.BURSTING, State.TEARING_DOWN),
        (State.HOLDING, State.TEARING_DOWN),
        (State.TEARING_DOWN, State.TEARING_DOWN),
        (State.COLLECTING, State.COLLECTING),
    ],
)
def test_a_run_can_be_stopped_in_every_state(state: State, then: State) -> None:
    run = make_arming_run()
    Run.objects.filter(pk=run.pk).update(state=state, t0_us=1)
    run.refresh_from_db()
    lifecycle.stop_early(run, EndReason.ABORTED, "a test")
    assert run.state == then
    if state != then:
        assert run.end_reason == "aborted"
        assert run.leave
    if then == State.TEARING_DOWN and state != then:
        assert run.t_end_us is not None
        assert run.t_destroy_us is not None
        assert run.t_destroy_us > run.t_end_us > lifecycle.now_us(run)


def test_a_sealed_run_cannot_be_stopped() -> None:
    run = make_run()
    Run.objects.filter(pk=run.pk).update(state=State.SEALED)
    run.refresh_from_db()
    with pytest.raises(StateError, match="sealed"):
        lifecycle.stop_early(run, EndReason.ABORTED, "a test")


def test_destroy_comes_after_every_final_probe_can_have_failed() -> None:
    run = make_arming_run(
        final_spread_s=4, probe_failures_max=2, probe_timeout_s=3, hold_s=1
    )
    lifecycle.release(run, 1_000, "all are armed")
    lifecycle.hold(run, 2_000, "settled")
    lifecycle.tear_down(run, 3_000, "held")
    assert run.t_destroy_us == 3_000 + 10_000_000


def test_the_clock_survives_being_read_back() -> None:
    run = make_arming_run()
    clock = lifecycle.clock_of(run)
    again = lifecycle.clock_of(Run.objects.get(pk=run.pk))
    assert again.clock_id == clock.clock_id == run.clock_id
    assert abs(again.now_us() - clock.now_us()) < 1_000_000
