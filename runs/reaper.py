"""Our sandboxes that nobody holds any more: listed by label, destroyed, counted.

Every Run is reaped once before it is sealed, when its agents are gone. What its agents
destroyed is not there any more, so whatever is listed had leaked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta

from django.utils import timezone

from runs import claims, lifecycle, worlds
from runs.errors import CredentialError, FleetError, StateError
from runs.fleets import fleet_for
from runs.fleets.looks import living
from runs.models import LIVE_STATES, Run, State
from runs.plan import burst_s
from runs.prices import cost_usd
from shardagent.errors import ShardAgentError
from shardagent.providers import open_provider
from shardagent.providers.base import Provider
from shardagent.wire import Finish, Plan

log = logging.getLogger(__name__)

REAP_LIMIT_S = 120.0  # a whole reaping, however often it lists
CALL_LIMIT_S = 30.0  # one listing, one destroy
LEFTOVERS_LIMIT_S = 5.0  # the fleet waits, armed
DESTROYS_MAX = 64  # in flight
EMPTY_LISTINGS = 2  # one after another: then nothing is left
PAUSE_S = 0.5  # between two listings
MACHINES_DAYS = 3  # of Runs whose machines are looked for
LATE_CREATE_S = 5.0  # after its timeout a create may still bring a sandbox
CLAIM_S = REAP_LIMIT_S + 60
_IN_GOOD_ORDER = (Finish.DONE, Finish.ABORTED, Finish.FENCED)


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one reaping found; cost_usd is an estimate, None without a price."""

    listed: int
    destroyed: int
    left: int | None  # None: the Provider did not say
    cost_usd: float | None
    error: str | None = None


def is_due(run: Run) -> bool:
    """The Run collects, its agents are gone, and no create of theirs is under way."""
    if run.state != State.COLLECTING or run.reaped is not None:
        return False
    plan = lifecycle.plan_of(run)
    if lifecycle.now_us(run) < settled_us(run, plan):
        return False
    return not machines(run)


def machines(run: Run) -> int:
    """How many machines of the Run may still act; 1 where nobody can say.

    None where its engine would not even be asked for any (no account, no right).
    """
    driver = str((run.plan.get("fleet") or {}).get("driver", "local"))
    try:
        return len(living(driver, run.code))
    except FleetError as error:
        log.warning("run %s: cannot list its machines: %s", run.code, error)
        return int(error.retryable or "asked_at_us" in run.fleet)


def settled_us(run: Run, plan: Plan) -> int:
    """From when on no create can bring a sandbox any more, on the Run's clock.

    Only where an agent did not see its creates to their end.
    """
    if run.t0_us is None:
        return 0
    # Whether T0 was heard does not matter: the echo comes a heartbeat later.
    well = {"finished__in": _IN_GOOD_ORDER, "orphaned": 0}
    if not run.attempts.exclude(**well).filter(heard_at_us__isnull=False).exists():
        return 0
    after_s = burst_s(plan) + plan.create_timeout_s + LATE_CREATE_S
    return run.t0_us + round(after_s * 1e6)


def end_machines(run: Run) -> int:
    """End what is left of a sealed Run's machines, found by their tag; how many."""
    if run.state != State.SEALED:
        return 0
    driver = str((run.plan.get("fleet") or {}).get("driver", "local"))
    return fleet_for(driver).kill(run.code, hard=True)


def sweep_machines() -> int:
    """The same for every Run whose machines any engine still shows; how many.

    A machine may come to light late: it was cut off, or its engine did not list it.
    """
    since = timezone.now() - timedelta(days=MACHINES_DAYS)
    recent = Run.objects.filter(launched_at__gte=since)
    used = recent.values_list("plan__fleet__driver", flat=True).distinct()
    ended = 0
    for driver in sorted({str(name or "local") for name in used} - {"local"}):
        try:
            codes = fleet_for(driver).runs()
            for run in Run.objects.filter(code__in=codes, state=State.SEALED):
                ended += end_machines(run)
        except FleetError as error:
            log.warning("cannot look for machines of %s: %s", driver, error)
    return ended


def reap(run_id: int) -> None:
    """Reap a Run that collects, once; the result goes into its journal."""
    if not claims.take(run_id, "reap", CLAIM_S):
        return
    try:
        run = Run.objects.get(pk=run_id)
        if is_due(run):
            found = look(run, destroy=True)
            lifecycle.reaped(run, asdict(found))
            if found.listed or found.error:
                log.warning("run %s: reaped %s", run.code, found)
    finally:
        claims.give_back(run_id, "reap")


def look(run: Run, *, destroy: bool) -> Reaped:
    """List what is left of a Run at its Provider and, unless told, destroy it.

    StateError where its agents may still hold sandboxes.
    """
    if run.state in LIVE_STATES and run.state != State.COLLECTING:
        raise StateError(
            f"Run {run.code} is {run.state}: its agents hold these sandboxes; "
            "abort it first"
        )
    plan = lifecycle.plan_of(run)
    if not worlds.reachable(run):  # a simulated world takes its sandboxes with it
        return Reaped(0, 0, 0, _cost(run, plan, 0))
    config = worlds.provider_config(run)  # not within the loop: it may ask the database
    found = asyncio.run(_at_provider(run, plan, config, destroy=destroy))
    return replace(found, cost_usd=_cost(run, plan, found.listed))


def leftovers(run: Run, plan: Plan) -> int | None:
    """Sandboxes of other Runs of ours that are alive; None where nobody says."""
    try:
        config = worlds.provider_config(run)
        labels = asyncio.run(_labels(run.provider, config, plan))
    except (ShardAgentError, CredentialError, TimeoutError) as error:
        log.warning("run %s: cannot look for leftovers: %s", run.code, error)
        return None
    runs = [carried.get("run", "") for carried in labels]
    others = set(runs) - {run.code, ""}
    ours = set(Run.objects.filter(code__in=others).values_list("code", flat=True))
    return sum(code in ours for code in runs)


async def _labels(
    slug: str, config: Mapping[str, str], plan: Plan
) -> list[Mapping[str, str]]:
    provider = open_provider(slug, config, plan)
    try:
        async with asyncio.timeout(LEFTOVERS_LIMIT_S):
            return [one.labels for one in await provider.list({})]
    finally:
        await provider.close()


async def _at_provider(
    run: Run, plan: Plan, config: Mapping[str, str], *, destroy: bool
) -> Reaped:
    provider = open_provider(run.provider, config, plan)
    try:
        return await sweep(provider, {"run": run.code}, destroy=destroy)
    finally:
        await provider.close()


async def sweep(
    provider: Provider,
    labels: Mapping[str, str],
    *,
    destroy: bool,
    limit_s: float = REAP_LIMIT_S,
    pause_s: float = PAUSE_S,
) -> Reaped:
    """List and destroy until the list is empty twice, or the time is over."""
    deadline = time.monotonic() + limit_s
    seen: set[str] = set()
    gone: set[str] = set()
    left: int | None = None
    error: str | None = None
    empty = 0
    while empty < EMPTY_LISTINGS and time.monotonic() < deadline:
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                found = {one.provider_id for one in await provider.list(labels)}
            seen |= found
            left, error = len(found), None
            empty = 0 if found else empty + 1
            if not destroy:
                break
            gone |= await _destroy(provider, found)
        except (ShardAgentError, TimeoutError) as failure:
            error = str(failure)[:300] or type(failure).__name__
        if empty < EMPTY_LISTINGS:
            await asyncio.sleep(pause_s)
    return Reaped(len(seen), len(gone), left, None, error)


async def _destroy(provider: Provider, ids: set[str]) -> set[str]:
    """Those that are gone now; an absent one counts, the rest is listed again."""
    room = asyncio.Semaphore(DESTROYS_MAX)
    gone: set[str] = set()

    async def one(provider_id: str) -> None:
        async with room:
            try:
                async with asyncio.timeout(CALL_LIMIT_S):
                    await provider.destroy(provider_id, _unmeasured)
            except (ShardAgentError, TimeoutError) as error:
                log.warning("cannot destroy %s yet: %s", provider_id, error)
            else:
                gone.add(provider_id)

    async with asyncio.TaskGroup() as tasks:
        for provider_id in sorted(ids):
            tasks.create_task(one(provider_id))
    return gone


def _cost(run: Run, plan: Plan, sandboxes: int) -> float | None:
    """Of so many sandboxes that lived since T0 at most."""
    since_s = 0.0
    if run.t0_us is not None and run.state == State.COLLECTING:
        since_s = max(0.0, (lifecycle.now_us(run) - run.t0_us) / 1e6)
    spec = plan.spec
    return cost_usd(
        plan.provider, sandboxes * since_s, cpu=spec.cpu, memory_mb=spec.memory_mb
    )


def _unmeasured() -> None:
    """For calls whose sending nobody measures."""
