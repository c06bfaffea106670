"""Which process speaks for a host; two must never create the same Sandboxes."""

from __future__ import annotations

from typing import Any

import pytest

from runs import hosts, lifecycle
from runs.models import Attempt, Host, Run, State
from tests.runs.factories import make_host, make_run_in

pytestmark = pytest.mark.django_db
SECOND_US = 1_000_000


def admit(run: Run, process: str) -> bool:
    run.refresh_from_db()
    host = Host.objects.get(run=run)
    return hosts.admit(run, host, {"process": process}, lifecycle.plan_of(run))


def heard(run: Run, ago_s: float, **fields: Any) -> None:
    now = lifecycle.now_us(run)
    at = now - round(ago_s * SECOND_US)
    Host.objects.filter(run=run).update(registered_at_us=at)
    Attempt.objects.filter(run=run).update(heard_at_us=at)
    Run.objects.filter(pk=run.pk).update(**fields)


@pytest.fixture
def run() -> Run:
    run = make_run_in(State.ARMING)
    make_host(run, 0, 1)
    return run


def test_the_first_process_is_admitted_and_may_ask_again(run: Run) -> None:
    assert admit(run, "a")
    assert admit(run, "a")


def test_a_second_process_waits_while_the_first_is_heard(run: Run) -> None:
    assert admit(run, "a")
    heard(run, ago_s=1)
    assert not admit(run, "b")


def test_an_agent_that_was_started_anew_takes_over_a_silent_one(run: Run) -> None:
    assert admit(run, "a")
    heard(run, ago_s=10)
    assert admit(run, "b")
    assert Host.objects.get(run=run).facts["process"] == "b"


@pytest.mark.parametrize(
    ("since_t0_s", "admitted"), [(-2, False), (1, False), (3, True)]
)
def test_after_release_it_comes_in_only_when_it_cannot_create(
    run: Run, since_t0_s: int, *, admitted: bool
) -> None:
    assert admit(run, "a")
    heard(run, ago_s=10, t0_us=lifecycle.now_us(run) - since_t0_s * SECOND_US)
    assert admit(run, "b") is admitted


def test_silence_while_the_site_was_away_is_nobodys_fault(run: Run) -> None:
    assert admit(run, "a")
    heard(run, ago_s=60, listening_since_us=lifecycle.now_us(run) - SECOND_US)
    assert not admit(run, "b")


def test_of_two_at_once_one_is_admitted(run: Run) -> None:
    first, second = Host.objects.get(run=run), Host.objects.get(run=run)
    plan = lifecycle.plan_of(run)
    assert hosts.admit(run, first, {"process": "a"}, plan)
    assert not hosts.admit(run, second, {"process": "b"}, plan)
