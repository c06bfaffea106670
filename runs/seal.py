"""Sealing: list once, reconcile, ingest it whole, judge, write manifest.json."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from django.conf import settings

from runs import claims, lifecycle, objects, reaper, supervise
from runs.clickhouse import defects, hashes
from runs.clickhouse import ingest as clickhouse_ingest
from runs.clickhouse.facts import run_facts
from runs.errors import FleetError, ObjectsError
from runs.fleets import fleet_for
from runs.judge import judge
from runs.models import Run, State
from runs.storage import object_store
from shardagent.wire import Plan, segment_key

log = logging.getLogger(__name__)

CLAIM_S = 1_800
OWN_OBJECTS = ("manifest.json", "publication.json")
RECONCILE_BATCH = 5_000
DEFECTS_LISTED_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Sealed:
    summary: dict[str, Any]
    manifest: bytes


def is_due(run_id: int) -> bool:
    run = Run.objects.get(pk=run_id)
    if run.state != State.COLLECTING:
        return False
    if supervise.is_quiet(run):
        return True
    settled_us = reaper.settled_us(run, lifecycle.plan_of(run))
    waited_s = (lifecycle.now_us(run) - max(run.state_at_us, settled_us)) / 1e6
    limit_s = settings.RUN_COLLECT_TIMEOUT_S + supervise.STORING_S + reaper.CLAIM_S
    return waited_s > limit_s


def seal(run_id: int) -> bool:
    """Seal a Run that has been collected; doing it twice changes nothing."""
    # A live judgement that ends after the sealing one would put back what it saw, and
    # a tick that began before the Run ended may still be starting something.
    held: list[claims.Work] = []
    try:
        for work in ("seal", "ingest", "tick", "provision"):
            if not claims.take(run_id, work, CLAIM_S):
                return False
            held.append(work)
        if not is_due(run_id):
            return False
        run = Run.objects.get(pk=run_id)
        _tidy(run)
        hashed = _reconcile(run)
        supervise.flush_journal(run)
        at_us = lifecycle.now_us(run)
        plan, keys = lifecycle.plan_of(run), record_keys(run.code)
        sealed = judged(plan, keys, sealed_at_us=at_us, hashed=hashed)
        objects.put(f"runs/{run.code}/manifest.json", sealed.manifest)
        return lifecycle.seal(run, sealed.summary, at_us)
    finally:
        claims.give_back(run_id, *held)


def _tidy(run: Run) -> None:
    """What machines leave that are gone themselves: folders, templates, secrets."""
    try:
        fleet_for(lifecycle.plan_of(run).fleet.driver).kill(run.code, hard=True)
    except FleetError as error:
        log.warning("run %s: what its machines left stays: %s", run.code, error)


def judged(
    plan: Plan,
    keys: Sequence[str],
    *,
    sealed_at_us: int,
    hashed: Sequence[dict[str, Any]] = (),
    told: Mapping[str, str] | None = None,
) -> Sealed:
    """Ingest the Run's whole record, these objects, and judge it.

    hashed: those of which the caller has the hash already. told: key → sha256 of each
    segment as the Run was sealed. What is absent or altered since is a defect, and the
    record INVALID (measurement.md §7).
    """
    store = object_store()
    segments = [key for key in keys if not key.endswith("/run.json")]
    clickhouse_ingest.replace_run(store, plan, segments)
    known = {row["key"] for row in hashed}
    fresh = hashes.hash_objects(store, plan.code, [k for k in keys if k not in known])
    rows = sorted([*hashed, *fresh], key=lambda row: str(row["key"]))
    clickhouse_ingest.add_defects(plan.code, _harm(told or {}, rows))
    summary = judge(plan)
    manifest = {
        "format": 1,
        "code": plan.code,
        "sealed_at_us": sealed_at_us,
        "segments": hashes.with_events(plan.code, rows),
        "defects": [
            asdict(row) for row in defects.defects(run_facts(plan), DEFECTS_LISTED_MAX)
        ],
        **{k: v for k, v in summary.items() if k != "defects"},
        "defects_count": summary["defects"],
        "software": plan.software,
    }
    return Sealed(summary, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))


def _harm(told: Mapping[str, str], hashed: list[dict[str, Any]]) -> dict[str, str]:
    stored = {str(row["key"]): str(row["sha256"]) for row in hashed}
    return {
        key: "altered" if key in stored else "absent"
        for key, sha256 in told.items()
        if stored.get(key) != sha256
    }


def record_keys(code: str) -> list[str]:
    """Every object of the Run's record, in key order."""
    prefix = f"runs/{code}/"
    own = {prefix + name for name in OWN_OBJECTS}
    return [item.key for item in objects.listing(prefix) if item.key not in own]


def _reconcile(run: Run) -> list[dict[str, Any]]:
    """Compare what agents reported with what is stored; journal each difference.

    Returns the hashes of what is stored; none where it was done before.
    """
    if run.journal.filter(body__contains='"kind":"reconciled"').exists():
        return []
    keys = [key for key in record_keys(run.code) if "/shards/" in key]
    rows = hashes.hash_objects(object_store(), run.code, keys)
    if len(rows) != len(keys):
        raise ObjectsError(f"{len(keys) - len(rows)} listed objects cannot be read")
    stored = {str(row["key"]): str(row["sha256"]) for row in rows}
    lines = list(_differences(run, stored))
    lines.append(
        {
            "kind": "reconciled",
            "reported": run.segments.count(),
            "stored": len(stored),
        }
    )
    for first in range(0, len(lines), RECONCILE_BATCH):
        lifecycle.note(run, lines[first : first + RECONCILE_BATCH])
    return rows


def _differences(run: Run, stored: Mapping[str, str]) -> Iterable[dict[str, Any]]:
    rows = run.segments.order_by("shard", "attempt", "kind", "seq")
    for row in rows.iterator(chunk_size=RECONCILE_BATCH):
        key = segment_key(run.code, row.shard, row.attempt, row.kind, row.seq)
        if key not in stored:
            yield {"kind": "absent", "key": key, "shard": row.shard}
        elif stored[key] != row.sha256:
            yield {"kind": "altered", "key": key, "shard": row.shard}
