"""From reported segments to ClickHouse while a Run is live; the rows never pass here.

The ledger (Segment) says which reported objects are in. Marking comes after inserting,
so a worker killed between the two inserts again, which changes nothing: an event's key
is (run, shard, attempt, n). Only Shards with new segments are judged anew.
"""

from __future__ import annotations

import time

from runs import claims, lifecycle
from runs.clickhouse import client, sandboxes, summary
from runs.clickhouse import ingest as clickhouse_ingest
from runs.clickhouse.facts import live_facts
from runs.models import Run, Segment, State
from runs.storage import object_store
from shardagent.wire import segment_key

CLAIM_S = 120
SEGMENTS_PER_PASS_MAX = 500
SANDBOXES_AT_ONCE = 10_000  # judged by one statement; its memory grows with them
REST_SHARE = 2.0  # at least so long as the last pass took, times this, between passes
_IDLE = (State.DRAFT, State.QUEUED, State.SEALED)
_rest_until: dict[int, float] = {}  # by run id, monotonic s; a hint, not a lock


def is_due(run_id: int) -> bool:
    if time.monotonic() < _rest_until.get(run_id, 0):
        return False
    return Segment.objects.filter(
        run_id=run_id, ingested=False, run__t0_us__isnull=False
    ).exists()


def ingest(run_id: int) -> int:
    """Insert what is reported and not yet in; returns the number of segments."""
    if not claims.take(run_id, "ingest", CLAIM_S):
        return 0
    started = time.monotonic()
    try:
        run = Run.objects.get(pk=run_id)
        if run.state in _IDLE:
            return 0
        rows = list(
            run.segments.filter(ingested=False).order_by("id")[:SEGMENTS_PER_PASS_MAX]
        )
        if rows:
            _insert(run, rows)
            client.let_go_of_memory()
        return len(rows)
    finally:
        claims.give_back(run_id, "ingest")
        took = time.monotonic() - started
        _rest_until[run_id] = time.monotonic() + took * REST_SHARE


def _insert(run: Run, rows: list[Segment]) -> None:
    keys = [segment_key(run.code, r.shard, r.attempt, r.kind, r.seq) for r in rows]
    plan = lifecycle.plan_of(run)
    clickhouse_ingest.ingest_segments(object_store(), plan, keys)
    run.segments.filter(pk__in=[row.pk for row in rows]).update(ingested=True)
    client.let_go_of_memory()
    shards = sorted({row.shard for row in rows if row.kind == "events"})
    if shards:
        facts = live_facts(
            plan,
            t0_us=run.t0_us,
            t_hold_us=run.t_hold_us,
            t_end_us=run.t_end_us,
            t_destroy_us=run.t_destroy_us,
            clock_id=run.clock_id,
        )
        sandboxes.classify(facts, shards, final=False, at_once=SANDBOXES_AT_ONCE)
        Run.objects.filter(pk=run.pk, state=run.state).update(
            live=summary.summarise(facts)
        )
