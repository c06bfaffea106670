"""How calls run out of time: those with a task of their own, and the quick ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

from shardagent.calls import PROBE, Call, Result, Value
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Ticking

SLOT_BITS = 17  # 2¹⁷ µs, some 0.13 s
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


class QuickCall(Result):
    """One call under way without a task of its own; and, once it ended, how."""

    __slots__ = ("call", "clock", "due_us", "forget", "over", "slot", "_calls")

    def __init__(self, calls: QuickCalls, call: Call, started_us: int) -> None:
        self.call = call
        self.clock = calls.clock
        self.started_us = started_us
        self.sent_us = None
        self.due_us = started_us + round(call.timeout_s * 1e6)
        self.over = False
        self.forget: Callable[[], object] | None = None
        self.slot: dict[int, QuickCall] | None = None  # that it is watched over in
        self._calls = calls

    def sent(self, at: int) -> None:
        """Its first byte is handed to the socket."""
        self.sent_us = at
        if self.call.verb is not PROBE:  # of which nobody is told
            self._calls.runner.sent(self.call, at)

    def ended(self, value: Value, error: ProviderError | None, at: int) -> None:
        """It was answered, or cannot be any more."""
        calls = self._calls
        if self.over or calls.forgotten:
            return
        self.over = True
        if self.slot is not None:
            self.slot.pop(id(self), None)
        self.done_us = at
        self.value = value
        self.error = error
        calls.in_flight -= 1
        calls.runner.ended(self.call, self)

    def expire(self) -> None:
        """Its time is over, if it did not end before."""
        if self.over or self._calls.forgotten:
            return
        if self.forget is not None:
            self.forget()
        now = self.clock.now_us()
        sent = self.sent_us is not None
        self.ended(None, timed_out(self.call, now - self.due_us, sent=sent), now)


class QuickCalls:
    """The quick calls of a Shard."""

    def __init__(self, runner: Ears, clock: Ticking, deadlines: Deadlines) -> None:
        self.runner = runner
        self.clock = clock
        self.in_flight = 0
        self.forgotten = False  # nobody waits any more
        self._deadlines = deadlines

    def add(self, call: QuickCall) -> None:
        """Watch over one more."""
        self.in_flight += 1
        self._deadlines.add(call)

    def forget(self) -> None:
        """Nobody waits any more."""
        self.forgotten = True
        self.in_flight = 0


class Deadlines:
    """When the quick calls of a process run out of time.

    A slot of them is looked at when it begins: nearly all have ended long before and
    left it, and only the others get a timer, which is then exact.
    """

    def __init__(self, clock: Ticking) -> None:
        self._clock = clock
        self._slots: dict[int, dict[int, QuickCall]] = {}

    def add(self, call: QuickCall) -> None:
        if call.over:
            return
        slot = call.due_us >> SLOT_BITS
        waiting = self._slots.get(slot)
        if waiting is None:
            waiting = self._slots[slot] = {}
            self._at(slot << SLOT_BITS, partial(self._begin, slot))
        waiting[id(call)] = call
        call.slot = waiting

    def _begin(self, slot: int) -> None:
        waiting = self._slots.pop(slot)
        calls = [*waiting.values()]
        waiting.clear()  # what nobody ended holds no circle together
        for call in calls:
            self._look(call)

    def _look(self, call: QuickCall) -> None:
        if call.over:
            return
        if self._clock.now_us() < call.due_us:
            self._at(call.due_us, partial(self._look, call))
        else:
            call.expire()

    def _at(self, due_us: int, do: Callable[[], None]) -> None:
        wait_s = max(0, due_us - self._clock.now_us()) / 1e6
        asyncio.get_running_loop().call_later(wait_s, do)


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
