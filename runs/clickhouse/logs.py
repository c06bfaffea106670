"""A Shard's log, as ClickHouse holds it: stable line numbers, a cursor, a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
SELECT attempt, number, at_us, toString(level) AS level, text FROM log_lines
WHERE run = {run:String} AND shard = {shard:UInt32}
    AND (attempt, number) >= ({after_attempt:UInt32}, {after_number:UInt64})
    AND ({attempt:Int64} < 0 OR attempt = {attempt:Int64})
    AND ({level:String} = '' OR log_lines.level = {level:String})
    AND ({q:String} = '' OR positionCaseInsensitiveUTF8(text, {q:String}) > 0)
ORDER BY attempt, number LIMIT 1 BY attempt, number LIMIT {limit:UInt32}
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


# One Attempt's lines at some levels, in the order they were said; a line that came
# twice is one line.
_LINES_OF_VIEW = """
    SELECT number, at_us, ifNull(toString(level), '') AS level, text
    FROM log_lines
    WHERE run = {run:String} AND shard = {shard:UInt32} AND attempt = {attempt:UInt32}
        AND (empty({levels:Array(String)})
            OR has({levels:Array(String)}, ifNull(toString(log_lines.level), '')))
    ORDER BY number LIMIT 1 BY number"""
# Read in the order of the table and no further than is shown.
_WINDOW = f"{_LINES_OF_VIEW} LIMIT {{limit:UInt32}} OFFSET {{first:UInt64}}"
_VIEW = f"""
    SELECT *, row_number() OVER (ORDER BY number) - 1 AS nth FROM ({_LINES_OF_VIEW})"""
_INDEX = f"""
SELECT toInt64(count()) AS total,
    sumMap(map(level, toUInt64(1))) AS by_level,
    arraySort(groupArrayIf({{most:UInt32}})(toInt64(nth),
        level IN ('ERROR', 'CRITICAL', 'FATAL'))) AS errors,
    countIf(level IN ('ERROR', 'CRITICAL', 'FATAL')) AS error_count,
    arraySort(groupArrayIf({{most:UInt32}})(toInt64(nth), {{q:String}} != ''
        AND positionCaseInsensitiveUTF8(text, {{q:String}}) > 0)) AS matches,
    countIf({{q:String}} != ''
        AND positionCaseInsensitiveUTF8(text, {{q:String}}) > 0) AS match_count,
    countIf(number < {{number:UInt64}}) AS place,
    arrayMap(t -> countIf(at_us < t), [<instants>]) AS begins
FROM ({_VIEW}) LIMIT 1
"""
_FOUND = """
SELECT shard, attempt, number, at_us, ifNull(toString(level), '') AS level, text
FROM log_lines
WHERE run = {run:String}
    AND positionCaseInsensitiveUTF8(text, {q:String}) > 0
    AND ({level:String} = '' OR log_lines.level = {level:String})
ORDER BY shard, attempt, number LIMIT 1 BY shard, attempt, number
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
"""
_FOUND_BY_SHARD = """
SELECT shard, uniqExact(attempt, number) AS lines FROM log_lines
WHERE run = {run:String}
    AND positionCaseInsensitiveUTF8(text, {q:String}) > 0
    AND ({level:String} = '' OR log_lines.level = {level:String})
GROUP BY shard ORDER BY lines DESC, shard LIMIT {limit:UInt32}
"""
MARKS_MAX = 20_000  # places of errors or matches that one index lists
SHARDS_MAX = 20_000


@dataclass(frozen=True, slots=True)
class LogView:
    """Which lines of a Shard: one Attempt's, at these levels (none named: all)."""

    shard: int
    attempt: int
    levels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogIndex:
    """Where things are in a view, by place (0-based, as it is shown).

    place: of the line that was asked for by number. begins: the first place at or
    after each instant that was asked for.
    """

    total: int
    levels: dict[str, int]
    errors: list[int]
    error_count: int
    matches: list[int]
    match_count: int
    place: int
    begins: list[int]


def log_index(
    run: str, view: LogView, *, q: str = "", number: int = 0, instants: Sequence[int]
) -> LogIndex:
    """instants: in the agent's time, µs."""
    # An aggregate cannot look at a bound array's elements one by one.
    parts = ", ".join(f"countIf(at_us < {int(instant)})" for instant in instants)
    statement = _INDEX.replace(
        "arrayMap(t -> countIf(at_us < t), [<instants>])",
        f"[{parts}]" if parts else "emptyArrayUInt64()",
    )
    bound = _of(run, view) | {"q": q, "number": number, "most": MARKS_MAX}
    row = client.query_rows(statement, bound, name="log_index")[0]
    return LogIndex(levels=row.pop("by_level"), **row)


def log_window(run: str, view: LogView, first: int, limit: int) -> list[dict[str, Any]]:
    """Lines from place `first` on: number, at_us, level, text."""
    limit = min(limit, LINES_MAX)
    bound = _of(run, view) | {"first": first, "limit": limit}
    return client.query_rows(_WINDOW, bound, name="log_window")


def search(
    run: str, q: str, *, level: str = "", offset: int = 0, limit: int = 200
) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
    """Lines of any Shard that contain `q`, and (Shard, lines) of each that has some."""
    bound = {"run": run, "q": q, "level": level}
    rows = client.query_rows(
        _FOUND,
        {**bound, "limit": min(limit, LINES_MAX), "offset": offset},
        name="log_search",
    )
    by_shard = client.query_rows(
        _FOUND_BY_SHARD, {**bound, "limit": SHARDS_MAX}, name="log_search"
    )
    return rows, [(row["shard"], row["lines"]) for row in by_shard]


def _of(run: str, view: LogView) -> dict[str, Any]:
    return {
        "run": run,
        "shard": view.shard,
        "attempt": view.attempt,
        "levels": list(view.levels),
    }
