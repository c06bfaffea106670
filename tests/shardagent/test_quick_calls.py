"""Probes without a task: each ends exactly once, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shardagent.calls import Call, Result, Verb
from shardagent.deadlines import Deadlines, QuickCall, QuickCalls
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Answer

CALL = Call(Verb.PROBE, 0.05, 3, "box-3")


class FakeRunner:
    """As much of a Runner as quick calls need; its clock is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000
        self.results: list[Result] = []

    def now_us(self) -> int:
        return self.now

    def sent(self, call: Call, at: int) -> None:
        raise AssertionError("nobody is told of the sending of a probe")

    def ended(self, call: Call, result: Result) -> None:
        assert call is CALL
        self.results.append(result)


def begin(calls: QuickCalls, forgotten: list[int] | None = None) -> QuickCall:
    made = QuickCall(calls, CALL, calls.clock.now_us())
    note = [] if forgotten is None else forgotten
    made.forget = _noting(note, made.started_us)
    calls.add(made)
    return made


def _noting(note: list[int], value: int) -> Callable[[], object]:
    return lambda: note.append(value)


async def test_an_answer_ends_a_call_once_and_counts_from_its_sending() -> None:
    runner = FakeRunner()
    calls = QuickCalls(runner, runner, Deadlines(runner))
    one = begin(calls)
    assert calls.in_flight == 1
    runner.now += 2_000
    one.sent(runner.now)
    runner.now += 5_000
    answer = Answer(0, "")
    one.ended(answer, None, runner.now)
    late = ProviderError(Cause.NETWORK, Origin.NETWORK, "later")
    one.ended(None, late, runner.now)
    assert calls.in_flight == 0
    (result,) = runner.results
    assert result.value is answer
    assert result.latency_us == 5_000  # from the sending, not from the wish
    calls.forget()


async def test_what_has_ended_is_let_go_of_before_its_time_is_over() -> None:
    """Else all calls of a whole timeout are kept, and looked at by the collector."""
    runner = FakeRunner()
    calls = QuickCalls(runner, runner, Deadlines(runner))
    one, other = begin(calls), begin(calls)
    assert one.slot is other.slot
    one.ended(Answer(0, ""), None, runner.now)
    assert one.slot == {id(other): other}
    calls.forget()


async def test_only_what_is_overdue_expires_and_nothing_ends_twice() -> None:
    runner = FakeRunner()
    calls = QuickCalls(runner, runner, Deadlines(runner))
    forgotten: list[int] = []
    first = begin(calls, forgotten)
    answered = begin(calls, forgotten)
    first.sent(runner.now)
    answered.ended(Answer(0, ""), None, runner.now)
    runner.now += 20_000
    last = begin(calls, forgotten)
    runner.now += 31_000
    async with asyncio.timeout(2):
        while len(runner.results) < 2:  # noqa: ASYNC110  they have no event
            await asyncio.sleep(0.005)
    late = runner.results[1]
    assert late.error is not None
    assert (late.error.cause, late.error.origin) == (Cause.TIMEOUT, Origin.PROVIDER)
    assert forgotten == [first.started_us]  # the connection may drop its answer
    assert not last.over
    first.ended(Answer(0, "too late"), None, runner.now)
    assert len(runner.results) == 2
    calls.forget()
    assert calls.in_flight == 0
    last.ended(Answer(0, "too late"), None, runner.now)
    assert len(runner.results) == 2


async def test_a_probe_that_never_left_is_not_held_against_the_provider() -> None:
    runner = FakeRunner()
    calls = QuickCalls(runner, runner, Deadlines(runner))
    begin(calls)
    runner.now += 50_000
    async with asyncio.timeout(2):
        while not runner.results:  # noqa: ASYNC110  they have no event
            await asyncio.sleep(0.002)
    error = runner.results[0].error
    assert error is not None
    assert error.origin is Origin.NETWORK
    calls.forget()
