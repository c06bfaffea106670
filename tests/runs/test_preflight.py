from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from runs import preflight
from runs.errors import StateError
from runs.models import PreflightTurn
from runs.plan import parse_plan
from shardagent import providers
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Answer, Created, Listed, Sent, Wanted
from shardagent.wire import Plan
from tests.shardagent.fake_provider import FakeProvider, World

KEY = "a-key-of-the-vendor"
INSIDE = "2\nmax 100000\n2048000 kB\n1073741824\n\n"


def plan(**changes: Any) -> Plan:
    asked = {"provider": "sim", "sandbox_count": 1, "ready_timeout_s": 1, **changes}
    return parse_plan(asked, sandbox_count_max=10)


async def life_of(provider: Any, **changes: Any) -> preflight._Life:
    life = preflight._Life(provider, plan(**changes), preflight.Scrubber([KEY]))
    await life.live()
    return life


class Inside(FakeProvider):
    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        answer = await super().execute(provider_id, command, sent, timeout_s)
        return Answer(0, INSIDE) if "nproc" in command[-1] else answer


async def test_a_whole_life_is_timed_and_leaves_nothing() -> None:
    world = World()
    life = await life_of(Inside(world))
    assert [*life.steps] == list(preflight.STEPS)
    assert all(step.ok for step in life.steps.values())
    assert all((step.ms or 0) >= 0 for step in life.steps.values())
    assert life.observed == {"cpus": 2, "memory_bytes": 1_073_741_824}
    assert all(box.destroyed_s is not None for box in world.boxes.values())


async def test_what_is_never_ready_is_said_and_destroyed() -> None:
    world = World(mute=frozenset({0}))
    life = await life_of(Inside(world))
    step = life.steps["ready"]
    assert (step.ok, step.cause) == (False, "command_failed")
    assert step.remedy is not None
    assert "readiness command" in step.remedy
    assert "observe" not in life.steps
    assert life.steps["destroy"].ok
    assert all(box.destroyed_s is not None for box in world.boxes.values())


class Refusing(Inside):
    async def list(self, labels: Mapping[str, str]) -> list[Listed]:
        text = f"key {KEY} is not valid"
        raise ProviderError(Cause.AUTH, Origin.PROVIDER, text, status=401)


async def test_a_wrong_key_ends_it_before_anything_is_made() -> None:
    world = World()
    life = await life_of(Refusing(world))
    step = life.steps["key"]
    assert (step.cause, step.detail) == (
        "auth",
        "status 401: key [removed] is not valid",
    )
    assert "Credentials" in (step.remedy or "")
    assert [*life.steps] == ["key"]
    assert world.boxes == {}


class Losing(Inside):
    """Makes the sandbox, and its answer is lost on the way."""

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        await super().create(wanted, sent)
        raise ProviderError(Cause.NETWORK, Origin.NETWORK, "reset")


async def test_a_sandbox_whose_create_was_lost_is_found_and_destroyed() -> None:
    world = World()
    life = await life_of(Losing(world))
    assert life.steps["create"].cause == "network"
    assert life.steps["destroy"].detail == "destroyed 1"
    assert all(box.destroyed_s is not None for box in world.boxes.values())


class Broken(Inside):
    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        raise KeyError("id")


async def test_a_bug_of_an_adapter_is_our_own_fault() -> None:
    life = await life_of(Broken(World()))
    assert life.steps["create"].cause == "harness"


def test_every_cause_has_a_remedy() -> None:
    assert set(preflight._REMEDIES) == set(Cause)


@pytest.mark.django_db
def test_one_at_a_time_an_operator_and_a_dead_turn_ends() -> None:
    anna = User.objects.create(username="anna")
    soon = timezone.now() + timedelta(seconds=60)
    PreflightTurn.objects.create(operator=anna, until=soon)
    with pytest.raises(StateError, match="under way"):
        preflight.for_operator(anna, plan(provider="local"), None)
    PreflightTurn.objects.update(until=timezone.now() - timedelta(seconds=1))
    if "local" in providers.known():
        found = preflight.for_operator(anna, plan(provider="local"), None)
        assert found.provider == "local"
    assert not PreflightTurn.objects.exists()
