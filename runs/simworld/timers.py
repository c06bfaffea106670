"""Many deadlines on one event-loop timer, and the Run's clock."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Any

from runs.simworld.config import RunClock

COALESCED_US = 2_000  # what is due within so long of a turn waits for the next one
# So many are run before the loop reads sockets again: about 10 ms.
DUE_PER_TURN_MAX = 1_000


class Clock:
    """The Run's clock: wall time that neither steps nor slews."""

    def __init__(self, clock: RunClock) -> None:
        self._base_us = clock.base_wall_us
        self._base_ns = clock.base_mono_raw_ns

    def now_us(self) -> int:
        raw = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        return self._base_us + (raw - self._base_ns) // 1_000


class Timers:
    """A heap of calls; a task or loop timer per request would cost ten times more."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._handle: asyncio.TimerHandle | None = None
        self._armed_us = 0

    def at(self, due_us: int, call: Callable[..., None], *args: Any) -> None:
        """Calls `call(*args)` at the first turn of the loop after `due_us`."""
        self._count += 1
        heapq.heappush(self._heap, (due_us, self._count, call, args))
        if self._handle is None or due_us < self._armed_us:
            self._arm()

    def run_due(self) -> None:
        """Runs what is due; called before requests are looked at, so that a request
        never meets a sandbox whose hour has passed."""
        heap, now = self._heap, self._clock.now_us()
        for _ in range(DUE_PER_TURN_MAX):
            if not heap or heap[0][0] > now:
                break
            _, _, call, args = heapq.heappop(heap)
            call(*args)
        self._arm()

    def close(self) -> None:
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        self.run_due()

    def _arm(self) -> None:
        if not self._heap:
            return  # a timer that is still set finds nothing to do
        due_us = self._heap[0][0]
        if self._handle is not None:
            if self._armed_us <= due_us:
                return
            self._handle.cancel()
        self._armed_us = due_us
        delay_us = max(COALESCED_US, due_us - self._clock.now_us())
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(delay_us / 1_000_000, self._fire)
