"""What the record says of our own rig (measurement.md §7): figures for the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runs.clickhouse import client
from runs.clickhouse.facts import RunFacts
from shardagent.wire import Plan, Shape

SHARDS_MAX = 20_000

# A health event's window is (previous event, this one]; one that ends before T0 says
# nothing of the measurement, and one after the last final probe is teardown.
_HEALTH = """
WITH offsets AS (
    SELECT shard, attempt, if(empty(half), 0, offset[indexOf(half, arrayMin(half))]) AS shift
    FROM attempts FINAL WHERE run = {run:String}
),
ends AS (
    SELECT shard, attempt, max(at_us) AS until FROM events
    WHERE run = {run:String} AND judged AND kind IN ('probe_ok', 'probe_failed')
        AND last GROUP BY shard, attempt
)
SELECT e.shard AS shard, max(loop_lag_us) / 1000 AS loop_lag_ms,
    max(cpu_pct) AS loop_cpu_pct, max(steal_pct) AS steal_pct
FROM (SELECT * FROM events WHERE run = {run:String} AND judged AND kind = 'health'
      ORDER BY shard, attempt, n, seq, line LIMIT 1 BY shard, attempt, n) AS e
LEFT JOIN offsets AS o USING (shard, attempt)
LEFT JOIN ends AS x USING (shard, attempt)
WHERE e.at_us + o.shift >= {t0:Int64} AND (x.until = 0 OR e.at_us <= x.until)
GROUP BY shard ORDER BY shard LIMIT {limit:UInt32}
"""

_CREATES = """
SELECT shard,
    quantileExact(0.99)(delay) / 1000 AS harness_delay_p99_ms,
    max(delay) / 1000 AS harness_delay_max_ms,
    100 * countIf(reused = false) / nullIf(countIf(reused IS NOT NULL), 0) AS cold_connections_pct
FROM (SELECT shard, reused, toNullable(sent_us - intended_us) AS delay
      FROM sandboxes FINAL WHERE run = {run:String} AND sent_us IS NOT NULL)
GROUP BY shard ORDER BY shard LIMIT {limit:UInt32}
"""

_FINALS = """
WITH offsets AS (
    SELECT shard, attempt, if(empty(half), 0, offset[indexOf(half, arrayMin(half))]) AS shift
    FROM attempts FINAL WHERE run = {run:String} AND samples > 0
)
SELECT shard, max(late) / 1000 AS final_probe_late_ms
FROM (
    SELECT e.shard AS shard, e.sandbox AS box,
        min(e.sent_us + o.shift) - ({t_end:Int64} + intDiv({spread:Int64} * box, {count:Int64})) AS late
    FROM events AS e INNER JOIN offsets AS o USING (shard, attempt)
    WHERE e.run = {run:String} AND e.judged AND e.last
        AND e.kind IN ('probe_ok', 'probe_failed')
    GROUP BY shard, box
)
GROUP BY shard ORDER BY shard LIMIT {limit:UInt32}
"""

_CLOCKS = """
WITH bounds AS (
    SELECT shard, max(arrayMax(arrayMap(p -> greatest(p.3, p.4), proven))) AS bound
    FROM sandboxes FINAL WHERE run = {run:String} AND notEmpty(proven) GROUP BY shard
),
creates AS (
    SELECT shard, count() AS sent FROM sandboxes FINAL
    WHERE run = {run:String} AND sent_us IS NOT NULL GROUP BY shard
)
SELECT a.shard AS shard, any(if(b.bound = 0, NULL, b.bound)) / 1000 AS clock_bound_ms,
    sum(disagree OR samples = 0) AS clock_defects,
    countIf(finished IN ('done', 'aborted')) AS finished_attempts,
    sumIf(length(gaps), finished IS NOT NULL) AS gaps, any(c.sent) AS sent
FROM (SELECT * FROM attempts FINAL WHERE run = {run:String}) AS a
LEFT JOIN bounds AS b USING (shard) LEFT JOIN creates AS c USING (shard)
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
    (SELECT uniqExact(text) FROM journal WHERE run = {run:String}
        AND kind IN ('absent', 'altered')) AS lost,
    (SELECT count() FROM (
        SELECT s.shard, s.attempt, s.type FROM segments AS s FINAL
        INNER JOIN (SELECT shard, attempt FROM attempts FINAL
            WHERE run = {run:String} AND finished IS NOT NULL) AS a USING (shard, attempt)
        WHERE s.run = {run:String} AND s.type IN ('events', 'log')
        GROUP BY s.shard, s.attempt, s.type HAVING count() != max(s.seq) + 1)) AS gapped,
    (SELECT maxOrNull(JSONExtractUInt(text, 'count')) FROM journal
        WHERE run = {run:String} AND kind = 'leftovers') AS leftovers
LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Rig:
    """Rows of the verdict's figures, times in ms; missing figures are None."""

    shards: dict[int, dict[str, Any]]
    run: dict[str, Any]
    shards_started: int  # those that finished, and sent creates where T0 was set
    record_defects: int
    leftovers: int | None


def rig(run: RunFacts, plan: Plan) -> Rig:
    shards: dict[int, dict[str, Any]] = {}
    bound = {"run": run.code, "limit": SHARDS_MAX}
    for row in client.query_rows(_CREATES, bound, name="rig"):
        shards.setdefault(row["shard"], {}).update(row)
    started = gaps = 0
    for row in client.query_rows(_CLOCKS, bound, name="rig"):
        shards.setdefault(row["shard"], {}).update(row)
        gaps += row["gaps"]
        ran = row["sent"] > 0 or run.t0_us is None
        started += bool(row["finished_attempts"] and ran)
    if run.t0_us is not None:
        for row in client.query_rows(_HEALTH, {**bound, "t0": run.t0_us}, name="rig"):
            shards.setdefault(row["shard"], {}).update(row)
    if run.t_end_us is not None and plan.load.shape is not Shape.SEQUENTIAL:
        spread = {
            "t_end": run.t_end_us,
            "spread": round(plan.final_spread_s * 1e6),
            "count": plan.sandbox_count,
        }
        for row in client.query_rows(_FINALS, {**bound, **spread}, name="rig"):
            shards.setdefault(row["shard"], {}).update(row)
    record = client.query_rows(_RECORD, {"run": run.code}, name="rig")[0]
    return Rig(
        shards=shards,
        run=_of_run(run, plan),
        shards_started=started,
        record_defects=record["lost"] + record["gapped"] + gaps,
        leftovers=record["leftovers"],
    )


def _of_run(run: RunFacts, plan: Plan) -> dict[str, Any]:
    bound = {
        "run": run.code,
        "t0": run.t0_us or 0,
        "per_shard": run.sandboxes_per_shard,
        "shard_count": run.shard_count,
    }
    statement = _RUN.replace("<place>", _place(plan))
    row = client.query_rows(statement, bound, name="rig")[0]
    placed = run.t0_us is not None and row["placed_count"]
    if not placed or plan.load.shape is Shape.SEQUENTIAL:
        row |= {"skew_p99_ms": None, "skew_max_ms": None}
    else:
        row["skew_p99_ms"] -= row["skew_min_ms"]
        row["skew_max_ms"] -= row["skew_min_ms"]
    return row


def _place(plan: Plan) -> str:
    """A Sandbox's place in the load shape, µs after T0, as SQL over its rank."""
    load = plan.load
    if load.shape is Shape.STAGGERED:
        return f"rank * {int(load.stagger_us)}"
    if load.shape is Shape.STAIRCASE:
        step = f"intDiv(rank * {int(load.steps)}, {int(plan.sandbox_count)})"
        return f"least({step}, {int(load.steps) - 1}) * {round(load.step_s * 1e6)}"
    return "0"
