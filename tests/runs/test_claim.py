"""Which host a machine carries: claimed from the site, by any machine, once."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from runs import hosts, lifecycle
from runs.errors import StateError
from runs.models import Host, Run, State
from tests.runs.factories import make_arming_run, make_host, make_run_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def run() -> Run:
    run = make_run_in(State.ARMING)
    for shard in range(3):
        make_host(run, shard)
    return run


def claimed(run: Run, machine: str, index: int | None = None) -> int | None:
    host = hosts.claim(run, machine, index)
    return None if host is None else host.index


def test_any_machine_can_take_any_host_and_each_is_taken_once(run: Run) -> None:
    assert [claimed(run, f"vm-{n}") for n in "abc"] == [0, 1, 2]


def test_the_same_machine_is_given_the_same_host_again(run: Run) -> None:
    assert claimed(run, "vm-a") == claimed(run, "vm-a") == 0
    assert Host.objects.exclude(machine="").count() == 1


def test_an_index_that_starts_twice_gets_two_hosts_not_one(run: Run) -> None:
    assert claimed(run, "pod-1-first", 1) == 1
    assert claimed(run, "pod-1-second", 1) == 0


def test_a_spare_waits_until_a_host_is_lost(run: Run) -> None:
    for name in "abc":
        claimed(run, f"vm-{name}")
    assert claimed(run, "spare") is None
    assert hosts.replace(run, list(run.attempts.filter(shard=1))) == 1
    assert claimed(run, "spare") == 3
    lease = run.attempts.get(host__index=3)
    assert (lease.shard, lease.number) == (1, 1)
    with pytest.raises(StateError, match="given up"):
        claimed(run, "vm-b")


@pytest.mark.parametrize("state", [State.BURSTING, State.COLLECTING, State.SEALED])
def test_after_release_only_a_machine_that_carries_one_is_let_in(state: State) -> None:
    run = make_run_in(state)
    make_host(run, 0)
    make_host(run, 1)
    run.hosts.filter(index=0).update(machine="vm-a")
    assert claimed(run, "vm-a") == 0
    with pytest.raises(StateError, match="leave"):
        claimed(run, "vm-b")


def ask(client: Client, run: Run, token: str, **changes: Any) -> Any:
    return client.post(
        "/agent/v1/claim",
        {"run": run.code, "machine": "vm-x", **changes},
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}"},
    )


def test_a_claim_is_answered_with_the_hosts_own_token(client: Client) -> None:
    run = make_arming_run()
    run.hosts.filter(index=1).update(machine="")
    token = hosts.fleet_token_of(run.code)
    answer = ask(client, run, token, index=1)
    assert answer.json() == {"host": 1, "token": hosts.token_of(run.code, 1)}
    assert ask(client, run, token, machine="spare").status_code == 425
    assert ask(client, run, hosts.token_of(run.code, 1)).status_code == 401
    lifecycle.release(run, lifecycle.now_us(run), "all are armed")
    assert ask(client, run, token, machine="late").status_code == 409


def test_the_runs_token_speaks_for_no_host(client: Client) -> None:
    run = make_arming_run()
    body = {"run": run.code, "host": 0}
    answer = client.post(
        "/agent/v1/register",
        body,
        content_type="application/json",
        headers={"Authorization": f"Bearer {hosts.fleet_token_of(run.code)}"},
    )
    assert answer.status_code == 401
