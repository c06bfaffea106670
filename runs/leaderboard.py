"""From the Runs' rows to the leaderboard; needs no ClickHouse scan."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from runs.models import Run, State
from runs.plan import ranked_faults, read_plan
from runs.ranking import WINDOW_DAYS, Board, Launch, boards, class_of

LAUNCHES_MAX = 10_000
BARRING_LABELS = ("quota-bound", "answers on demand", "stand-in")


def current_boards(now: datetime) -> Sequence[Board]:
    """Every ranked launch of the window, judged by ranking.py."""
    since = now - timedelta(days=WINDOW_DAYS + 1)
    rows = Run.objects.filter(ranked=True, launched_at__gte=since).order_by("id")
    return boards([_launch(run) for run in rows[:LAUNCHES_MAX]], _day(now))


def ranked_launches(now: datetime) -> int:
    since = now - timedelta(days=WINDOW_DAYS + 1)
    return Run.objects.filter(ranked=True, launched_at__gte=since).count()


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
                        "barred": list(x.barred),
                    }
                    for x in place.launched
                ],
            }
            for place in board.places
        ],
    }


def class_plans() -> dict[str, dict[str, Any]]:
    """A Plan for each class among the ranked Runs, to describe it."""
    rows = Run.objects.filter(ranked=True).order_by("-id")[:LAUNCHES_MAX]
    return {class_of(run.plan): run.plan for run in rows}


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
        cpus=observed.get("cpus"),
        memory_bytes=observed.get("memory_bytes"),
        connect_us=observed.get("connect_us"),
        by_shard=tuple((value, n) for value, n in (held or {}).get("by_shard", ())),
    )


def _shown(run: Run) -> str:
    """A stand-in never shares a place with the vendor itself."""
    if run.provider != "sim" and run.simulated:
        return f"{run.provider} (simulated)"
    return run.provider


def _barred(run: Run, labels: Sequence[str]) -> tuple[str, ...]:
    """Why a Run does not count; a Plan from elsewhere may only claim to be ranked."""
    plan = read_plan(run.plan, run.code)
    found = [label for label in labels if label in BARRING_LABELS]
    return (*found, *(f"not {fault}" for fault in ranked_faults(plan)))


def _day(at: datetime) -> int:
    return int(at.astimezone(UTC).timestamp() // 86_400)
