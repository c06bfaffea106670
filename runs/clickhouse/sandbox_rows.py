"""Sandboxes as rows: a page of them, all of them as a file, one of them in full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from runs.clickhouse import client

PAGE_MAX = 1_000
EXPORT_ROWS_MAX = 5_000_000
EVENTS_MAX = 10_000
FORMATS = {"csv": "CSVWithNames", "parquet": "Parquet"}


@dataclass(frozen=True, slots=True)
class SandboxFilter:
    outcome: str = ""
    cause: str = ""
    shard: int | None = None


_COLUMNS = """
    sandbox, shard, attempt, toString(outcome) AS outcome, toString(cause) AS cause,
    toString(origin) AS origin, toString(judged) AS judged, status, message,
        provider_id,
    suspended > 0 AS suspended, duplicate_create > 0 AS duplicate_create,
    orphaned > 0 AS orphaned,
    intended_us, sent_us, created_us, ready_us, last_ok_us, first_failed_us, dead_us,
    final_ok_us, destroyed_us, sent_fit.1 AS clock_offset_us, sent_fit.2
        AS clock_bound_us,
    create_latency_us, ready_latency_us, tti_latency_us, destroy_latency_us, tries,
    reused, dns_us, connect_us, tls_us, length(probe_latencies) AS probes_ok,
    probes_failed"""
_WHERE = """
    FROM sandboxes FINAL
    WHERE run = {run:String} AND sandbox >= {after:UInt64}
        AND ({outcome:String} = '' OR sandboxes.outcome = {outcome:String})
        AND ({cause:String} = '' OR sandboxes.cause = {cause:String})
        AND ({shard:Int64} < 0 OR shard = {shard:Int64})
    ORDER BY sandbox LIMIT {limit:UInt32}"""


def sandbox_rows(
    run: str, chosen: SandboxFilter, *, after: int = 0, limit: int = 100
) -> tuple[list[dict[str, Any]], int | None]:
    """Rows from index `after` on, and the index to ask for next (None at the end)."""
    limit = min(limit, PAGE_MAX)
    rows = client.query_rows(
        f"SELECT {_COLUMNS} {_WHERE}",
        _bound(run, chosen, after, limit + 1),
        name="sandbox_rows",
    )
    more = rows[limit]["sandbox"] if len(rows) > limit else None
    return rows[:limit], more


def sandbox_count(run: str, chosen: SandboxFilter) -> int:
    rows = client.query_rows(
        f"SELECT count() AS n FROM (SELECT sandbox {_WHERE}) LIMIT 1",
        _bound(run, chosen, 0, EXPORT_ROWS_MAX),
        name="sandbox_count",
    )
    return int(rows[0]["n"])


def export_rows(
    run: str, chosen: SandboxFilter, kind: Literal["csv", "parquet"]
) -> Iterator[bytes]:
    """All rows as a file, written by ClickHouse."""
    return client.stream(
        f"SELECT {_COLUMNS} {_WHERE}",
        _bound(run, chosen, 0, EXPORT_ROWS_MAX),
        name="export_rows",
        fmt=FORMATS[kind],
    )


_EVENTS = """
SELECT attempt, n, toString(kind) AS kind, at_us, sent_us, latency_us, last,
    toString(cause) AS cause,
    toString(origin) AS origin, status, message, intended_us, provider_id, tti_us,
        tries,
    ticks, witness_ok
FROM (
    SELECT * FROM events WHERE run = {run:String} AND shard = {shard:UInt32}
    ORDER BY attempt, n, seq, line LIMIT 1 BY attempt, n
)
WHERE judged AND sandbox = {sandbox:UInt32}
ORDER BY attempt, n LIMIT {limit:UInt32}
"""


def sandbox_events(run: str, shard: int, sandbox: int) -> list[dict[str, Any]]:
    """What the record says of one Sandbox, in the agent's time (`last` is `final`)."""
    return client.query_rows(
        _EVENTS,
        {"run": run, "shard": shard, "sandbox": sandbox, "limit": EVENTS_MAX},
        name="sandbox_events",
    )


def _bound(run: str, chosen: SandboxFilter, after: int, limit: int) -> dict[str, Any]:
    return {
        "run": run,
        "outcome": chosen.outcome,
        "cause": chosen.cause,
        "shard": -1 if chosen.shard is None else chosen.shard,
        "after": after,
        "limit": limit,
    }
