"""The phases of a Run: how long each took, and how far the one under way is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runs import headline, lifecycle
from runs.models import Run
from shardagent.wire import Plan


def timeline(found: Run, plan: Plan, shown: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every phase with how long it took, and how far the one under way is."""
    now = lifecycle.now_us(found)
    began = _began(found)
    rows = []
    for phase in headline.phases(shown):
        start, end = began.get(phase["state"], (None, None))
        took = None if start is None else max(0.0, ((end or now) - start) / 1e6)
        if phase["is"] == "to-come" or (start is not None and start > now):
            took = None  # announced, and not begun yet
        done = (
            _done(phase["state"], plan, shown, took) if phase["is"] == "now" else None
        )
        rows.append(
            {**phase, "took_s": took, "done": None if done is None else f"{done:.1f}%"}
        )
    return rows


def _began(found: Run) -> dict[str, tuple[int | None, int | None]]:
    """state → when it began and ended, by the Run's own instants where it has them."""
    steps = list(found.transitions.order_by("id").values_list("to_state", "at_us"))
    at = dict(reversed(steps))
    marks = [
        ("queued", at.get("queued")),
        ("provisioning", at.get("provisioning")),
        ("arming", at.get("arming")),
        ("bursting", found.t0_us),
        ("holding", found.t_hold_us),
        ("tearing_down", found.t_end_us),
        ("collecting", at.get("collecting")),
        ("sealed", found.sealed_at_us),
    ]
    ends = [mark for _, mark in marks[1:]] + [None]
    return {
        name: (start, next((e for e in ends[place:] if e), None))
        for place, (name, start) in enumerate(marks)
    }


def _done(
    state: str, plan: Plan, shown: Mapping[str, Any], took_s: float | None
) -> float | None:
    """How much of a phase is over, in per cent; None where nobody can say."""
    progress, fleet = shown.get("progress") or {}, shown.get("fleet") or {}
    parts = {
        "provisioning": (fleet.get("granted", 0), fleet.get("hosts", 0)),
        "arming": (progress.get("armed", 0), plan.shard_count),
        "bursting": (
            progress.get("ready", 0) + progress.get("failed", 0),
            plan.sandbox_count,
        ),
        "holding": (took_s or 0.0, plan.hold_s),
        "tearing_down": (progress.get("destroyed", 0), progress.get("created", 0)),
    }
    part, whole = parts.get(state, (0, 0))
    return min(100.0, 100.0 * part / whole) if whole else None
