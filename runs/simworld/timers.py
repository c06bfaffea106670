"""Many deadlines on one event-loop timer, and the Run's clock."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from time import CLOCK_MONOTONIC_RAW as RAW
from time import clock_gettime_ns
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
        return self._base_us + (clock_gettime_ns(RAW) - self._base_ns) // 1_000


class Timers:
    """Calls by when they are due; a task or loop timer each would cost ten times more.

    Many are due at one instant where a world has ticks, so the heap holds instants.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[int] = []
        self._due: dict[int, deque[tuple[Callable[..., None], tuple[Any, ...]]]] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._armed_us = 0

    def at(self, due_us: int, call: Callable[..., None], *args: Any) -> None:
        """Calls `call(*args)` at the first turn of the loop after `due_us`."""
        calls = self._due.get(due_us)
        if calls is None:
            calls = self._due[due_us] = deque()
            heapq.heappush(self._heap, due_us)
        calls.append((call, args))
        if self._handle is None or due_us < self._armed_us:
            self._arm()

    def run_due(self) -> None:
        """Runs what is due; called before requests are looked at, so that a request
        never meets a sandbox whose hour has passed."""
        heap, now = self._heap, self._clock.now_us()
        left = DUE_PER_TURN_MAX
        while left and heap and heap[0] <= now:
            due_us = heap[0]
            calls = self._due[due_us]
            while left and calls:
                call, args = calls.popleft()
                left -= 1
                call(*args)
            if not calls:
                heapq.heappop(heap)
                del self._due[due_us]
        self._arm()

    def close(self) -> None:
        self._heap.clear()
        self._due.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        self.run_due()

    def _arm(self) -> None:
        if not self._heap:
            return  # a timer that is still set finds nothing to do
        due_us = self._heap[0]
        if self._handle is not None:
            if self._armed_us <= due_us:
                return
            self._handle.cancel()
        self._armed_us = due_us
        delay_us = max(COALESCED_US, due_us - self._clock.now_us())
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(delay_us / 1_000_000, self._fire)
