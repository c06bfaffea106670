"""A fleet of no machines at all, that does what a test tells it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from runs.errors import FleetError
from runs.fleets import Launched, Machine, MachineState, Order
from runs.fleets.base import useful


class FakeFleet:
    """capacity: how many machines it grants at most; the rest are refused."""

    look_interval_s = 0.0

    def __init__(self, capacity: int = 1_000, error: FleetError | None = None) -> None:
        self.capacity = capacity
        self.error = error
        self.machines: dict[str, Machine] = {}
        self.orders: list[Order] = []
        self.killed: list[str] = []
        self._named = 0

    def launch(self, order: Order) -> Launched:
        if self.error is not None:
            raise self.error
        self.orders.append(order)
        there = useful(self.machines.values(), order.written_off)
        short = max(0, order.machines - len(there))
        given = max(0, min(short, self.capacity - len(self.machines)))
        for _ in range(given):
            name = f"m{self._named}"
            self._named += 1
            self.machines[name] = Machine(name, MachineState.RUNNING, type="t3.small")
        refused = {"no capacity": short - given} if short > given else {}
        return Launched(tuple(self.machines.values()), given, refused)

    def list(self, run: str) -> list[Machine]:
        return list(self.machines.values())

    def kill(
        self, run: str, ids: Collection[str] | None = None, *, hard: bool = False
    ) -> int:
        gone = [name for name in self.machines if ids is None or name in ids]
        for name in gone:
            del self.machines[name]
        self.killed += gone
        return len(gone)

    def runs(self) -> set[str]:
        return set()

    def usd_per_h(self, machines: Iterable[Machine]) -> float | None:
        return 0.02 * len(list(machines))
