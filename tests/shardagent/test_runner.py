"""Whose fault a call is that was not answered in time."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from shardagent.calls import Call, Verb
from shardagent.clock import Clock
from shardagent.deadlines import timed_out
from shardagent.errors import Cause, Origin
from shardagent.runner import Runner, Turns


@pytest.mark.parametrize(
    ("late_us", "sent", "cause", "origin"),
    [
        (2_000, True, Cause.TIMEOUT, Origin.PROVIDER),
        (2_000, False, Cause.TIMEOUT, Origin.NETWORK),
        (1_000_001, True, Cause.HARNESS, Origin.HARNESS),
        (20_000_000, False, Cause.HARNESS, Origin.HARNESS),
    ],
    ids=["no-answer", "not-sent", "late", "stopped"],
)
def test_a_stalled_agent_blames_nobody_else(
    late_us: int, cause: Cause, origin: Origin, *, sent: bool
) -> None:
    error = timed_out(Call(Verb.PROBE, 10), late_us, sent=sent)
    assert (error.cause, error.origin) == (cause, origin)


class FakeRunner:
    """Notes when it is woken, and for what."""

    def __init__(self, number: int = 0, order: list[int] | None = None) -> None:
        self.number = number
        self.order = order
        self.woken: list[tuple[int, int]] = []

    def wake(self, now: int, slot_us: int) -> None:
        self.woken.append((now, slot_us))
        if self.order is not None:
            self.order.append(self.number)


async def test_the_grids_of_two_processes_need_not_coincide() -> None:
    clock = Clock()
    turns = Turns(clock, grid_us=5_000)
    turns.phase_us = 1_500
    base_us = clock.now_us() // 5_000 * 5_000 + 60_000_000
    dues = (base_us + 1, base_us + 1_500, base_us + 1_501, base_us - 3_500)
    slots = [turns.add(cast(Runner, FakeRunner()), due_us) for due_us in dues]
    assert slots == [base_us + 1_500, base_us + 1_500, base_us + 6_500, base_us - 3_500]


async def test_shards_are_woken_in_order_and_never_before_their_slot() -> None:
    clock = Clock()
    turns = Turns(clock, grid_us=5_000)
    late, early = FakeRunner(), FakeRunner()
    base_us = clock.now_us() // 5_000 * 5_000
    asked = [(late, base_us + 40_001), (early, base_us + 9_000), (late, base_us - 1)]
    slots = [turns.add(cast(Runner, one), due_us) for one, due_us in asked]
    assert slots == [base_us + 45_000, base_us + 10_000, base_us]
    async with asyncio.timeout(2):
        while len(late.woken) < 2:  # noqa: ASYNC110  they have no event
            await asyncio.sleep(0.005)
    assert [slot_us for _, slot_us in late.woken] == [base_us, base_us + 45_000]
    assert [slot_us for _, slot_us in early.woken] == [base_us + 10_000]
    assert all(now >= slot_us for now, slot_us in late.woken + early.woken)


async def test_who_sends_the_first_final_probes_is_woken_first() -> None:
    """T_end is the same for all, and to wake thousands of Shards takes a second."""
    clock = Clock()
    turns = Turns(clock, grid_us=5_000)
    order: list[int] = []
    due_us = clock.now_us() + 20_000
    for number in (7, 2, 9, 0, 4):
        turns.add(cast(Runner, FakeRunner(number, order)), due_us)
    async with asyncio.timeout(2):
        while len(order) < 5:  # noqa: ASYNC110  they have no event
            await asyncio.sleep(0.005)
    assert order == [0, 2, 4, 7, 9]
