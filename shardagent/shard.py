"""One Shard, sans I/O: what was heard and how calls ended in, the next calls out.

The shell (agent.py) calls `tick` when `next_due` comes, `heard` after each heartbeat,
`sent` and `finished` around each call, and makes the calls it is given. No await, no
clock: every input says when it happened, in agent µs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import cast

from shardagent import observe, schedule
from shardagent.calls import DESTROY, OBSERVE, PROBE, Call, Result, Verb
from shardagent.clock import Samples
from shardagent.creates import Creates
from shardagent.dues import Dues
from shardagent.gauges import Gauges
from shardagent.providers.base import Listed
from shardagent.record import Record, TalliedRecord
from shardagent.rules import rules_of
from shardagent.sandbox import DESTROYING, HELD, Sandbox, State
from shardagent.timeline import Timeline
from shardagent.warmth import Warmth
from shardagent.wire import (
    Counts,
    Finish,
    Instants,
    Kind,
    Lease,
    Plan,
    ShardPhase,
)

CLOCK_SAMPLES_MIN = 3
SILENCE_MAX_US = 120_000_000  # before RELEASE
DESTROYS_MAX = 64  # destroy calls of a Shard in flight
ACTIONS_MAX = 256  # calls begun in a tick, before the loop may look at its sockets
LIST_TIMEOUT_S = 30.0

BURSTING = ShardPhase.BURSTING  # looked up in its class it costs as much as a call
OVER = frozenset({State.CLOSED, State.LOST})
NOT_STARTED = frozenset({ShardPhase.STARTING, ShardPhase.ARMED})


class Shard:
    """The machine of one Shard's attempt."""

    def __init__(
        self,
        plan: Plan,
        lease: Lease,
        record: Record,
        samples: Samples,
        *,
        clock_id: str,
        supports_witness: bool,
        now: int,
    ) -> None:
        self.lease = lease
        self.phase = ShardPhase.STARTING
        self.times = Timeline(plan, samples, clock_id)
        self.finish: Finish | None = None  # set once, when all is over
        self._plan = plan
        self.record = TalliedRecord(record)
        self._last_heard_us = now
        rules = rules_of(plan, lease, self.record, supports_witness=supports_witness)
        planned = plan.sandboxes_of(lease.shard)
        self.warmth = Warmth(len(planned), now)
        self._sandboxes = {
            index: Sandbox(index, rules)
            for index in (() if plan.rehearsal else planned)
        }
        self._creates = Creates(plan, lease.shard)
        self._dues = Dues()
        self._due_us: int | None = now  # of all but the heap …
        self._due_known = False  # … where nothing has changed since
        self._destroys: deque[int] = deque()  # due, waiting for room
        self._destroying = 0
        self._gauges = Gauges(len(self._sandboxes))
        self._t0_late: bool | None = None  # None until T0 is placed
        self._leaving: Finish | None = None
        self._forced = False
        self._cut_us: int | None = None
        self._cut_count = 0
        self._destroy_begun = False
        self._final_places: list[tuple[int, Sandbox]] | None = None
        self._listing = False

    # What the shell asks.

    @property
    def over(self) -> bool:
        """Nothing more will happen; `finish` says why."""
        return self.finish is not None

    @property
    def released(self) -> bool:
        """A T0 is known: from here on this attempt cannot be replaced."""
        return self.times.heard.t0_us is not None

    @property
    def alive(self) -> int:
        """Sandboxes that are held alive now."""
        return self._gauges.alive

    @property
    def cut_count(self) -> int:
        """Sandboxes whose destroy was not confirmed when time ran out."""
        return self._cut_count

    def counts(self) -> Counts:
        """Gauges for the heartbeat."""
        return self._gauges.counts(self.record)

    def next_due(self) -> int | None:
        """When `tick` wants to be called; None while only an input can move it."""
        if self.finish is not None:
            return None
        if not self._due_known:
            self._due_us = self._phase_due()
            self._due_known = True
        due_us, first_us = self._due_us, self._dues.first_us
        if first_us is not None and (due_us is None or first_us < due_us):
            return first_us
        return due_us

    def _phase_due(self) -> int | None:
        dues = [self.warmth.due_us, self._cut_us]
        if not self.released:
            dues.append(self._last_heard_us + SILENCE_MAX_US)
        if self.phase is not ShardPhase.STARTING:
            armed = self.phase is ShardPhase.ARMED
            dues.append(self._creates.due_us(self.times.t0_us, empty=armed))
        held, destroyed = bool(self.record.tally[Kind.HOLDING]), self._destroy_begun
        dues += self.times.dues(self.phase, held=held, destroyed=destroyed)
        return min((due for due in dues if due is not None), default=None)

    def tick(self, now: int) -> list[Call]:
        """Do what is due."""
        calls: list[Call] = []
        if self.finish is not None:
            return calls
        if self._due_known and (self._due_us is None or now < self._due_us):
            self._act(now, calls)  # as nearly always: nothing of the Shard as a whole
            return calls
        self._due_known = False
        warm = self.warmth.call(now)
        if warm is not None and self._leaving is None:
            calls.append(warm)
        self._start(now)
        self._create(now, calls)
        self._act(now, calls)
        self._advance(now, calls)
        return calls

    def heard(
        self,
        now: int,
        clock_id: str,
        instants: Instants,
        *,
        leave: str | None = None,
        fenced: bool = False,
    ) -> list[Call]:
        """The site answered a heartbeat."""
        if self.over:
            return []
        self._due_known = False
        self._last_heard_us = now
        if fenced:
            return self.stop(now, Finish.FENCED, "this attempt is fenced")
        self._learn(now, clock_id, instants)
        if leave is not None and self._leaving is None:
            self._leave(now, Finish.ABORTED, f"told to leave: {leave}")
        self._arm(now)
        return self.tick(now)

    def stop(
        self, now: int, why: Finish, text: str, *, limit_us: int | None = None
    ) -> list[Call]:
        """Create nothing more, destroy at once what is held, within limit_us."""
        if self.over:
            return []
        self._due_known = False
        if limit_us is not None:
            self._cut_us = now + limit_us
        if not self._forced:
            self._leave(now, why, text)
            self._leaving = why
            self._forced = True
            if self.phase is not ShardPhase.STARTING:
                self.phase = ShardPhase.TEARING_DOWN
            self._begin_destroy(now)
        return self.tick(now)

    def fail(self, now: int) -> None:
        """Our own bug ended the work: what is held is the reaper's."""
        if not self.over:
            self._due_known = False
            self._leaving = Finish.ERROR
            self._cut(now)
            self._maybe_over(now)

    def sent(self, call: Call, at: int) -> None:
        """The first byte of a call was handed to the socket."""
        if call.sandbox >= 0:
            self._sandboxes[call.sandbox].sent(call.verb, at)

    def finished(self, call: Call, result: Result) -> list[Call]:
        """A call ended."""
        calls: list[Call] = []
        if self.finish is not None:
            return calls
        now = result.done_us
        if call.sandbox >= 0 and call.verb is not OBSERVE:
            sandbox = self._sandboxes[call.sandbox]
            state, alive = sandbox.state, sandbox.alive
            sandbox.finished(call, result)
            if call.verb is PROBE and state is HELD is sandbox.state:
                self._follow(sandbox, now, calls)  # as nearly always
                return calls
            if sandbox.state is not state or sandbox.alive is not alive:
                self._gauges.moved(sandbox, state, alive=alive)
            if call.verb is DESTROY:
                self._destroying -= 1
            self._follow(sandbox, now, calls)
            while self._destroys and self._destroying < DESTROYS_MAX:
                self._act_on(self._sandboxes[self._destroys.popleft()], now, calls)
            if not self._stirs():
                return calls
        elif call.verb is Verb.WARM:
            level = "WARNING" if result.error else "INFO"
            self.record.log(now, level, self.warmth.finished(result))
            self._arm(now)
        elif call.verb is Verb.LIST:
            self._on_list(result)
        else:
            observe.tell(self.record, call, result)
        self._due_known = False
        self._advance(now, calls)
        return calls

    def _stirs(self) -> bool:
        """Whether the end of one Sandbox's call may move the Shard as a whole."""
        gauges = self._gauges
        return (
            (self.phase is BURSTING and not gauges.unsettled)
            or not gauges.open
            or (self._destroy_begun and gauges.lost > 0)
            or (self._creates.sequential and self._creates.awaited is not None)
        )

    # Arming.

    def _arm(self, now: int) -> None:
        if self.phase is not ShardPhase.STARTING or self._leaving is not None:
            return
        samples = self.times.samples()
        if not self.warmth.ready or samples < CLOCK_SAMPLES_MIN:
            return
        self.phase = ShardPhase.ARMED
        warmth = self.warmth
        self.record.event(
            Kind.ARMED,
            now,
            connections=warmth.connections,
            connect_us=warmth.connect_us,
        )
        self.record.log(now, "INFO", f"armed with {samples} clock samples")

    # The instants.

    def _learn(self, now: int, clock_id: str, instants: Instants) -> None:
        times = self.times
        clock_before = times.clock_id
        news = times.learn(clock_id, instants)
        if news:
            said = ", ".join(f"{name} {value}" for name, value in news.items())
            self.record.log(now, "INFO", f"heard {said}")
        if times.clock_id != clock_before:
            self.record.log(now, "WARNING", f"the Run's clock is now {clock_id}")
        times.correct(started=self.phase not in NOT_STARTED)
        if self._t0_late is None and times.latest_start_us is not None:
            self._t0_late = now > times.latest_start_us
        if "t0_us" in news:
            self.record.event(Kind.RELEASED, now, t0_us=times.heard.t0_us)
        if "t_end_us" in news:
            self._tell_teardown(now)
            self._finals()

    def _tell_teardown(self, now: int) -> None:
        self.record.event(
            Kind.TEARDOWN,
            now,
            t_end_us=self.times.heard.t_end_us,
            t_destroy_us=self.times.t_destroy_us,
            autonomous=self.times.autonomous,
        )

    # The burst.

    def _start(self, now: int) -> None:
        t0_us, latest_us = self.times.t0_us, self.times.latest_start_us
        if self.phase is ShardPhase.ARMED and t0_us is not None:
            self.warmth.before(t0_us, now)
        if self.phase not in NOT_STARTED or self._leaving is not None:
            return
        if t0_us is None or latest_us is None or now < t0_us:
            return
        starting = self.phase is ShardPhase.STARTING
        if self._t0_late or (starting and now > latest_us):
            late_ms = (now - t0_us) // 1_000
            self._leave(now, Finish.ABORTED, f"too late: T0 was {late_ms} ms ago")
        elif self.phase is ShardPhase.ARMED:
            self.phase = ShardPhase.BURSTING
            self._creates.begin(t0_us)
            self.record.log(
                now, "INFO", f"T0: {len(self._sandboxes)} sandboxes to create"
            )

    def _create(self, now: int, calls: list[Call]) -> None:
        t0_us = self.times.t0_us
        due_us = self._creates.due_us(t0_us)
        if self.phase in NOT_STARTED or self._leaving or t0_us is None:
            return
        ttl_s: int | None = None  # the same for all of one tick
        while due_us is not None and due_us <= now and len(calls) < ACTIONS_MAX:
            sandbox = self._sandboxes[self._creates.take()]
            ttl_s = ttl_s or self.times.ttl_s(now)
            calls.append(sandbox.create(due_us, ttl_s))
            due_us = self._creates.due_us(t0_us)

    # Each Sandbox in its turn.

    def _act(self, now: int, calls: list[Call]) -> None:
        while len(calls) < ACTIONS_MAX:
            due = self._dues.take(now)
            if due is None:
                return
            sandbox = self._sandboxes[due[1]]
            if sandbox.due_us == due[0]:
                self._act_on(sandbox, now, calls)

    def _act_on(self, sandbox: Sandbox, now: int, calls: list[Call]) -> None:
        if sandbox.state is DESTROYING:
            if self._destroying >= DESTROYS_MAX:
                self._destroys.append(sandbox.index)
                sandbox.due_us = None
                return
            self._destroying += 1
        call = sandbox.act(now)
        if call is not None:
            calls.append(call)

    def _follow(self, sandbox: Sandbox, now: int, calls: list[Call]) -> None:
        due_us = sandbox.due_us
        if due_us is None:
            return
        if due_us <= now:
            self._act_on(sandbox, now, calls)
        else:
            self._dues.add(sandbox)

    # The phases.

    def _advance(self, now: int, calls: list[Call]) -> None:
        if self._cut_us is not None and now >= self._cut_us:
            self._cut(now)
        silent = now - self._last_heard_us >= SILENCE_MAX_US
        if silent and not self.released and self._leaving is None:
            self._leave(now, Finish.ABORTED, "nothing heard from the site")
        if self.phase is ShardPhase.BURSTING and not self._gauges.unsettled:
            self.phase = ShardPhase.SETTLED
            self.record.event(Kind.SETTLED, now)
        if self.phase in (ShardPhase.BURSTING, ShardPhase.SETTLED):
            self._hold(now, calls)
        self._end(now)
        if (
            self.phase is ShardPhase.TEARING_DOWN
            and not self._destroy_begun
            and self.times.destroy_us is not None
            and now >= self.times.destroy_us
        ):
            self._begin_destroy(now)
        if self._destroy_begun and self._gauges.lost and not self._listing:
            # Creates that failed without a refusal: one listing says what exists.
            self._listing = True
            calls.append(Call(Verb.LIST, LIST_TIMEOUT_S))
        self._maybe_over(now)

    def _hold(self, now: int, calls: list[Call]) -> None:
        if self.times.hold_us is None or now < self.times.hold_us:
            return
        if not self.record.tally[Kind.HOLDING]:
            self.record.event(Kind.HOLDING, now, t_hold_us=self.times.heard.t_hold_us)
            self._observe(calls)
        if self.phase is ShardPhase.SETTLED:
            self.phase = ShardPhase.HOLDING

    def _observe(self, calls: list[Call]) -> None:
        """Ask one sandbox what machine it is, now that no create is under way."""
        for sandbox in self._sandboxes.values():
            if sandbox.state is State.HELD and sandbox.provider_id is not None:
                timeout_s = self._plan.probe_timeout_s
                call = Call(Verb.OBSERVE, timeout_s, sandbox.index, sandbox.provider_id)
                calls.append(call)
                return

    def _end(self, now: int) -> None:
        times = self.times
        if self.phase in NOT_STARTED or self.phase is ShardPhase.TEARING_DOWN:
            return
        if times.end_us is None:
            if times.deadline_us is None or now < times.deadline_us:
                return
            times.end_alone()
            self._tell_teardown(now)
            self.record.log(now, "WARNING", "no T_end heard: tearing down alone")
        if times.end_us is None or times.destroy_us is None or now < times.end_us:
            return
        self.phase = ShardPhase.TEARING_DOWN
        self._skip_unsent()
        end_us, until_us = times.end_us, times.destroy_us
        for place_us, sandbox in self._finals():
            sandbox.begin_final(now, end_us + place_us, until_us)
        self._dues = Dues(self._sandboxes.values())

    def _finals(self) -> list[tuple[int, Sandbox]]:
        """Each Sandbox with its place after T_end; computed when T_end is heard of."""
        if self._final_places is None:
            place_us = partial(schedule.final_place_us, self._plan)
            boxes = self._sandboxes.values()
            self._final_places = [(place_us(box.index), box) for box in boxes]
        return self._final_places

    def _begin_destroy(self, now: int) -> None:
        self._destroy_begun = True
        for sandbox in self._sandboxes.values():
            with self._gauges.change(sandbox):
                sandbox.begin_destroy(now, forced=self._forced)
            self._dues.add(sandbox)

    def _on_list(self, result: Result) -> None:
        now = result.done_us
        self._listing = False
        listed = cast("Sequence[Listed]", result.value or [])
        found = {one.labels.get("sandbox"): one.provider_id for one in listed}
        if result.error is not None:
            self.record.log(now, "WARNING", f"listing failed: {result.error}")
        for sandbox in self._sandboxes.values():
            if sandbox.state is not State.LOST:
                continue
            provider_id = found.get(str(sandbox.index))
            with self._gauges.change(sandbox):
                if provider_id is not None:
                    sandbox.found(now, provider_id)
                elif result.error is not None or sandbox.may_come_late:
                    sandbox.abandon(now)
                else:
                    sandbox.close_lost()
            self._dues.add(sandbox)

    # The end.

    def _leave(self, now: int, why: Finish, text: str) -> None:
        self._leaving = why
        self.record.log(now, "WARNING", text)
        self._skip_unsent()

    def _skip_unsent(self) -> None:
        for sandbox in self._sandboxes.values():
            with self._gauges.change(sandbox):
                sandbox.skip()
        self._creates.stop()

    def _cut(self, now: int) -> None:
        for sandbox in self._sandboxes.values():
            if sandbox.state is not State.CLOSED:
                self._cut_count += 1
                with self._gauges.change(sandbox):
                    sandbox.abandon(now)

    def _maybe_over(self, now: int) -> None:
        if self._gauges.open:
            awaited = self._creates.awaited
            if awaited is not None and self._sandboxes[awaited].state in OVER:
                self._creates.go_on(now)
            return
        if self._leaving is None and self.phase is not ShardPhase.TEARING_DOWN:
            return
        self.phase = ShardPhase.FINISHED
        self.finish = self._leaving or Finish.DONE
        cut = f", {self._cut_count} cut" if self._cut_count else ""
        self.record.log(now, "INFO", f"over: {self.finish}{cut}; {self.counts()}")
        orphans = self.record.tally[Kind.ORPHANED]
        self.record.event(Kind.AGENT_FINISHED, now, reason=self.finish, orphans=orphans)
