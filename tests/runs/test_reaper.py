from __future__ import annotations

from collections.abc import Mapping

import pytest

from runs import lifecycle, reaper
from runs.errors import StateError
from runs.models import Attempt, State
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Listed, Sent, Wanted
from shardagent.wire import Finish
from tests.runs.factories import make_host, make_run_in
from tests.shardagent.fake_provider import FakeProvider, World

LABELS = {"run": "alpha-1"}


async def made(world: World, count: int, run: str = "alpha-1") -> FakeProvider:
    provider = FakeProvider(world)
    for sandbox in range(len(world.boxes), len(world.boxes) + count):
        labels = {"run": run, "sandbox": str(sandbox)}
        await provider.create(Wanted(sandbox, labels, ttl_s=60), lambda: None)
    return provider


def living(world: World) -> int:
    return sum(box.destroyed_s is None for box in world.boxes.values())


async def test_what_is_listed_is_destroyed_and_nothing_of_others() -> None:
    world = World()
    await made(world, 2, run="beta-1")
    provider = await made(world, 5)
    found = await reaper.sweep(provider, LABELS, destroy=True, pause_s=0)
    assert (found.listed, found.destroyed, found.left) == (5, 5, 0)
    assert living(world) == 2


async def test_a_dry_run_only_lists() -> None:
    world = World()
    provider = await made(world, 3)
    found = await reaper.sweep(provider, LABELS, destroy=False, pause_s=0)
    assert (found.listed, found.destroyed, found.left) == (3, 0, 3)
    assert living(world) == 3


async def test_it_ends_where_a_sandbox_cannot_be_destroyed() -> None:
    world = World(sticky=frozenset({1}))
    provider = await made(world, 3)
    found = await reaper.sweep(
        provider, LABELS, destroy=True, limit_s=0.1, pause_s=0.01
    )
    assert (found.listed, found.destroyed, found.left) == (3, 2, 1)


class LateProvider(FakeProvider):
    """A create whose answer nobody waited for brings its sandbox after a listing."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.listings = 0

    async def list(self, labels: Mapping[str, str]) -> list[Listed]:
        found = await super().list(labels)
        self.listings += 1
        if self.listings == 1:
            await made(self._world, 1)
        return found


async def test_one_empty_listing_is_not_enough() -> None:
    world = World()
    provider = LateProvider(world)
    found = await reaper.sweep(provider, LABELS, destroy=True, pause_s=0)
    assert (found.listed, found.destroyed, found.left) == (1, 1, 0)
    assert provider.listings == 4


@pytest.mark.django_db
def test_an_engine_that_was_never_asked_for_a_machine_holds_up_nothing() -> None:
    run = make_run_in(State.COLLECTING, plan={"fleet": {"driver": "ec2"}})
    assert reaper.machines(run) == 0  # it is not set up: FLEETS_FILE
    run.fleet = {"asked_at_us": 1}  # it was, when the Run was launched
    assert reaper.machines(run) == 1


class DeafProvider(FakeProvider):
    async def list(self, labels: Mapping[str, str]) -> list[Listed]:
        raise ProviderError(Cause.NETWORK, Origin.NETWORK, "unreachable")

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        raise AssertionError("nothing was listed")


async def test_a_provider_that_does_not_answer_is_said_to_be_unknown() -> None:
    provider = DeafProvider(World())
    found = await reaper.sweep(
        provider, LABELS, destroy=True, limit_s=0.05, pause_s=0.01
    )
    assert found.left is None
    assert found.error == "network: unreachable"


@pytest.mark.django_db
@pytest.mark.parametrize("state", [State.ARMING, State.HOLDING, State.TEARING_DOWN])
def test_a_run_that_lives_is_not_reaped(state: State) -> None:
    with pytest.raises(StateError, match="abort it first"):
        reaper.look(make_run_in(state), destroy=True)


@pytest.mark.django_db
def test_creates_of_a_lost_agent_are_waited_for() -> None:
    run = make_run_in(State.COLLECTING)
    now = lifecycle.now_us(run)
    make_host(run, 0, 1, 2)
    run.t0_us = now
    plan = lifecycle.plan_of(run)
    done = {"finished": Finish.DONE, "heard_at_us": now}
    Attempt.objects.filter(run=run).update(**done)
    assert reaper.settled_us(run, plan) == 0
    Attempt.objects.filter(run=run, shard=1).update(finished="")
    late_us = round((plan.create_timeout_s + reaper.LATE_CREATE_S) * 1e6)
    assert reaper.settled_us(run, plan) == now + late_us


@pytest.mark.django_db
def test_the_result_is_kept_and_journalled_once() -> None:
    run = make_run_in(State.COLLECTING)
    figures = {"listed": 2, "destroyed": 2, "left": 0}
    assert lifecycle.reaped(run, figures)
    assert not lifecycle.reaped(run, figures)
    assert run.reaped == figures
    assert run.journal.filter(body__contains='"kind":"reaped"').count() == 1
