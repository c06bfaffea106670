"""Rebuilding and verifying Runs from the bucket alone (raw-format.md)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
from django.db import transaction
from pydantic import ValidationError

from runs import claims, lifecycle, objects
from runs.clickhouse import journal
from runs.errors import ObjectsError, QueryError, RecordError
from runs.models import EndReason, Run, Segment, State, Transition
from runs.plan import lane_of, read_plan
from runs.seal import judged, record_keys
from shardagent.wire import Plan

log = logging.getLogger(__name__)

CODE = re.compile(r"[a-z0-9-]{6,40}")
DIFFERENCES_MAX = 1_000
REFRESH_CLAIM_S = 1_800
# Not computed from the segments, or compared one by one.
_NOT_COMPARED = {"keys", "segments", "sealed_at_us"}


def codes() -> Iterator[str]:
    """Every Run that the bucket holds."""
    for name in objects.folders("runs/"):
        if CODE.fullmatch(name):
            yield name


def rebuild(code: str) -> Run:
    """Make the site's row, ClickHouse's rows and the summary anew.

    Raises RecordError where the bucket holds no readable run.json. A Run that is not
    over here is left alone.
    """
    live = Run.objects.filter(code=code).exclude(state=State.SEALED).first()
    if live is not None:
        raise RecordError(f"Run {code} is {live.state} on this site; it is not over")
    stored, plan = stored_plan(code)
    manifest = _manifest(code)
    publication = _json(f"runs/{code}/publication.json") or {}
    sealed_at_us = manifest["sealed_at_us"] if manifest else plan.created_at_us
    keys = [key for key in record_keys(code) if _counts(manifest, key)]
    sealed = judged(plan, keys, sealed_at_us=sealed_at_us, told=_told(manifest, code))
    lines = journal.lines(code)
    ends = [line for line in lines if "end_reason" in line]
    # What was published may be INVALID by now: the record was harmed, or a rule mended.
    invalid = sealed.summary["verdict"]["level"] == "INVALID"
    published = bool(publication.get("published")) and not invalid
    fields: dict[str, Any] = {
        "provider": plan.provider,
        "state": State.SEALED,
        "plan": stored,
        "lane": lane_of(plan),
        "ranked": plan.ranked,
        "summary": sealed.summary,
        "sealed_at_us": sealed_at_us,
        "launched_at": _launched_at(plan, lines),
        "reaped": _reaped(lines),
        "stale": False,
        "end_reason": ends[-1]["end_reason"] if ends else EndReason.COMPLETED,
        "end_detail": ends[-1].get("end_detail", "") if ends else "",
        "published_at": _published_at(publication) if published else None,
        "published_by": str(publication.get("by", ""))[:150] if published else "",
        "logs_published": published and publication.get("logs") is True,
        **sealed.summary["instants"],
    }
    with transaction.atomic():
        run, _ = Run.objects.update_or_create(code=code, defaults=fields)
        Run.objects.filter(pk=run.pk).update(
            created_at=lifecycle.at(plan.created_at_us)
        )
        if not run.transitions.exists():
            Transition.objects.bulk_create(_transitions(run, lines, manifest))
    run.refresh_from_db()
    return run


def mark_stale() -> int:
    """ClickHouse is about to be emptied: every sealed Run will be rebuilt.

    Their stored summaries stand meanwhile. What lives is ingested from the start.
    """
    Segment.objects.exclude(run__state=State.SEALED).update(ingested=False)
    return Run.objects.filter(state=State.SEALED).update(stale=True)


def refresh(run_id: int) -> bool:
    """Rebuild a stale Run; doing it twice changes nothing."""
    if not claims.take(run_id, "seal", REFRESH_CLAIM_S):
        return False
    try:
        run = Run.objects.get(pk=run_id)
        if not run.stale:
            return False
        rebuild(run.code)
    except RecordError as error:  # no use in trying again: the summary still stands
        log.error("run %s cannot be rebuilt: %s", run_id, error)
        Run.objects.filter(pk=run_id).update(stale=False)
    except (QueryError, ObjectsError) as error:
        log.warning("run %s is not rebuilt yet: %s", run_id, error)
    else:
        return True
    finally:
        claims.give_back(run_id, "seal")
    return False


def verify(code: str) -> list[str]:
    """Differences between the bucket's record and its manifest; none is a clean Run.

    Recomputes everything, hashes included, from the segments.
    """
    try:
        stored = _manifest(code)
        _, plan = stored_plan(code)
    except RecordError as error:
        return [str(error)]
    if stored is None:
        return [f"runs/{code}/manifest.json is missing: the Run was never sealed"]
    there = record_keys(code)
    keys = [key for key in there if _counts(stored, key)]
    sealed = judged(plan, keys, sealed_at_us=stored["sealed_at_us"])
    found = orjson.loads(sealed.manifest)
    differences = list(_segment_differences(stored, found, there))
    for name in sorted((stored.keys() | found.keys()) - _NOT_COMPARED):
        if stored.get(name) != found.get(name):
            differences.append(
                f"{name}: the manifest says {_short(stored.get(name))}, "
                f"the segments give {_short(found.get(name))}"
            )
    return differences[:DIFFERENCES_MAX]


def late(code: str) -> list[str] | None:
    """Objects that came after sealing and count for nothing; None: not sealed."""
    manifest = _manifest(code)
    if manifest is None:
        return None
    return [key for key in record_keys(code) if not _counts(manifest, key)]


def stored_plan(code: str) -> tuple[dict[str, Any], Plan]:
    """run.json as the site keeps it, and as a Plan; RecordError says what is wrong."""
    key = f"runs/{code}/run.json"
    found = _json(key)
    if found is None:
        raise RecordError(f"{key} is missing")
    try:
        plan = read_plan(found, code)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"{key} is no Plan: {field}: {first['msg']}") from None
    return plan.model_dump(mode="json"), plan


def _segment_differences(
    stored: dict[str, Any], found: dict[str, Any], there: list[str]
) -> Iterator[str]:
    told = {row["key"]: row for row in stored["segments"]}
    read = {row["key"]: row for row in found["segments"]}
    for key in sorted(told.keys() | set(there)):
        if key not in told:
            yield f"{key}: in the bucket, not in the manifest (late or foreign)"
        elif key not in read:
            yield f"{key}: in the manifest, missing in the bucket"
        elif told[key] != read[key]:
            yield (
                f"{key}: altered since it was sealed "
                f"({_short(told[key])} became {_short(read[key])})"
            )


def _manifest(code: str) -> dict[str, Any] | None:
    """manifest.json, or RecordError where it is none that can be read."""
    key = f"runs/{code}/manifest.json"
    found = _json(key)
    if found is None:
        return None
    rows = found.get("segments")
    if not isinstance(found.get("sealed_at_us"), int):
        raise RecordError(f"{key} is no manifest: sealed_at_us is not an integer")
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("key"), str) for row in rows
    ):
        raise RecordError(f"{key} is no manifest: segments is not a list of objects")
    found["keys"] = {row["key"] for row in rows}
    return found


def _told(manifest: dict[str, Any] | None, code: str) -> dict[str, str]:
    """Segment key → sha256, as the Run was sealed; its run.json is no segment."""
    rows = manifest["segments"] if manifest else ()
    own = f"runs/{code}/run.json"
    return {
        row["key"]: row["sha256"]
        for row in rows
        if row["key"] != own and isinstance(row.get("sha256"), str)
    }


def _counts(manifest: dict[str, Any] | None, key: str) -> bool:
    """What came after sealing changes nothing (raw-format.md)."""
    return manifest is None or key in manifest["keys"]


def _json(key: str) -> dict[str, Any] | None:
    body = objects.get(key)
    if body is None:
        return None
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RecordError(f"{key} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise RecordError(f"{key} is not a JSON object")
    return found


def _launched_at(plan: Plan, lines: list[dict[str, Any]]) -> datetime | None:
    """By the journal; without one, when the Plan was frozen. A draft never was."""
    states = [line for line in lines if line.get("kind") == "state"]
    if not states:
        return lifecycle.at(plan.created_at_us)
    queued = [line["at_us"] for line in states if line.get("to") == State.QUEUED]
    return lifecycle.at(queued[0]) if queued else None


def _reaped(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    told = [line for line in lines if line.get("kind") == "reaped"]
    if not told:
        return None
    return {k: v for k, v in told[0].items() if k not in {"kind", "at_us"}}


def _transitions(
    run: Run, lines: list[dict[str, Any]], manifest: dict[str, Any] | None
) -> list[Transition]:
    found = [
        Transition(
            run=run,
            from_state=line.get("from", ""),
            to_state=line.get("to", ""),
            why=str(line.get("why", ""))[:500],
            at_us=line["at_us"],
        )
        for line in lines
        if line.get("kind") == "state"
    ]
    if manifest is not None and found:
        seal = {"from_state": State.COLLECTING, "to_state": State.SEALED}
        at_us = manifest["sealed_at_us"]
        found.append(Transition(run=run, why=lifecycle.SEALED, at_us=at_us, **seal))
    return found


def _published_at(publication: dict[str, Any]) -> datetime:
    try:
        return datetime.fromisoformat(str(publication.get("at")))
    except ValueError:
        return datetime.now(tz=UTC)


def _short(value: object) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 200 else text[:200] + "…"
