"""The life of one Sandbox, sans I/O: results of calls in, facts and the next call out.

    PLANNED → CREATING → READYING → WITNESSING → HELD → FINAL → WAITING → DESTROYING
                  └→ LOST or CLOSED    (a create failed)                     └→ CLOSED

At most one call is due at a time: `due_us` says when, `act` says which. WAITING
Sandboxes (dead, never interactive, proven to the end) stay until T_destroy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from shardagent.calls import (
    CREATE,
    CUT,
    DESTROY,
    NEVER_COUNTED,
    PROBE,
    REFUSALS,
    Call,
    Result,
    Verb,
    digest,
    facts,
    fresh_secret,
    mismatch,
    words,
)
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Answer, Created
from shardagent.rules import Rules
from shardagent.wire import Kind

READY_RETRY_US = 100_000
PROBE_GRID_US = 5_000  # probes of a process leave together: fewer wakings, one write
FINAL_RETRY_US = 1_000_000
DESTROY_BACKOFF_FIRST_US = 250_000
DESTROY_BACKOFF_MAX_US = 5_000_000
DESTROY_TRY_MIN_S = 5.0  # one try gets a third of the budget, at least this


class State(StrEnum):
    """How far a Sandbox is."""

    PLANNED = "planned"
    CREATING = "creating"
    LOST = "lost"  # its create failed, but it may exist
    READYING = "readying"
    WITNESSING = "witnessing"
    HELD = "held"
    FINAL = "final"
    WAITING = "waiting"
    DESTROYING = "destroying"
    CLOSED = "closed"


# A member that is looked up in its class costs as much as a call of a function.
HELD: Final = State.HELD
DESTROYING, PROBE_OK = State.DESTROYING, Kind.PROBE_OK
CREATE_SENT, CREATED, READY = Kind.CREATE_SENT, Kind.CREATED, Kind.READY
DESTROY_SENT = Kind.DESTROY_SENT
UNSETTLED = frozenset({State.PLANNED, State.CREATING, State.READYING})


@dataclass(slots=True, eq=False)
class Sandbox:
    """One Sandbox of a Shard."""

    index: int
    rules: Rules
    state: State = State.PLANNED
    alive: bool = False
    doomed: bool = False  # T_destroy came: destroy once the call in flight is over
    forced: bool = False  # fenced or killed: destroy without a final probe
    in_flight: int = 0
    due_us: int | None = None
    intended_us: int = 0
    sent_us: int | None = None
    created_us: int = 0
    provider_id: str | None = None
    nonce: str | None = None
    tries: int = 0  # of the step it is in: readiness, final probe, destroy
    failures: int = 0
    failed_first_us: int = 0
    last_failure: ProviderError | None = None
    probe_due_us: int = 0
    final_due_us: int | None = None
    final_until_us: int = 0
    final_spoilt: bool = False  # a final try failed by our own fault
    destroying_us: int = 0

    @property
    def settled(self) -> bool:
        """Interactive, or failed, or never to be sent."""
        return self.state not in UNSETTLED

    # What the Shard asks.

    def create(self, intended_us: int, ttl_s: int) -> Call:
        """Its place in the load shape has come."""
        assert self.state is State.PLANNED
        self.state = State.CREATING
        self.intended_us = intended_us
        self.in_flight += 1
        timeout_s = self.rules.create_timeout_s
        return Call(Verb.CREATE, timeout_s, self.index, ttl_s=ttl_s)

    def act(self, now: int) -> Call | None:
        """The call that is due; None where there is none any more."""
        self.due_us = None
        if self.state is HELD:
            return self._probe(final=False)
        match self.state:
            case State.READYING:
                left_us = self.created_us + self.rules.ready_timeout_us - now
                return self._call(Verb.READY, max(left_us, 1_000) / 1e6)
            case State.WITNESSING:
                self.nonce = fresh_secret()
                timeout_s = self.rules.probe_timeout_s
                return self._call(Verb.WITNESS, timeout_s, secret=self.nonce)
            case State.FINAL:
                return self._probe(final=True)
            case State.DESTROYING:
                budget_s = self.rules.destroy_timeout_us / 1e6
                timeout_s = min(budget_s, max(DESTROY_TRY_MIN_S, budget_s / 3))
                return self._call(Verb.DESTROY, timeout_s)
            case (
                State.PLANNED
                | State.CREATING
                | State.LOST
                | State.WAITING
                | State.CLOSED
            ):
                return None
            case _:
                assert_never(self.state)

    def skip(self) -> None:
        """It will never be sent."""
        if self.state is State.PLANNED:
            self.state = State.CLOSED

    def begin_final(self, now: int, due_us: int, until_us: int) -> None:
        """T_end came: one final probe at its place, again until it succeeds."""
        self.final_due_us = due_us
        self.final_until_us = until_us
        if self.state is State.HELD:
            self._enter_final(now)

    def begin_destroy(self, now: int, *, forced: bool = False) -> None:
        """T_destroy came, or (forced) this Shard must let go of what it holds."""
        self.doomed = True
        self.forced = self.forced or forced
        match self.state:
            case State.PLANNED:
                self.skip()
            case State.READYING if not self.in_flight:
                self._unready(now, CUT)
            case State.HELD | State.WAITING:
                self._enter_destroying(now)
            case State.FINAL if self.forced:
                self._enter_destroying(now)
            case _:
                pass  # the result in flight, or the Shard, decides

    def found(self, now: int, provider_id: str) -> None:
        """The listing shows that a create without an answer made a sandbox."""
        assert self.state is State.LOST
        self.provider_id = provider_id
        self._enter_destroying(now)

    def abandon(self, now: int) -> None:
        """Nothing confirms that it is gone: the reaper's, if it was ever sent."""
        if self.state is State.CLOSED:
            return
        if self.sent_us is not None:
            self.rules.record.event(
                Kind.ORPHANED, now, self.index, provider_id=self.provider_id
            )
        self._close()

    def close_lost(self) -> None:
        """The listing shows that a failed create left nothing behind."""
        assert self.state is State.LOST
        self._close()

    @property
    def may_come_late(self) -> bool:
        """A listing cannot rule it out: its create may still be under way."""
        failure = self.last_failure
        return failure is None or failure.cause is not Cause.PROVIDER_ERROR

    # What the Provider answers.

    def sent(self, verb: Verb, at: int, **fields: object) -> None:
        """The first byte of a create or destroy was handed over."""
        if self.state is State.CLOSED:
            return
        if verb is CREATE:
            self.sent_us = at
            fields["intended_us"] = self.intended_us
            self.rules.record.note(CREATE_SENT, at, self.index, fields)
        elif verb is DESTROY:
            self.rules.record.note(DESTROY_SENT, at, self.index, fields)

    def finished(self, call: Call, result: Result) -> None:
        """A call of this Sandbox ended."""
        self.in_flight -= 1
        if self.state is State.CLOSED:
            return
        if call.verb is PROBE:
            self._on_probe(call, result)
            return
        if result.sent_us is None and call.verb in (Verb.CREATE, Verb.DESTROY):
            self.sent(call.verb, result.started_us, unsent=True)
        match call.verb:
            case Verb.CREATE:
                self._on_create(result)
            case Verb.READY:
                self._on_ready(result)
            case Verb.WITNESS:
                self._on_witness(result)
            case Verb.DESTROY:
                self._on_destroy(result)
            case Verb.WARM | Verb.LIST | Verb.OBSERVE:
                raise AssertionError(call.verb)
            case _:
                assert_never(call.verb)

    def _on_create(self, result: Result) -> None:
        now = result.done_us
        if result.error is not None:
            self._fail(Kind.CREATE_FAILED, result, result.error)
            self._log(now, "ERROR", f"create failed: {words(result.error)}")
            self.last_failure = result.error
            refused = result.error.cause in REFUSALS
            self.state = State.CLOSED if refused else State.LOST
            return
        assert isinstance(result.value, Created)
        made = result.value
        self.provider_id = made.provider_id
        self.created_us = now
        fields: dict[str, object] = {
            "provider_id": made.provider_id,
            "latency_us": result.latency_us,
            "reused": made.reused,
            "dns_us": made.dns_us,
            "connect_us": made.connect_us,
            "tls_us": made.tls_us,
        }
        self.rules.record.note(CREATED, now, self.index, fields)
        if self.doomed:
            self._enter_destroying(now)
            return
        self.state = State.READYING
        self.due_us = now

    def _on_ready(self, result: Result) -> None:
        now = result.done_us
        self.tries += 1
        failure = result.error or mismatch(result.value, self.rules.ready_expect)
        if failure is not None:
            self._fail(Kind.READY_PROBE_FAILED, result, failure, sent_us=result.from_us)
            next_us = now + READY_RETRY_US
            if next_us >= self.created_us + self.rules.ready_timeout_us:
                self._unready(now, failure)
            elif self.doomed:
                self._unready(now, CUT)
            else:
                self.due_us = next_us
            return
        assert self.sent_us is not None
        self.alive = True
        fields: dict[str, object] = {
            "latency_us": now - self.created_us,
            "sent_us": result.from_us,
            "tti_us": now - self.sent_us,
            "tries": self.tries,
        }
        self.rules.record.note(READY, now, self.index, fields)
        interval_us = self.rules.probe_interval_us
        self.probe_due_us = now + int(self.rules.chance.random() * interval_us)
        self.tries = 0
        if self.rules.witness and not self.forced:
            self.state = State.WITNESSING
            self.due_us = now
        else:
            self._hold(now)

    def _on_witness(self, result: Result) -> None:
        now = result.done_us
        if result.error is None:
            self.rules.record.event(
                Kind.WITNESS_STARTED, now, self.index, latency_us=result.latency_us
            )
        else:
            self.nonce = None
            self._log(now, "WARNING", f"no witness: {words(result.error)}")
        self._hold(now)

    def _hold(self, now: int) -> None:
        if self.forced:
            self._enter_destroying(now)
        elif self.rules.sequential:
            self.final_due_us = now
            self.final_until_us = now
            self._enter_final(now)
        elif self.final_due_us is not None:
            self._enter_final(now)
        else:
            self.state = State.HELD
            self.due_us = _on_grid(max(now, self.probe_due_us))

    def _probe(self, *, final: bool) -> Call:
        secret = fresh_secret() if self.nonce else None
        timeout_s = self.rules.probe_timeout_s
        return self._call(PROBE, timeout_s, secret=secret, final=final)

    def _on_probe(self, call: Call, result: Result) -> None:
        failure = result.error or mismatch(result.value)
        if failure is None:
            self._probe_ok(call, result)
            return
        self._fail(
            Kind.PROBE_FAILED,
            result,
            failure,
            sent_us=result.from_us,
            final=call.final,
        )
        # An ordinary probe that ends among the final ones is a fact, no verdict.
        if self.state is State.HELD or (self.state is State.FINAL and call.final):
            self._count(result.done_us, failure, final=call.final)

    def _probe_ok(self, call: Call, result: Result) -> None:
        now, sent_us = result.done_us, result.from_us
        fields: dict[str, object] = {
            "latency_us": now - sent_us,
            "sent_us": sent_us,
            "final": call.final,
        }
        if self.rules.witness:
            answer, secret = result.value, call.secret
            assert isinstance(answer, Answer)
            fields["ticks"] = answer.ticks
            fields["witness_ok"] = bool(self.nonce and secret) and (
                answer.digest == digest(f"{self.nonce}{secret}")
            )
        self.rules.record.note(PROBE_OK, now, self.index, fields)
        if call.final:  # also where the Shard is told to leave meanwhile
            self.rules.record.final_ok += 1
        if self.state is HELD:
            self.failures = 0
            self.probe_due_us += self.rules.probe_interval_us
            if self.probe_due_us < now:
                self.probe_due_us = now
            self.due_us = -(-self.probe_due_us // PROBE_GRID_US) * PROBE_GRID_US
        elif self.state is State.FINAL and call.final:
            self._wait(now)

    def _count(self, now: int, failure: ProviderError, *, final: bool) -> None:
        """Death rules of measurement.md §2 (held) and §6 (final)."""
        self.tries += 1
        if failure.cause is Cause.NOT_FOUND:
            self.last_failure = failure
            self._die(now)
            return
        interval_us = self.rules.probe_interval_us
        if failure.cause not in NEVER_COUNTED:
            self.failures += 1
            self.last_failure = failure
            if self.failures == 1:
                self.failed_first_us = now
        if final and not self.rules.sequential:
            self._count_final(now, failure)
            return
        counted = self.failures >= self.rules.probe_failures_max
        if failure.cause in NEVER_COUNTED:
            # Asking a throttled edge twice as often would only feed the throttle.
            self.due_us = self.probe_due_us = now + interval_us
        elif counted and now - self.failed_first_us >= interval_us:
            self._die(now)
        else:
            self.due_us = self.probe_due_us = now + interval_us // 2

    def _count_final(self, now: int, failure: ProviderError) -> None:
        if failure.origin is Origin.HARNESS:
            self.final_spoilt = True  # by our own fault: no verdict on it
        if not self.doomed and now + FINAL_RETRY_US < self.final_until_us:
            self.due_us = now + FINAL_RETRY_US
        elif self.failures and not self.final_spoilt:
            self._die(now)
        else:
            self._log(now, "WARNING", "no final probe succeeded; not proven dead")
            self._wait(now)

    def _die(self, now: int) -> None:
        failure = self.last_failure
        assert failure is not None
        self.alive = False
        self.rules.record.event(
            Kind.DEAD, now, self.index, cause=failure.cause, origin=failure.origin
        )
        self._log(now, "ERROR", f"dead: {words(failure)}")
        self._wait(now)

    def _unready(self, now: int, failure: ProviderError) -> None:
        limit_s = self.rules.ready_timeout_us / 1e6
        failure = ProviderError(
            failure.cause,
            failure.origin,
            f"not interactive within {limit_s:g} s; last: {failure.message}",
            status=failure.status,
        )
        self.rules.record.event(
            Kind.READINESS_FAILED,
            now,
            self.index,
            latency_us=now - self.created_us,
            **facts(failure),
        )
        self._log(now, "ERROR", f"never interactive: {words(failure)}")
        self._wait(now)

    def _wait(self, now: int) -> None:
        """All that can be proven of it is; it stays until T_destroy."""
        self.state = State.WAITING
        self.due_us = None
        if self.doomed or self.rules.sequential:
            self._enter_destroying(now)

    def _enter_final(self, now: int) -> None:
        assert self.final_due_us is not None
        self.state = State.FINAL
        self.tries = 0
        self.failures = 0
        self.last_failure = None
        self.final_spoilt = False
        self.due_us = max(now, self.final_due_us)

    def _enter_destroying(self, now: int) -> None:
        self.state = State.DESTROYING
        self.tries = 0
        self.destroying_us = now
        self.due_us = now

    def _on_destroy(self, result: Result) -> None:
        now = result.done_us
        error = result.error
        if error is None or error.cause is Cause.NOT_FOUND:
            self.rules.record.event(
                Kind.DESTROYED, now, self.index, latency_us=result.latency_us
            )
            self._close()
            return
        self._fail(Kind.DESTROY_FAILED, result, error)
        backoff_us = min(
            DESTROY_BACKOFF_MAX_US, DESTROY_BACKOFF_FIRST_US << min(self.tries, 10)
        )
        self.tries += 1
        next_us = now + int(backoff_us * (0.5 + self.rules.chance.random() / 2))
        if next_us - self.destroying_us < self.rules.destroy_timeout_us:
            self.due_us = next_us
            return
        self._log(now, "ERROR", f"orphaned: destroy failed: {words(error)}")
        self.abandon(now)

    def _close(self) -> None:
        self.state = State.CLOSED
        self.alive = False
        self.due_us = None

    def _call(
        self,
        verb: Verb,
        timeout_s: float,
        *,
        secret: str | None = None,
        final: bool = False,
    ) -> Call:
        assert self.provider_id is not None
        self.in_flight += 1
        return Call(verb, timeout_s, self.index, self.provider_id, final, secret)

    def _fail(
        self, kind: Kind, result: Result, failure: ProviderError, **fields: object
    ) -> None:
        fields.update(facts(failure), latency_us=result.latency_us)
        self.rules.record.event(kind, result.done_us, self.index, **fields)

    def _log(self, at: int, level: str, text: str) -> None:
        known_as = f" ({self.provider_id})" if self.provider_id else ""
        self.rules.record.log(at, level, f"sandbox {self.index}{known_as}: {text}")


def _on_grid(due_us: int) -> int:
    return -(-due_us // PROBE_GRID_US) * PROBE_GRID_US
