"""An engine is asked at its own pace, by one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from runs.fleets import Machine, MachineState, looks
from tests.runs.fleets.fake_fleet import FakeFleet


class CountingFleet(FakeFleet):
    """Counts what it is asked; a listing waits until it may be answered."""

    def __init__(self) -> None:
        super().__init__()
        self.listings = self.kills = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def list(self, run: str) -> list[Machine]:
        self.listings += 1
        assert self.may_answer.wait(10)
        return super().list(run)

    def kill(self, run: str, ids: object = None, *, hard: bool = False) -> int:
        self.kills += 1
        return len(self.machines)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingFleet]:
    found = CountingFleet()
    found.look_interval_s = 60
    monkeypatch.setattr(looks, "fleet_for", lambda _: found)
    yield found
    looks._looks.clear()


def living() -> set[str]:
    return {machine.id for machine in looks.living("fake", "r")}


def test_a_listing_is_remembered_at_the_drivers_pace(fleet: CountingFleet) -> None:
    fleet.machines["m"] = Machine("m", MachineState.RUNNING)
    fleet.machines["u"] = Machine("u", MachineState.UNREACHABLE)
    assert living() == {"m"}
    fleet.machines.clear()
    assert living() == {"m"}
    assert fleet.listings == 1


def test_nothing_is_remembered_of_a_driver_that_asks_nobody(
    fleet: CountingFleet,
) -> None:
    fleet.look_interval_s = 0
    assert living() == set()
    fleet.machines["m"] = Machine("m", MachineState.RUNNING)
    assert (living(), living()) == ({"m"}, {"m"})
    assert fleet.listings == 3


def test_no_more_is_remembered_than_there_is_room_for(
    fleet: CountingFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "LOOKS_MAX", 2)
    for run in "abc":
        looks.living("fake", run)
    assert set(looks._looks) == {("fake", "b"), ("fake", "c")}


def test_while_one_thread_looks_the_others_take_what_was_seen_last(
    fleet: CountingFleet,
) -> None:
    fleet.machines["m"] = Machine("m", MachineState.RUNNING)
    living()
    looks._look("fake", "r").due_s = 0
    fleet.may_answer.clear()
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(living)
        while fleet.listings < 2:
            pass
        assert living() == {"m"}
        fleet.machines.clear()
        fleet.may_answer.set()
        assert slow.result() == set()
    assert fleet.listings == 2


def test_machines_are_told_to_end_once_an_interval_and_then_looked_for(
    fleet: CountingFleet,
) -> None:
    fleet.machines["m"] = Machine("m", MachineState.RUNNING)
    assert living() == {"m"}
    assert looks.end("fake", "r", hard=False) == 1
    assert looks.end("fake", "r", hard=False) == 0
    assert looks.end("fake", "r", hard=True) == 1  # another word
    assert fleet.kills == 2
    fleet.machines.clear()
    assert living() == set()
