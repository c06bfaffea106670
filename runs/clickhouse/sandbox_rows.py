"""Sandboxes as rows: a page of them, all of them as a file, one of them in full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from runs.clickhouse import client
from runs.clickhouse.facts import RunFacts
from runs.filters import SandboxFilter

PAGE_MAX = 1_000
EXPORT_ROWS_MAX = 5_000_000
EVENTS_MAX = 10_000
FACET_ROWS_MAX = 100
FORMATS = {"csv": "CSVWithNames", "parquet": "Parquet", "json": "JSON"}
_NEVER = 4_000_000_000_000_000_000  # the sort key of a row that has no value

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
    probes_failed, sent_us - intended_us AS harness_delay_us"""
# What a latency of the filter is, in µs, null where it never was.
_MEASURES = {
    "create": "create_latency_us",
    "ready": "ready_latency_us",
    "tti": "tti_latency_us",
    "destroy": "destroy_latency_us",
    "delay": "(sent_us - intended_us)",
    "probe": "if(empty(probe_latencies), NULL,"
    " toNullable(arrayMax(if(empty(probe_latencies), [toInt64(0)], probe_latencies))))",
}
_SORTS = {
    **_MEASURES,
    "sandbox": "toNullable(toInt64(sandbox))",
    "sent": "intended_us + sent_fit.1",
}
_WHERE = {
    "outcome": "sandboxes.outcome = {outcome:String}",
    "cause": "sandboxes.cause = {cause:String}",
    "origin": "sandboxes.origin = {origin:String}",
    # The table is in the order of Sandboxes: so only this Shard's part of it is read.
    "shard": """shard = {shard:UInt32}
        AND sandbox >= {shard_from:UInt64} AND sandbox < {shard_to:UInt64}""",
    "suspended": "sandboxes.suspended > 0",
    "q": """(positionCaseInsensitiveUTF8(ifNull(sandboxes.message, ''), {q:String}) > 0
        OR positionCaseInsensitiveUTF8(ifNull(provider_id, ''), {q:String}) > 0)""",
    "died_ms": """sandboxes.outcome = 'partial' AND placed
        AND coalesce(first_failed_us + first_failed_fit.1, settled_us + sent_fit.1)
            - {t0:Int64} > {died_from:Int64}
        AND coalesce(first_failed_us + first_failed_fit.1, settled_us + sent_fit.1)
            - {t0:Int64} <= {died_to:Int64}""",
    "rank": """sandbox IN (SELECT sandbox FROM (
        SELECT sandbox, row_number() OVER
            (ORDER BY intended_us + sent_fit.1, sandbox) - 1 AS place
        FROM sandboxes FINAL WHERE run = {run:String} AND sent_us IS NOT NULL)
        WHERE place BETWEEN {rank_from:UInt32} AND {rank_to:UInt32})""",
    "proven": "arrayExists(i -> i.1 <= {at:Int64} AND i.2 > {at:Int64}, proven)",
    "implied": "implied_us <= {at:Int64}",
    "possible": """possible AND if(placed, possible_from_us, {t0:Int64}) <= {at:Int64}
        AND if(placed, coalesce(possible_to_us, (
            SELECT max(last_us) FROM attempts FINAL
            WHERE run = {run:String} AND shard < {shard_count:UInt32})), (
            SELECT max(last_us) FROM attempts FINAL
            WHERE run = {run:String} AND shard < {shard_count:UInt32})) > {at:Int64}""",
}


def sandbox_rows(
    run: RunFacts, chosen: SandboxFilter, *, after: str | int = "", limit: int = 100
) -> tuple[list[dict[str, Any]], str | None]:
    """A page of rows in the filter's order, and the cursor of the next (None: the end).

    Raises ValueError where `after` is no cursor of that order.
    """
    limit = min(limit, PAGE_MAX)
    where, bound = _where(run, chosen)
    key, order = _order(chosen)
    begun, more_bound = _after(str(after), chosen)
    rows = client.query_rows(
        f"SELECT {_COLUMNS}, {key} AS sort_key FROM sandboxes FINAL"
        f" WHERE {where} AND {begun} ORDER BY {order} LIMIT {{limit:UInt32}}",
        {**bound, **more_bound, "limit": limit + 1},
        name="sandbox_rows",
    )
    more = None
    if len(rows) > limit:
        last = rows[limit - 1]
        more = f"{last['sort_key']}.{last['sandbox']}"
        if chosen.sort in ("", "sandbox"):
            more = str(rows[limit]["sandbox"])
    for row in rows:
        del row["sort_key"]
    return rows[:limit], more


def sandbox_count(run: RunFacts, chosen: SandboxFilter) -> int:
    where, bound = _where(run, chosen)
    rows = client.query_rows(
        f"SELECT count() AS n FROM sandboxes FINAL WHERE {where} LIMIT 1",
        bound,
        name="sandbox_count",
    )
    return int(rows[0]["n"])


def facet(
    run: RunFacts,
    chosen: SandboxFilter,
    by: Literal["outcome", "cause", "origin", "shard"],
) -> list[tuple[Any, int]]:
    """(value, Sandboxes) under all conditions but `by` itself, most frequent first."""
    empty: Any = None if by == "shard" else ""
    where, bound = _where(run, chosen.but(**{by: empty}))
    column = "shard" if by == "shard" else f"toString(sandboxes.{by})"
    rows = client.query_rows(
        f"SELECT {column} AS value, count() AS n FROM sandboxes FINAL WHERE {where}"
        " GROUP BY value ORDER BY n DESC, value LIMIT {limit:UInt32}",
        {**bound, "limit": FACET_ROWS_MAX},
        name="facet",
    )
    return [(row["value"], row["n"]) for row in rows if row["value"] != ""]


def export_rows(
    run: RunFacts, chosen: SandboxFilter, kind: Literal["csv", "parquet", "json"]
) -> Iterator[bytes]:
    """All rows in the filter's order as a file, written by ClickHouse."""
    where, bound = _where(run, chosen)
    return client.stream(
        f"SELECT {_COLUMNS} FROM sandboxes FINAL WHERE {where}"
        f" ORDER BY {_order(chosen)[1]} LIMIT {{limit:UInt32}}",
        {**bound, "limit": EXPORT_ROWS_MAX},
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


def _where(run: RunFacts, chosen: SandboxFilter) -> tuple[str, dict[str, Any]]:
    """The conditions, and what is bound in them; nothing of the filter is pasted in."""
    parts = ["run = {run:String}"]
    bound: dict[str, Any] = {"run": run.code}
    for name in ("outcome", "cause", "origin", "shard", "q", "suspended"):
        value = getattr(chosen, name)
        if value != "" and value is not None and value is not False:  # Shard 0 counts
            parts.append(_WHERE[name])
            bound[name] = value
    bound.pop("suspended", None)
    if chosen.shard is not None:
        begin = chosen.shard * run.sandboxes_per_shard
        bound |= {"shard_from": begin, "shard_to": begin + run.sandboxes_per_shard}
    if chosen.of:
        measure = _MEASURES[chosen.of]
        parts.append(f"{measure} IS NOT NULL")
        for name, sign in (("least_ms", ">="), ("most_ms", "<=")):
            value = getattr(chosen, name)
            if value is not None:
                parts.append(f"{measure} {sign} {{{name}:Int64}}")
                bound[name] = round(value * 1_000)
    if chosen.rank:
        parts.append(_WHERE["rank"])
        bound |= {"rank_from": chosen.rank[0], "rank_to": chosen.rank[1]}
    _on_the_curve(run, chosen, parts, bound)
    return " AND ".join(f"({part})" for part in parts), bound


def _on_the_curve(
    run: RunFacts, chosen: SandboxFilter, parts: list[str], bound: dict[str, Any]
) -> None:
    """What refers to T0; without a T0 nothing was ever alive or died."""
    if chosen.alive and chosen.at_ms is not None:
        parts.append(_WHERE[chosen.alive] if run.t0_us is not None else "false")
        bound["at"] = (run.t0_us or 0) + round(chosen.at_ms * 1_000)
    if chosen.died_ms:
        parts.append(_WHERE["died_ms"] if run.t0_us is not None else "false")
        begins, ends = (round(at * 1_000) for at in chosen.died_ms)
        bound |= {"died_from": begins if begins else -_NEVER, "died_to": ends}
    if chosen.alive or chosen.died_ms:
        bound |= {"t0": run.t0_us or 0, "shard_count": run.shard_count}


def _order(chosen: SandboxFilter) -> tuple[str, str]:
    """The sort key, rows without a value last either way, and the total order."""
    never = -_NEVER if chosen.descending else _NEVER
    key = f"ifNull(toInt64({_SORTS[chosen.sort_key]}), toInt64({never}))"
    return key, f"{key} {'DESC' if chosen.descending else 'ASC'}, sandbox ASC"


def _after(after: str, chosen: SandboxFilter) -> tuple[str, dict[str, Any]]:
    if not after:
        return "true", {}
    if chosen.sort in ("", "sandbox"):
        if not (after.isascii() and after.isdigit() and len(after) < 12):
            raise ValueError("after is a cursor that an answer gave as `next`")
        return "sandbox >= {after:UInt64}", {"after": int(after)}
    value, dot, box = after.partition(".")
    plain = value.removeprefix("-")
    if not (dot and plain.isdigit() and box.isdigit() and len(after) <= 40):
        raise ValueError("after is a cursor that an answer gave as `next`")
    key = _order(chosen)[0]
    sign = "<" if chosen.descending else ">"
    return (
        f"({key} {sign} {{after:Int64}}"
        f" OR ({key} = {{after:Int64}} AND sandbox > {{after_box:UInt64}}))",
        {"after": int(value), "after_box": int(box)},
    )
