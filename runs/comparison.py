"""Two to six Runs side by side: what their Plans differ in, then what they found.

Pure: Runs as the API tells them and their latency tables in, rows out. The first Run is
what the others are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runs.ranking import resampled
from runs.statistics import HOSTS_FOR_INTERVAL_MIN
from runs.templatetags.runs_format import microseconds, percent, thousands

RUNS_MIN, RUNS_MAX = 2, 6
PHASES = ("create", "ready", "tti", "probe", "destroy")
QUANTILES = ("p50_us", "p95_us", "p99_us")
OUTCOMES = (
    "success",
    "partial",
    "readiness_failed",
    "failed",
    "unobserved",
    "not_attempted",
)
RESAMPLES = 2_000
_OWN = ("code", "created_at_us", "seed", "note", "software", "shard_count")
Json = Mapping[str, Any]


def plan_differences(plans: Sequence[Json]) -> list[dict[str, Any]]:
    """Fields in which the Plans differ, with each Run's value; none: like with like."""
    flat = [_flat(plan) for plan in plans]
    names = sorted({name for plan in flat for name in plan})
    found = []
    for name in names:
        values = [plan.get(name) for plan in flat]
        if any(value != values[0] for value in values):
            said = ["–" if value in (None, "") else str(value) for value in values]
            found.append({"name": name, "values": said})
    return found


def held_rows(runs: Sequence[Json]) -> list[dict[str, Any]]:
    """Held and the Outcomes as shares of what was asked, against the first Run."""
    rows = [_held_row(runs)]
    for name in OUTCOMES:
        shares = [
            run["outcomes"][name] / max(1, run["outcomes"]["total"]) for run in runs
        ]
        cells = [
            {
                "text": thousands(run["outcomes"][name]),
                "share": percent(share),
                "rows": f"sandboxes?outcome={name}",
                "code": run["code"],
                "difference": _points(share, shares[0]) if place else "",
                "beyond": None,
            }
            for place, (run, share) in enumerate(zip(runs, shares, strict=True))
        ]
        rows.append({"name": name, "cells": cells})
    return rows


def latency_rows(tables: Sequence[Json], codes: Sequence[str]) -> list[dict[str, Any]]:
    """Percentiles of each phase; `beyond`: the 95 % intervals do not overlap."""
    rows = []
    for phase in PHASES:
        for quantile in QUANTILES:
            values = [(table.get(phase) or {}).get(quantile) for table in tables]
            if not any(value is not None for value in values):
                continue
            bounds = [
                ((table.get(phase) or {}).get("ci95") or {}).get(quantile)
                for table in tables
            ]
            cells = [
                _latency_cell(phase, code, value, values[0], bound, bounds[0], place)
                for place, (code, value, bound) in enumerate(
                    zip(codes, values, bounds, strict=True)
                )
            ]
            name = f"{phase} {quantile.split('_')[0].upper()}"
            rows.append({"name": name, "phase": phase, "cells": cells})
    return rows


def held_interval(run: Json) -> tuple[float, float] | None:
    """95 % of the share held, had other hosts of their kind carried it.

    None where fewer than 20 hosts are known: no interval is honest then.
    """
    held = run["held"] or {}
    by_host = held.get("by_host") or []
    hosts = sum(count for _, _, count in by_host)
    if hosts < HOSTS_FOR_INTERVAL_MIN:
        return None
    shares = resampled(by_host, np.random.default_rng(hosts), RESAMPLES)
    whole = sum(observed * count for _, observed, count in by_host)
    low, high = np.quantile(shares * whole / run["plan"]["target"], (0.025, 0.975))
    return float(low), min(1.0, float(high))


def _held_row(runs: Sequence[Json]) -> dict[str, Any]:
    shares = [
        None if run["held"] is None else run["held"]["proven"] / run["plan"]["target"]
        for run in runs
    ]
    bounds = [held_interval(run) for run in runs]
    cells = []
    for place, (run, share, bound) in enumerate(zip(runs, shares, bounds, strict=True)):
        known = place and share is not None and shares[0] is not None
        interval = f" ({percent(bound[0])}–{percent(bound[1])})" if bound else ""
        cells.append(
            {
                "text": "" if share is None else thousands(run["held"]["proven"]),
                "share": percent(share) + interval,
                "rows": "",
                "code": run["code"],
                "difference": _points(share, shares[0]) if known else "",
                "beyond": _beyond(bound, bounds[0]) if known else None,
            }
        )
    return {"name": "held", "cells": cells}


def _latency_cell(
    phase: str,
    code: str,
    value: int | None,
    first: int | None,
    bound: Sequence[int] | None,
    first_bound: Sequence[int] | None,
    place: int,
) -> dict[str, Any]:
    known = place > 0 and value is not None and first
    return {
        "text": "" if value is None else microseconds(value),
        "share": f"{microseconds(bound[0])}–{microseconds(bound[1])}" if bound else "",
        "rows": ""
        if value is None
        else f"sandboxes?of={phase}&least_ms={value / 1e3:.3f}&sort=-{phase}",
        "code": code,
        "difference": f"{_signed(100 * (value - first) / first)} %"
        if known and value is not None and first
        else "",
        "beyond": _beyond(bound, first_bound) if known else None,
    }


def _beyond(one: Sequence[float] | None, other: Sequence[float] | None) -> bool | None:
    """Whether two intervals are wholly apart; None where one of them is not known."""
    if not one or not other:
        return None
    return one[0] > other[1] or one[1] < other[0]


def _points(share: float | None, first: float | None) -> str:
    assert share is not None
    assert first is not None
    return f"{_signed(100 * (share - first))} points"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else '−' if value < 0 else '±'}{abs(value):.1f}"


def _flat(plan: Json, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in plan.items():
        if not prefix and name in _OWN:
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
