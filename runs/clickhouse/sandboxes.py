"""The judgement: one row for every planned Sandbox (measurement.md §2, §3, §4).

Two statements, both inside ClickHouse. `attempts` gets what is true of an Attempt as
a whole: its clock samples, thinned to those that can be the best for some instant,
its gaps and conflicts. `sandboxes` gets each Sandbox's life, corrected and classed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from runs.clickhouse import client
from runs.clickhouse.client import STAGING, code_literal, integers, literal
from runs.clickhouse.facts import RunFacts
from runs.clickhouse.ingest import put_in_place

NETWORK_WINDOW_US = 10_000_000
DRIFT_DIVISOR = 10_000  # 100 ppm
TICK_US = 250_000
# ticks gained >= 0.8 * gap / 250 ms - 2, in integers
GAP_US_PER_TICK = TICK_US * 10 // 8
REFUSED = ("rate_limited", "quota", "capacity", "auth", "invalid_request")
OUTCOMES = (
    "success",
    "partial",
    "readiness_failed",
    "failed",
    "unobserved",
    "not_attempted",
)


def classify(run: RunFacts, shards: Sequence[int] | None, *, final: bool) -> None:
    """Judge these Shards' Sandboxes anew; all Shards where None.

    While the Run is live (`final` false) what may still change is `pending`. A
    final judgement of all Shards replaces the Run's rows whole.
    """
    whole = final and shards is None
    prefix = STAGING if whole else ""
    if whole:
        for table in ("attempts", "sandboxes"):
            partition = code_literal(run.code)
            client.command(
                f"ALTER TABLE {prefix}{table} DROP PARTITION {partition}",
                name="classify",
            )
    revision = time.time_ns()
    of_shards = "" if shards is None else f"AND shard IN {integers(shards) or '[]'}"
    if shards is not None and not shards:
        return
    clock = (
        ""
        if run.clock_id is None
        else f"AND ifNull(clock_id, {literal(run.clock_id)}) = {literal(run.clock_id)}"
    )
    names = {
        "prefix": prefix,
        "run": code_literal(run.code),
        "revision": revision,
        "of_shards": of_shards,
        "clock": clock,
        "sandbox_count": int(run.sandbox_count),
        "per_shard": int(run.sandboxes_per_shard),
        "shard_count": int(run.shard_count),
        "planned_shards": (
            f"range(toUInt32({int(run.shard_count)}))"
            if shards is None
            else integers(shards)
        ),
        "witness": int(run.witness),
        "over": int(final),
        "drift": DRIFT_DIVISOR,
        "network": NETWORK_WINDOW_US,
        "gap_per_tick": GAP_US_PER_TICK,
        "refused": "(" + ", ".join(literal(cause) for cause in REFUSED) + ")",
    }
    for statement in (_ATTEMPTS, _SANDBOXES):
        client.command(_filled(statement, names), name="classify")
    if whole:
        for table in ("attempts", "sandboxes"):
            put_in_place(table, run.code, name="classify")


def _filled(statement: str, names: dict[str, object]) -> str:
    for name, value in names.items():
        statement = statement.replace(f"<{name}>", str(value))
    return statement


# The record that stands: of copies of one event number, the first segment's line.
_STANDING = """
    SELECT * FROM events WHERE run = <run> <of_shards>
    ORDER BY shard, attempt, n, seq, line LIMIT 1 BY shard, attempt, n
"""

# Thinning is exact: a sample is left out only where an earlier or a later one is
# better by more than the rounding at every instant. Disagreement of any two samples
# is found in one pass: with k = lower edge of one minus upper edge of the other,
# k <= ceil(d / drift) is (k - 1) * drift < d, a comparison with a running extreme.
_ATTEMPTS = (
    """
INSERT INTO <prefix>attempts
WITH
standing AS ("""
    + _STANDING
    + """),
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
    ) WHERE said IS NOT NULL AND half_said IS NOT NULL
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
"""
)

_SANDBOXES = (
    """
INSERT INTO <prefix>sandboxes
WITH
standing AS ("""
    + _STANDING
    + """),
lives AS (
    SELECT shard, attempt, assumeNotNull(sandbox) AS box,
        argMinIf(toNullable(at_us), n, kind = 'create_sent') AS sent,
        argMinIf(tuple(intended_us), n, kind = 'create_sent').1 AS intended,
        argMinIf((toNullable(at_us), latency_us, provider_id, reused, dns_us, connect_us, tls_us),
            n, kind = 'created') AS cr,
        argMinIf((toNullable(at_us), latency_us, tti_us, tries), n, kind = 'ready') AS rd,
        argMinIf((toNullable(at_us), cause), n, kind = 'create_failed') AS cf,
        argMinIf(toNullable(at_us), n, kind = 'witness_started') AS ws,
        countIf(settles) AS settle_count,
        argMinIf((toString(kind), toNullable(at_us), cause, origin, status, message, n), n, settles) AS st,
        arraySort(groupArrayIf((assumeNotNull(sent_us), n, ticks, ifNull(witness_ok, false),
            at_us, assumeNotNull(latency_us), ifNull(last, false)), kind = 'probe_ok')) AS oks,
        arraySort(x -> x.1, groupArrayIf((n, at_us, ifNull(toString(cause), ''), status, message),
            kind = 'probe_failed')) AS fails,
        countIf(kind = 'probe_failed' AND ifNull(origin, '') != 'harness') AS probes_failed,
        maxIf(n, kind = 'dead') AS dead_n_last, minIf(n, kind = 'dead') AS dead_n,
        argMinIf(toNullable(at_us), n, kind = 'dead') AS dead,
        argMinIf(tuple(sent_us), n, kind IN ('probe_ok', 'probe_failed') AND ifNull(last, false)).1 AS final_sent,
        argMinIf((toNullable(at_us), latency_us), n, kind = 'destroyed') AS de,
        argMinIf(toNullable(at_us), n, kind = 'destroy_sent') AS destroy_sent,
        countIf(kind = 'orphaned') > 0 AS orphaned
    FROM (
        SELECT *, kind IN ('create_failed', 'readiness_failed', 'dead')
            OR (kind = 'probe_ok' AND ifNull(last, false)) AS settles
        FROM standing WHERE judged AND sandbox IS NOT NULL
    )
    GROUP BY shard, attempt, box
),
owned AS (
    SELECT *, count() OVER (PARTITION BY box) > 1 AS duplicate_create
    FROM lives WHERE sent IS NOT NULL
    ORDER BY box, attempt LIMIT 1 BY box
),
clocks AS (
    SELECT shard, attempt, t4, offset, half, samples > 0 AS placed, last_at_us
    FROM <prefix>attempts FINAL WHERE run = <run> <of_shards>
),
ears AS (
    SELECT shard, attempt AS ear, heard
    FROM <prefix>attempts FINAL WHERE run = <run> <of_shards>
),
shaped AS (
    SELECT *,
        ifNull(st.4, '') = 'network' AS by_network,
        ifNull(st.2, 0) AS st_at,
        arrayFilter(p -> p.1 < ifNull(ws, toInt64(-9223372036854775808)), oks) AS early,
        arrayFilter(p -> p.1 >= ifNull(ws, toInt64(-9223372036854775808)), oks) AS late,
        if(ws IS NULL, late, arrayPushFront(late,
            (assumeNotNull(ws), toUInt64(0), toNullable(toInt64(0)), true, toInt64(0), toInt64(0), false))) AS chain,
        arrayConcat(
            arrayMap((p, q) -> (p.1, q.1, p.4 AND q.4 AND ifNull((q.3 - p.3 + 2) * <gap_per_tick> >= q.1 - p.1, false)),
                arrayPopBack(early), arrayPopFront(early)),
            arrayMap((p, q) -> (p.1, q.1, p.4 AND q.4 AND ifNull((q.3 - p.3 + 2) * <gap_per_tick> >= q.1 - p.1, false)),
                arrayPopBack(chain), arrayPopFront(chain))) AS links,
        if(rd.1 IS NULL, [], arrayFilter(l -> l.3 AND l.2 > l.1, links)) AS good,
        arrayPushFront(arrayPopBack(arrayMap(l -> l.2, good)), ifNull(good[1].1, 0)) AS touches,
        multiIf(
            rd.1 IS NULL OR empty(oks), [],
            NOT <witness>, if(oks[-1].1 > rd.1, [(assumeNotNull(rd.1), oks[-1].1)], []),
            arrayMap(s -> (s[1].1, s[-1].2), if(empty(good), [], arraySplit((l, p) -> l.1 > p, good, touches)))
        ) AS raw,
        arrayFirst(f -> f.3 = 'not_found' AND f.1 < dead_n_last, fails) AS lost,
        arrayMax(arrayMap(p -> if(p.2 < dead_n, toInt64(p.2), -1), arrayPushBack(oks,
            (toInt64(0), toUInt64(9223372036854775807), NULL, false, toInt64(0), toInt64(0), false)))) AS last_ok_n,
        arrayFirst(f -> f.1 < dead_n AND toInt64(f.1) > last_ok_n AND f.3 NOT IN ('rate_limited', 'quota'), fails) AS failed_first,
        cf.1 IS NOT NULL AND cr.1 IS NULL AND rd.1 IS NULL AS uncreated,
        multiIf(uncreated, NULL, dead IS NOT NULL AND lost.2 != 0, lost.2, de.1) AS gone,
        arrayFilter(p -> p.7, oks) AS finals,
        arrayFilter(f -> f.1 < st.7, fails)[-1] AS killer,
        [ifNull(sent, 0), ifNull(cr.1, 0), ifNull(rd.1, 0), ifNull(oks[-1].1, 0),
         failed_first.2, ifNull(gone, 0)] AS single,
        arrayConcat(single, arrayMap(i -> i.1, raw), arrayMap(i -> i.2, raw)) AS instants
    FROM owned
),
fitted AS (
    SELECT *,
        arrayMap(a -> arrayMap((t, h) -> h + intDiv(abs(a - t) + <drift> - 1, <drift>), t4, half), instants) AS costs,
        arrayMap(c -> arrayMin(c), costs) AS bounds,
        arrayMap((c, b) -> offset[indexOf(c, b)], costs, bounds) AS offsets,
        arrayExists(a -> a <= st_at AND a >= st_at - <network>, heard) AS heard_before,
        arrayExists(a -> a >= st_at AND a <= st_at + <network>, heard) AS heard_after,
        multiIf(
            settle_count = 0 OR st.1 = 'probe_ok', '',
            ifNull(st.4, '') = 'provider', 'provider',
            NOT by_network, 'harness',
            heard_before AND heard_after, 'provider',
            heard_before AND NOT <over> AND ifNull(last_at_us, 0) < st_at + <network>, 'open',
            'harness') AS blame
    FROM (SELECT *, if(by_network, attempt, 4294967295) AS ear FROM shaped) AS shaped_ear
    LEFT JOIN clocks USING (shard, attempt)
    LEFT JOIN ears USING (shard, ear)
),
planned AS (
    SELECT arrayJoin(range(
        toUInt32(number_of * <per_shard>),
        toUInt32(least((number_of + 1) * <per_shard>, <sandbox_count>)))) AS box,
        toUInt32(number_of) AS shard
    FROM (SELECT toUInt64(arrayJoin(<planned_shards>)) AS number_of)
    WHERE number_of < <shard_count> AND number_of * <per_shard> < <sandbox_count>
)
SELECT
    <run> AS run, planned.box AS sandbox, planned.shard AS shard, <revision> AS revision,
    multiIf(
        sent IS NULL, if(<over>, 'not_attempted', 'pending'),
        settle_count = 0, if(<over>, 'unobserved', 'pending'),
        st.1 = 'probe_ok', if(rd.1 IS NULL, 'unobserved', 'success'),
        blame = 'open', 'pending',
        blame != 'provider', 'unobserved',
        st.1 = 'create_failed', 'failed',
        st.1 = 'readiness_failed', 'readiness_failed',
        rd.1 IS NULL, 'unobserved', 'partial') AS outcome,
    ifNull(if(st.1 = 'probe_ok', NULL, toString(st.3)), '') AS cause,
    ifNull(if(st.1 = 'probe_ok', NULL, toString(st.4)), '') AS origin,
    if(blame = 'open', '', blame) AS judged,
    if(st.1 = 'dead', killer.4, st.5) AS status,
    if(st.1 = 'dead', killer.5, st.6) AS message,
    if(sent IS NULL, NULL, fitted.attempt) AS attempt,
    cr.3 AS provider_id,
    <witness> AND rd.1 IS NOT NULL AND arrayExists(l -> NOT l.3, links) AS suspended,
    duplicate_create,
    if(settle_count > 1, settle_count - 1, 0) AS settled_again,
    orphaned, placed,
    intended AS intended_us, sent AS sent_us, cr.1 AS created_us, rd.1 AS ready_us,
    if(settle_count = 0, NULL, st.2) AS settled_us,
    if(empty(oks), NULL, oks[-1].1) AS last_ok_us,
    if(dead IS NULL OR failed_first.2 = 0, NULL, failed_first.2) AS first_failed_us,
    dead AS dead_us,
    final_sent AS final_sent_us,
    if(empty(finals), NULL, finals[1].5) AS final_ok_us,
    gone AS gone_us, de.1 AS destroyed_us, destroy_sent AS destroy_sent_us,
    (offsets[1], bounds[1]) AS sent_fit, (offsets[2], bounds[2]) AS created_fit,
    (offsets[3], bounds[3]) AS ready_fit, (offsets[4], bounds[4]) AS last_ok_fit,
    (offsets[5], bounds[5]) AS first_failed_fit, (offsets[6], bounds[6]) AS gone_fit,
    cr.2 AS create_latency_us, rd.2 AS ready_latency_us,
    if(rd.1 IS NULL, NULL, coalesce(rd.3, rd.1 - sent)) AS tti_latency_us,
    de.2 AS destroy_latency_us, arrayMap(p -> p.6, oks) AS probe_latencies,
    probes_failed, rd.4 AS tries, cr.4 AS reused, cr.5 AS dns_us, cr.6 AS connect_us,
    cr.7 AS tls_us,
    raw AS proven_raw,
    if(NOT placed, [], arrayFilter(i -> i.2 > i.1, arrayMap(
        (i, ob, oe, bb, be) -> (i.1 + ob + bb, i.2 + oe - be, bb, be),
        raw,
        arraySlice(offsets, 7, length(raw)), arraySlice(offsets, 7 + length(raw)),
        arraySlice(bounds, 7, length(raw)), arraySlice(bounds, 7 + length(raw))))) AS proven,
    sent IS NOT NULL AND NOT (uncreated AND ifNull(cf.2, '') IN <refused>) AS possible,
    if(sent IS NULL OR NOT placed, NULL, sent + offsets[1] - bounds[1]) AS possible_from_us,
    if(sent IS NULL OR NOT placed, NULL, gone + offsets[6] + bounds[6]) AS possible_to_us,
    cr.1 + offsets[2] AS implied_us
FROM planned LEFT JOIN fitted ON planned.box = fitted.box
"""
)
