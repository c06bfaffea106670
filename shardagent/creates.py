"""Which Sandbox of a Shard is created next, and when it is due (load shapes)."""

from __future__ import annotations

from shardagent import schedule
from shardagent.wire import Plan, Shape


class Creates:
    """The order of one Shard's creates; a rehearsal has none."""

    def __init__(self, plan: Plan, shard: int) -> None:
        self._places = [] if plan.rehearsal else schedule.places(plan, shard)
        self._next = 0
        self.sequential = plan.load.shape is Shape.SEQUENTIAL
        self._sequential_due_us: int | None = None

    def begin(self, t0_us: int) -> None:
        """T0 is here."""
        self._sequential_due_us = t0_us

    def stop(self) -> None:
        """Nothing more is created."""
        self._next = len(self._places)

    def due_us(self, t0_us: int | None, *, empty: bool = False) -> int | None:
        """When the next one is intended; None (`empty`: T0) where there is none yet."""
        if t0_us is None:
            return None
        fallback = t0_us if empty else None
        if self._next >= len(self._places):
            return fallback
        if self.sequential:
            return self._sequential_due_us or fallback
        return t0_us + self._places[self._next][0]

    def take(self) -> int:
        """The next one, which is created now."""
        self._next += 1
        self._sequential_due_us = None
        return self._places[self._next - 1][1]

    @property
    def awaited(self) -> int | None:
        """Of a sequential load: the Sandbox whose end the next create waits for."""
        if not self.sequential or not self._next or self._sequential_due_us is not None:
            return None
        return self._places[self._next - 1][1]

    def go_on(self, now: int) -> None:
        """The awaited one is over."""
        self._sequential_due_us = now
