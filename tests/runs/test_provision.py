"""How many machines are wanted, how many came, and what is done about the rest."""

from __future__ import annotations

from typing import Any

import pytest

from runs import hosts, lifecycle, provision
from runs.errors import FleetError
from runs.fleets import Machine, MachineState
from runs.models import Run, State
from tests.runs.factories import make_run
from tests.runs.fleets.fake_fleet import FakeFleet

pytestmark = pytest.mark.django_db


def made(**plan: Any) -> Run:
    run = make_run(provider="local", ready_expect="", **plan)
    assert lifecycle.queue(run, "a test")
    assert lifecycle.begin_provisioning(run)
    hosts.assign(run, lifecycle.plan_of(run))
    return run


def look(run: Run, fleet: FakeFleet) -> Run:
    """One look, the object store left out."""
    plan = lifecycle.plan_of(run)
    order = provision.order_of(run, plan)
    if order.written_off:
        fleet.kill(run.code, order.written_off)
    granted = provision._note(run, fleet, order, fleet.launch(order))
    if run.state == State.PROVISIONING:
        provision._arm_or_fail(run, plan, granted)
    run.refresh_from_db()
    return run


def waited(run: Run, seconds: float) -> None:
    at = lifecycle.now_us(run) - round(seconds * 1e6)
    Run.objects.filter(pk=run.pk).update(state_at_us=at)
    run.refresh_from_db()


def test_a_machine_a_host_and_spares_besides_are_asked_for_once() -> None:
    run = made(fleet={"driver": "local", "over_provision_pct": 50})
    carried = run.hosts.count()
    fleet = FakeFleet()
    look(run, fleet)
    assert run.state == State.ARMING
    assert len(fleet.machines) == carried + (carried + 1) // 2
    look(run, fleet)
    assert len(fleet.machines) == carried + (carried + 1) // 2
    assert run.fleet["granted"] == run.fleet["asked"] == len(fleet.machines)
    assert run.fleet["kinds"] == {"t3.small": len(fleet.machines)}
    assert run.fleet["usd_per_h"] == pytest.approx(0.02 * len(fleet.machines))


def test_what_is_short_is_asked_for_again_until_the_quorum_has_to_do() -> None:
    run = made(sandbox_count=1_000, fleet={"driver": "local", "shards_per_host": 1})
    fleet = FakeFleet(capacity=98)
    look(run, fleet)
    assert run.state == State.PROVISIONING
    assert run.fleet["reasons"] == {"no capacity": 2}
    waited(run, 301)
    look(run, fleet)
    assert run.state == State.ARMING
    why = run.transitions.get(to_state=State.ARMING).why
    assert why == "98 of 100 machines came within 300 s: 2 × no capacity"
    assert run.journal.filter(body__contains='"kind":"provisioned"').exists()


def test_machines_that_wait_or_end_say_why() -> None:
    run = made()
    fleet = FakeFleet(capacity=0)
    for name, state, why in (
        ("a", MachineState.WAITING, "0/5 nodes are available"),
        ("b", MachineState.ENDING, "Server.SpotInstanceTermination"),
        ("c", MachineState.STARTING, "of no interest"),
    ):
        fleet.machines[name] = Machine(name, state, why=why)
    look(run, fleet)
    assert run.fleet["granted"] == 1
    assert run.fleet["reasons"] == {
        "no capacity": 1,
        "0/5 nodes are available": 1,
        "Server.SpotInstanceTermination": 1,
    }


def test_below_the_quorum_the_run_fails_and_says_why() -> None:
    run = made(sandbox_count=1_000, fleet={"driver": "local", "shards_per_host": 1})
    fleet = FakeFleet(capacity=97)
    look(run, fleet)
    waited(run, 301)
    look(run, fleet)
    assert run.state == State.COLLECTING
    assert run.end_detail.startswith("only 97 of 100 machines came within 300 s")


def test_a_machine_that_was_given_up_is_ended_and_replaced() -> None:
    run = made()
    fleet = FakeFleet()
    look(run, fleet)
    for host in run.hosts.all():
        assert hosts.claim(run, f"m{host.index}", None)
    hosts.replace(run, list(run.attempts.filter(shard=1)))
    look(run, fleet)
    assert fleet.killed == ["m1"]
    assert fleet.orders[-1].written_off == {"m1"}
    assert run.fleet["granted"] == 3
    assert run.fleet["started"] == 4
    assert run.fleet["reasons"] == {provision.GONE: 1}


@pytest.mark.parametrize(
    ("retryable", "state"), [(True, "provisioning"), (False, "collecting")]
)
def test_an_engine_that_refuses_ends_the_run_one_that_is_away_is_asked_again(
    retryable: bool, state: str
) -> None:
    run = made()
    provision._failed(run, FleetError("vCPU quota of 5 reached", retryable=retryable))
    run.refresh_from_db()
    assert run.state == state
    assert run.fleet["reasons"] == {"vCPU quota of 5 reached": 1}
    assert ("vCPU quota" in run.end_detail) is not retryable


def test_what_carries_each_attempt_is_told_to_the_journal() -> None:
    run = made()
    host = run.hosts.get(index=1)
    facts = {"machine": {"id": "i-1", "type": "t3.small", "zone": ""}, "egress": "x"}
    run.hosts.filter(pk=host.pk).update(facts=facts)
    (line,) = provision.machine_lines(run)
    assert line["attempts"] == [[1, 0]]
    assert (line["id"], line["type"], line["egress"]) == ("i-1", "t3.small", "x")
    assert "zone" not in line


def test_a_machine_that_is_gone_is_replaced_before_it_is_silent() -> None:
    run = made()
    fleet = FakeFleet()
    look(run, fleet)
    for host in run.hosts.all():
        assert hosts.claim(run, f"m{host.index}", None)
    fleet.kill(run.code, {"m2"})
    provision._replace_gone(run, fleet.list(run.code))
    assert list(run.attempts.filter(shard=2).values_list("number", flat=True)) == [0, 1]
    fleet.kill(run.code, {"m1"})
    away = [*fleet.list(run.code), Machine("h.?", MachineState.UNREACHABLE)]
    provision._replace_gone(run, away)
    assert run.attempts.filter(shard=1).count() == 1


def test_nothing_is_replaced_once_the_run_is_released() -> None:
    run = made()
    look(run, FakeFleet())
    lost = list(run.attempts.all())
    lifecycle.release(run, lifecycle.now_us(run), "all are armed")
    assert hosts.replace(run, lost) == 0
    assert run.attempts.count() == 3
