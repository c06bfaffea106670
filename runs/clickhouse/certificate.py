"""A simulated Run against the truth of its world: the harness's own calibration."""

from __future__ import annotations

from dataclasses import dataclass

from runs.clickhouse import client
from runs.clickhouse.facts import RunFacts

SLACK_US = 1_000_000  # around a timeout or T_end either Outcome is right


@dataclass(frozen=True, slots=True)
class LatencyError:
    """Measured minus true, as absolute values."""

    count: int
    p50_us: int | None
    p99_us: int | None
    max_us: int | None


@dataclass(frozen=True, slots=True)
class Certificate:
    """proven(t) <= truth(t) <= possible(t), at how many instants it does not hold."""

    truths: int
    instants: int
    proven_over_truth: int
    truth_over_possible: int
    worst_proven_excess: int
    worst_possible_lack: int
    first_violation_us: int | None
    misclassified: int
    compared: int
    create_error: LatencyError
    ready_error: LatencyError

    @property
    def holds(self) -> bool:
        broken = self.proven_over_truth or self.truth_over_possible
        return not broken and not self.misclassified


# A Sandbox lives in truth while any of its creates lives, asleep or not: a sleeper
# answers. The comparison ends with the record, at the last corrected instant.
_SWEEP = """
WITH
rows AS (
    SELECT proven, placed, possible, possible_from_us, possible_to_us
    FROM sandboxes FINAL WHERE run = {run:String}
),
(SELECT max(last_us) FROM attempts FINAL
 WHERE run = {run:String} AND shard < {shard_count:UInt32}) AS last_instant,
{t0:Nullable(Int64)} AS start_instant,
lives AS (
    SELECT if(placed, possible_from_us, start_instant) AS begins,
        if(placed, coalesce(possible_to_us, last_instant), last_instant) AS ends
    FROM rows WHERE possible AND begins < ends
),
worlds AS (
    SELECT sandbox, assumeNotNull(alive_from_us) AS begins,
        least(ifNull(alive_to_us, last_instant), last_instant) AS ends
    FROM truth FINAL
    WHERE run = {run:String} AND sandbox IS NOT NULL AND alive_from_us IS NOT NULL
        AND begins < ends
),
counted AS (
    SELECT sandbox, at, sum(sum(step)) OVER
        (PARTITION BY sandbox ORDER BY at ROWS UNBOUNDED PRECEDING) > 0 AS alive
    FROM (
        SELECT sandbox, begins AS at, 1 AS step FROM worlds
        UNION ALL SELECT sandbox, assumeNotNull(ends), -1 FROM worlds
    )
    GROUP BY sandbox, at
),
turns AS (
    SELECT at, toInt64(alive) - toInt64(lagInFrame(alive, 1, false) OVER
        (PARTITION BY sandbox ORDER BY at ROWS BETWEEN UNBOUNDED PRECEDING
            AND UNBOUNDED FOLLOWING)) AS step
    FROM counted
),
swept AS (
    SELECT at,
        sum(sum(dp)) OVER (ORDER BY at ROWS UNBOUNDED PRECEDING) AS p,
        sum(sum(dt)) OVER (ORDER BY at ROWS UNBOUNDED PRECEDING) AS t,
        sum(sum(dm)) OVER (ORDER BY at ROWS UNBOUNDED PRECEDING) AS m
    FROM (
        SELECT i.1 AS at, 1 AS dp, toInt64(0) AS dt, 0 AS dm
            FROM rows ARRAY JOIN proven AS i
        UNION ALL SELECT i.2, -1, 0, 0 FROM rows ARRAY JOIN proven AS i
        UNION ALL SELECT at, 0, step, 0 FROM turns
        UNION ALL SELECT assumeNotNull(begins), 0, 0, 1 FROM lives
        UNION ALL SELECT assumeNotNull(ends), 0, 0, -1 FROM lives
    )
    GROUP BY at
)
SELECT count() AS instants, countIf(p > t) AS proven_over_truth,
    countIf(t > m) AS truth_over_possible,
    toInt64(greatest(0, max(p - t))) AS worst_proven_excess,
    toInt64(greatest(0, max(t - m))) AS worst_possible_lack,
    minIf(toNullable(at), p > t OR t > m) AS first_violation_us
FROM swept WHERE at < last_instant LIMIT 1
"""

_CLASSES = """
SELECT countIf(comparable) AS compared, countIf(comparable AND NOT agrees)
    AS misclassified,
    countIf(create_off IS NOT NULL) AS create_n, countIf(ready_off IS NOT NULL)
        AS ready_n,
    quantilesExact(0.5, 0.99)(create_off) AS create_q,
    quantilesExact(0.5, 0.99)(ready_off) AS ready_q,
    max(create_off) AS create_max, max(ready_off) AS ready_max
FROM (
    SELECT
        outcome IN ('success', 'partial', 'readiness_failed', 'failed') AND told
            AS comparable,
        abs(if(answered, create_latency_us - world.create_us, NULL)) AS create_off,
        abs(if(answered, ready_latency_us - world.ready_us, NULL)) AS ready_off,
        ended_us < ifNull({t_end:Nullable(Int64)},
            9223372036854775807) - {slack:Int64} AS early,
        ended_us <= ifNull({t_end:Nullable(Int64)} + {teardown:Int64},
            9223372036854775807) AS maybe,
        multiIf(
            outcome = 'failed', NOT answered OR ifNull(world.create_us,
                0) >= {create_timeout:Int64} - {slack:Int64},
            NOT answered, false,
            outcome = 'readiness_failed', NOT interactive OR ifNull(world.ready_us,
                0) >= {ready_timeout:Int64} - {slack:Int64},
            outcome = 'partial', interactive AND died AND maybe,
            interactive AND NOT (died AND early)
        ) AS agrees
    FROM (SELECT * FROM sandboxes FINAL WHERE run = {run:String}) AS boxes
    LEFT JOIN (
        SELECT assumeNotNull(sandbox) AS sandbox, true AS told,
            argMin(answer = 'ok', (answer != 'ok', seq, line)) AS answered,
            argMin(create_us, (answer != 'ok', seq, line)) AS create_us,
            argMin(ready_us, (answer != 'ok', seq, line)) AS ready_us,
            argMin(interactive, (answer != 'ok', seq, line)) AS interactive,
            argMin(ifNull(ending, '') IN ('died', 'rack', 'ttl'), (answer != 'ok',
                seq, line)) AS died,
            argMin(ifNull(alive_to_us, 9223372036854775807), (answer != 'ok', seq,
                line)) AS ended_us
        FROM truth FINAL WHERE run = {run:String} AND sandbox IS NOT NULL
        GROUP BY sandbox
    ) AS world USING (sandbox)
)
LIMIT 1
"""


def certificate(run: RunFacts) -> Certificate | None:
    """None where the Run has no truth: it was not simulated."""
    count = client.query_rows(
        "SELECT count() AS n FROM truth FINAL WHERE run = {run:String} LIMIT 1",
        {"run": run.code},
        name="certificate",
    )[0]["n"]
    if not count:
        return None
    bound = {"run": run.code, "t0": run.t0_us, "shard_count": run.shard_count}
    sweep = client.query_rows(_SWEEP, bound, name="certificate")[0]
    until = run.t_destroy_us
    row = client.query_rows(
        _CLASSES,
        {
            "run": run.code,
            "t_end": run.t_end_us,
            "teardown": (until - run.t_end_us) if until and run.t_end_us else 0,
            "slack": SLACK_US,
            "create_timeout": run.create_timeout_us,
            "ready_timeout": run.ready_timeout_us,
        },
        name="certificate",
    )[0]
    return Certificate(
        truths=count,
        **sweep,
        misclassified=row["misclassified"],
        compared=row["compared"],
        create_error=_error(row["create_n"], row["create_q"], row["create_max"]),
        ready_error=_error(row["ready_n"], row["ready_q"], row["ready_max"]),
    )


def _error(count: int, q: list[int], top: int | None) -> LatencyError:
    p50, p99 = q if count else (None, None)
    return LatencyError(count, p50, p99, top)
