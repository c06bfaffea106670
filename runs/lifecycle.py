"""Every change of a Run's state: guarded, journalled, and in one transaction.

The only code that writes Run.state. A change is a conditional UPDATE on the old state;
whoever comes second changes nothing. Its Transition row and its journal lines are
committed with it, so the bucket's journal and the database tell one story.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from django.db import transaction
from django.db.models import Max

from runs.clock import RunClock, boot_id
from runs.errors import StateError
from runs.models import (
    LIVE_STATES,
    EndReason,
    JournalEntry,
    Run,
    State,
    Transition,
)
from runs.plan import burst_deadline_us, read_plan
from shardagent.wire import Plan, Shape

_JOURNALLED = ("end_reason", "end_detail")  # fields told with a change of state
SEALED = "collected and judged"
DATE_MAX_US = 253_370_764_800_000_000  # 9999-01-01
QUEUE_LOCK_MAX = 10_000  # Runs of one lane looked at


def plan_of(run: Run) -> Plan:
    return read_plan(run.plan, run.code)


def clock_of(run: Run) -> RunClock:
    return RunClock(run.clock_base_wall_us, run.clock_base_mono_ns, run.clock_boot_id)


def now_us(run: Run) -> int:
    """The Run's clock, or this host's wall clock where the Run has none yet."""
    clock = clock_of(run) if run.clock_boot_id else RunClock.start()
    return clock.now_us()


def queue(run: Run, user_name: str) -> bool:
    at_us = now_us(run)
    return _change(
        run,
        (State.DRAFT,),
        State.QUEUED,
        f"launched by {user_name}",
        at_us=at_us,
        launched_at=at(at_us),
    )


def at(at_us: int) -> datetime:
    """The nearest that a date can say: records from elsewhere may hold anything."""
    return datetime.fromtimestamp(min(max(at_us, 0), DATE_MAX_US) / 1e6, tz=UTC)


def begin_provisioning(run: Run) -> bool:
    """Give the Run its clock, unless another Run of its lane is live."""
    clock = RunClock.start()
    with transaction.atomic():
        rivals = Run.objects.select_for_update().filter(lane=run.lane)
        states = dict(rivals.values_list("id", "state")[:QUEUE_LOCK_MAX])
        if any(state in LIVE_STATES for state in states.values()):
            return False
        earlier = [i for i, s in states.items() if s == State.QUEUED and i < run.id]
        if earlier:
            return False
        return _change(
            run,
            (State.QUEUED,),
            State.PROVISIONING,
            "its turn came",
            lines=[clock_line(clock)],
            clock=clock,
        )


def arm(
    run: Run, hosts: int, why: str = "", told: Iterable[Mapping[str, Any]] = ()
) -> bool:
    """The machines are there. told: journal lines of how they came."""
    why = why or f"{hosts:,} hosts were launched"
    return _change(run, (State.PROVISIONING,), State.ARMING, why, lines=told)


def release(
    run: Run,
    t0_us: int,
    why: str,
    leftovers: int | None = None,
    told: Iterable[Mapping[str, Any]] = (),
) -> bool:
    """Set T0. leftovers: our own sandboxes of earlier Runs; None where unknown.

    told: journal lines of the machines that the Run is released on.
    """
    released = {"kind": "released", "t0_us": t0_us, "previous_us": _previous_us(run)}
    lines: list[Mapping[str, Any]] = [*told, released]
    if leftovers is not None:
        lines.append({"kind": "leftovers", "count": leftovers})
    return _change(
        run,
        (State.ARMING,),
        State.BURSTING,
        why,
        lines=lines,
        t0_us=t0_us,
    )


def _previous_us(run: Run) -> int | None:
    """When the site's last Run at this Provider let go of its sandboxes."""
    earlier = Run.objects.filter(provider=run.provider, t0_us__isnull=False)
    latest = earlier.exclude(pk=run.pk).aggregate(
        end=Max("t_destroy_us"), start=Max("t0_us")
    )
    known = [at_us for at_us in latest.values() if at_us is not None]
    return max(known, default=None)


def abandon(run: Run, why: str) -> bool:
    return _change(
        run,
        (State.ARMING,),
        State.COLLECTING,
        why,
        lines=[{"kind": "abandoned", "reason": why}],
        leave=why[:300],
        end_reason=EndReason.FAILED,
        end_detail=why[:500],
    )


def hold(run: Run, t_hold_us: int, why: str) -> bool:
    return _change(
        run,
        (State.BURSTING,),
        State.HOLDING,
        why,
        lines=[{"kind": "holding", "t_hold_us": t_hold_us}],
        t_hold_us=t_hold_us,
    )


def tear_down(run: Run, t_end_us: int, why: str, **fields: Any) -> bool:
    """Set T_end and T_destroy (measurement.md §6), absolute instants."""
    plan = plan_of(run)
    patience_s = plan.final_spread_s + plan.probe_failures_max * plan.probe_timeout_s
    t_destroy_us = t_end_us + round(patience_s * 1e6)
    return _change(
        run,
        (State.BURSTING, State.HOLDING),
        State.TEARING_DOWN,
        why,
        lines=[
            {"kind": "teardown", "t_end_us": t_end_us, "t_destroy_us": t_destroy_us}
        ],
        t_end_us=t_end_us,
        t_destroy_us=t_destroy_us,
        **fields,
    )


def collect(run: Run, why: str, **fields: Any) -> bool:
    return _change(run, (State.TEARING_DOWN,), State.COLLECTING, why, **fields)


def stop_early(run: Run, reason: EndReason, detail: str) -> bool:
    """Abort or fail a Run in any state that is not over; it is collected and sealed."""
    ends: dict[str, Any] = {
        "end_reason": reason,
        "end_detail": detail[:500],
        "leave": detail[:300],
    }
    early = (State.DRAFT, State.QUEUED, State.PROVISIONING, State.ARMING)
    if run.state in early:
        return _change(run, early, State.COLLECTING, detail, **ends)
    if run.state in (State.BURSTING, State.HOLDING):
        plan = plan_of(run)
        ahead_us = round(3 * plan.heartbeat_interval_s * 1e6)
        return tear_down(run, now_us(run) + ahead_us, detail, **ends)
    if run.state == State.SEALED:
        raise StateError(f"Run {run.code} is sealed; there is nothing left to stop")
    return False


def seal(run: Run, summary: Mapping[str, Any], at_us: int) -> bool:
    return _change(
        run,
        (State.COLLECTING,),
        State.SEALED,
        SEALED,
        at_us=at_us,
        journalled=False,  # the journal is part of what was sealed
        summary=dict(summary),
        sealed_at_us=at_us,
        live=None,
        end_reason=run.end_reason or EndReason.COMPLETED,
    )


def reaped(run: Run, figures: Mapping[str, Any]) -> bool:
    """Keep what the reaper found, once, and journal it."""
    with transaction.atomic():
        unreaped = Run.objects.filter(pk=run.pk, reaped__isnull=True)
        if not unreaped.update(reaped=dict(figures)):
            return False
        note(run, [{"kind": "reaped", **figures}])
    run.refresh_from_db()
    return True


def note(run: Run, lines: Iterable[Mapping[str, Any]]) -> None:
    """Journal facts that change no state (liveness, replaced attempts)."""
    at_us = now_us(run)
    with transaction.atomic():
        Run.objects.select_for_update().get(pk=run.pk)
        _journal(run, [{**line, "at_us": at_us} for line in lines])


def renew_clock(run: Run) -> None:
    """After a reboot of the host: a new clock, whose samples are told apart."""
    if run.clock_boot_id in ("", boot_id()):
        return
    clock = RunClock.start()
    Run.objects.filter(pk=run.pk).update(**_clock_fields(clock))
    run.refresh_from_db()
    note(run, [clock_line(clock)])


def clock_line(clock: RunClock) -> dict[str, Any]:
    return {
        "kind": "clock",
        "clock_id": clock.clock_id,
        "base_us": clock.base_wall_us,
        "boot_id": clock.boot_id,
    }


def deadline_us(run: Run, plan: Plan) -> int:
    """The burst deadline of a released Run, on its clock."""
    assert run.t0_us is not None
    return burst_deadline_us(plan, run.t0_us)


def hold_us(plan: Plan) -> int:
    """How long the hold is; a sequential Run claims none."""
    return 0 if plan.load.shape is Shape.SEQUENTIAL else round(plan.hold_s * 1e6)


def _clock_fields(clock: RunClock) -> dict[str, Any]:
    return {
        "clock_id": clock.clock_id,
        "clock_base_wall_us": clock.base_wall_us,
        "clock_base_mono_ns": clock.base_mono_ns,
        "clock_boot_id": clock.boot_id,
        "listening_since_us": clock.now_us(),
    }


def _change(
    run: Run,
    expected: tuple[State, ...],
    to: State,
    why: str,
    *,
    lines: Iterable[Mapping[str, Any]] = (),
    clock: RunClock | None = None,
    journalled: bool = True,
    at_us: int | None = None,
    **fields: Any,
) -> bool:
    """One guarded transition; False when it was not ours to make."""
    if run.state not in expected:
        return False
    if at_us is None:
        at_us = clock.now_us() if clock else now_us(run)
    before = run.state
    if clock:
        fields |= _clock_fields(clock)
    with transaction.atomic():
        changed = Run.objects.filter(pk=run.pk, state=before).update(
            state=to, state_at_us=at_us, **fields
        )
        if changed:
            Transition.objects.create(
                run=run, from_state=before, to_state=to, why=why[:500], at_us=at_us
            )
            state = {"kind": "state", "from": before, "to": to, "why": why}
            state |= {key: fields[key] for key in _JOURNALLED if key in fields}
            if journalled:
                _journal(run, [{**line, "at_us": at_us} for line in (*lines, state)])
    run.refresh_from_db()
    return bool(changed)


def _journal(run: Run, lines: list[dict[str, Any]]) -> None:
    last = run.journal.aggregate(last=Max("seq"))["last"]
    body = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    JournalEntry.objects.create(
        run=run, seq=0 if last is None else last + 1, body=body.decode()
    )
