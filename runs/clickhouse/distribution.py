"""How latencies are spread: by size, and in order of submission."""

from __future__ import annotations

from dataclasses import dataclass

from runs.clickhouse import client

PHASES = {
    "create": "create_latency_us",
    "ready": "ready_latency_us",
    "tti": "tti_latency_us",
}
BINS_A_DECADE = 20
BINS_MAX = 400
SUBMISSION_BINS = 100


@dataclass(frozen=True, slots=True)
class SizeBin:
    """Latencies in [from_us, to_us), bins equal on a log scale."""

    from_us: float
    to_us: float
    count: int


@dataclass(frozen=True, slots=True)
class SubmissionBin:
    """Sandboxes by their place among those sent; None where none succeeded."""

    first: int
    last: int
    count: int  # that succeeded
    never: int  # that did not
    min_us: int | None
    p50_us: int | None
    p95_us: int | None
    max_us: int | None


_BY_SIZE = """
SELECT toInt32(floor(log10(greatest(took, 1)) * {bins:UInt32})) AS bin, count() AS n
FROM (SELECT assumeNotNull(<column>) AS took FROM sandboxes FINAL
    WHERE run = {run:String} AND <column> IS NOT NULL)
GROUP BY bin ORDER BY bin LIMIT {limit:UInt32}
"""


def by_size(run: str, phase: str) -> list[SizeBin]:
    """A phase's successes, from the smallest bin that is not empty to the largest."""
    rows = client.query_rows(
        _BY_SIZE.replace("<column>", PHASES[phase]),
        {"run": run, "bins": BINS_A_DECADE, "limit": BINS_MAX},
        name="by_size",
    )
    counts = {row["bin"]: row["n"] for row in rows}
    if not counts:
        return []
    return [
        SizeBin(_edge(place), _edge(place + 1), counts.get(place, 0))
        for place in range(min(counts), max(counts) + 1)
    ]


def _edge(place: int) -> float:
    return float(10 ** (place / BINS_A_DECADE))


_BY_SUBMISSION = """
SELECT toInt64(min(place)) AS first, toInt64(max(place)) AS last, count(took) AS n,
    countIf(took IS NULL) AS never, min(took) AS least, max(took) AS most,
    quantilesExact(0.5, 0.95)(took) AS q
FROM (
    SELECT <column> AS took, count() OVER () AS total,
        row_number() OVER (ORDER BY intended_us + sent_fit.1, sandbox) - 1 AS place
    FROM sandboxes FINAL WHERE run = {run:String} AND sent_us IS NOT NULL
)
GROUP BY intDiv(place * {bins:UInt32}, total) AS bin ORDER BY bin LIMIT {bins:UInt32}
"""


def by_submission(run: str, phase: str) -> list[SubmissionBin]:
    """A phase's latencies in order of submission, in at most SUBMISSION_BINS bins."""
    rows = client.query_rows(
        _BY_SUBMISSION.replace("<column>", PHASES[phase]),
        {"run": run, "bins": SUBMISSION_BINS},
        name="by_submission_bins",
    )
    found = []
    for row in rows:
        p50, p95 = row["q"] if row["n"] else (None, None)
        found.append(
            SubmissionBin(
                first=row["first"],
                last=row["last"],
                count=row["n"],
                never=row["never"],
                min_us=row["least"],
                p50_us=p50,
                p95_us=p95,
                max_us=row["most"],
            )
        )
    return found
