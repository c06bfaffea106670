"""What the agents of a live Run tell in their heartbeats: how Sandboxes ended, and why.

Seconds ahead of the record and no judgement of it: when the Run is sealed, only the
record counts. `network` is the Provider's here; the record knows whether it was ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import orjson
from django.db.models import Count, Q

from runs.models import Run
from shardagent.errors import Origin
from shardagent.wire import Kind, ShardPhase

_OUTCOME_OF = {
    Kind.CREATE_FAILED.value: "failed",
    Kind.READINESS_FAILED.value: "readiness_failed",
    Kind.DEAD.value: "partial",
}
SETTLED = (
    ShardPhase.SETTLED,
    ShardPhase.HOLDING,
    ShardPhase.TEARING_DOWN,
    ShardPhase.FINISHED,
)
_COUNTS = ("sent", "created", "ready", "failed", "dead", "alive", "destroyed")
_STARTING = ("", ShardPhase.STARTING)


class LastBeat(NamedTuple):
    """The last heartbeat of an Attempt."""

    shard: int
    number: int
    host_id: int
    phase: str
    heard_at_us: int | None
    sent: int
    created: int
    ready: int
    failed: int
    dead: int
    alive: int
    destroyed: int
    final_ok: int
    finished: str
    fenced_at_us: int | None
    lost_at_us: int | None
    events_dropped: int
    loop_lag_us: int
    cpu_pct: float
    in_flight: int
    queued_events: int


@dataclass(frozen=True, slots=True)
class Gauges:
    """Sums over the last heartbeats of Attempts that still count."""

    progress: dict[str, int]  # of Sandboxes, Shards and hosts
    machines: dict[str, int]  # that are asked to carry a Shard, armed, booted
    final_ok: int  # proven to the end, also by Attempts that do not count any more


def last_beats(run: Run) -> list[LastBeat]:
    """By Shard, and of a Shard the latest Attempt last."""
    rows = run.attempts.order_by("shard", "number").values_list(*LastBeat._fields)
    return list(map(LastBeat._make, rows))


def gauges(run: Run, heard: Sequence[LastBeat]) -> Gauges:
    current = [beat for beat in heard if beat.fenced_at_us is None]
    armed = [beat for beat in current if beat.phase not in _STARTING]
    columns = dict(zip(LastBeat._fields, zip(*current, strict=True), strict=False))
    hosts = run.hosts.aggregate(
        all=Count("pk"),
        registered=Count("registered_at_us"),
        booted=Count("pk", filter=~Q(machine="")),
    )
    return Gauges(
        progress={
            **{name: sum(columns.get(name, ())) for name in _COUNTS},
            "armed": len(armed),
            "settled": sum(phase in SETTLED for phase in columns.get("phase", ())),
            "finished": sum(how != "" for how in columns.get("finished", ())),
            "hosts": hosts["all"],
            "registered": hosts["registered"],
        },
        machines={
            "hosts": len(set(columns.get("host_id", ()))),
            "armed": len({beat.host_id for beat in armed}),
            "booted": hosts["booted"],
        },
        final_ok=sum(beat.final_ok for beat in heard),
    )


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


def outcomes(gauged: Gauges, ended: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Sandboxes of each Outcome that is settled by now, given the causes told."""
    found = {"success": gauged.final_ok}
    for row in ended:
        found[row["outcome"]] = found.get(row["outcome"], 0) + row["count"]
    return found


def health(running: Iterable[LastBeat]) -> dict[str, float] | None:
    """The worst and the usual of Attempts that are heard; None where none is."""
    heard = list(running)
    if not heard:
        return None
    return {
        "loop_lag_us": max(beat.loop_lag_us for beat in heard),
        "cpu_pct": max(beat.cpu_pct for beat in heard),
        "cpu_p50_pct": median(beat.cpu_pct for beat in heard),
        "in_flight": sum(beat.in_flight for beat in heard),
        "queued_events": sum(beat.queued_events for beat in heard),
    }
