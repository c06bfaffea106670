"""The concurrency curve and what is read off it, exactly (measurement.md §4).

Everything is a sweep over the ends of half-open intervals, inside ClickHouse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runs.clickhouse import client
from runs.clickhouse.facts import RunFacts
from runs.clickhouse.machines import HOSTS

POINTS_MAX = 20_000
SHARES = (50, 90, 99, 100)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    elapsed_ms: int
    proven: int
    possible: int
    implied: int


@dataclass(frozen=True, slots=True)
class Curve:
    """Values at T0 + k * step_ms, exact at each of these instants."""

    t0_us: int
    step_ms: int
    points: list[CurvePoint]


@dataclass(frozen=True, slots=True)
class Held:
    """The headline: at least `proven` through the whole of [from_us, to_us]."""

    proven: int
    from_us: int
    to_us: int
    lowest_us: int  # the first instant at which proven(t) was that low


@dataclass(frozen=True, slots=True)
class Peak:
    """The largest proven(t), where first reached, and possible(t) there."""

    proven: int
    at_us: int | None
    elapsed_ms: int | None
    possible: int
    possible_max: int
    clock_bound_us: int | None


@dataclass(frozen=True, slots=True)
class DeathPoint:
    """Deaths that had happened for certain, and those that may have, by then."""

    elapsed_ms: int
    certain: int
    possible: int


# All interval ends of a Run as (at, proven, possible, implied) steps.
_ROWS = """
    rows AS (
        SELECT proven, proven_raw, placed, possible, possible_from_us, possible_to_us,
            implied_us, created_us
        FROM sandboxes FINAL WHERE run = {run:String}
    ),
    (SELECT max(last_us) FROM attempts FINAL
     WHERE run = {run:String} AND shard < {shard_count:UInt32}) AS last_instant,
    {t0:Nullable(Int64)} AS start_instant,
    lives AS (
        SELECT if(placed, possible_from_us, start_instant) AS begins,
            if(placed, coalesce(possible_to_us, last_instant), last_instant) AS ends
        FROM rows WHERE possible AND begins < ends
    )"""
_PROVEN_STEPS = """
        SELECT i.1 AS at, 1 AS step FROM rows ARRAY JOIN proven AS i
        UNION ALL SELECT i.2, -1 FROM rows ARRAY JOIN proven AS i"""
_POSSIBLE_STEPS = """
        SELECT begins AS at, 1 AS step FROM lives
        UNION ALL SELECT ends, -1 FROM lives"""


def curve(
    run: RunFacts,
    step_ms: int,
    *,
    corrected: bool = True,
    until_us: int | None = None,
) -> Curve | None:
    """The curve on a grid; None before T0. Steps are widened to POINTS_MAX points.

    until_us: by the Run's clock; without it, the last instant of the record.
    Uncorrected, proven(t) and implied(t) are by the agents' own clocks, neither
    shifted nor shrunk; possible(t) always is corrected.
    """
    if run.t0_us is None:
        return None
    step_us = max(1, step_ms) * 1_000
    rows: list[dict[str, Any]] = []
    if until_us is None:
        rows = _changes(run, step_us, corrected)
        until_us = rows[0]["last"]
    span_us = max(0, until_us - run.t0_us)
    if span_us // step_us >= POINTS_MAX:
        step_us = -(-span_us // (POINTS_MAX - 1) // 1_000) * 1_000 + 1_000
        rows = []
    rows = rows or _changes(run, step_us, corrected)
    points = list(_filled(rows, span_us // step_us + 2, step_us // 1_000))
    return Curve(run.t0_us, step_us // 1_000, points)


def _changes(run: RunFacts, step_us: int, corrected: bool) -> list[dict[str, Any]]:
    """The grid instants at which a value changes; the first is T0. At least one."""
    return client.query_rows(
        _CURVES[corrected],
        {**_bound(run), "step": step_us, "limit": POINTS_MAX + 2},
        name="curve",
    )


def _filled(
    rows: Sequence[Mapping[str, int]], count: int, step_ms: int
) -> Iterator[CurvePoint]:
    """Every grid instant: what has not changed is as it was."""
    known = {row["k"]: row for row in rows}
    row = known[0]
    for k in range(count):
        row = known.get(k, row)
        yield CurvePoint(k * step_ms, row["p"], row["m"], row["i"])


# Each kind of end from its own columns, and counted by itself: as tuples of one scan
# they cost twice as much. An end at `at` is felt from the first grid instant that is
# not before it; `last` is the last instant of the record.
_CURVE = """
WITH
    (SELECT max(last_us) FROM attempts FINAL
     WHERE run = {{run:String}} AND shard < {{shard_count:UInt32}}) AS last_instant,
    assumeNotNull({{t0:Nullable(Int64)}}) AS start_instant,
    at -> greatest(0, intDiv(at - start_instant + {{step:Int64}} - 1, {{step:Int64}}))
        AS grid
SELECT toInt64(k) AS k,
    toInt64(sum(sum(dp)) OVER up_to) AS p,
    toInt64(sum(sum(dm)) OVER up_to) AS m,
    toInt64(sum(sum(di)) OVER up_to) AS i,
    toInt64(max(max(top)) OVER ()) AS last
FROM (
    SELECT grid(at) AS k, toInt64(count()) AS dp, 0 AS dm, 0 AS di, max(at) AS top
    FROM (SELECT arrayJoin({proven}.from_us) AS at
          FROM sandboxes FINAL WHERE run = {{run:String}})
    GROUP BY k
    UNION ALL
    SELECT grid(at) AS k, -toInt64(count()), 0, 0, max(at)
    FROM (SELECT arrayJoin({proven}.to_us) AS at
          FROM sandboxes FINAL WHERE run = {{run:String}})
    GROUP BY k
    UNION ALL
    SELECT grid(at) AS k, 0, toInt64(sum(change)), 0, max(at)
    FROM (
        SELECT arrayJoin([(assumeNotNull(begins), 1), (assumeNotNull(ends), -1)])
                AS edge,
            edge.1 AS at, edge.2 AS change
        FROM (
            SELECT if(placed, possible_from_us, start_instant) AS begins,
                if(placed, coalesce(possible_to_us, last_instant), last_instant) AS ends
            FROM sandboxes FINAL
            WHERE run = {{run:String}} AND possible AND begins < ends
        )
    )
    GROUP BY k
    UNION ALL
    SELECT grid(at) AS k, 0, 0, toInt64(count()), max(at)
    FROM (SELECT assumeNotNull({implied}) AS at
          FROM sandboxes FINAL WHERE run = {{run:String}} AND {implied} IS NOT NULL)
    GROUP BY k
    UNION ALL
    SELECT 0, 0, 0, 0, greatest(start_instant, ifNull(last_instant, 0))
)
GROUP BY k
WINDOW up_to AS (ORDER BY k ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
ORDER BY k LIMIT {{limit:UInt32}}
"""
_CURVES = {
    True: _CURVE.format(proven="proven", implied="implied_us"),
    False: _CURVE.format(proven="proven_raw", implied="created_us"),
}


def answered_until(run: RunFacts) -> int | None:
    """Of a live Run: until when all but a few of its Sandboxes have answered.

    Later proven(t) falls only because the next answers are not here yet.
    """
    rows = client.query_rows(_ANSWERED, {"run": run.code}, name="curve")
    until: int | None = rows[0]["until"]
    return until


_ANSWERED = """
SELECT quantileExactOrNull(0.01)(arrayMax(x -> x.2, proven)) AS until
FROM sandboxes FINAL
WHERE run = {run:String} AND outcome = 'pending' AND notEmpty(proven) LIMIT 1
"""


def clock_bound(run: RunFacts) -> int | None:
    """The largest bound at an end of a proven interval; None without any."""
    rows = client.query_rows(_BOUND, _bound(run), name="clock_bound")
    bound: int | None = rows[0]["bound"]
    return bound


_BOUND = """
SELECT max(toNullable(greatest(i.3, i.4))) AS bound
FROM sandboxes FINAL ARRAY JOIN proven AS i WHERE run = {run:String} LIMIT 1
"""


def held(run: RunFacts) -> Held | None:
    """min proven(t) for T_hold <= t <= T_end - 2 * clock bound, or None."""
    if run.t_hold_us is None or run.t_end_us is None:
        return None
    until = run.t_end_us - 2 * (clock_bound(run) or 0)
    if until < run.t_hold_us:
        return None
    rows = client.query_rows(
        _HELD,
        {**_bound(run), "from": run.t_hold_us, "until": until},
        name="held",
    )
    return Held(rows[0]["least"], run.t_hold_us, until, rows[0]["low"])


def held_by_host(run: RunFacts, at_us: int) -> list[tuple[int, int, int]]:
    """(proven alive on a host at that instant, observed there, number of such hosts).

    Observed: without those that the harness lost or never asked for.
    """
    rows = client.query_rows(
        _HELD_BY_HOST, {"run": run.code, "at": at_us, "limit": POINTS_MAX}, name="held"
    )
    return [(row["held"], row["observed"], row["hosts"]) for row in rows]


_HELD_BY_HOST = f"""
SELECT toInt64(held) AS held, toInt64(observed) AS observed, toInt64(count()) AS hosts
FROM (
    SELECT if(carriers.host = '', 'shard ' || toString(shard), carriers.host)
            AS on_host,
        countIf(arrayExists(i -> i.1 <= {{at:Int64}} AND i.2 > {{at:Int64}}, proven))
            AS held,
        countIf(outcome NOT IN ('unobserved', 'not_attempted')) AS observed
    FROM (SELECT shard, proven, outcome FROM sandboxes FINAL WHERE run = {{run:String}})
        AS boxes
    LEFT JOIN ({HOSTS}) AS carriers USING (shard)
    GROUP BY on_host
)
GROUP BY held, observed ORDER BY held, observed LIMIT {{limit:UInt32}}
"""


# The value at T_hold, and after every change in (T_hold, until].
_HELD = (
    "WITH"
    + _ROWS
    + """
SELECT toInt64(min(value)) AS least, argMin(at, (value, at)) AS low FROM (
    SELECT at, sum(sum(step)) OVER (ORDER BY at ROWS UNBOUNDED PRECEDING) AS value
    FROM (
        SELECT greatest(at, {from:Int64}) AS at, step FROM ("""
    + _PROVEN_STEPS
    + """
        ) WHERE at <= {until:Int64}
        UNION ALL SELECT {from:Int64}, 0
    )
    GROUP BY at
)
LIMIT 1
"""
)


def peak(run: RunFacts) -> Peak:
    """The exact maximum of proven(t)."""
    row = client.query_rows(_PEAK, _bound(run), name="peak")[0]
    proven = max(0, row["top"] or 0)
    at_us = row["first_at"] if proven else None
    possible, possible_max = 0, max(0, row["possible_max"] or 0)
    if at_us is not None:
        possible = client.query_rows(
            _POSSIBLE_AT, {**_bound(run), "at": at_us}, name="peak"
        )[0]["value"]
    elapsed = None if at_us is None or run.t0_us is None else _ms_up(at_us - run.t0_us)
    return Peak(proven, at_us, elapsed, possible, possible_max, clock_bound(run))


_PEAK = (
    "WITH"
    + _ROWS
    + """
SELECT toInt64(max(value)) AS top, argMax(toNullable(at), (value, -at)) AS first_at,
    (SELECT toInt64(max(value)) FROM (
        SELECT sum(sum(step)) OVER (ORDER BY at ROWS UNBOUNDED PRECEDING) AS value
        FROM ("""
    + _POSSIBLE_STEPS
    + """) GROUP BY at)) AS possible_max
FROM (
    SELECT at, sum(sum(step)) OVER (ORDER BY at ROWS UNBOUNDED PRECEDING) AS value
    FROM ("""
    + _PROVEN_STEPS
    + """) GROUP BY at
)
LIMIT 1
"""
)
_POSSIBLE_AT = (
    "WITH"
    + _ROWS
    + """
SELECT toInt64(countIf(begins <= {at:Int64} AND ends > {at:Int64})) AS value
FROM lives LIMIT 1
"""
)


def time_to(run: RunFacts) -> dict[str, int | None]:
    """Elapsed ms, rounded up, until proven(t) is each share of the target first.

    `last_create_sent` stands beside them: when the last create was sent.
    """
    needs = [-(-run.target * share // 100) for share in SHARES]
    row = client.query_rows(
        _TIME_TO,
        {**_bound(run), **{f"n{i}": need for i, need in enumerate(needs)}},
        name="time_to",
    )[0]
    found: dict[str, int | None] = {}
    for name, at in [
        *((str(share), row[f"t{i}"]) for i, share in enumerate(SHARES)),
        ("last_create_sent", row["last_sent"]),
    ]:
        known = at is not None and run.t0_us is not None
        found[name] = _ms_up(at - run.t0_us) if known else None
    return found


_TIME_TO = (
    "WITH"
    + _ROWS
    + """
SELECT
    minIf(toNullable(at), value >= {n0:Int64}) AS t0,
    minIf(toNullable(at), value >= {n1:Int64}) AS t1,
    minIf(toNullable(at), value >= {n2:Int64}) AS t2,
    minIf(toNullable(at), value >= {n3:Int64}) AS t3,
    (SELECT max(sent_us + sent_fit.1) FROM sandboxes FINAL
     WHERE run = {run:String} AND placed) AS last_sent
FROM (
    SELECT at, sum(sum(step)) OVER (ORDER BY at ROWS UNBOUNDED PRECEDING) AS value
    FROM ("""
    + _PROVEN_STEPS
    + """) GROUP BY at
)
LIMIT 1
"""
)


def implied_peak(run: RunFacts) -> int:
    """Creates completed: what a burst test would have claimed."""
    rows = client.query_rows(
        "SELECT countIf(implied_us IS NOT NULL) AS value FROM sandboxes FINAL"
        " WHERE run = {run:String} LIMIT 1",
        {"run": run.code},
        name="implied_peak",
    )
    return int(rows[0]["value"])


def deaths(run: RunFacts, step_ms: int) -> list[DeathPoint]:
    """Deaths over time, each known only to lie between two probes."""
    if run.t0_us is None:
        return []
    rows: Sequence[dict[str, Any]] = client.query_rows(
        _DEATHS,
        {**_bound(run), "step": max(1, step_ms) * 1_000, "limit": POINTS_MAX},
        name="deaths",
    )
    return [DeathPoint(row["k"] * step_ms, row["c"], row["p"]) for row in rows]


_DEATHS = """
SELECT toInt64(k) AS k, toInt64(sum(sum(dc)) OVER up_to) AS c,
    toInt64(sum(sum(dp)) OVER up_to) AS p
FROM (
    SELECT greatest(0, toInt64(ceil((at - {t0:Nullable(Int64)}) / {step:Int64})))
        AS k, dc, dp
    FROM (
        SELECT assumeNotNull(coalesce(first_failed_us + first_failed_fit.1,
            settled_us + sent_fit.1)) AS at, 1 AS dc, 0 AS dp
        FROM sandboxes FINAL WHERE run = {run:String} AND placed AND outcome = 'partial'
        UNION ALL
        SELECT assumeNotNull(coalesce(last_ok_us + last_ok_fit.1,
            ready_us + ready_fit.1)), 0, 1
        FROM sandboxes FINAL WHERE run = {run:String} AND placed AND outcome = 'partial'
    )
)
GROUP BY k
WINDOW up_to AS (ORDER BY k ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
ORDER BY k LIMIT {limit:UInt32}
"""


def _bound(run: RunFacts) -> dict[str, Any]:
    return {"run": run.code, "t0": run.t0_us, "shard_count": run.shard_count}


def _ms_up(us: int) -> int:
    return -(-us // 1_000)
