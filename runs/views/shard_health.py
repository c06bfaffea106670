"""A Shard's health as lines over time, each with the fleet's median behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.cache import cache

from runs import lifecycle, results
from runs.errors import QueryError
from runs.models import Run, State
from runs.strips import Axis, line
from runs.templatetags.runs_format import microseconds, thousands

SEALED_KEPT_S = 3_600
LIVE_KEPT_S = 5
MEDIAN_OF_LEAST = 3  # Shards: of fewer, a median is one of them
_LINES = (
    # name, label, how it reads, least top, SUSPECT above
    ("cpu_pct", "CPU", lambda value: f"{value:.0f} %", 100.0, 80.0),
    ("loop_lag_us", "Loop lag", microseconds, 100_000.0, 100_000.0),
    ("in_flight", "In flight", thousands, 1.0, None),
    ("alive", "Alive", thousands, 1.0, None),
)


def health_rows(
    found: Run, samples: Sequence[Mapping[str, Any]], axis: Axis
) -> list[dict[str, Any]]:
    """One row a figure that the Shard told of."""
    behind = _fleet_median(found, axis) if samples else []
    rows = []
    for name, label, says, least_top, suspect in _LINES:
        drawn = line(samples, name, axis, least_top=least_top, behind=behind)
        if drawn is None:
            continue
        over = suspect is not None and drawn["max"] > suspect
        limit = None
        if suspect is not None:
            limit = drawn["height"] * (1 - suspect / drawn["top"])
        median = drawn["behind_max"]
        rows.append(
            {"label": label, "over": over, "limit": limit, **drawn}
            | {"said_max": says(drawn["max"])}
            | {"said_median": None if median is None else says(median)}
        )
    return rows


def _fleet_median(found: Run, axis: Axis) -> list[dict[str, Any]]:
    """Read once for all Shards of the Run; a page without it is still a page."""
    of = lifecycle.plan_of(found).shard_count
    if found.t0_us is None or of < MEDIAN_OF_LEAST:
        return []
    key = f"fleet-median:{found.code}:{found.sealed_at_us}"
    kept: list[dict[str, Any]] | None = cache.get(key)
    if kept is None:
        try:
            kept = results.fleet_median(found, found.t0_us + axis.to_us)
        except QueryError:
            return []
        sealed = found.state == State.SEALED
        cache.set(key, kept, SEALED_KEPT_S if sealed else LIVE_KEPT_S)
    return kept
