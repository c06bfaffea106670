from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from runs import credentials
from runs.errors import CredentialError, PlanError
from runs.launch import create_run
from runs.models import Credential, State
from runs.plan import parse_plan
from shardagent.wire import Plan

KEY = "e2b_0123456789abcdef"
pytestmark = pytest.mark.django_db


@pytest.fixture
def anna() -> User:
    return User.objects.create(username="anna")


def plan(**changes: Any) -> Plan:
    asked = {"provider": "e2b", "sandbox_count": 3, **changes}
    return parse_plan(asked, sandbox_count_max=100)


def test_what_is_stored_is_sealed_and_comes_back(anna: User) -> None:
    made = credentials.add(anna, "e2b", "work", {"api_key": f" {KEY}\n"})
    stored = Credential.objects.values().get()
    assert KEY not in str(stored)
    assert credentials.config_of(made, plan()) == {"api_key": KEY}
    assert KEY not in str(made)


def test_the_same_values_are_never_sealed_the_same() -> None:
    assert credentials.seal({"a": "b"}) != credentials.seal({"a": "b"})


def test_another_key_cannot_open_it_and_a_second_one_can(
    anna: User, settings: Any
) -> None:
    settings.CREDENTIALS_KEY = "the first"
    made = credentials.add(anna, "e2b", "work", {"api_key": KEY})
    settings.CREDENTIALS_KEY = "another"
    with pytest.raises(CredentialError, match="enter it again") as refused:
        credentials.config_of(made, plan())
    assert KEY not in str(refused.value)
    settings.CREDENTIALS_KEY = "another, the first"
    assert credentials.config_of(made, plan())["api_key"] == KEY


def test_a_missing_value_is_named(anna: User) -> None:
    with pytest.raises(PlanError) as refused:
        credentials.add(anna, "vercel", "work", {"api_key": KEY})
    assert set(refused.value.messages) == {"team_id", "project_id"}
    with pytest.raises(PlanError, match="needs no credential"):
        credentials.add(anna, "sim", "work", {})


def test_the_only_one_is_chosen_and_of_two_one_must_be_named(anna: User) -> None:
    with pytest.raises(PlanError, match="add one"):
        credentials.choose(anna, plan())
    first = credentials.add(anna, "e2b", "one", {"api_key": KEY})
    assert credentials.choose(anna, plan()) == first
    second = credentials.add(anna, "e2b", "two", {"api_key": KEY})
    with pytest.raises(PlanError, match="choose one"):
        credentials.choose(anna, plan())
    assert credentials.choose(anna, plan(), second.pk) == second
    assert credentials.choose(anna, plan(), str(first.pk)) == first


def test_nobody_uses_anothers(anna: User) -> None:
    made = credentials.add(anna, "e2b", "hers", {"api_key": KEY})
    bert = User.objects.create(username="bert")
    for wanted in (made.pk, None, "x", -1):
        with pytest.raises(PlanError):
            credentials.choose(bert, plan(), wanted)


@pytest.mark.parametrize(
    "asked",
    [
        {"provider": "sim"},
        {"provider": "local"},
        {"provider": "e2b", "endpoint": "simcloud"},
    ],
)
def test_some_plans_need_none(anna: User, asked: dict[str, Any]) -> None:
    assert credentials.choose(anna, plan(**asked)) is None


def test_the_plan_knows_the_endpoint_and_nothing_of_the_account(anna: User) -> None:
    made = credentials.add(
        anna, "e2b", "elsewhere", {"api_key": KEY}, "http://127.0.0.1:9/"
    )
    run = create_run(plan(), anna, made)
    assert run.plan["endpoint"] == "http://127.0.0.1:9/"
    assert run.simulated
    assert run.credential == made
    assert KEY not in str(run.plan)
    assert "credential" not in run.plan
    assert run.lane == f"e2b:{made.pk}"
    assert credentials.in_use(made)
    run.state = State.SEALED
    run.save(update_fields=["state"])
    assert not credentials.in_use(made)
