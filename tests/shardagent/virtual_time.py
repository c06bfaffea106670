"""Drives a Shard's machine through virtual time: no loop, no clock, no waiting."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from shardagent.calls import Call, Result, Value, Verb, Warmed
from shardagent.clock import Sample, Samples
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Answer, Created
from shardagent.schedule import teardown_us
from shardagent.shard import Shard
from shardagent.wire import Instants, Kind, Lease, Plan, ShardPhase

SECOND = 1_000_000
START_US = 1_750_000_000_000_000
BEAT_US = 200_000
Reply = tuple[int, Value | ProviderError]
Event = dict[str, Any]


def make_plan(**overrides: Any) -> Plan:
    fields: dict[str, Any] = {
        "code": "alpha-1",
        "provider": "fake",
        "sandbox_count": 4,
        "shard_count": 1,
        "sandboxes_per_shard": 4,
        "hold_s": 20,
        "probe_interval_s": 5,
    }
    return Plan(**(fields | overrides))


def failure(cause: Cause, origin: Origin = Origin.PROVIDER) -> ProviderError:
    return ProviderError(cause, origin, "so it was told")


def obliging(call: Call, now: int) -> Reply:
    """Everything works, each call in 10 ms."""
    values: dict[Verb, Value] = {
        Verb.WARM: Warmed(call.connections, 250),
        Verb.OBSERVE: Answer(0, "2\n\n1024 kB\n"),
        Verb.CREATE: Created(f"box-{call.sandbox}"),
        Verb.READY: Answer(0, "v22"),
        Verb.PROBE: Answer(0, "", 1, "f" * 64),
        Verb.LIST: [],
    }
    return 10_000, values.get(call.verb)


@dataclass
class SiteScript:
    """What the site answers; instants are decided as a real site would."""

    plan: Plan
    t0_ahead_us: int = 1_000_000
    clock_offset_us: int = 0
    deaf_from_us: int | None = None  # heartbeats fail from here on
    leave_at_us: int | None = None
    fence_at_us: int | None = None
    silent: bool = False
    instants: Instants = Instants()

    def decide(self, now_us: int, phase: ShardPhase) -> None:
        known, update = self.instants, {}
        if known.t0_us is None:
            if phase is ShardPhase.ARMED:
                update["t0_us"] = now_us + self.t0_ahead_us
        elif known.t_hold_us is None:
            if phase is ShardPhase.SETTLED:
                update["t_hold_us"] = now_us
        elif known.t_end_us is None:
            end_us = known.t_hold_us + round(self.plan.hold_s * 1e6)
            if now_us >= end_us - 600_000:
                update = self._teardown(end_us)
        if self._leaves(now_us) and known.t0_us and not known.t_end_us:
            update |= self._teardown(now_us + 600_000)
        self.instants = known.model_copy(update=update)

    def _teardown(self, end_us: int) -> dict[str, int]:
        return {"t_end_us": end_us, "t_destroy_us": end_us + teardown_us(self.plan)}

    def _leaves(self, now_us: int) -> bool:
        return self.leave_at_us is not None and now_us >= self.leave_at_us


@dataclass
class Drive:
    plan: Plan
    reply: Callable[[Call, int], Reply] = obliging
    script: SiteScript | None = None
    lease: Lease = field(default_factory=lambda: Lease(shard=0, attempt=0))
    witness: bool = False
    stop_at_us: int | None = None
    events: list[Event] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    calls: list[tuple[int, Call]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = START_US
        self.script = self.script or SiteScript(self.plan)
        self.samples = Samples()
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self.shard = Shard(
            self.plan,
            self.lease,
            self,
            self.samples,
            clock_id="one",
            supports_witness=self.witness,
            now=self.now,
        )

    def note(
        self, kind: Kind, at: int, sandbox: int | None, fields: dict[str, object]
    ) -> None:
        assert at <= self.now
        event = {"kind": str(kind), "at": at, **fields}
        self.events.append(event if sandbox is None else event | {"sandbox": sandbox})

    def log(self, at: int, level: str, text: str) -> None:
        self.lines.append(f"{level} {text}")

    def run(self, limit_s: float = 4_000) -> Drive:
        """Until the Shard is over."""
        self._begin(self.shard.tick(self.now))
        self._at(self.now + 1_000, self._beat)
        if self.stop_at_us is not None:
            self._at(self.stop_at_us, self._stop)
        steps = 0
        while not self.shard.over:
            steps += 1
            assert steps < 1_000_000, "the machine spins"
            due_us = self.shard.next_due()
            if due_us is not None and (not self._queue or due_us <= self._queue[0][0]):
                self.now = max(self.now, due_us)
                self._begin(self.shard.tick(self.now))
                continue
            at, _, act = heapq.heappop(self._queue)
            self.now = max(self.now, at)
            assert self.now < START_US + limit_s * 1e6, "the machine never ends"
            act()
        assert self.shard.next_due() is None
        return self

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["kind"] == kind]

    def kinds(self, sandbox: int) -> list[str]:
        return [one["kind"] for one in self.events if one.get("sandbox") == sandbox]

    def agent_us(self, run_us: int | None) -> int:
        assert run_us is not None
        assert self.script is not None
        return run_us - self.script.clock_offset_us

    def _at(self, at: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (at, next(self._order), act))

    def _stop(self) -> None:
        from shardagent.wire import Finish

        self._begin(
            self.shard.stop(self.now, Finish.ABORTED, "SIGTERM", limit_us=5_000_000)
        )

    def _beat(self) -> None:
        script = self.script
        assert script is not None
        self._at(self.now + BEAT_US, self._beat)
        if script.silent or (script.deaf_from_us and self.now >= script.deaf_from_us):
            return
        run_us = self.now + script.clock_offset_us
        self.samples.add(
            Sample(self.now - 2_000, run_us - 1_000, run_us - 1_000, self.now, "one")
        )
        script.decide(run_us, self.shard.phase)
        leaves = script.leave_at_us is not None and run_us >= script.leave_at_us
        fenced = script.fence_at_us is not None and run_us >= script.fence_at_us
        self._begin(
            self.shard.heard(
                self.now,
                "one",
                script.instants,
                leave="told so" if leaves else None,
                fenced=fenced,
            )
        )

    def _begin(self, calls: list[Call]) -> None:
        for call in calls:
            self.calls.append((self.now, call))
            latency_us, value = self.reply(call, self.now)
            started = self.now
            limit_us = int(call.timeout_s * 1e6)
            if latency_us > limit_us:
                latency_us, value = limit_us, failure(Cause.TIMEOUT)
            self.shard.sent(call, started)
            self._at(
                started + latency_us,
                lambda call=call, started=started, value=value: self._end(
                    call, started, value
                ),
            )

    def _end(self, call: Call, started: int, value: Value | ProviderError) -> None:
        if self.shard.over:
            return
        error = value if isinstance(value, ProviderError) else None
        result = Result(
            started,
            started,
            self.now,
            None if error else value,
            error,  # type: ignore[arg-type]
        )
        self._begin(self.shard.finished(call, result))
