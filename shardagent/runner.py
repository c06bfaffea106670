"""The shell of one Shard: makes the calls its machine asks for, keeps its timer."""

from __future__ import annotations

import asyncio
import heapq
import sys
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import cast

from shardagent import observe
from shardagent.calls import PROBE, Call, Result, Value, Verb, Warmed
from shardagent.clock import Clock
from shardagent.deadlines import Deadline, Deadlines, QuickCall, QuickCalls, timed_out
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.health import Health
from shardagent.providers.base import Forget, Provider, QuickProvider, Wanted
from shardagent.shard import Shard
from shardagent.spool import ShardSpool
from shardagent.wire import Finish, HeartbeatAnswer, Kind, Plan

TIMER_MAX_S = 3_600.0  # a longer wait is looked at again
TURN_US = 10_000  # of a turn of the loop for what all Shards are due; then sockets
NEVER_US = sys.maxsize
_NUMBER = attrgetter("number")


class Turns:
    """Wakes the Shards of a process when they are due: one timer for all of them.

    What is due within grid_us leaves together, in the order of the Shards: the first of
    them sends the first final probes. T_end is the same for all: a turn that takes long
    is broken off, so that the loop may look at its sockets.
    """

    def __init__(self, clock: Clock, *, grid_us: int = 1) -> None:
        self.grid_us = grid_us
        self.phase_us = 0  # of the grid
        self.deadlines = Deadlines(clock)
        self._clock = clock
        self._slots: dict[int, deque[Runner]] = {}
        self._order: list[int] = []  # a heap of the slots
        self._timer: asyncio.TimerHandle | None = None
        self._timer_us = NEVER_US
        self._sorted_us = NEVER_US  # the slot that was begun
        self._waking = False

    def add(self, runner: Runner, due_us: int) -> int:
        """Wake it with the others of its slot; returns when that is."""
        phase_us = self.phase_us
        slot_us = -((phase_us - due_us) // self.grid_us) * self.grid_us + phase_us
        waiting = self._slots.get(slot_us)
        if waiting is not None:
            waiting.append(runner)
            return slot_us
        self._slots[slot_us] = deque((runner,))
        heapq.heappush(self._order, slot_us)
        if slot_us < self._timer_us and not self._waking:
            self._set_timer()
        return slot_us

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_us = self._order[0]
        wait_s = min((self._timer_us - self._clock.now_us()) / 1e6, TIMER_MAX_S)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, wait_s), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._timer_us = NEVER_US
        self._waking = True
        order, slots, clock = self._order, self._slots, self._clock
        now = clock.now_us()
        until_us = now + TURN_US
        # The loop's clock is not the agent's: it may wake us a little early.
        while order and order[0] <= now < until_us:
            slot_us = order[0]
            waiting = slots[slot_us]
            if slot_us != self._sorted_us:
                self._sorted_us = slot_us
                waiting = slots[slot_us] = deque(sorted(waiting, key=_NUMBER))
            runner = waiting.popleft()
            if not waiting:
                del slots[slot_us]
                heapq.heappop(order)
            runner.wake(now, slot_us)
            now = clock.now_us()
        self._waking = False
        if order:
            self._set_timer()


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
        turns: Turns,
    ) -> None:
        self.number = spool.lease.shard
        self.spool = spool
        self.event = spool.event
        self.note = spool.note
        self.log = spool.log
        spool.before_finish = self._tell_last_health
        self.over = asyncio.Event()
        self.shard: Shard  # set by `drive`, which needs this runner as its record
        self._plan = plan
        self._provider = provider
        self._clock = clock
        self._health = health
        self._tasks = tasks
        self._calls: set[asyncio.Task[None]] = set()
        self._quickly = (
            cast(QuickProvider, provider)
            if hasattr(provider, "probe_quickly")
            else None
        )
        self._quick = QuickCalls(self, clock, turns.deadlines)
        self._turns = turns
        self._wake_us = NEVER_US
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

    def _tell_last_health(self) -> None:
        """The maxima since the last one would else be lost."""
        self.tell_health(self._health.peek())

    async def close(self) -> None:
        """Let go of the Provider."""
        await self._provider.close()

    def _begin(self, calls: list[Call]) -> None:
        for call in calls:
            if self._quickly is not None and self._call_quickly(call):
                continue
            # Not of the TaskGroup, whose own book-keeping costs as much as the call.
            task = self._loop.create_task(self._perform(call))
            self._calls.add(task)
            task.add_done_callback(self._performed)
        due_us = self.shard.next_due()
        # A later waking that is still to come finds nothing to do.
        if due_us is not None and due_us <= self._wake_us - self._turns.grid_us:
            self._wake_us = self._turns.add(self, due_us)
        if self.shard.finish is not None and not self.over.is_set():
            self.over.set()
            for task in self._calls:
                task.cancel()
            self._quick.forget()

    def _call_quickly(self, call: Call) -> bool:
        """Without a task, where the adapter can; False where it has to be one."""
        waiting = QuickCall(self._quick, call, self._clock.now_us())
        waiting.forget = self._ask_quickly(call, waiting)
        if waiting.forget is None:
            return False
        self._quick.add(waiting)
        return True

    def _ask_quickly(self, call: Call, waiting: QuickCall) -> Forget | None:
        provider, plan, known_as = self._quickly, self._plan, call.provider_id
        assert provider is not None
        if call.verb is PROBE:
            command = plan.probe_command
            return provider.probe_quickly(known_as, command, call.secret, waiting)
        match call.verb:
            case Verb.CREATE:
                return provider.create_quickly(self._wanted(call), waiting)
            case Verb.READY:
                command, timeout_s = plan.ready_command, call.timeout_s
                return provider.execute_quickly(known_as, command, timeout_s, waiting)
            case Verb.WITNESS:
                assert call.secret is not None
                return provider.start_witness_quickly(known_as, call.secret, waiting)
            case Verb.DESTROY:
                return provider.destroy_quickly(known_as, waiting)
            case Verb.WARM | Verb.OBSERVE | Verb.LIST:
                return None  # once a Shard

    def _wanted(self, call: Call) -> Wanted:
        labels = self._labels | {"sandbox": str(call.sandbox)}
        return Wanted(call.sandbox, labels, call.ttl_s, self._spec)

    def sent(self, call: Call, at: int) -> None:
        """The first byte of a quick call was handed over."""
        self.shard.sent(call, at)

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

    def wake(self, now: int, slot_us: int) -> None:
        """Something may be due; slot_us: what `Turns.add` said."""
        if slot_us != self._wake_us:
            return  # an earlier waking was asked for since, which asked for the next
        self._wake_us = NEVER_US
        try:
            self._begin(self.shard.tick(now))
        except Exception as error:  # our own bug: it ends the process
            self._tasks.create_task(_raise(error))

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
                return await provider.create(self._wanted(call), sent)
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


async def _raise(error: BaseException) -> None:
    raise error
