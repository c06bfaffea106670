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

from runs import lifecycle, objects
from runs.clickhouse import journal
from runs.errors import RecordError
from runs.models import EndReason, Run, State, Transition
from runs.plan import read_plan
from runs.seal import judged
from shardagent.wire import Plan

log = logging.getLogger(__name__)

CODE = re.compile(r"[a-z0-9-]{6,40}")
DIFFERENCES_MAX = 1_000
_COMPARED = (
    "outcomes",
    "held",
    "peak",
    "time_to_ms",
    "implied_peak",
    "latency",
    "causes",
    "verdict",
    "labels",
    "certificate",
    "steps",
    "highest_step_held",
)


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
    manifest = _json(f"runs/{code}/manifest.json") or {}
    publication = _json(f"runs/{code}/publication.json") or {}
    sealed_at_us = manifest.get("sealed_at_us") or plan.created_at_us
    sealed = judged(plan, sealed_at_us=sealed_at_us)
    lines = journal.lines(code)
    ends = [line for line in lines if "end_reason" in line]
    published = bool(publication.get("published"))
    launched_us = next((x["at_us"] for x in lines if x.get("to") == State.QUEUED), None)
    fields: dict[str, Any] = {
        "provider": plan.provider,
        "state": State.SEALED,
        "plan": stored,
        "credential": plan.provider,
        "ranked": plan.ranked,
        "summary": sealed.summary,
        "sealed_at_us": sealed_at_us,
        "launched_at": lifecycle.at(launched_us or plan.created_at_us),
        "end_reason": ends[-1]["end_reason"] if ends else EndReason.COMPLETED,
        "end_detail": ends[-1].get("end_detail", "") if ends else "",
        "published_at": _published_at(publication) if published else None,
        "published_by": str(publication.get("by", ""))[:150] if published else "",
        **sealed.summary["instants"],
    }
    with transaction.atomic():
        run, _ = Run.objects.update_or_create(code=code, defaults=fields)
        Run.objects.filter(pk=run.pk).update(
            created_at=lifecycle.at(plan.created_at_us)
        )
        if not run.transitions.exists():
            Transition.objects.bulk_create(_transitions(run, lines))
    run.refresh_from_db()
    return run


def verify(code: str) -> list[str]:
    """Differences between the bucket's record and its manifest; none is a clean Run.

    Recomputes everything, hashes included, from the segments.
    """
    stored = _json(f"runs/{code}/manifest.json")
    if stored is None:
        return [f"runs/{code}/manifest.json is missing: the Run was never sealed"]
    try:
        _, plan = stored_plan(code)
    except RecordError as error:
        return [str(error)]
    sealed = judged(plan, sealed_at_us=stored.get("sealed_at_us", 0))
    found = orjson.loads(sealed.manifest)
    differences = list(_segment_differences(stored, found))
    for name in _COMPARED:
        if stored.get(name) != found.get(name):
            differences.append(
                f"{name}: the manifest says {_short(stored.get(name))}, "
                f"the segments give {_short(found.get(name))}"
            )
    return differences[:DIFFERENCES_MAX]


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
    stored: dict[str, Any], found: dict[str, Any]
) -> Iterator[str]:
    told = {row["key"]: row for row in stored.get("segments", ())}
    there = {row["key"]: row for row in found["segments"]}
    for key in sorted(told.keys() | there.keys()):
        if key not in there:
            yield f"{key}: in the manifest, missing in the bucket"
        elif key not in told:
            yield f"{key}: in the bucket, not in the manifest (late or foreign)"
        elif told[key] != there[key]:
            yield (
                f"{key}: altered since it was sealed "
                f"({_short(told[key])} became {_short(there[key])})"
            )


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


def _transitions(run: Run, lines: list[dict[str, Any]]) -> list[Transition]:
    return [
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


def _published_at(publication: dict[str, Any]) -> datetime:
    try:
        return datetime.fromisoformat(str(publication.get("at")))
    except ValueError:
        return datetime.now(tz=UTC)


def _short(value: object) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 200 else text[:200] + "…"
