"""How calls run out of time: those with a task of their own, and the quick ones."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Protocol

from shardagent.calls import PROBE, Call, Result, Value
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Ticking

STALL_US = 1_000_000  # a deadline noticed so late says nothing of the Provider


class Ears(Protocol):
    """Who is told of the end of a quick call."""

    def sent(self, call: Call, at: int) -> None:
        """The first byte of any call but a probe was handed over."""

    def ended(self, call: Call, result: Result) -> None:
        """Once for each call."""


def timed_out(call: Call, late_us: int, *, sent: bool) -> ProviderError:
    """late_us: how long after its time the deadline was noticed."""
    if late_us > STALL_US:  # this process stood still, and answers may have come
        text = f"no answer was looked for: we stood still for {late_us / 1e6:.3g} s"
        return ProviderError(Cause.HARNESS, Origin.HARNESS, text)
    # Not even sent: it was the way to the Provider that did not open.
    origin = Origin.PROVIDER if sent else Origin.NETWORK
    return ProviderError(
        Cause.TIMEOUT, origin, f"no answer within {call.timeout_s:.3g} s"
    )


class QuickCall:
    """One call under way without a task of its own."""

    __slots__ = (
        *("call", "clock", "due_us", "forget", "over"),
        *("_calls", "_sent_us", "started_us"),
    )

    def __init__(self, calls: QuickCalls, call: Call, started_us: int) -> None:
        self.call = call
        self.clock = calls.clock
        self.started_us = started_us
        self.due_us = started_us + round(call.timeout_s * 1e6)
        self.over = False
        self.forget: Callable[[], object] | None = None
        self._calls = calls
        self._sent_us: int | None = None

    def sent(self, at: int) -> None:
        """Its first byte is handed to the socket."""
        self._sent_us = at
        if self.call.verb is not PROBE:  # of which nobody is told
            self._calls.runner.sent(self.call, at)

    def ended(self, value: Value, error: ProviderError | None, at: int) -> None:
        """It was answered, or cannot be any more."""
        if self.over:
            return
        self.over = True
        calls = self._calls
        calls.in_flight -= 1
        result = Result(self.started_us, self._sent_us, at, value, error)
        calls.runner.ended(self.call, result)

    def expire(self, late_us: int) -> None:
        """Its time is over."""
        if self.forget is not None:
            self.forget()
        sent = self._sent_us is not None
        error = timed_out(self.call, late_us, sent=sent)
        self.ended(None, error, self.clock.now_us())


class QuickCalls:
    """The quick calls of a Shard, and one timer for all their deadlines."""

    def __init__(self, runner: Ears, clock: Ticking) -> None:
        self.runner = runner
        self.clock = clock
        self.in_flight = 0
        self._heap: list[tuple[int, int, QuickCall]] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_us = 0

    def add(self, call: QuickCall) -> None:
        """Watch over one more."""
        self.in_flight += 1
        self._count += 1
        due_us = call.due_us
        heapq.heappush(self._heap, (due_us, self._count, call))
        if self._timer is None or due_us < self._timer_due_us:
            self._set_timer()

    def forget(self) -> None:
        """Nobody waits any more."""
        for _, _, call in self._heap:
            call.over = True
            if call.forget is not None:
                call.forget()
        self._heap.clear()
        self.in_flight = 0
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        heap = self._heap
        while heap and heap[0][2].over:
            heapq.heappop(heap)
        if not heap:
            return
        self._timer_due_us = heap[0][0]
        wait_s = max(0, self._timer_due_us - self.clock.now_us()) / 1e6
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now, heap = self.clock.now_us(), self._heap
        while heap and (heap[0][2].over or heap[0][0] <= now):
            due_us, _, call = heapq.heappop(heap)
            if not call.over:
                call.expire(now - due_us)
        self._set_timer()


class Deadline:
    """Cancels the current task when its time is over; asyncio.timeout costs twice."""

    __slots__ = ("_handle", "_over", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit_s: float) -> None:
        task = asyncio.current_task(loop)
        assert task is not None
        self._task = task
        self._over = False
        self._handle = loop.call_later(limit_s, self._strike)

    def struck(self) -> bool:
        """Whether a cancellation that was caught is this one, and no other besides."""
        return self._over and self._task.uncancel() == 0

    def lift(self) -> None:
        self._handle.cancel()

    def _strike(self) -> None:
        self._over = True
        self._task.cancel()
