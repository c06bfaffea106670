"""Which machine carries which Shards, and the secret by which it is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils.crypto import constant_time_compare, salted_hmac

from runs import lifecycle
from runs.errors import StateError
from runs.liveness import SILENT_INTERVALS
from runs.models import Attempt, Host, Run, State
from shardagent.wire import Plan

BATCH = 1_000  # rows a statement
LATE_JOIN_MARGIN_S = 1.0
_BEFORE_RELEASE = (State.PROVISIONING, State.ARMING)


def token_of(run_code: str, host: int) -> str:
    """Derived, never stored: HMAC of the host's place under the site's secret key."""
    return salted_hmac("holdfast.host", f"{run_code}/{host}").hexdigest()


def fleet_token_of(run_code: str) -> str:
    """With which the machines of a Run claim its hosts, and can do nothing else."""
    return salted_hmac("holdfast.fleet", run_code).hexdigest()


def is_fleet_token_of(token: str, run_code: str) -> bool:
    return constant_time_compare(token, fleet_token_of(run_code))


def is_token_of(token: str, run_code: str, host: int) -> bool:
    return constant_time_compare(token, token_of(run_code, host))


def assign(run: Run, plan: Plan) -> None:
    """Make the rows of every host and first Attempt; doing it twice changes nothing."""
    per_host = plan.fleet.shards_per_host
    count = math.ceil(plan.shard_count / per_host)
    with transaction.atomic():
        if run.attempts.exists():
            return
        hosts = Host.objects.bulk_create(
            [Host(run=run, index=index) for index in range(count)], batch_size=BATCH
        )
        Attempt.objects.bulk_create(
            [
                Attempt(run=run, shard=shard, host=hosts[shard // per_host])
                for shard in range(plan.shard_count)
            ],
            batch_size=BATCH,
        )


def claim(run: Run, machine: str, index: int | None) -> Host | None:
    """A host for this machine to carry; None where none is free now.

    The same machine is given the same host again. Whoever comes second to a host gets
    another. StateError where it is wanted no more: its host was given to another, or
    the Run takes no new hosts.
    """
    with transaction.atomic():
        own = run.hosts.filter(machine=machine)
        kept = own.filter(attempts__fenced_at_us__isnull=True).first()
        if kept is not None:
            return kept
        if own.exists():
            raise StateError(f"machine {machine} was given up; leave")
        if run.state not in _BEFORE_RELEASE:
            raise StateError(f"Run {run.code} is {run.state}; leave")
        free = run.hosts.filter(machine="")
        wished = free.filter(index=index).first() if index is not None else None
        host = wished or free.order_by("index").first()
        taken = {"machine": machine, "claimed_at_us": lifecycle.now_us(run)}
        if host and Host.objects.filter(pk=host.pk, machine="").update(**taken):
            return host
    return None


def admit(run: Run, host: Host, facts: Mapping[str, Any], plan: Plan) -> bool:
    """Let a process speak for a host from now on; False where it has to ask again.

    An agent that was started anew takes over once the one before it is silent, and is
    the only one that is heard after that. Two must never create the same Sandboxes:
    where T0 is known, another process comes in only when it is too late to create.
    """
    now = lifecycle.now_us(run)
    before = host.facts.get("process")
    if before and before != facts["process"]:
        heard = host.attempts.aggregate(last=Max("heard_at_us"))["last"]
        last = max(heard or 0, host.registered_at_us or 0, run.listening_since_us)
        interval_s = max(1.0, plan.heartbeat_interval_s)
        if now - last < SILENT_INTERVALS * interval_s * 1e6:
            return False
        closed_s = plan.late_join_s + LATE_JOIN_MARGIN_S
        if run.t0_us is not None and now < run.t0_us + closed_s * 1e6:
            return False
    same = Host.objects.filter(pk=host.pk, registered_at_us=host.registered_at_us)
    taken: dict[str, Any] = {"registered_at_us": now, "facts": dict(facts)}
    if not host.machine:  # it was told its host when it was started
        carrier = (facts.get("machine") or {}).get("id") or str(facts.get("process"))
        taken |= {"machine": carrier[:100], "claimed_at_us": now}
    return bool(same.update(**taken))


def replace(run: Run, lost: Iterable[Attempt]) -> int:
    """Before RELEASE only: a new Attempt on a new host for each lost one.

    The Shards of one lost host go to one new host.
    """
    by_host: dict[int, list[Attempt]] = {}
    for attempt in lost:
        by_host.setdefault(attempt.host_id, []).append(attempt)
    for attempts in by_host.values():
        with transaction.atomic():
            now = lifecycle.now_us(run)
            same = Run.objects.select_for_update().filter(pk=run.pk)
            if not same.filter(state__in=_BEFORE_RELEASE).exists():
                return 0
            fenced = Attempt.objects.filter(
                pk__in=[a.pk for a in attempts], fenced_at_us__isnull=True
            ).update(fenced_at_us=now, lost_at_us=now)
            if fenced != len(attempts):
                continue  # another worker was first
            host = Host.objects.create(run=run, index=run.hosts.count())
            Attempt.objects.bulk_create(
                Attempt(run=run, shard=a.shard, number=a.number + 1, host=host)
                for a in attempts
            )
        lifecycle.note(
            run,
            [
                {
                    "kind": "attempt",
                    "shard": a.shard,
                    "attempt": a.number + 1,
                    "host": host.index,
                    "why": "the agent was lost before RELEASE",
                }
                for a in attempts
            ],
        )
    return len(by_host)
