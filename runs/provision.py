"""The machines of a Run: how many are wanted, how many came, and why not the rest.

One look at the fleet, idempotent, at the driver's own pace while the Run provisions and
arms: what is missing is asked for again, what was given up is ended. Whoever is killed
in the middle of it, the next look finds every machine by its tag and goes on.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from django.conf import settings

from runs import claims, hosts, lifecycle, objects, told, worlds
from runs.errors import FleetError, RunsError
from runs.fleets import Fleet, Launched, Machine, MachineState, Order, fleet_for
from runs.fleets.base import GRANTED, useful, usual
from runs.fleets.wheelhouse import wheelhouse
from runs.models import EndReason, Host, Run, State
from runs.plan import burst_s, typical_duration_s
from shardagent.wire import Plan

log = logging.getLogger(__name__)

CLAIM_S = 150  # a look at most; drivers bound what they do in one
LOOK_INTERVAL_S_MIN = 0.5
START_LIMIT_S = 600  # in which an engine may be unreachable
STARTS_PER_MACHINE_MAX = 3  # machines that end at once are not started for ever
STORING_S = 1_500  # at a machine's end: records stored, destroys confirmed
REASONS_SHOWN_MAX = 5
GONE = "started, and gone again: it ended by itself, or was given up"
HOSTS_MAX = 20_000
_AT_WORK = (State.PROVISIONING, State.ARMING)


def is_due(run: Run) -> bool:
    """Whether it is time to look at the machines of a Run that is not released yet."""
    if run.state not in _AT_WORK:
        return False
    driver = str((run.plan.get("fleet") or {}).get("driver", "local"))
    try:
        pace_s = max(fleet_for(driver).look_interval_s, LOOK_INTERVAL_S_MIN)
    except FleetError:
        pace_s = LOOK_INTERVAL_S_MIN  # the look itself fails the Run
    looked_us = int(run.fleet.get("looked_at_us") or 0)
    return lifecycle.now_us(run) - looked_us >= pace_s * 1e6


def provision(run_id: int) -> None:
    """One look; two at once do no harm, the second returns at once."""
    if not claims.take(run_id, "provision", CLAIM_S):
        return
    run = Run.objects.get(pk=run_id)
    try:
        if run.state in _AT_WORK:
            _look(run, lifecycle.plan_of(run))
    except FleetError as error:
        log.warning("run %s: %s", run.code, error)
        _failed(run, error)
    except RunsError as error:
        log.warning("run %s: %s", run.code, error)
    finally:
        claims.give_back(run_id, "provision")


def store_plan(run: Run, plan: Plan) -> None:
    """run.json, before the fleet starts; the same bytes however often."""
    objects.put(f"runs/{run.code}/run.json", plan.model_dump_json(indent=1).encode())


def machine_lines(run: Run) -> Iterator[dict[str, Any]]:
    """Journal lines: what carries each Attempt that speaks for a Shard now."""
    rows = run.attempts.filter(fenced_at_us__isnull=True).exclude(host__facts={})
    carried: dict[int, list[list[int]]] = {}
    for index, shard, number in rows.values_list("host__index", "shard", "number"):
        carried.setdefault(index, []).append([shard, number])
    found = run.hosts.filter(index__in=carried).order_by("index")[:HOSTS_MAX]
    for host in found:
        facts = host.facts
        carrier = {k: v for k, v in (facts.get("machine") or {}).items() if v}
        yield {
            "kind": "machine",
            "host": host.index,
            "attempts": sorted(carried[host.index]),
            **carrier,
            "egress": carrier.get("egress") or facts.get("egress"),
            "hostname": facts.get("hostname"),
            "version": facts.get("version"),
            "cpu_count": facts.get("cpu_count"),
        }


def shown(run: Run, gauged: told.Gauges) -> dict[str, Any]:
    """How far the machines are, for live pages: asked, granted, booted, armed."""
    said = run.fleet
    asked_us, driver = said.get("asked_at_us"), run.plan.get("fleet", {}).get("driver")
    spent_s = (lifecycle.now_us(run) - asked_us) / 1e6 if asked_us else 0.0
    usd = said.get("usd_per_h")
    return {
        "driver": driver,
        "asked": said.get("asked", 0),
        "granted": said.get("granted", 0),
        **gauged.machines,
        "started": said.get("started", 0),
        "reasons": said.get("reasons") or {},
        "kinds": said.get("kinds") or {},
        "usd_per_h": usd,
        "usd_so_far": round(usd * spent_s / 3_600, 4) if usd is not None else None,
        "usd_forecast": said.get("usd_forecast"),
    }


def order_of(run: Run, plan: Plan) -> Order:
    """What the Run wants of its Fleet now."""
    carried = _carried(run)
    spares = math.ceil(carried * plan.fleet.over_provision_pct / 100)
    kept = run.hosts.filter(attempts__fenced_at_us__isnull=True)
    given_up = run.hosts.exclude(machine="").exclude(pk__in=kept.values("pk"))
    return Order(
        run=run.code,
        machines=carried + spares,
        site_url=settings.AGENT_SITE_URL,
        token=hosts.fleet_token_of(run.code),
        lifetime_s=lifetime_s(plan),
        spec=plan.fleet,
        wheelhouse=partial(wheelhouse, settings.DATA / "wheelhouse"),
        written_off=frozenset(given_up.values_list("machine", flat=True)),
    )


def lifetime_s(plan: Plan) -> int:
    """The longest that a machine of this Plan may be of any use."""
    start_s = plan.fleet.provision_timeout_s + plan.arm_timeout_s
    work_s = burst_s(plan) + plan.create_timeout_s + plan.ready_timeout_s + plan.hold_s
    end_s = plan.final_spread_s + plan.probe_failures_max * plan.probe_timeout_s
    return math.ceil(start_s + work_s + end_s + plan.destroy_timeout_s + STORING_S)


def _look(run: Run, plan: Plan) -> None:
    if run.state == State.PROVISIONING:
        store_plan(run, plan)
        hosts.assign(run, plan)
        worlds.start(run, plan)
    fleet = fleet_for(plan.fleet.driver)
    order = order_of(run, plan)
    if order.written_off:
        fleet.kill(run.code, order.written_off)
    before = int(run.fleet.get("started") or 0)
    if before >= STARTS_PER_MACHINE_MAX * order.machines:
        there = fleet.list(run.code)
        short = order.machines - len(useful(there, order.written_off))
        refused = {f"given up after {before:,} starts": short} if short > 0 else {}
        launched = Launched(there, refused=refused)
    else:
        launched = fleet.launch(order)
    _replace_gone(run, launched.machines)
    granted = _note(run, fleet, order, launched)
    if run.state == State.PROVISIONING:
        _arm_or_fail(run, plan, granted)


def _replace_gone(run: Run, machines: Iterable[Machine]) -> None:
    """A machine that its engine does not know any more is lost before it is silent."""
    if any(machine.state is MachineState.UNREACHABLE for machine in machines):
        return  # which of them are gone, nobody can say
    there = {machine.id for machine in machines if machine.state in GRANTED}
    claimed = run.attempts.filter(fenced_at_us__isnull=True).exclude(host__machine="")
    gone = [a for a in claimed.select_related("host") if a.host.machine not in there]
    if gone:
        hosts.replace(run, gone)


def _note(run: Run, fleet: Fleet, order: Order, launched: Launched) -> int:
    """Keep what was found in the Run's row; how many machines are granted."""
    there = useful(launched.machines, order.written_off)
    granted = [m for m in there if m.state in GRANTED]
    now = lifecycle.now_us(run)
    said = dict(run.fleet)
    said.setdefault("asked_at_us", now)
    started = int(said.get("started") or 0) + launched.started
    said |= {
        "asked": order.machines,
        "granted": len(granted),
        "started": started,
        "reasons": _reasons(launched, order, started),
        "kinds": _kinds(granted),
        "usd_per_h": fleet.usd_per_h(granted),
        "usd_forecast": _forecast(run, fleet, order, granted),
        "looked_at_us": now,
    }
    if len(granted) >= order.machines:
        said.setdefault("granted_at_us", now)
    Run.objects.filter(pk=run.pk).update(fleet=said)
    run.fleet = said
    stamped = run.hosts.filter(launched_at_us__isnull=False).count()
    waiting = run.hosts.filter(launched_at_us__isnull=True).order_by("index")
    free = max(0, len(granted) + len(order.written_off) - stamped)
    ids = list(waiting.values_list("pk", flat=True)[:free])
    for first in range(0, len(ids), hosts.BATCH):
        batch = ids[first : first + hosts.BATCH]
        Host.objects.filter(pk__in=batch).update(launched_at_us=now)
    return len(granted)


def _forecast(
    run: Run, fleet: Fleet, order: Order, granted: Sequence[Machine]
) -> float | None:
    """What all that were asked for cost until this Plan's Run is usually over."""
    each = fleet.usd_per_h(granted[:1] or [usual(order.spec)])
    if each is None:
        return None
    hours = typical_duration_s(lifecycle.plan_of(run)) / 3_600
    return round(each * order.machines * hours, 4)


def _reasons(launched: Launched, order: Order, started: int) -> dict[str, int]:
    """Why machines are not there: refused, waiting, ending, or gone again."""
    found = Counter(launched.refused)
    for machine in launched.machines:
        if machine.state is MachineState.WAITING:
            found[machine.why or "waits"] += 1
        elif (
            machine.state is MachineState.ENDING and machine.id not in order.written_off
        ):
            found[machine.why or "ends"] += 1
    states = {machine.state for machine in launched.machines}
    gone = started - len(launched.machines)
    if gone > 0 and MachineState.UNREACHABLE not in states:
        found[GONE] = gone
    return dict(found.most_common(REASONS_SHOWN_MAX))


def _kinds(machines: Sequence[Machine]) -> dict[str, int]:
    kinds = Counter(
        " ".join(filter(None, (m.type, m.zone or m.region, "spot" if m.spot else "")))
        for m in machines
    )
    return dict(kinds.most_common(REASONS_SHOWN_MAX))


def _arm_or_fail(run: Run, plan: Plan, granted: int) -> None:
    wanted = _carried(run)
    line = {"kind": "provisioned", **_told(run.fleet)}
    if granted >= wanted:
        lifecycle.arm(run, run.hosts.count(), told=[line])
        return
    limit_s = plan.fleet.provision_timeout_s
    if lifecycle.now_us(run) - run.state_at_us < limit_s * 1e6:
        return
    why = f"{granted:,} of {wanted:,} machines came within {limit_s:g} s{_because(run)}"
    enough = granted * plan.fleet.shards_per_host >= plan.quorum * plan.shard_count
    if enough:
        lifecycle.arm(run, granted, why, told=[line])
    else:
        lifecycle.stop_early(run, EndReason.FAILED, f"only {why}")


def _told(fleet: Mapping[str, Any]) -> dict[str, Any]:
    names = ("asked", "granted", "started", "reasons", "kinds", "usd_per_h")
    return {name: fleet.get(name) for name in names}


def _because(run: Run) -> str:
    reasons = run.fleet.get("reasons") or {}
    shown = "; ".join(f"{count:,} × {why}" for why, count in reasons.items())
    return f": {shown}" if shown else ""


def _failed(run: Run, error: FleetError) -> None:
    """An engine that does not answer is asked again for a while; a refusal ends it."""
    now = lifecycle.now_us(run)
    said = {**run.fleet, "looked_at_us": now, "reasons": {str(error)[:200]: 1}}
    Run.objects.filter(pk=run.pk).update(fleet=said)
    run.refresh_from_db()
    if run.state != State.PROVISIONING:
        return  # what is there may still arm: the barrier decides
    limit_s = START_LIMIT_S if error.retryable else 0
    if now - run.state_at_us > limit_s * 1e6:
        lifecycle.stop_early(run, EndReason.FAILED, str(error))


def _carried(run: Run) -> int:
    """Hosts that carry Shards, or shall."""
    rows = run.attempts.filter(fenced_at_us__isnull=True)
    return rows.values("host").distinct().count()
