"""A simulated Run against the truth of its world: the harness's own calibration."""

from __future__ import annotations

from dataclasses import dataclass

from runs.clickhouse import client
from runs.clickhouse.facts import RunFacts
from runs.clickhouse.sandboxes import TICK_US

# A million sleepers are some twenty million steps: slow and large, but once a Run.
_LARGE = {
    "max_execution_time": client.COMMAND_TIME_MAX_S,
    "max_bytes_before_external_group_by": 2_000_000_000,
    "max_bytes_before_external_sort": 2_000_000_000,
}
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
    sandboxes_over_truth: int  # proven at an instant at which they were not
    sandboxes_over_possible: int
    sleepers: int  # slept longer than the witness lets pass, between two good probes
    sleepers_missed: int  # … and are not marked as suspended
    misclassified: int
    compared: int
    create_error: LatencyError
    ready_error: LatencyError

    @property
    def violations(self) -> int:
        """Instants at which the counts, and Sandboxes whose own lives, do not fit."""
        instants = self.proven_over_truth + self.truth_over_possible
        sandboxes = self.sandboxes_over_truth + self.sandboxes_over_possible
        return instants + sandboxes + self.sleepers_missed

    @property
    def clean(self) -> bool:
        return not self.violations and not self.misclassified


# Truth is compared twice. Alive: while any of its creates lives, asleep or not, for a
# sleeper may still be possible. Awake: alive and not asleep, except where the witness
# must let it pass: within a gap between two good probes (or the witness' start and one)
# it may sleep 20 % of the gap, three ticks (two by contract, one of rounding), and as
# long as the closing probe took, because its ticks were read some time after sending.
# The comparison ends with the record, at the last corrected instant.
_SWEEP = """
WITH
rows AS (
    SELECT sandbox, proven, placed, possible, possible_from_us, possible_to_us,
        last_ok_fit, suspended
    FROM sandboxes FINAL WHERE run = {run:String}
),
(SELECT max(last_us) FROM attempts FINAL
 WHERE run = {run:String} AND shard < {shard_count:UInt32}) AS last_instant,
{t0:Nullable(Int64)} AS start_instant,
lives AS (
    SELECT sandbox, if(placed, possible_from_us, start_instant) AS begins,
        if(placed, coalesce(possible_to_us, last_instant), last_instant) AS ends
    FROM rows WHERE possible AND begins < ends
),
worlds AS (
    SELECT assumeNotNull(sandbox) AS sandbox, assumeNotNull(alive_from_us) AS begins,
        least(ifNull(alive_to_us, last_instant), last_instant) AS ends,
        if({witness:UInt8}, arrayMap(s -> (s.1, s.2), asleep), []) AS sleeps
    FROM truth FINAL
    WHERE run = {run:String} AND truth.sandbox IS NOT NULL AND alive_from_us IS NOT NULL
        AND begins < ends
),
reached AS (
    SELECT assumeNotNull(sandbox) AS sandbox, arraySort(groupUniqArray(
        if(kind = 'probe_ok', (assumeNotNull(sent_us), assumeNotNull(latency_us)),
            (at_us, toInt64(0))))) AS goods
    FROM events
    WHERE run = {run:String} AND judged AND kind IN ('probe_ok', 'witness_started')
        AND sandbox IN (SELECT sandbox FROM worlds WHERE notEmpty(sleeps))
    GROUP BY sandbox
),
gaps AS (
    SELECT worlds.sandbox AS sandbox, suspended, arrayJoin(arrayMap(
            (p, q) -> (p.1 + last_ok_fit.1, q.1 + last_ok_fit.1,
                q.2 + 2 * last_ok_fit.2),
            arrayPopBack(goods), arrayPopFront(goods))) AS gap,
        arrayFilter(s -> s.2 > s.1, arrayMap(
            s -> (greatest(s.1, gap.1), least(s.2, gap.2)), sleeps)) AS inside,
        arraySum(arrayMap(s -> s.2 - s.1, inside)) AS slept,
        slept <= intDiv(gap.2 - gap.1, 5) + 3 * {tick:Int64} + gap.3 AS passes
    FROM worlds INNER JOIN reached USING (sandbox) INNER JOIN rows USING (sandbox)
    WHERE notEmpty(inside)
),
steps AS (
    SELECT sandbox, at, sum(dp) AS dp, sum(da) AS da, sum(dw) AS dw, sum(dm) AS dm
    FROM (
        SELECT sandbox, i.1 AS at, 1 AS dp, 0 AS da, 0 AS dw, 0 AS dm
            FROM rows ARRAY JOIN proven AS i
        UNION ALL SELECT sandbox, i.2, -1, 0, 0, 0 FROM rows ARRAY JOIN proven AS i
        UNION ALL SELECT sandbox, begins, 0, 1, 1, 0 FROM worlds
        UNION ALL SELECT sandbox, assumeNotNull(ends), 0, -1, -1, 0 FROM worlds
        UNION ALL SELECT sandbox, s.1, 0, 0, -1, 0 FROM worlds ARRAY JOIN sleeps AS s
        UNION ALL SELECT sandbox, s.2, 0, 0, 1, 0 FROM worlds ARRAY JOIN sleeps AS s
        UNION ALL SELECT sandbox, s.1, 0, 0, 1, 0
            FROM gaps ARRAY JOIN inside AS s WHERE passes
        UNION ALL SELECT sandbox, s.2, 0, 0, -1, 0
            FROM gaps ARRAY JOIN inside AS s WHERE passes
        UNION ALL SELECT sandbox, assumeNotNull(begins), 0, 0, 0, 1 FROM lives
        UNION ALL SELECT sandbox, assumeNotNull(ends), 0, 0, 0, -1 FROM lives
    )
    GROUP BY sandbox, at
),
states AS (
    SELECT sandbox, at, toInt64(sum(dp) OVER upto > 0) AS p,
        toInt64(sum(da) OVER upto > 0) AS a, toInt64(sum(dw) OVER upto > 0) AS w,
        toInt64(sum(dm) OVER upto > 0) AS m
    FROM steps
    WINDOW upto AS (PARTITION BY sandbox ORDER BY at ROWS UNBOUNDED PRECEDING)
),
turns AS (
    SELECT sandbox, at, p, a, w, m,
        p - lagInFrame(p, 1, 0) OVER whole AS dp,
        a - lagInFrame(a, 1, 0) OVER whole AS da,
        w - lagInFrame(w, 1, 0) OVER whole AS dw,
        m - lagInFrame(m, 1, 0) OVER whole AS dm
    FROM states
    WINDOW whole AS (PARTITION BY sandbox ORDER BY at
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
),
swept AS (
    SELECT at, sum(sum(dp)) OVER upto AS proven, sum(sum(da)) OVER upto AS alive,
        sum(sum(dw)) OVER upto AS awake, sum(sum(dm)) OVER upto AS possible,
        uniqExactIfState(sandbox, p > w) AS over_truth,
        uniqExactIfState(sandbox, a > m) AS over_possible
    FROM turns GROUP BY at
    WINDOW upto AS (ORDER BY at ROWS UNBOUNDED PRECEDING)
)
SELECT count() AS instants, countIf(proven > awake) AS proven_over_truth,
    countIf(alive > possible) AS truth_over_possible,
    toInt64(greatest(0, max(proven - awake))) AS worst_proven_excess,
    toInt64(greatest(0, max(alive - possible))) AS worst_possible_lack,
    minIf(toNullable(at), proven > awake OR alive > possible) AS first_violation_us,
    uniqExactIfMerge(over_truth) AS sandboxes_over_truth,
    uniqExactIfMerge(over_possible) AS sandboxes_over_possible,
    (SELECT uniqExact(sandbox) FROM gaps WHERE NOT passes) AS sleepers,
    (SELECT uniqExact(sandbox) FROM gaps WHERE NOT passes AND NOT suspended)
        AS sleepers_missed
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
    bound |= {"witness": int(run.witness), "tick": TICK_US}
    sweep = client.query_rows(
        _SWEEP,
        bound,
        name="certificate",
        settings=_LARGE,
    )[0]
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
