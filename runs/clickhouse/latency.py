"""Latencies as exact order statistics over all rows (measurement.md §8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from runs.clickhouse import client

PHASES = ("create", "ready", "tti", "probe", "destroy")
QUARTILES = ("first", "middle", "last")
ROWS_MAX = 5_000_000


@dataclass(frozen=True, slots=True)
class Percentiles:
    """None where the percentile falls among those that never came ("not reached")."""

    count: int
    p50_us: int | None
    p95_us: int | None
    p99_us: int | None


@dataclass(frozen=True, slots=True)
class PhaseLatency:
    """One phase. `count` to `mean_us` are of those that succeeded.

    all_observed counts a failure as never; at_best and at_worst add the unobserved, as
    if all had been the fastest, or none had come. from_intended: see measurement §5.
    """

    count: int
    p50_us: int | None
    p95_us: int | None
    p99_us: int | None
    max_us: int | None
    mean_us: float | None
    from_intended: Percentiles | None
    all_observed: Percentiles
    at_best: Percentiles
    at_worst: Percentiles


# phase, latency, latency from intended, asked of the Provider, lost by the harness.
# Create, readiness and TTI are of every observed Sandbox, so that a create that failed
# is a readiness that never came. Probes and destroys are of those that were sent.
_MEASURES = """
    judged AS (
        SELECT *,
            outcome IN ('success', 'partial', 'readiness_failed', 'failed') AS observed,
            outcome = 'unobserved' AS lost
        FROM sandboxes FINAL WHERE run = {run:String}
    ),
    measures AS (
        SELECT shard, sandbox, m.1 AS phase, m.2 AS took, m.3 AS waited, m.4
            AS observed,
            m.5 AS lost
        FROM (SELECT shard, sandbox, arrayJoin([
            ('create', create_latency_us, created_us - intended_us, observed, lost),
            ('ready', ready_latency_us, NULL, observed, lost),
            ('tti', tti_latency_us, ready_us - intended_us, observed, lost),
            ('destroy', destroy_latency_us, NULL, destroy_sent_us IS NOT NULL, false)
        ]) AS m FROM judged)
        UNION ALL
        SELECT shard, sandbox, 'probe', toNullable(p), NULL, true, false
        FROM judged ARRAY JOIN probe_latencies AS p
        UNION ALL
        SELECT shard, sandbox, 'probe', NULL, NULL, true, false
        FROM judged ARRAY JOIN range(probes_failed) AS p
    )"""

_LATENCY = (
    "WITH"
    + _MEASURES
    + """
SELECT phase, count(took) AS n,
    quantilesExact(0.5, 0.95, 0.99)(took) AS q,
    max(took) AS longest, avg(took) AS mean,
    count(waited) AS n_waited,
    quantilesExact(0.5, 0.95, 0.99)(waited) AS q_waited,
    countIf(observed) AS asked, countIf(lost) AS unseen,
    arraySort(groupArrayIf(assumeNotNull(took), observed AND took IS NOT NULL)) AS came,
    [0.5, 0.95, 0.99] AS levels,
    arrayMap(l -> least(toInt64(asked) - 1, toInt64(floor(l * asked))), levels)
        AS places,
    arrayMap(l -> least(toInt64(asked + unseen) - 1,
        toInt64(floor(l * (asked + unseen)))), levels) AS all_places,
    arrayMap(r -> if(asked > 0 AND r < length(came), toNullable(came[r + 1]), NULL),
        places) AS q_observed,
    arrayMap(r -> multiIf(r < unseen, 0, r - unseen < length(came),
        toNullable(came[r - unseen + 1]), NULL), all_places) AS q_best,
    arrayMap(r -> if(r < length(came), toNullable(came[r + 1]), NULL), all_places)
        AS q_worst
FROM measures GROUP BY phase ORDER BY phase LIMIT 10
"""
)
# The sorted latencies stay in ClickHouse.
_LATENCY = (
    f"SELECT * EXCEPT (came, levels, places, all_places) FROM ({_LATENCY}) LIMIT 10"
)


def latency(run: str) -> dict[str, PhaseLatency]:
    """Every phase of a judged Run; those without a row have count 0."""
    rows = client.query_rows(_LATENCY, {"run": run}, name="latency")
    found = {row["phase"]: row for row in rows}
    return {phase: _phase(found.get(phase)) for phase in PHASES}


_NOTHING = Percentiles(0, None, None, None)


def _phase(row: dict[str, Any] | None) -> PhaseLatency:
    if row is None:
        return PhaseLatency(
            count=0,
            p50_us=None,
            p95_us=None,
            p99_us=None,
            max_us=None,
            mean_us=None,
            from_intended=None,
            all_observed=_NOTHING,
            at_best=_NOTHING,
            at_worst=_NOTHING,
        )
    count = row["n"]
    p50, p95, p99 = row["q"] if count else (None, None, None)
    everyone = row["asked"] + row["unseen"]
    return PhaseLatency(
        count=count,
        p50_us=p50,
        p95_us=p95,
        p99_us=p99,
        max_us=row["longest"],
        mean_us=None if row["mean"] is None else round(row["mean"], 1),
        from_intended=(
            Percentiles(row["n_waited"], *row["q_waited"]) if row["n_waited"] else None
        ),
        all_observed=_among(row["asked"], row["q_observed"]),
        at_best=_among(everyone, row["q_best"]),
        at_worst=_among(everyone, row["q_worst"]),
    )


def _among(count: int, values: list[int | None]) -> Percentiles:
    return Percentiles(count, *values) if count else _NOTHING


_QUARTILES = """
SELECT multiIf(place * 4 < total, 'first', place * 4 >= total * 3, 'last', 'middle')
    AS part,
    count(tti_latency_us) AS n,
    quantilesExact(0.5, 0.95, 0.99)(tti_latency_us) AS q
FROM (
    SELECT tti_latency_us, count() OVER () AS total,
        row_number() OVER (ORDER BY intended_us + sent_fit.1, sandbox) - 1 AS place
    FROM sandboxes FINAL WHERE run = {run:String} AND sent_us IS NOT NULL
)
GROUP BY part LIMIT 3
"""


def by_submission(run: str) -> dict[str, Percentiles]:
    """TTI of the first 25 %, middle 50 % and last 25 % in order of submission."""
    rows = client.query_rows(_QUARTILES, {"run": run}, name="by_submission")
    found = {
        row["part"]: Percentiles(row["n"], *(row["q"] if row["n"] else [None] * 3))
        for row in rows
    }
    return {part: found.get(part, _NOTHING) for part in QUARTILES}


_BY_SHARD = (
    "WITH"
    + _MEASURES
    + """
SELECT shard, arraySort(groupArray(assumeNotNull(took))) AS took_us FROM measures
WHERE phase = {phase:String} AND took IS NOT NULL
GROUP BY shard ORDER BY shard LIMIT {limit:UInt32}
"""
)


def by_shard(run: str, phase: str) -> Iterator[tuple[int, list[int]]]:
    """(shard, sorted latencies) of a phase's successes: what a bootstrap draws from."""
    assert phase in PHASES, phase
    rows = client.query_rows(
        _BY_SHARD, {"run": run, "phase": phase, "limit": ROWS_MAX}, name="by_shard"
    )
    for row in rows:
        yield row["shard"], row["took_us"]
