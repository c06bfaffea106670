"""Dramatiq's actors: an id in, one call out, safe to deliver twice.

Nothing here supervises by staying alive. `look_after` is called each second by every
worker process and sends short messages; a message that waited too long is dropped,
because the next second brings another.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import dramatiq

from runs import ingest, provision, reaper, rebuild, seal, supervise
from runs.models import Run, State

log = logging.getLogger(__name__)

# A broker may deliver a message more than once; fault drills make sure of it.
DELIVERIES = int(os.environ.get("HOLDFAST_TEST_DELIVERIES") or 1)
UNSEALED_MAX = 1_000  # Runs looked after at once
SWEEP_INTERVAL_S = 60  # between two looks for machines that nobody holds
_IDLE = (State.DRAFT, State.SEALED)


@dramatiq.actor(queue_name="supervise", max_retries=0, time_limit=60_000, max_age=3_000)
def tick_run(run_id: int) -> None:
    supervise.tick(run_id)
    if provision.is_due(Run.objects.get(pk=run_id)):
        _send(provision_run, run_id)
    elif reaper.is_due(Run.objects.get(pk=run_id)):
        _send(reap_run, run_id)
    elif seal.is_due(run_id):
        _send(seal_run, run_id)
    elif ingest.is_due(run_id):
        _send(ingest_run, run_id)


@dramatiq.actor(
    queue_name="supervise", max_retries=0, time_limit=180_000, max_age=3_000
)
def provision_run(run_id: int) -> None:
    provision.provision(run_id)


@dramatiq.actor(queue_name="record", max_retries=0, time_limit=600_000, max_age=5_000)
def ingest_run(run_id: int) -> None:
    ingest.ingest(run_id)


@dramatiq.actor(queue_name="record", max_retries=0, time_limit=3_600_000, max_age=5_000)
def seal_run(run_id: int) -> None:
    seal.seal(run_id)


@dramatiq.actor(
    queue_name="supervise", max_retries=0, time_limit=240_000, max_age=5_000
)
def reap_run(run_id: int) -> None:
    reaper.reap(run_id)


@dramatiq.actor(
    queue_name="supervise", max_retries=0, time_limit=180_000, max_age=30_000
)
def sweep_machines() -> None:
    reaper.sweep_machines()


@dramatiq.actor(queue_name="record", max_retries=0, time_limit=3_600_000, max_age=5_000)
def rebuild_run(run_id: int) -> None:
    rebuild.refresh(run_id)


def look_after() -> None:
    """Send a tick for each Run that is not over, and rebuild one that is stale."""
    unsealed = Run.objects.exclude(state__in=_IDLE).values_list("id", flat=True)
    for run_id in unsealed[:UNSEALED_MAX]:
        _send(tick_run, run_id)
    if int(time.monotonic()) % SWEEP_INTERVAL_S == 0:
        sweep_machines.send()
    stale = Run.objects.filter(stale=True).order_by("?").values_list("id", flat=True)
    for run_id in stale[:1]:
        _send(rebuild_run, run_id)


def _send(actor: Any, run_id: int) -> None:
    for _ in range(DELIVERIES):
        actor.send(run_id)
