from __future__ import annotations

import pytest

from runs.simworld.config import RunClock
from runs.simworld.fates import Draws, uniform
from runs.simworld.timers import DUE_PER_TURN_MAX, Clock, Timers

PINNED = 0.8037846960101899


@pytest.fixture
def timers() -> Timers:
    return Timers(Clock(RunClock(base_wall_us=1_000_000, base_mono_raw_ns=0)))


async def test_calls_run_by_when_they_are_due_then_in_order(timers: Timers) -> None:
    ran: list[str] = []
    for due_us, name in ((7, "c"), (5, "a"), (7, "d"), (5, "b")):
        timers.at(due_us, ran.append, name)
    timers.at(7, timers.at, 7, ran.append, "added meanwhile")
    timers.at(2**62, ran.append, "never")
    timers.run_due()
    assert ran == ["a", "b", "c", "d", "added meanwhile"]
    timers.close()


async def test_a_turn_has_a_limit_and_the_rest_follows(timers: Timers) -> None:
    ran: list[int] = []
    for place in range(DUE_PER_TURN_MAX + 3):
        timers.at(5, ran.append, place)
    timers.run_due()
    assert ran == list(range(DUE_PER_TURN_MAX))
    timers.run_due()
    assert ran == list(range(DUE_PER_TURN_MAX + 3))
    timers.close()


def test_draws_stay_what_they_were() -> None:
    """A seed is a promise: the same Run meets the same fates in later versions."""
    assert uniform(7, 17, 5) == PINNED
    assert Draws(7, 5).of(17) == PINNED
