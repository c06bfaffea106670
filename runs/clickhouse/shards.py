"""One row a Shard: what came of it, and how its rig did (measurement.md §7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runs.clickhouse import client
from runs.clickhouse.facts import RunFacts

SHARDS_MAX = 20_000
HEALTH_POINTS_MAX = 20_000


@dataclass(frozen=True, slots=True)
class ShardRow:
    """Times in ms where the name says so; None where nothing was recorded."""

    shard: int
    attempts: int
    finished: str | None
    outcomes: dict[str, int]
    events: int
    log_lines: int
    log_errors: int
    defects: int
    gaps: int  # of numbering, in Attempts that finished
    clock_samples: int
    clockless_attempts: int
    clock_disagrees: bool
    clock_bound_us: int | None
    loop_lag_us: int | None
    cpu_pct: float | None
    steal_pct: float | None
    rss_bytes: int | None
    open_fds: int | None
    dropped_events: int | None
    harness_delay_p99_us: int | None
    harness_delay_max_us: int | None
    creates: int
    cold_creates: int
    orphans: int


# A clock so bad that it left nothing proven is judged by what it took away: `bound` is
# of every interval's ends before shrinking. Lag counts from T0 to T_destroy; agents
# begin its maximum anew just before both.
_SHARDS = """
WITH
judged AS (
    SELECT * FROM sandboxes FINAL
    WHERE run = {run:String} AND sandbox >= {from:UInt64} AND sandbox < {to:UInt64}
),
boxes AS (
    SELECT shard, sumMap(map(toString(outcome), toUInt64(1))) AS outcomes,
        max(judged.clock_bound_us) AS bound,
        if(count(sent_us - intended_us) = 0, NULL,
            toNullable(quantileExact(0.99)(ifNull(sent_us - intended_us, 0))))
            AS delay_p99,
        max(sent_us - intended_us) AS delay_max,
        countIf(created_us IS NOT NULL) AS creates,
        countIf(reused = false) AS cold, countIf(orphaned) AS orphans,
        countIf(duplicate_create) + sum(settled_again) AS odd
    FROM judged GROUP BY shard
),
lives AS (
    SELECT a.shard AS shard, count() AS attempts, argMax(a.finished, a.attempt)
        AS finish,
        sum(a.events) AS event_count, sum(a.samples) AS sample_count,
        countIf(a.samples = 0) AS clockless, max(a.disagree) AS disagrees,
        sumIf(length(a.gaps), a.finished IS NOT NULL) AS finished_gaps,
        sum(length(a.gaps) + length(a.conflicts) + a.disagree) AS odd
    FROM attempts AS a FINAL
    WHERE run = {run:String} AND ({only:Int64} < 0 OR shard = {only:Int64})
    GROUP BY shard
),
rig AS (
    SELECT shard, max(cpu_pct) AS cpu, max(steal_pct) AS steal, max(rss_bytes) AS rss,
        max(open_fds) AS fds, max(dropped_events) AS dropped,
        maxIf(loop_lag_us, ({t0:Nullable(Int64)} IS NULL
            OR at_us + shift >= {t0:Nullable(Int64)})
            AND ({t_destroy:Nullable(Int64)} IS NULL
            OR at_us + shift <= {t_destroy:Nullable(Int64)})) AS lag
    FROM events
    LEFT JOIN (SELECT shard, attempt, offset[1] AS shift FROM attempts FINAL
        WHERE run = {run:String} AND ({only:Int64} < 0 OR shard = {only:Int64})
    ) AS clocks USING (shard, attempt)
    WHERE run = {run:String} AND kind = 'health' AND judged
        AND ({only:Int64} < 0 OR shard = {only:Int64})
    GROUP BY shard
),
said AS (
    SELECT shard, count() AS lines,
        countIf(level IN ('ERROR', 'CRITICAL', 'FATAL')) AS errors
    FROM log_lines FINAL
    WHERE run = {run:String} AND ({only:Int64} < 0 OR shard = {only:Int64})
    GROUP BY shard
),
aside AS (
    SELECT shard, count() AS defects FROM defects FINAL
    WHERE run = {run:String} AND key LIKE '%/shards/%' GROUP BY shard
)
SELECT boxes.shard AS shard, lives.attempts AS attempts, lives.finish AS finished,
    outcomes, lives.event_count AS events, said.lines AS log_lines, said.errors
        AS log_errors,
    aside.defects + lives.odd + boxes.odd AS defects, lives.finished_gaps AS gaps,
    lives.sample_count AS clock_samples, lives.clockless AS clockless_attempts,
    lives.disagrees AS clock_disagrees, bound AS clock_bound_us, lag AS loop_lag_us,
    cpu AS cpu_pct, steal AS steal_pct, rss AS rss_bytes, fds AS open_fds,
    dropped AS dropped_events, delay_p99 AS harness_delay_p99_us,
    delay_max AS harness_delay_max_us, creates, cold AS cold_creates, orphans
FROM boxes
LEFT JOIN lives USING (shard) LEFT JOIN rig USING (shard)
LEFT JOIN said USING (shard) LEFT JOIN aside USING (shard)
ORDER BY shard LIMIT {limit:UInt32}
"""


def shards(run: RunFacts, only: int | None = None) -> list[ShardRow]:
    """Every judged Shard in order, or one."""
    first, last = (0, run.shard_count) if only is None else (only, only + 1)
    rows = client.query_rows(
        _SHARDS,
        {
            "run": run.code,
            "t0": run.t0_us,
            "t_destroy": run.t_destroy_us,
            "only": -1 if only is None else only,
            "from": first * run.sandboxes_per_shard,
            "to": last * run.sandboxes_per_shard,
            "limit": SHARDS_MAX,
        },
        name="shards",
    )
    return [
        ShardRow(**{**row, "clock_disagrees": bool(row["clock_disagrees"])})
        for row in rows
    ]


_HEALTH = """
SELECT attempt, at_us, cpu_pct, steal_pct, rss_bytes, loop_lag_us, open_fds, in_flight,
    alive, queued_events, dropped_events
FROM events
WHERE run = {run:String} AND shard = {shard:UInt32} AND kind = 'health' AND judged
ORDER BY attempt, n, seq, line LIMIT 1 BY attempt, n LIMIT {limit:UInt32}
"""


def health(run: str, shard: int) -> list[dict[str, Any]]:
    """A Shard's health over time, by its own clock."""
    return client.query_rows(
        _HEALTH,
        {"run": run, "shard": shard, "limit": HEALTH_POINTS_MAX},
        name="health",
    )


# Of each Shard first, so that one that tells more often weighs no more than another.
_FLEET_MEDIAN = """
SELECT bin, count() AS shards, quantileExact(0.5)(cpu) AS cpu_pct,
    quantileExact(0.5)(lag) AS loop_lag_us, quantileExact(0.5)(flying) AS in_flight,
    quantileExact(0.5)(held) AS alive
FROM (
    SELECT shard, intDiv(at_us + shift - {t0:Int64}, {step:Int64}) AS bin,
        avg(e.cpu_pct) AS cpu, max(e.loop_lag_us) AS lag, avg(e.in_flight) AS flying,
        avg(e.alive) AS held
    FROM events AS e
    LEFT JOIN (SELECT shard, attempt, if(empty(half), 0,
            offset[indexOf(half, arrayMin(half))]) AS shift
        FROM attempts FINAL WHERE run = {run:String}) AS clocks USING (shard, attempt)
    WHERE run = {run:String} AND kind = 'health' AND judged
        AND at_us + shift >= {t0:Int64}
        AND at_us + shift < {t0:Int64} + {bins:Int64} * {step:Int64}
    GROUP BY shard, bin
)
GROUP BY bin ORDER BY bin LIMIT {bins:Int64}
"""


def fleet_median(run: str, t0_us: int, step_us: int, bins: int) -> list[dict[str, Any]]:
    """The median Shard's health in each bin from T0 on; an empty bin has no row."""
    bound = {"run": run, "t0": t0_us, "step": step_us, "bins": bins}
    return client.query_rows(_FLEET_MEDIAN, bound, name="fleet_median")


_SHIFT = """
SELECT if(empty(half), 0, offset[indexOf(half, arrayMin(half))]) AS shift
FROM attempts FINAL WHERE run = {run:String} AND shard = {shard:UInt32}
ORDER BY attempt LIMIT 1
"""


def shift(run: str, shard: int) -> int:
    """Run clock minus agent clock by the Shard's best sample; 0 without one."""
    rows = client.query_rows(_SHIFT, {"run": run, "shard": shard}, name="shift")
    return int(rows[0]["shift"]) if rows else 0


_SHARD_EVENTS = """
SELECT attempt, n, toString(kind) AS kind, at_us, reason, connections, orphans, host,
    autonomous
FROM (
    SELECT * FROM events WHERE run = {run:String} AND shard = {shard:UInt32}
        AND sandbox IS NULL AND kind NOT IN ('health', 'clock')
    ORDER BY attempt, n, seq, line LIMIT 1 BY attempt, n
)
WHERE judged ORDER BY attempt, n LIMIT {limit:UInt32}
"""
_FAILURES = """
SELECT toString(kind) AS kind, toString(cause) AS cause, count() AS count,
    min(at_us) AS first_us, max(at_us) AS last_us, argMin(message, at_us) AS message,
    toInt64(assumeNotNull(argMin(sandbox, at_us))) AS sandbox
FROM events WHERE run = {run:String} AND shard = {shard:UInt32} AND judged
    AND kind IN ('create_failed', 'readiness_failed', 'dead', 'orphaned')
GROUP BY kind, cause ORDER BY first_us, kind, cause LIMIT {limit:UInt32}
"""
SHARD_EVENTS_MAX = 1_000


def shard_events(run: str, shard: int) -> list[dict[str, Any]]:
    """What the agents said of the Shard itself, by their own clock."""
    bound = {"run": run, "shard": shard, "limit": SHARD_EVENTS_MAX}
    return client.query_rows(_SHARD_EVENTS, bound, name="shard_events")


def shard_failures(run: str, shard: int) -> list[dict[str, Any]]:
    """Failures of its Sandboxes by kind and cause: how many, from when to when."""
    bound = {"run": run, "shard": shard, "limit": SHARD_EVENTS_MAX}
    return client.query_rows(_FAILURES, bound, name="shard_failures")
