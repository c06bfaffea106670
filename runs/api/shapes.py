"""How a Run reads in the API (interfaces.md), from its row alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings

from runs import lifecycle, provision, told
from runs.models import Run, State

OUTCOMES = (
    "success",
    "partial",
    "readiness_failed",
    "failed",
    "unobserved",
    "not_attempted",
)
_EMPTY: dict[str, Any] = {
    "held": None,
    "peak": None,
    "time_to_ms": {"50": None, "90": None, "99": None, "100": None},
    "implied_peak": None,
    "defects": 0,
    "clock_bound_us": None,
    "verdict": {"level": None, "reasons": []},
    "labels": [],
    "observed": None,
    "fleet": None,
}


def run_json(run: Run, heard: Sequence[told.LastBeat] | None = None) -> dict[str, Any]:
    """One Run; while it lives, `outcomes` has `pending` and the sum still closes.

    Until it is sealed, `outcomes` and `causes` are what its agents tell; `heard`
    are their last heartbeats, where they are at hand.
    """
    judged = {**_EMPTY, **(run.summary or run.live or {})}
    gauged = None if run.state == State.SEALED else _gauged(run, heard)
    if gauged is not None:
        judged["causes"] = told.causes(run)
        judged["outcomes"] = _closed(run, told.outcomes(gauged, judged["causes"]))
        judged["fleet"] = provision.shown(run, gauged)
    else:
        judged["outcomes"] = outcomes_of(run)
    shown = {
        "code": run.code,
        "state": run.state,
        "provider": run.provider,
        "url": f"{settings.SITE_URL}/runs/{run.code}",
        "created_at": lifecycle.at(run.plan["created_at_us"]).isoformat(),
        "launched_at": run.launched_at.isoformat() if run.launched_at else None,
        "sealed_at_us": run.sealed_at_us,
        "published": run.published_at is not None,
        "ranked": run.ranked,
        "end_reason": run.end_reason or None,
        "end_detail": run.end_detail or None,
        "instants": {
            "t0_us": run.t0_us,
            "t_hold_us": run.t_hold_us,
            "t_end_us": run.t_end_us,
            "t_destroy_us": run.t_destroy_us,
        },
        "reaped": run.reaped,
        "plan": run.plan,
        **judged,
    }
    if gauged is not None and run.state not in (State.DRAFT, State.QUEUED):
        shown["progress"] = gauged.progress
        shown["now_us"] = lifecycle.now_us(run)
    return shown


def outcomes_of(run: Run) -> dict[str, int]:
    """The six, `total`, and while the Run lives `pending`; they sum to the plan."""
    if run.state == State.SEALED:
        return _closed(run, (run.summary or {}).get("outcomes", {}))
    return _closed(run, told.outcomes(_gauged(run), told.causes(run)))


def _gauged(run: Run, heard: Sequence[told.LastBeat] | None = None) -> told.Gauges:
    return told.gauges(run, told.last_beats(run) if heard is None else heard)


def _closed(run: Run, known: Mapping[str, int]) -> dict[str, int]:
    counts = {name: int(known.get(name, 0)) for name in OUTCOMES}
    total = int(run.plan["sandbox_count"])
    if run.state != State.SEALED:
        counts["pending"] = total - sum(counts.values())
    counts["total"] = total
    return counts
