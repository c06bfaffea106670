"""A Run in one dict, in the shapes of `GET /runs/{code}`; the same each time."""

from __future__ import annotations

from typing import Any

from runs.clickhouse import causes, curves
from runs.clickhouse.defects import defect_count
from runs.clickhouse.facts import RunFacts
from runs.clickhouse.sandboxes import OUTCOMES


def summarise(run: RunFacts) -> dict[str, Any]:
    """Outcomes (`pending` only where there are some), Held, peak, times, defects."""
    found = causes.outcomes(run.code)
    outcomes = {name: found.get(name, 0) for name in OUTCOMES}
    if found.get("pending"):
        outcomes["pending"] = found["pending"]
    outcomes["total"] = sum(outcomes.values())
    held = curves.held(run)
    peak = curves.peak(run)
    times = curves.time_to(run)
    return {
        "outcomes": outcomes,
        "held": (
            None
            if held is None
            else {
                "proven": held.proven,
                "from_us": held.from_us,
                "to_us": held.to_us,
                "lowest_us": held.lowest_us,
                "by_host": curves.held_by_host(run, held.lowest_us),
            }
        ),
        "peak": {
            "proven": peak.proven,
            "possible": peak.possible,
            "possible_max": peak.possible_max,
            "at_us": peak.at_us,
            "elapsed_ms": peak.elapsed_ms,
            "clock_bound_us": peak.clock_bound_us,
        },
        "time_to_ms": {str(share): times[str(share)] for share in curves.SHARES},
        "last_create_sent_ms": times["last_create_sent"],
        "implied_peak": curves.implied_peak(run),
        "clock_bound_us": peak.clock_bound_us,
        "defects": defect_count(run),
        "t0_us": run.t0_us,
        "t_hold_us": run.t_hold_us,
        "t_end_us": run.t_end_us,
    }
