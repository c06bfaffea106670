"""A Shard's log, as ClickHouse holds it: stable line numbers, a cursor, a search."""

from __future__ import annotations

from dataclasses import dataclass

from runs.clickhouse import client

LINES_MAX = 5_000


@dataclass(frozen=True, slots=True)
class LogLine:
    attempt: int
    number: int
    at_us: int | None
    level: str | None
    text: str


@dataclass(frozen=True, slots=True)
class LogPage:
    """`cursor` is the position after the last line, to ask for what follows."""

    lines: list[LogLine]
    cursor: tuple[int, int]


_LINES = """
SELECT attempt, number, at_us, toString(level) AS level, text FROM log_lines FINAL
WHERE run = {run:String} AND shard = {shard:UInt32}
    AND (attempt, number) >= ({after_attempt:UInt32}, {after_number:UInt64})
    AND ({attempt:Int64} < 0 OR attempt = {attempt:Int64})
    AND ({level:String} = '' OR log_lines.level = {level:String})
    AND ({q:String} = '' OR positionCaseInsensitiveUTF8(text, {q:String}) > 0)
ORDER BY attempt, number LIMIT {limit:UInt32}
"""


def log_lines(
    run: str,
    shard: int,
    *,
    attempt: int | None = None,
    q: str = "",
    level: str = "",
    after: tuple[int, int] = (0, 0),
    limit: int = 500,
) -> LogPage:
    """Lines from position `after` (attempt, line number) on."""
    rows = client.query_rows(
        _LINES,
        {
            "run": run,
            "shard": shard,
            "attempt": -1 if attempt is None else attempt,
            "q": q,
            "level": level,
            "after_attempt": after[0],
            "after_number": after[1],
            "limit": min(limit, LINES_MAX),
        },
        name="log_lines",
    )
    lines = [LogLine(**row) for row in rows]
    cursor = (lines[-1].attempt, lines[-1].number + 1) if lines else after
    return LogPage(lines, cursor)
