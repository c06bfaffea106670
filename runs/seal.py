"""Sealing: list once, reconcile, ingest it whole, judge, write manifest.json.

`judge` is the pure part: from the raw record in ClickHouse to the summary. Sealing,
rebuilding and verifying all use it, so they cannot disagree.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from django.conf import settings

from runs import judge, lifecycle, objects, supervise
from runs.clickhouse import hashes
from runs.clickhouse import ingest as clickhouse_ingest
from runs.models import Run, Segment, State
from runs.storage import object_store
from shardagent.wire import segment_key

log = logging.getLogger(__name__)

CLAIM_S = 1_800
OWN_OBJECTS = ("manifest.json", "publication.json")
RECONCILE_BATCH = 5_000
DEFECTS_LISTED_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Sealed:
    summary: Mapping[str, Any]
    manifest: bytes


def is_due(run_id: int) -> bool:
    run = Run.objects.get(pk=run_id)
    if run.state != State.COLLECTING:
        return False
    waited_s = (lifecycle.now_us(run) - run.state_at_us) / 1e6
    return supervise.is_quiet(run) or waited_s > settings.RUN_COLLECT_TIMEOUT_S + 30


def seal(run_id: int) -> bool:
    """Seal a Run that has been collected; doing it twice changes nothing."""
    if not supervise.claim(run_id, "seal_until_us", CLAIM_S):
        return False
    try:
        run = Run.objects.get(pk=run_id)
        if run.state != State.COLLECTING:
            return False
        _reconcile(run)
        supervise.flush_journal(run)
        at_us = lifecycle.now_us(run)
        sealed = judged(run.code, run.plan, sealed_at_us=at_us)
        objects.put(f"runs/{run.code}/manifest.json", sealed.manifest)
        return lifecycle.seal(run, sealed.summary, at_us)
    finally:
        Run.objects.filter(pk=run_id).update(seal_until_us=0)


def judged(code: str, stored_plan: Mapping[str, Any], *, sealed_at_us: int) -> Sealed:
    """Ingest the Run's whole record and judge it; from the bucket alone."""
    keys = record_keys(code)
    store = object_store()
    clickhouse_ingest.replace_run(store, code, keys, plan=stored_plan)
    summary = judge.judge(code, stored_plan)
    segments = hashes.hash_objects(store, code, keys)
    manifest = {
        "format": 1,
        "code": code,
        "sealed_at_us": sealed_at_us,
        "segments": segments,
        "defects": judge.defects(code, DEFECTS_LISTED_MAX),
        **summary,
        "software": stored_plan.get("software", {}),
    }
    return Sealed(summary, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))


def record_keys(code: str) -> list[str]:
    """Every object of the Run's record, in key order."""
    prefix = f"runs/{code}/"
    own = {prefix + name for name in OWN_OBJECTS}
    return [item.key for item in objects.listing(prefix) if item.key not in own]


def _reconcile(run: Run) -> None:
    """Compare what agents reported with what is stored; journal each difference."""
    if run.journal.filter(body__contains='"kind":"reconciled"').exists():
        return
    stored = {
        row["key"]: row["sha256"]
        for row in hashes.hash_objects(object_store(), run.code, record_keys(run.code))
    }
    lines = list(_differences(run, stored))
    lines.append(
        {
            "kind": "reconciled",
            "reported": run.segments.count(),
            "stored": sum("/shards/" in key for key in stored),
        }
    )
    for first in range(0, len(lines), RECONCILE_BATCH):
        lifecycle.note(run, lines[first : first + RECONCILE_BATCH])


def _differences(run: Run, stored: Mapping[str, str]) -> Iterable[dict[str, Any]]:
    rows: Sequence[Segment] | Any = run.segments.order_by("shard", "attempt", "seq")
    for row in rows.iterator(chunk_size=RECONCILE_BATCH):
        key = segment_key(run.code, row.shard, row.attempt, row.kind, row.seq)
        if key not in stored:
            yield {"kind": "absent", "key": key, "shard": row.shard}
        elif stored[key] != row.sha256:
            yield {"kind": "altered", "key": key, "shard": row.shard}
