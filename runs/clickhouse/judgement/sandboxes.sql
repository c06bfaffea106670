-- One row for every planned Sandbox (measurement.md §2, §3, §4): run by classify(),
-- after attempts.sql. Instants are in the agent's time until `fitted` corrects them.
INSERT INTO <prefix>sandboxes
WITH
standing AS (
    -- The record that stands: of copies of one event number, the first segment's line.
    SELECT * FROM events WHERE run = <run> <of_shards>
    ORDER BY shard, attempt, n, seq, line LIMIT 1 BY shard, attempt, n
),
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
            arrayMap((p, q) -> (p.1, q.1, p.4 AND q.4 AND ifNull((toInt128(q.3) - p.3 + 2) * <gap_per_tick> >= q.1 - p.1, false)),
                arrayPopBack(early), arrayPopFront(early)),
            arrayMap((p, q) -> (p.1, q.1, p.4 AND q.4 AND ifNull((toInt128(q.3) - p.3 + 2) * <gap_per_tick> >= q.1 - p.1, false)),
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
    cr.1 + offsets[2] AS implied_us,
    if(NOT placed OR empty(raw), NULL, arrayMax(arraySlice(bounds, 7))) AS clock_bound_us
FROM planned LEFT JOIN fitted ON planned.box = fitted.box
