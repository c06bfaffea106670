"""What the record says of our own rig (measurement.md §7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runs.clickhouse import client
from runs.clickhouse.facts import RunFacts
from runs.clickhouse.shards import ShardRow
from runs.clickhouse.steps import place_sql
from shardagent.wire import Plan, Shape

SHARDS_MAX = 20_000
FINISHED = ("done", "aborted")  # reasons of an agent that left in good order

_FINALS = """
WITH offsets AS (
    SELECT shard, attempt,
        if(empty(half), 0, offset[indexOf(half, arrayMin(half))]) AS shift
    FROM attempts FINAL WHERE run = {run:String} AND samples > 0
)
SELECT shard, max(late) / 1000 AS final_probe_late_ms
FROM (
    SELECT e.shard AS shard, e.sandbox AS box,
        min(e.sent_us + o.shift)
            - ({t_end:Int64} + intDiv({spread:Int64} * box, {count:Int64})) AS late
    FROM events AS e INNER JOIN offsets AS o USING (shard, attempt)
    WHERE e.run = {run:String} AND e.judged AND e.last
        AND e.kind IN ('probe_ok', 'probe_failed')
    GROUP BY shard, box
)
GROUP BY shard ORDER BY shard LIMIT {limit:UInt32}
"""

_RUN = """
SELECT quantileExact(0.5)(create_latency_us) / 1000 AS create_p50_ms,
    quantileExact(0.5)(tti_latency_us) / 1000 AS tti_p50_ms,
    quantileExact(0.99)(toNullable(sent_us - intended_us)) / 1000 AS harness_p99_ms,
    quantileExactIf(0.99)(skew, placed AND sent_us IS NOT NULL) / 1000 AS skew_p99_ms,
    minIf(skew, placed AND sent_us IS NOT NULL) / 1000 AS skew_min_ms,
    maxIf(skew, placed AND sent_us IS NOT NULL) / 1000 AS skew_max_ms,
    countIf(placed AND sent_us IS NOT NULL) AS placed_count,
    countIf(outcome = 'unobserved') AS unobserved
FROM (
    SELECT *, toNullable(sent_us + sent_fit.1 - {t0:Int64} - (<place>)) AS skew,
        intDiv(sandbox, {per_shard:UInt64}) AS of_shard,
        (sandbox % {per_shard:UInt64}) * {shard_count:UInt64} + of_shard AS rank
    FROM sandboxes FINAL WHERE run = {run:String}
) LIMIT 1
"""

_RECORD = """
SELECT
    (SELECT uniqExact(key) FROM (
        SELECT JSONExtractString(text, 'key') AS key FROM journal
        WHERE run = {run:String} AND kind IN ('absent', 'altered')
        UNION ALL SELECT key FROM defects
        WHERE run = {run:String} AND line = 0
            AND reason IN ('absent', 'altered'))) AS lost,
    (SELECT count() FROM (
        SELECT shard, attempt, type FROM segments FINAL
        WHERE run = {run:String} AND type IN ('events', 'log')
            AND (shard, attempt) IN (SELECT shard, attempt FROM attempts FINAL
                WHERE run = {run:String} AND finished IS NOT NULL)
        GROUP BY shard, attempt, type HAVING count() != max(seq) + 1)) AS gapped,
    (SELECT maxOrNull(JSONExtractUInt(text, 'count')) FROM journal
        WHERE run = {run:String} AND kind = 'leftovers') AS leftovers,
    (SELECT if(count() = 0, NULL, sumOrNull(greatest(0, asked - sent))) FROM (
        SELECT assumeNotNull(sandbox) AS sandbox, toInt64(count()) AS asked
        FROM truth FINAL WHERE run = {run:String} AND truth.sandbox IS NOT NULL
        GROUP BY sandbox) AS worlds
    INNER JOIN (
        SELECT assumeNotNull(sandbox) AS sandbox,
            toInt64(uniqExact(shard, attempt, n)) AS sent
        FROM events WHERE run = {run:String} AND kind = 'create_sent' AND judged
        GROUP BY sandbox) AS boxes USING (sandbox)) AS resends
LIMIT 1
"""


# Everything that an agent sends to the Provider: each event that tells of a sending.
_CALLS = """
SELECT max(calls) AS peak FROM (
    SELECT ifNull(address, '') AS egress_address, count() AS calls,
        intDiv(sent + shift - {t0:Int64}, 1000000) AS second
    FROM (
        SELECT shard, attempt, multiIf(
            kind IN ('create_sent', 'destroy_sent'), at_us,
            kind = 'witness_started', at_us - assumeNotNull(latency_us),
            assumeNotNull(sent_us)) AS sent
        FROM events WHERE run = {run:String} AND judged AND (sent_us IS NOT NULL
            OR kind IN ('create_sent', 'destroy_sent', 'witness_started'))
    ) AS sendings
    LEFT JOIN (
        SELECT shard, attempt,
            if(empty(half), 0, offset[indexOf(half, arrayMin(half))]) AS shift
        FROM attempts FINAL WHERE run = {run:String}
    ) AS clocks USING (shard, attempt)
    LEFT JOIN (
        SELECT shard, attempt, any(egress) AS address
        FROM events WHERE run = {run:String} AND kind = 'agent_started' AND judged
        GROUP BY shard, attempt
    ) AS hosts USING (shard, attempt)
    GROUP BY egress_address, second
) LIMIT 1
"""


# Hosts that know no address of theirs are taken to share one.
_EGRESS = """
SELECT max(creates) AS peak FROM (
    SELECT ifNull(address, '') AS egress_address, count() AS creates,
        intDiv(sent_us + sent_fit.1 - {t0:Int64}, 1000000) AS second
    FROM sandboxes FINAL LEFT JOIN (
        SELECT shard, toNullable(attempt) AS attempt, any(egress) AS address
        FROM events WHERE run = {run:String} AND kind = 'agent_started' AND judged
        GROUP BY shard, attempt
    ) AS hosts USING (shard, attempt)
    WHERE run = {run:String} AND sent_us IS NOT NULL
    GROUP BY egress_address, second
) LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Rig:
    """Figures of the verdict by the names of verdict.py; missing ones are None."""

    shards: dict[int, dict[str, float | None]]
    run: dict[str, Any]
    shards_started: int  # those that finished, and sent creates where T0 was set
    record_defects: int
    leftovers: int | None
    egress_demand_pct: float | None  # of the limit that the Provider publishes
    resends: int | None  # creates that a simulated world heard and no event tells of


def rig(run: RunFacts, plan: Plan, rows: Sequence[ShardRow]) -> Rig:
    """rows: every Shard of the judged Run (shards.shards)."""
    late = _finals(run, plan)
    record = client.query_rows(_RECORD, {"run": run.code}, name="rig")[0]
    return Rig(
        shards={row.shard: _of_shard(row, late.get(row.shard)) for row in rows},
        run=_of_run(run, plan),
        shards_started=sum(_started(row, run) for row in rows),
        record_defects=record["lost"]
        + record["gapped"]
        + sum(r.gaps or 0 for r in rows),
        leftovers=record["leftovers"],
        egress_demand_pct=_egress(run, plan),
        resends=record["resends"],
    )


def _started(row: ShardRow, run: RunFacts) -> bool:
    """It finished, and where there was a T0 it sent creates."""
    unsent = (row.outcomes or {}).get("not_attempted", 0)
    ran = run.t0_us is None or unsent < sum((row.outcomes or {}).values())
    return row.finished in FINISHED and ran


def _of_shard(row: ShardRow, late_ms: float | None) -> dict[str, float | None]:
    cold = 100 * row.cold_creates / row.creates if row.creates else None
    clockless = (row.clockless_attempts or 0) + bool(row.clock_disagrees)
    return {
        "loop_lag_ms": _ms(row.loop_lag_us),
        "loop_cpu_pct": row.cpu_pct,
        "steal_pct": row.steal_pct,
        "harness_delay_p99_ms": _ms(row.harness_delay_p99_us),
        "harness_delay_max_ms": _ms(row.harness_delay_max_us),
        "final_probe_late_ms": late_ms,
        "cold_connections_pct": cold,
        "clock_bound_ms": _ms(row.clock_bound_us),
        "clock_defects": clockless if row.attempts else None,
    }


def _finals(run: RunFacts, plan: Plan) -> dict[int, float]:
    """Shard → how late its latest final probe was first sent, in ms."""
    if run.t_end_us is None or plan.load.shape is Shape.SEQUENTIAL:
        return {}
    bound = {
        "run": run.code,
        "limit": SHARDS_MAX,
        "t_end": run.t_end_us,
        "spread": round(plan.final_spread_s * 1e6),
        "count": plan.sandbox_count,
    }
    rows = client.query_rows(_FINALS, bound, name="rig")
    return {row["shard"]: row["final_probe_late_ms"] for row in rows}


def _egress(run: RunFacts, plan: Plan) -> float | None:
    """The busiest second of any egress address, in % of its published limits."""
    if run.t0_us is None:
        return None
    bound = {"run": run.code, "t0": run.t0_us}
    shares = []
    for statement, limit in (
        (_EGRESS, plan.egress_limit_per_s),
        (_CALLS, plan.egress_calls_per_s),
    ):
        if limit is not None:
            peak = client.query_rows(statement, bound, name="rig")[0]["peak"]
            shares.append(float(100 * (peak or 0) / limit))
    return max(shares, default=None)


def _ms(value: float | None) -> float | None:
    return None if value is None else value / 1_000


def _of_run(run: RunFacts, plan: Plan) -> dict[str, Any]:
    bound = {
        "run": run.code,
        "t0": run.t0_us or 0,
        "per_shard": run.sandboxes_per_shard,
        "shard_count": run.shard_count,
    }
    statement = _RUN.replace("<place>", place_sql(plan))
    row = client.query_rows(statement, bound, name="rig")[0]
    placed = run.t0_us is not None and row["placed_count"]
    if not placed or plan.load.shape is Shape.SEQUENTIAL:
        row |= {"skew_p99_ms": None, "skew_max_ms": None}
    else:
        row["skew_p99_ms"] -= row["skew_min_ms"]
        row["skew_max_ms"] -= row["skew_min_ms"]
    return row
