"""From the Runs' rows to the leaderboard; needs no ClickHouse scan."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from django.core.cache import cache
from django.db.models import QuerySet

from runs.models import EndReason, Run, State
from runs.plan import ranked_faults, read_plan
from runs.ranking import WINDOW_DAYS, Board, Launch, Place, boards, class_of

# A row has far more, some of it large.
_FIELDS = ("code", "provider", "plan", "summary", "state", "end_reason", "launched_at")
LAUNCHES_MAX = 10_000
KEPT_S = 60  # a Run that is rebuilt may take so long to show
STAND_IN = " (simulated)"  # after the vendor's name, where it was not the vendor
BARRING_LABELS = ("quota-bound", "answers on demand", "stand-in")


def shown_boards(now: datetime, *, public: bool) -> list[dict[str, Any]]:
    """The boards of the window as the API gives them; public: as strangers see them.

    Kept while no ranked Run is launched, moves, is published or becomes stale.
    """
    key = f"boards:{public}:{_day(now)}:{_standing(now)}"
    kept: list[dict[str, Any]] | None = cache.get(key)
    if kept is None:
        kept = _boards(now, public=public)
        cache.set(key, kept, KEPT_S)
    return kept


def _standing(now: datetime) -> str:
    """What the boards depend on, short: where each ranked Run of the window stands."""
    rows = (
        _recent(now)
        .order_by("id")
        .values_list(
            "id", "code", "state", "end_reason", "sealed_at_us", "published_at", "stale"
        )
    )
    return sha256(repr(list(rows[:LAUNCHES_MAX])).encode()).hexdigest()[:32]


def _boards(now: datetime, *, public: bool) -> list[dict[str, Any]]:
    launches, plans = [], {}
    for run in _recent(now).only(*_FIELDS).order_by("id")[:LAUNCHES_MAX]:
        launch = _launch(run)
        launches.append(launch)
        plans[launch.class_id] = run.plan
    found = [board_json(board, plans) for board in boards(launches, _day(now))]
    if not public:
        return found
    published = published_codes()
    return [public_board(board, published) for board in found]


def _recent(now: datetime) -> QuerySet[Run]:
    since = now - timedelta(days=WINDOW_DAYS + 1)
    return Run.objects.filter(ranked=True, launched_at__gte=since)


def ranked_launches(now: datetime) -> int:
    return _recent(now).count()


def board_json(board: Board, plans: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A board as the API gives it; plans: class id → a Plan of that class."""
    plan = plans.get(board.class_id.partition("-")[0], {})
    return {
        "class": board.class_id,
        "target": plan.get("target"),
        "load": plan.get("load"),
        "hold_s": plan.get("hold_s"),
        "spec": plan.get("spec"),
        "observed": {"cpus": board.cpus, "memory_bytes": board.memory_bytes},
        "latency_compared": board.latency_compared,
        "items": [
            {
                "rank": place.rank,
                "provider": place.provider,
                "share_held": place.share_held,
                "share_held_ci95": (
                    None if place.low is None else [place.low, place.high]
                ),
                "spread": _spread(place),
                "tti_p99_us": place.tti_p99_us,
                "connect_us": place.connect_us,
                "used": len(place.used),
                "launched": len(place.launched),
                "label": place.label,
                "runs": [
                    {
                        "code": x.code,
                        "state": x.state,
                        "verdict": x.verdict,
                        "used": x.used,
                        "why": list(x.why),
                        "share_held": None if x.held is None else x.share_held,
                        "day": x.day,
                    }
                    for x in place.launched
                ],
            }
            for place in board.places
        ],
    }


def _spread(place: Place) -> list[float] | None:
    """The least and the largest share held among the Runs that count."""
    shares = [launch.share_held for launch in place.used]
    return [min(shares), max(shares)] if shares else None


def public_board(shown: dict[str, Any], published: set[str]) -> dict[str, Any]:
    """A board as strangers see it: what is not published is counted, and no more.

    A Provider of which nothing is published is left out; `hidden` counts its launches.
    """
    items, hidden = [], 0
    for place in shown["items"]:
        known = [run for run in place["runs"] if run["code"] in published]
        if not known:
            hidden += place["launched"]
            continue
        rest = [run for run in place["runs"] if run["code"] not in published]
        items.append(
            {
                **place,
                "runs": known,
                "unpublished": len(rest),
                "unpublished_why": dict(Counter(_said(run) for run in rest)),
            }
        )
    return {**shown, "items": items, "hidden": hidden}


def _said(run: dict[str, Any]) -> str:
    return "counts" if run["used"] else run["why"][0]


def published_codes() -> set[str]:
    rows = Run.objects.filter(ranked=True, published_at__isnull=False)
    return set(rows.values_list("code", flat=True)[:LAUNCHES_MAX])


def history(provider: str, *, public: bool, stand_in: bool) -> list[dict[str, Any]]:
    """Every ranked launch at a Provider, oldest first, whatever became of it."""
    rows = Run.objects.filter(ranked=True, provider=provider, launched_at__isnull=False)
    if public:
        rows = rows.filter(published_at__isnull=False)
    found = []
    for run in rows.order_by("launched_at")[:LAUNCHES_MAX]:
        if (_shown(run) != run.provider) != stand_in:
            continue
        launch = _launch(run)
        share = None if launch.held is None else launch.share_held
        found.append(
            {
                "run": run,
                "launch": launch,
                "share": share,
                "at": run.launched_at,
                "json": {"labels": (run.summary or {}).get("labels", [])},
            }
        )
    return found


def class_plans() -> dict[str, dict[str, Any]]:
    """A Plan for each class among the ranked Runs, to describe it."""
    rows = Run.objects.filter(ranked=True).order_by("-id")
    plans = rows.values_list("plan", flat=True)[:LAUNCHES_MAX]
    return {class_of(plan): plan for plan in plans}


def _launch(run: Run) -> Launch:
    summary = run.summary or {}
    outcomes = summary.get("outcomes", {})
    held = summary.get("held")
    tti = summary.get("latency", {}).get("tti", {})
    observed = summary.get("observed") or {}
    assert run.launched_at is not None
    return Launch(
        code=run.code,
        provider=_shown(run),
        class_id=class_of(run.plan),
        day=_day(run.launched_at),
        state=run.state,
        verdict=(summary.get("verdict") or {}).get("level")
        if run.state == State.SEALED
        else None,
        target=int(run.plan["target"]),
        held=held["proven"] if held else None,
        harness=outcomes.get("unobserved", 0) + outcomes.get("not_attempted", 0),
        tti_p99_us=tti.get("p99_us"),
        barred=_barred(run, summary.get("labels", [])),
        ended=run.end_reason if run.end_reason != EndReason.COMPLETED else "",
        cpus=observed.get("cpus"),
        memory_bytes=observed.get("memory_bytes"),
        connect_us=observed.get("connect_us"),
        by_host=tuple(tuple(row) for row in (held or {}).get("by_host", ())),
    )


def _shown(run: Run) -> str:
    """A stand-in never shares a place with the vendor itself."""
    if run.provider != "sim" and run.simulated:
        return f"{run.provider}{STAND_IN}"
    return run.provider


def _barred(run: Run, labels: Sequence[str]) -> tuple[str, ...]:
    """Why a Run does not count; a Plan from elsewhere may only claim to be ranked."""
    plan = read_plan(run.plan, run.code)
    found = [label for label in labels if label in BARRING_LABELS]
    found += [f"not {fault}" for fault in ranked_faults(plan)]
    if _held_s(run) < plan.hold_s:  # aborted, or its agents were lost: not its class
        found.append("not held to its end")
    return tuple(found)


def _held_s(run: Run) -> float:
    """How long the hold really was, in s; what is not over is not judged by it."""
    instants = (run.summary or {}).get("instants") or {}
    began, ended = instants.get("t_hold_us"), instants.get("t_end_us")
    if began is None or ended is None:
        return math.inf  # Held is null then, and the Run counts for nothing
    return float(ended - began) / 1e6


def _day(at: datetime) -> int:
    return int(at.astimezone(UTC).timestamp() // 86_400)
