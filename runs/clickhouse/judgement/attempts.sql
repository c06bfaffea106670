-- What is true of an Attempt as a whole (measurement.md §3): run by classify().
--
-- Thinning is exact: a sample is left out only where an earlier or a later one is
-- better by more than the rounding at every instant. Disagreement of any two samples
-- is found in one pass: with k = lower edge of one minus upper edge of the other,
-- k <= ceil(d / drift) is (k - 1) * drift < d, a comparison with a running extreme.
INSERT INTO <prefix>attempts
WITH
standing AS (
    -- The record that stands: of copies of one event number, the first segment's line.
    SELECT * FROM events WHERE run = <run> <of_shards>
    ORDER BY shard, attempt, n, seq, line LIMIT 1 BY shard, attempt, n
),
samples AS (
    SELECT shard, attempt, n, t, assumeNotNull(said) AS o, assumeNotNull(half_said) AS h
    FROM (
        SELECT shard, attempt, n, at_us AS t,
            (t2_us - t1_us) + (t3_us - at_us) AS twice,
            intDiv(twice - positiveModulo(twice, 2), 2) AS low,
            (at_us - t1_us) - (t3_us - t2_us) AS trip,
            coalesce(offset_us, if(positiveModulo(twice, 2) = 1 AND positiveModulo(low, 2) = 1, low + 1, low)) AS said,
            coalesce(half_rtt_us, intDiv(trip + positiveModulo(trip, 2), 2)) AS half_said
        FROM standing WHERE judged AND kind = 'clock' <clock>
    ) WHERE abs(said) <= <instant_max> AND abs(half_said) <= <instant_max>
),
marked AS (
    SELECT shard, attempt, n, t, o, h,
        toNullable(toInt128(h) * <drift> - t) AS falling,
        toNullable(toInt128(h) * <drift> + t) AS rising,
        toNullable((toInt128(o) + h) * <drift> - t) AS upper_falling,
        toNullable((toInt128(o) - h) * <drift> - t) AS lower_falling,
        toNullable((toInt128(o) - h) * <drift> + t) AS lower_rising,
        toNullable((toInt128(o) + h) * <drift> + t) AS upper_rising,
        ifNull(min(falling) OVER before <= falling - <drift>, 0)
            OR ifNull(min(rising) OVER after <= rising - <drift>, 0) AS beaten,
        ifNull(lower_falling - min(upper_falling) OVER before >= <drift>, 0)
            OR ifNull(max(lower_rising) OVER before - upper_rising >= <drift>, 0) AS contradicts
    FROM samples
    WINDOW
        before AS (PARTITION BY shard, attempt ORDER BY t, n
                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        after AS (PARTITION BY shard, attempt ORDER BY t, n
                  ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)
),
clocks AS (
    SELECT shard, attempt, count() AS samples, max(contradicts) AS disagree,
        arraySort(groupArrayIf((t, n, o, h), NOT beaten)) AS kept
    FROM marked GROUP BY shard, attempt
),
doubled AS (
    SELECT shard, attempt, arraySort(groupArray(n)) AS conflicts
    FROM (
        SELECT shard, attempt, n FROM events WHERE run = <run> <of_shards>
        GROUP BY shard, attempt, n HAVING min(content) != max(content)
    )
    GROUP BY shard, attempt
),
lives AS (
    SELECT shard, attempt, count() AS events, countIf(judged) AS judged_count,
        minIf(toNullable(at_us), judged) AS first_at,
        maxIf(toNullable(at_us), judged) AS last_at,
        argMinIf((reason, orphans), n, judged AND kind = 'agent_finished') AS finish,
        arraySort(groupArrayIf(at_us, judged AND kind = 'clock')) AS heard,
        groupArrayIf(at_us, judged) AS ats,
        arraySort(groupArray(toInt64(n))) AS ns
    FROM standing GROUP BY shard, attempt
)
SELECT
    <run> AS run, shard, attempt, <revision> AS revision, events,
    judged_count AS judged, first_at AS first_at_us, last_at AS last_at_us,
    if(samples = 0, NULL, arrayMax(arrayMap(
        (a, c) -> a + offset[indexOf(c, arrayMin(c))],
        near, arrayMap(a -> arrayMap((t, h) -> h + intDiv(abs(a - t) + <drift> - 1, <drift>), t4, half), near)
    ))) AS last_us,
    finish.1 AS finished, finish.2 AS orphans, samples, disagree,
    arrayMap(s -> s.1, kept) AS t4, arrayMap(s -> s.3, kept) AS offset,
    arrayMap(s -> s.4, kept) AS half, heard,
    arrayFilter(g -> g.1 <= g.2, arrayMap(
        (p, x) -> (p + 1, x - 1), arrayPushFront(arrayPopBack(ns), toInt64(-1)), ns)) AS gaps,
    conflicts
FROM (
    SELECT *, arrayMap(s -> s.3, kept) AS offsets,
        arrayDistinct(arrayFilter(
            a -> a >= last_at - (arrayMax(offsets) - arrayMin(offsets)), ats)) AS near
    FROM lives
    LEFT JOIN clocks USING (shard, attempt)
    LEFT JOIN doubled USING (shard, attempt)
)
