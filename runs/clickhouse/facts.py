"""What a Run is judged by: its Plan and the instants that its Shards shared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runs.clickhouse import client
from runs.clickhouse.ingest import shard_count
from shardagent.wire import Plan

JOURNAL_LINES_MAX = 10_000
INSTANT_MAX = 2_000_000_000_000_000_000  # µs; beyond it nothing is an instant
INSTANTS = ("t0_us", "t_hold_us", "t_end_us", "t_destroy_us")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Enough to judge a Run's record without anything else; times on its clock."""

    code: str
    sandbox_count: int
    sandboxes_per_shard: int
    shard_count: int
    target: int
    witness: bool
    create_timeout_us: int = 120_000_000
    ready_timeout_us: int = 90_000_000
    clock_id: str | None = None  # None: no journal says, samples of any count
    t0_us: int | None = None
    t_hold_us: int | None = None
    t_end_us: int | None = None
    t_destroy_us: int | None = None
    defects: tuple[str, ...] = field(default=())  # instants that were disagreed on


def live_facts(
    plan: Plan,
    *,
    t0_us: int | None,
    t_hold_us: int | None,
    t_end_us: int | None,
    t_destroy_us: int | None,
    clock_id: str | None,
) -> RunFacts:
    """What the site itself knows while the Run is live."""
    instants = (t0_us, t_hold_us, t_end_us, t_destroy_us)
    return _facts(plan, clock_id, dict(zip(INSTANTS, instants, strict=True)))


def run_facts(plan: Plan) -> RunFacts:
    """The Plan, and the instants that the journal or else the Shards recorded."""
    journal = _journal(plan.code)
    recorded = _recorded(plan.code)
    instants: dict[str, int | None] = {}
    defects = []
    for name in INSTANTS:
        said = journal.get(name)
        least, different = recorded[name]
        instants[name] = said if said is not None else least
        if different > 1 or (different and said is not None and least != said):
            defects.append(f"{name}_disagrees")
    return _facts(plan, journal.get("clock_id"), instants, tuple(defects))


def _facts(
    plan: Plan,
    clock_id: str | None,
    instants: Mapping[str, int | None],
    defects: tuple[str, ...] = (),
) -> RunFacts:
    return RunFacts(
        code=plan.code,
        sandbox_count=plan.sandbox_count,
        sandboxes_per_shard=plan.sandboxes_per_shard,
        shard_count=shard_count(plan),
        target=plan.target or plan.sandbox_count,
        witness=plan.witness,
        create_timeout_us=round(plan.create_timeout_s * 1e6),
        ready_timeout_us=round(plan.ready_timeout_s * 1e6),
        clock_id=clock_id,
        defects=defects,
        **instants,
    )


_JOURNAL = """
SELECT kind, text FROM journal
WHERE run = {run:String} AND kind IN ('clock', 'released', 'holding', 'teardown')
ORDER BY seq DESC, line DESC LIMIT 1 BY kind LIMIT {limit:UInt32}
"""


def _journal(run: str) -> dict[str, Any]:
    """The fields that the last line of each kind carries."""
    rows = client.query_rows(
        _JOURNAL, {"run": run, "limit": JOURNAL_LINES_MAX}, name="run_facts"
    )
    fields: dict[str, Any] = {}
    wanted = {
        "clock": ("clock_id",),
        "released": ("t0_us",),
        "holding": ("t_hold_us",),
        "teardown": ("t_end_us", "t_destroy_us"),
    }
    for row in rows:
        line = json.loads(row["text"])
        for name in wanted[row["kind"]]:
            value = line.get(name)
            if name == "clock_id":
                known = isinstance(value, str)
            else:
                known = type(value) is int and abs(value) <= INSTANT_MAX
            if known:
                fields[name] = value
    return fields


# An autonomous teardown is one Shard's own: it speaks only where no other does.
_RECORDED = """
SELECT
    (minIf(t0_us, kind = 'released'), uniqExactIf(t0_us, kind = 'released')) AS t0,
    (minIf(t_hold_us, kind = 'holding'), uniqExactIf(t_hold_us, kind = 'holding'))
        AS t_hold,
    (minIf(t_end_us, heard), uniqExactIf(t_end_us, heard)) AS t_end,
    (minIf(t_destroy_us, heard), uniqExactIf(t_destroy_us, heard)) AS t_destroy,
    (minIf(t_end_us, alone), uniqExactIf(t_end_us, alone)) AS t_end_alone,
    (minIf(t_destroy_us, alone), uniqExactIf(t_destroy_us, alone)) AS t_destroy_alone
FROM (
    SELECT *, kind = 'teardown' AND NOT ifNull(autonomous, false) AS heard,
        kind = 'teardown' AND ifNull(autonomous, false) AS alone
    FROM (
        SELECT shard, attempt, n, seq, line, kind, judged, autonomous, t0_us, t_hold_us,
            t_end_us, t_destroy_us
        FROM events WHERE run = {run:String}
        ORDER BY shard, attempt, n, seq, line LIMIT 1 BY shard, attempt, n
    )
    WHERE judged AND kind IN ('released', 'holding', 'teardown')
)
LIMIT 1
"""


def _recorded(run: str) -> dict[str, tuple[int | None, int]]:
    """The least that Shards said of each instant, and how many different ones."""
    row = client.query_rows(_RECORDED, {"run": run}, name="run_facts")[0]
    return {
        "t0_us": row["t0"],
        "t_hold_us": row["t_hold"],
        "t_end_us": _first(row["t_end"], row["t_end_alone"]),
        "t_destroy_us": _first(row["t_destroy"], row["t_destroy_alone"]),
    }


def _first(
    heard: tuple[int | None, int], alone: tuple[int | None, int]
) -> tuple[int | None, int]:
    return heard if heard[1] else alone
