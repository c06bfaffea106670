"""The shell of one Shard: makes the calls its machine asks for, keeps its timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shardagent import observe
from shardagent.calls import Call, Result, Value, Verb, Warmed
from shardagent.clock import Clock
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.health import Health
from shardagent.providers.base import Provider, Wanted
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
        return len(self._calls)

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
            # Not of the TaskGroup, whose own book-keeping costs as much as the call.
            task = self._loop.create_task(self._perform(call))
            self._calls.add(task)
            task.add_done_callback(self._performed)
        self._set_timer()
        if self.shard.over and not self.over.is_set():
            self.over.set()
            for task in self._calls:
                task.cancel()

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
