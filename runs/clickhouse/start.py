"""How the fleet started: what each Shard's creates lost against the plan."""

from __future__ import annotations

from dataclasses import dataclass

from runs.clickhouse import client
from runs.clickhouse.facts import RunFacts
from runs.clickhouse.steps import place_sql
from shardagent.wire import Plan

SHARDS_MAX = 20_000


@dataclass(frozen=True, slots=True)
class ShardStart:
    """µs. Skew: corrected `sent` minus (T0 + place); delay: `sent` minus `intended`."""

    shard: int
    creates: int
    skew_min_us: int | None
    skew_max_us: int | None
    delay_p50_us: int | None
    delay_p99_us: int | None
    delay_max_us: int | None


_START = """
SELECT shard, count() AS creates,
    minIf(toNullable(skew), placed) AS skew_min,
    maxIf(toNullable(skew), placed) AS skew_max,
    quantilesExact(0.5, 0.99)(delay) AS q, count(delay) AS n, max(delay) AS longest
FROM (
    SELECT shard, placed, sent_us - intended_us AS delay,
        sent_us + sent_fit.1 - {t0:Int64} - (<place>) AS skew,
        (sandbox % {per_shard:UInt64}) * {shard_count:UInt64}
            + intDiv(sandbox, {per_shard:UInt64}) AS rank
    FROM sandboxes FINAL WHERE run = {run:String} AND sent_us IS NOT NULL
)
GROUP BY shard ORDER BY shard LIMIT {limit:UInt32}
"""


def start(run: RunFacts, plan: Plan) -> list[ShardStart]:
    """One row a Shard that sent a create; empty before T0."""
    if run.t0_us is None:
        return []
    rows = client.query_rows(
        _START.replace("<place>", place_sql(plan)),
        {
            "run": run.code,
            "t0": run.t0_us,
            "per_shard": run.sandboxes_per_shard,
            "shard_count": run.shard_count,
            "limit": SHARDS_MAX,
        },
        name="start",
    )
    return [
        ShardStart(
            shard=row["shard"],
            creates=row["creates"],
            skew_min_us=row["skew_min"],
            skew_max_us=row["skew_max"],
            delay_p50_us=row["q"][0] if row["n"] else None,
            delay_p99_us=row["q"][1] if row["n"] else None,
            delay_max_us=row["longest"],
        )
        for row in rows
    ]
