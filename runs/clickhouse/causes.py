"""Why Sandboxes failed: counts by outcome, cause and origin."""

from __future__ import annotations

from dataclasses import dataclass

from runs.clickhouse import client

ROWS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class CauseCount:
    outcome: str
    cause: str
    origin: str
    count: int
    sandbox: int  # an example, with what the vendor said of it
    shard: int
    message: str | None


_CAUSES = """
SELECT outcome, cause, origin, count() AS count, min(sandbox) AS sandbox,
    argMin(shard, sandboxes.sandbox) AS shard,
    argMin(tuple(message), sandboxes.sandbox).1 AS message
FROM sandboxes FINAL
WHERE run = {run:String} AND outcome NOT IN ('success', 'pending')
GROUP BY outcome, cause, origin
ORDER BY count DESC, outcome, cause, origin LIMIT {limit:UInt32}
"""


def causes(run: str) -> list[CauseCount]:
    """Most frequent first; an empty cause is an Outcome that no event settled."""
    rows = client.query_rows(_CAUSES, {"run": run, "limit": ROWS_MAX}, name="causes")
    return [CauseCount(**row) for row in rows]


_OUTCOMES = """
SELECT outcome, count() AS count FROM sandboxes FINAL WHERE run = {run:String}
GROUP BY outcome LIMIT 10
"""


def outcomes(run: str) -> dict[str, int]:
    """Sandboxes of each Outcome that occurs."""
    rows = client.query_rows(_OUTCOMES, {"run": run}, name="outcomes")
    return {row["outcome"]: row["count"] for row in rows}
