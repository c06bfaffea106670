"""One short, idempotent look at a Run: re-read its state, decide, act, return.

Never a long-lived actor: whoever is killed in the middle of a tick, the next one does
the rest. Nothing here waits; each state has a limit after which the Run moves on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.conf import settings
from django.db.models import Min, Q, QuerySet, Sum

from runs import (
    claims,
    hosts,
    lifecycle,
    objects,
    prices,
    provision,
    reaper,
    told,
    worlds,
)
from runs.barrier import Decision, decide, instant_ahead_us
from runs.clock import boot_id
from runs.errors import RunsError
from runs.fleets import looks
from runs.liveness import SILENT_INTERVALS, Liveness, liveness
from runs.models import Attempt, EndReason, Run, State
from shardagent.wire import Finish, Plan, ShardPhase

log = logging.getLogger(__name__)

CLAIM_S = 30  # a tick has the Run to itself at most so long
RELEASE_AHEAD_S = 3.0
ARMING_BEAT_S = 1.0  # between heartbeats while arming, at most
STARTING_S = 60  # in which a host may say its first word
DESTROY_GRACE_S = 30
STORING_S = 600 * 2  # agents give up by themselves after 600 s
_SPENDING = (State.PROVISIONING, State.ARMING, State.BURSTING, State.HOLDING)
_NOBODY = "no agent is left"
_FAILED = {"end_reason": EndReason.FAILED, "end_detail": _NOBODY}
_flushing = threading.Lock()


def tick(run_id: int) -> None:
    """Look once at the Run; two at once do no harm, the second returns at once."""
    if not claims.take(run_id, "tick", CLAIM_S):
        return
    try:
        run = Run.objects.get(pk=run_id)
        step = _STEPS.get(State(run.state))
        if step is not None and not _over_budget(run):
            step(run)
    except RunsError as error:
        log.warning("run %s: %s", run_id, error)
    finally:
        claims.give_back(run_id, "tick")
    _flush_unless_busy(run_id)


def _flush_unless_busy(run_id: int) -> None:
    """One at a time in this process: a store that is away must not hold up ticks."""
    if not _flushing.acquire(blocking=False):
        return
    try:
        flush_journal(Run.objects.get(pk=run_id))
    except RunsError as error:
        log.warning("run %s: %s", run_id, error)
    finally:
        _flushing.release()


def flush_journal(run: Run) -> None:
    """Store journal entries in order; the same entry twice is the same bytes."""
    for entry in run.journal.filter(stored=False).order_by("seq"):
        objects.put(
            f"runs/{run.code}/journal-{entry.seq:06d}.ndjson", entry.body.encode()
        )
        run.journal.filter(pk=entry.pk).update(stored=True)


def current(run: Run) -> QuerySet[Attempt]:
    """The Attempt of each Shard that still counts."""
    return run.attempts.filter(fenced_at_us__isnull=True)


def _queued(run: Run) -> None:
    lifecycle.begin_provisioning(run)


def _provisioning(run: Run) -> None:
    """Looks decide (provision.py); where none of them comes to an end, this does."""
    timeout_s = lifecycle.plan_of(run).fleet.provision_timeout_s
    limit_s = max(timeout_s, provision.START_LIMIT_S) + provision.CLAIM_S
    if lifecycle.now_us(run) - run.state_at_us > limit_s * 1e6:
        why = f"no look at its machines came to an end in {limit_s:g} s"
        lifecycle.stop_early(run, EndReason.FAILED, why)


def _arming(run: Run) -> None:
    plan = lifecycle.plan_of(run)
    _replace_lost(run, plan)
    # Who died since it was armed is not lost yet, but will not fire either.
    fresh_us = lifecycle.now_us(run) - round(SILENT_INTERVALS * ARMING_BEAT_S * 1e6)
    ready = {"phase": ShardPhase.ARMED, "finished": "", "heard_at_us__gte": fresh_us}
    armed = current(run).filter(**ready).count()
    verdict = decide(
        armed=armed,
        total=plan.shard_count,
        quorum=plan.quorum,
        waited_s=(lifecycle.now_us(run) - run.state_at_us) / 1e6,
        timeout_s=plan.arm_timeout_s,
    )
    match verdict.decision:
        case Decision.RELEASE:
            leftovers = reaper.leftovers(run, plan)
            now = lifecycle.now_us(run)
            t0 = instant_ahead_us(now, _beat_s(run, now), RELEASE_AHEAD_S)
            told = provision.machine_lines(run)
            lifecycle.release(run, t0, verdict.why, leftovers, told)
        case Decision.ABANDON:
            lifecycle.abandon(run, verdict.why)
        case Decision.HOLD:
            pass


def _beat_s(run: Run, now_us: int) -> float:
    """How long it takes to be heard by every agent: as of late, at least 1 s."""
    recent_us = now_us - round(SILENT_INTERVALS * ARMING_BEAT_S * 1e6)
    heard = current(run).filter(finished="", heard_at_us__gte=recent_us)
    oldest_us = heard.aggregate(oldest=Min("heard_at_us"))["oldest"] or now_us
    return max(ARMING_BEAT_S, 2 * (now_us - oldest_us) / 1e6)


def _replace_lost(run: Run, plan: Plan) -> None:
    # A host that no machine has claimed yet is awaited, not lost.
    lost = [a for a in _lost(run, plan) if a.host.machine]
    if lost:
        hosts.replace(run, lost)


def _bursting(run: Run) -> None:
    plan = lifecycle.plan_of(run)
    _fence_lost(run, plan)
    now = lifecycle.now_us(run)
    ahead = instant_ahead_us(now, plan.heartbeat_interval_s, 0)
    open_shards = (
        current(run).exclude(phase__in=told.SETTLED).filter(finished="").count()
    )
    if _nobody_left(run):
        lifecycle.tear_down(run, ahead, _NOBODY, **_FAILED)
    elif open_shards == 0 and run.t0_us is not None and now > run.t0_us:
        lifecycle.hold(run, ahead, "every Shard has settled")
    elif now >= lifecycle.deadline_us(run, plan):
        lifecycle.hold(run, ahead, f"burst deadline; {open_shards:,} Shards unsettled")


def _holding(run: Run) -> None:
    plan = lifecycle.plan_of(run)
    _fence_lost(run, plan)
    assert run.t_hold_us is not None
    now = lifecycle.now_us(run)
    earliest = instant_ahead_us(now, plan.heartbeat_interval_s, 0)
    wanted = run.t_hold_us + lifecycle.hold_us(plan)
    if _nobody_left(run):
        lifecycle.tear_down(run, earliest, _NOBODY, **_FAILED)
    elif earliest >= wanted - settings.RUN_TICK_INTERVAL_S * 1_500_000:
        lifecycle.tear_down(run, max(wanted, earliest), f"held for {plan.hold_s:g} s")


def _tearing_down(run: Run) -> None:
    plan = lifecycle.plan_of(run)
    _fence_lost(run, plan)
    assert run.t_destroy_us is not None
    limit_s = plan.destroy_timeout_s + DESTROY_GRACE_S
    late = lifecycle.now_us(run) > run.t_destroy_us + round(limit_s * 1e6)
    unfinished = current(run).filter(finished="").count()
    if unfinished == 0:
        lifecycle.collect(run, "every agent has finished or was lost")
    elif late:
        lifecycle.collect(run, f"{unfinished:,} agents did not finish in time")


def _collecting(run: Run) -> None:
    """Stop what still runs; sealing itself is an actor of its own."""
    plan = lifecycle.plan_of(run)
    provision.store_plan(run, plan)
    driver = plan.fleet.driver
    waited_s = (lifecycle.now_us(run) - run.state_at_us) / 1e6
    if reaper.machines(run):
        patience_s = _patience_s(run)
        if waited_s > patience_s:
            looks.end(driver, run.code, hard=True)
        elif waited_s > patience_s / 2 or not run.hosts.exclude(machine="").exists():
            looks.end(driver, run.code, hard=False)
    elif run.reaped is not None:
        worlds.finish(run)


def _patience_s(run: Run) -> float:
    """An agent that is heard has something left to store: the store may be away."""
    heard_us = lifecycle.now_us(run) - settings.RUN_LEASE_S * 1_000_000
    storing = current(run).filter(finished="", heard_at_us__gte=heard_us)
    return settings.RUN_COLLECT_TIMEOUT_S + (STORING_S if storing.exists() else 0)


def is_quiet(run: Run) -> bool:
    """Reaped, and nothing of the Run can write to the bucket any more."""
    if run.reaped is None:
        return False
    return not reaper.machines(run) and not worlds.alive(run)


def _liveness(run: Run, plan: Plan, attempt: Attempt) -> Liveness:
    if attempt.finished:
        return Liveness.LIVE
    host = attempt.host
    if not host.machine and run.state != State.ARMING:
        return Liveness.LOST  # no machine may claim it any more
    launched = host.claimed_at_us or host.launched_at_us or lifecycle.now_us(run)
    lease_s = settings.RUN_LEASE_S
    if attempt.heard_at_us is None:
        lease_s = max(lease_s, STARTING_S)
    return liveness(
        last_heard_us=max(attempt.heard_at_us or 0, launched),
        listening_since_us=run.listening_since_us,
        now_us=lifecycle.now_us(run),
        interval_s=plan.heartbeat_interval_s,
        lease_s=lease_s,
    )


def _lost(run: Run, plan: Plan) -> list[Attempt]:
    limit_us = lifecycle.now_us(run) - settings.RUN_LEASE_S * 1_000_000
    quiet = Q(heard_at_us__lt=limit_us) | Q(heard_at_us__isnull=True)
    candidates = current(run).filter(quiet, finished="").select_related("host")
    return [a for a in candidates if _liveness(run, plan, a) is Liveness.LOST]


def _fence_lost(run: Run, plan: Plan) -> None:
    """After RELEASE a lost Shard is not replaced; its agent is refused from now on."""
    lost = _lost(run, plan)
    if not lost:
        return
    now = lifecycle.now_us(run)
    for attempt in lost:
        Attempt.objects.filter(pk=attempt.pk, fenced_at_us__isnull=True).update(
            fenced_at_us=now, lost_at_us=now
        )
    lines = [
        {
            "kind": "liveness",
            "shard": a.shard,
            "attempt": a.number,
            "liveness": Liveness.LOST.value,
            "heard_at_us": a.heard_at_us,
        }
        for a in lost
    ]
    lifecycle.note(run, lines)


def _nobody_left(run: Run) -> bool:
    return not current(run).filter(finished="").exists() and not (
        current(run).filter(finished=Finish.DONE).exists()
    )


def _over_budget(run: Run) -> bool:
    """Abort in good order where the Plan's time or money is spent."""
    if run.state not in _SPENDING:
        return False
    plan = lifecycle.plan_of(run)
    spent = None
    if plan.max_duration_s is not None and _age_s(run) > plan.max_duration_s:
        spent = f"budget: max_duration_s {plan.max_duration_s:g} s reached"
    elif plan.max_cost is not None and _cost_usd(run, plan) >= plan.max_cost:
        spent = f"budget: max_cost ${plan.max_cost:g} reached (estimated)"
    return spent is not None and lifecycle.stop_early(run, EndReason.ABORTED, spent)


def _age_s(run: Run) -> float:
    """Since its turn came, on its own clock: waiting in the queue costs nothing."""
    turn = run.transitions.filter(to_state=State.PROVISIONING).first()
    return (lifecycle.now_us(run) - turn.at_us) / 1e6 if turn else 0.0


def _cost_usd(run: Run, plan: Plan) -> float:
    """Estimated: as if all that were created had lived since T0."""
    if run.t0_us is None:
        return 0.0
    created = run.attempts.aggregate(all=Sum("created"))["all"] or 0
    since_s = max(0.0, (lifecycle.now_us(run) - run.t0_us) / 1e6)
    spec = plan.spec
    cost = prices.cost_usd(
        plan.provider, created * since_s, cpu=spec.cpu, memory_mb=spec.memory_mb
    )
    return cost or 0.0


def listen_again() -> None:
    """The site's ear opens (start-up): silence before now is nobody's fault."""
    for run in Run.objects.exclude(state__in=(State.SEALED, State.DRAFT)):
        if run.clock_boot_id and run.clock_boot_id != boot_id():
            lifecycle.renew_clock(run)
        Run.objects.filter(pk=run.pk).update(
            listening_since_us=lifecycle.now_us(run),
            tick_until_us=0,
            ingest_until_us=0,
            seal_until_us=0,
            reap_until_us=0,
            provision_until_us=0,
        )


_STEPS: dict[State, Callable[[Run], None]] = {
    State.QUEUED: _queued,
    State.PROVISIONING: _provisioning,
    State.ARMING: _arming,
    State.BURSTING: _bursting,
    State.HOLDING: _holding,
    State.TEARING_DOWN: _tearing_down,
    State.COLLECTING: _collecting,
}
