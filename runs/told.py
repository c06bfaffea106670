"""What the agents of a live Run tell in their heartbeats: how Sandboxes ended, and why.

Seconds ahead of the record and no judgement of it: when the Run is sealed, only the
record counts. `network` is the Provider's here; the record knows whether it was ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

import orjson
from django.db.models import Sum

from runs.models import Run
from shardagent.errors import Origin
from shardagent.wire import Kind

_OUTCOME_OF = {
    Kind.CREATE_FAILED.value: "failed",
    Kind.READINESS_FAILED.value: "readiness_failed",
    Kind.DEAD.value: "partial",
}


def causes(run: Run) -> list[dict[str, Any]]:
    """Ends of Sandboxes by outcome, cause and origin, as in the record's causes.

    Most frequent first; each has the lowest Sandbox of those told as its example.
    """
    rows = run.attempts.exclude(causes="").values_list("shard", "causes")
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for shard, packed in rows:
        for one in orjson.loads(packed):
            ours = one["origin"] == Origin.HARNESS
            outcome = "unobserved" if ours else _OUTCOME_OF[one["kind"]]
            key = (outcome, one["cause"], one["origin"])
            row = found.setdefault(
                key, dict(zip(("outcome", "cause", "origin"), key, strict=True))
            )
            row["count"] = row.get("count", 0) + one["count"]
            if one["sandbox"] < row.get("sandbox", one["sandbox"] + 1):
                row |= {"sandbox": one["sandbox"], "shard": shard}
                row["message"] = one["message"]
    return sorted(found.values(), key=lambda row: (-row["count"], row["sandbox"]))


def outcomes(run: Run, told: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Sandboxes of each Outcome that is settled by now, given the causes told."""
    proven = run.attempts.aggregate(final_ok=Sum("final_ok", default=0))
    found = {"success": int(proven["final_ok"])}
    for row in told:
        found[row["outcome"]] = found.get(row["outcome"], 0) + row["count"]
    return found


def health(rows: Iterable[Mapping[str, Any]]) -> dict[str, float] | None:
    """The worst and the usual of Attempts that are heard; None where none is."""
    heard = list(rows)
    if not heard:
        return None
    return {
        "loop_lag_us": max(row["loop_lag_us"] for row in heard),
        "cpu_pct": max(row["cpu_pct"] for row in heard),
        "cpu_p50_pct": median(row["cpu_pct"] for row in heard),
        "in_flight": sum(row["in_flight"] for row in heard),
        "queued_events": sum(row["queued_events"] for row in heard),
    }
