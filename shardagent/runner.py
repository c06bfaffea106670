"""The shell of one Shard: makes the calls its machine asks for, keeps its timer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from shardagent import observe
from shardagent.calls import Call, Result, Value, Verb, Warmed
from shardagent.clock import Clock
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.health import Health
from shardagent.providers.base import Answer, Provider, Wanted
from shardagent.shard import Shard
from shardagent.spool import ShardSpool
from shardagent.wire import Finish, HeartbeatAnswer, Kind, Plan

STALL_US = 1_000_000  # a deadline noticed so late says nothing of the Provider
TIMER_MAX_S = 3_600.0  # a longer wait is looked at again


class Runner:
    """One attempt of one Shard, driven on the running loop."""

    def __init__(
        self,
        plan: Plan,
        spool: ShardSpool,
        provider: Provider,
        *,
        clock: Clock,
        health: Health,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.spool = spool
        self.over = asyncio.Event()
        self.shard: Shard  # set by `drive`, which needs this runner as its record
        self._plan = plan
        self._provider = provider
        self._clock = clock
        self._health = health
        self._tasks = tasks
        self._calls: set[asyncio.Task[None]] = set()
        self._quickly = getattr(provider, "probe_quickly", None)
        self._quick = QuickCalls(self, plan.probe_timeout_s)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_us = 0
        self._loop = asyncio.get_running_loop()
        self._spec = plan.spec.model_dump()
        self._labels = {
            "run": plan.code,
            "shard": str(spool.lease.shard),
            "attempt": str(spool.lease.attempt),
        }

    @property
    def in_flight(self) -> int:
        """Provider calls under way."""
        return len(self._calls) + self._quick.in_flight

    def drive(self, shard: Shard) -> None:
        """Begin."""
        self.shard = shard
        self._begin(shard.tick(self._clock.now_us()))

    def heard(self, answer: HeartbeatAnswer, *, fenced: bool) -> None:
        """A heartbeat was answered."""
        self._begin(
            self.shard.heard(
                self._clock.now_us(),
                answer.clock_id,
                answer.instants,
                leave=answer.leave,
                fenced=fenced,
            )
        )

    def stop(self, why: Finish, text: str, *, limit_us: int | None = None) -> None:
        """Create nothing more, destroy what is held, be over within limit_us."""
        now = self._clock.now_us()
        self._begin(self.shard.stop(now, why, text, limit_us=limit_us))

    def event(
        self, kind: Kind, at: int, sandbox: int | None = None, **fields: object
    ) -> None:
        """Write one event of this Shard."""
        if kind is Kind.AGENT_FINISHED:
            # The maxima since the last one would else be lost.
            self.tell_health(self._health.peek())
        self.spool.event(kind, at, sandbox, **fields)

    def log(self, at: int, level: str, text: str) -> None:
        """Write one log line of this Shard."""
        self.spool.log(at, level, text)

    def tell_health(self, taken: dict[str, object]) -> None:
        """Write one health event."""
        self.spool.event(
            Kind.HEALTH,
            self._clock.now_us(),
            None,
            **taken,
            in_flight=self.in_flight,
            alive=self.shard.alive,
            queued_events=self.spool.events.queued,
            dropped_events=self.spool.dropped,
        )

    async def close(self) -> None:
        """Let go of the Provider."""
        await self._provider.close()

    def _begin(self, calls: list[Call]) -> None:
        for call in calls:
            if call.verb is Verb.PROBE and self._probe_quickly(call):
                continue
            # Not of the TaskGroup, whose own book-keeping costs as much as the call.
            task = self._loop.create_task(self._perform(call))
            self._calls.add(task)
            task.add_done_callback(self._performed)
        self._set_timer()
        if self.shard.over and not self.over.is_set():
            self.over.set()
            for task in self._calls:
                task.cancel()
            self._quick.forget()

    def _probe_quickly(self, call: Call) -> bool:
        """Without a task, where the adapter can; False where it has to be one."""
        if self._quickly is None:
            return False
        waiting = QuickCall(self._quick, call, self._clock.now_us())
        waiting.forget = self._quickly(
            call.provider_id, self._plan.probe_command, call.secret, waiting
        )
        if waiting.forget is None:
            return False
        self._quick.add(waiting)
        return True

    def now_us(self) -> int:
        """The agent's clock."""
        return self._clock.now_us()

    def ended(self, call: Call, result: Result) -> None:
        """A quick call ended."""
        try:
            self._begin(self.shard.finished(call, result))
        except Exception as error:  # our own bug: it ends the process
            self._tasks.create_task(_raise(error))

    def _performed(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tasks.create_task(_raise(error))  # our own bug: it ends the process

    def _set_timer(self) -> None:
        due_us = self.shard.next_due()
        if due_us is None:
            return  # a timer that is still set finds nothing to do
        if self._timer is not None:
            if self._timer_due_us <= due_us:
                return
            self._timer.cancel()
        self._timer_due_us = due_us
        wait_s = min((due_us - self._clock.now_us()) / 1e6, TIMER_MAX_S)
        self._timer = self._loop.call_later(max(0.0, wait_s), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._clock.now_us()
        due_us = self.shard.next_due()
        # The loop's clock is not the agent's: it may wake us a little early.
        if due_us is not None and due_us > now:
            self._set_timer()
            return
        self._begin(self.shard.tick(now))

    async def _perform(self, call: Call) -> None:
        """Make one call, once, within its time; tell the machine how it ended."""
        clock = self._clock
        sent_us: int | None = None

        def sent() -> None:
            nonlocal sent_us
            if sent_us is None:
                sent_us = clock.now_us()
                self.shard.sent(call, sent_us)

        value: Value = None
        error: ProviderError | None = None
        started_us = clock.now_us()
        deadline = Deadline(self._loop, call.timeout_s)
        try:
            value = await self._ask(call, sent)
        except ProviderError as failure:
            error = failure
        except asyncio.CancelledError:
            if not deadline.struck():
                raise
            due_us = started_us + round(call.timeout_s * 1e6)
            error = timed_out(call, clock.now_us() - due_us, sent=sent_us is not None)
        except Exception as failure:  # an adapter's bug is one failed call, no more
            error = self._ours(call, failure)
        finally:
            deadline.lift()
        done_us = clock.now_us()
        result = Result(started_us, sent_us, done_us, value, error)
        self._begin(self.shard.finished(call, result))

    async def _ask(self, call: Call, sent: Callable[[], None]) -> Value:
        provider, plan = self._provider, self._plan
        timeout_s = call.timeout_s
        match call.verb:
            case Verb.PROBE:
                return await provider.probe(
                    call.provider_id, plan.probe_command, call.secret, sent, timeout_s
                )
            case Verb.WARM:
                warm = await provider.warm(call.connections)
                return Warmed(warm, provider.connect_us)
            case Verb.CREATE:
                labels = self._labels | {"sandbox": str(call.sandbox)}
                wanted = Wanted(call.sandbox, labels, call.ttl_s, self._spec)
                return await provider.create(wanted, sent)
            case Verb.READY:
                command = plan.ready_command
                return await provider.execute(
                    call.provider_id, command, sent, timeout_s
                )
            case Verb.WITNESS:
                assert call.secret is not None
                await provider.start_witness(call.provider_id, call.secret, sent)
                return None
            case Verb.DESTROY:
                await provider.destroy(call.provider_id, sent)
                return None
            case Verb.OBSERVE:
                return await provider.execute(
                    call.provider_id, observe.COMMAND, sent, timeout_s
                )
            case Verb.LIST:
                return await provider.list(self._labels)

    def _ours(self, call: Call, failure: Exception) -> ProviderError:
        text = f"{call.verb} raised {type(failure).__name__}: {failure}"
        self.log(self._clock.now_us(), "ERROR", text)
        return ProviderError(Cause.HARNESS, Origin.HARNESS, text)


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
    """One probe under way without a task of its own."""

    __slots__ = ("call", "forget", "over", "_calls", "_sent_us", "started_us")

    def __init__(self, calls: QuickCalls, call: Call, started_us: int) -> None:
        self.call = call
        self.started_us = started_us
        self.over = False
        self.forget: Callable[[], object] | None = None
        self._calls = calls
        self._sent_us: int | None = None

    def sent(self) -> None:
        """Its first byte is handed to the socket."""
        self._sent_us = self._calls.runner.now_us()

    def ended(self, value: Answer | None, error: ProviderError | None) -> None:
        """It was answered, or cannot be any more."""
        if self.over:
            return
        self.over = True
        runner = self._calls.runner
        self._calls.in_flight -= 1
        done_us = runner.now_us()
        result = Result(self.started_us, self._sent_us, done_us, value, error)
        runner.ended(self.call, result)

    def expire(self, late_us: int) -> None:
        """Its time is over."""
        if self.forget is not None:
            self.forget()
        sent = self._sent_us is not None
        self.ended(None, timed_out(self.call, late_us, sent=sent))


class QuickCalls:
    """The quick calls of a Shard; all have the same time, so the oldest ends first."""

    def __init__(self, runner: Runner, limit_s: float) -> None:
        self.runner = runner
        self.in_flight = 0
        self._limit_us = round(limit_s * 1e6)
        self._calls: deque[QuickCall] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: QuickCall) -> None:
        """Watch over one more."""
        self.in_flight += 1
        self._calls.append(call)
        if self._timer is None:
            self._set_timer()

    def forget(self) -> None:
        """Nobody waits any more."""
        for call in self._calls:
            call.over = True
            if call.forget is not None:
                call.forget()
        self._calls.clear()
        self.in_flight = 0
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        while self._calls and self._calls[0].over:
            self._calls.popleft()
        if not self._calls:
            self._timer = None
            return
        due_us = self._calls[0].started_us + self._limit_us
        wait_s = max(0, due_us - self.runner.now_us()) / 1e6
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        now = self.runner.now_us()
        while self._calls:
            call = self._calls[0]
            late_us = now - call.started_us - self._limit_us
            if not call.over and late_us < 0:
                break
            self._calls.popleft()
            if not call.over:
                call.expire(late_us)
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


async def _raise(error: BaseException) -> None:
    raise error
