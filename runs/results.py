"""What pages and API ask of a Run's record; plain dicts in the shapes of the API.

A sealed Run answers from its summary where it can; the rest is asked of ClickHouse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Literal

from django.core.cache import cache

from runs import lifecycle
from runs.clickhouse import causes as causes_query
from runs.clickhouse import curves, distribution, logs, machines, sandbox_rows
from runs.clickhouse import defects as defects_query
from runs.clickhouse import latency as latency_query
from runs.clickhouse import shards as shards_query
from runs.clickhouse import start as start_query
from runs.clickhouse.facts import RunFacts, live_facts
from runs.clickhouse.logs import LogView
from runs.filters import SandboxFilter
from runs.models import Run, State
from shardagent.wire import Plan

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
SHARD_SANDBOXES_MAX = 10_000
CURVE_KEPT_MAX = 2_000  # points of one that is kept
CURVE_KEPT_S = 60  # a Run that is rebuilt may take so long to show
SEALED_KEPT_S = 3_600  # of what a page asks for several times and does not change
MEDIAN_BINS = 120
MEDIAN_STEP_LEAST_US = 5_000_000  # agents tell of themselves no more often


def facts_of(run: Run) -> RunFacts:
    return live_facts(
        lifecycle.plan_of(run),
        t0_us=run.t0_us,
        t_hold_us=run.t_hold_us,
        t_end_us=run.t_end_us,
        t_destroy_us=run.t_destroy_us,
        clock_id=run.clock_id or None,
    )


def curve(run: Run, step_ms: int, *, corrected: bool = True) -> dict[str, Any] | None:
    """Exact values at T0 + k·step_ms, of a live Run until now; None before T0."""
    if run.state != State.SEALED:
        return _curve(run, step_ms, corrected, lifecycle.now_us(run))
    key = f"curve:{run.code}:{run.sealed_at_us}:{step_ms}:{corrected}"
    kept: dict[str, Any] | None = cache.get(key)
    if kept is None:
        kept = _curve(run, step_ms, corrected, None)
        points = len(kept["points"]) if kept else 0
        if points and points <= CURVE_KEPT_MAX and not run.stale:
            cache.set(key, kept, CURVE_KEPT_S)
    return kept


def _curve(
    run: Run, step_ms: int, corrected: bool, until_us: int | None
) -> dict[str, Any] | None:
    found = curves.curve(facts_of(run), step_ms, corrected=corrected, until_us=until_us)
    if found is None:
        return None
    return {
        "t0_us": found.t0_us,
        "step_ms": found.step_ms,
        "points": [_shallow(point) for point in found.points],
    }


def answered_until(run: Run) -> int | None:
    """Until when a live Run's Sandboxes have answered, µs on its clock."""
    return curves.answered_until(facts_of(run))


def deaths(run: Run, step_ms: int) -> list[dict[str, int]]:
    """Deaths that had happened for certain by then, and those that may have."""
    return [asdict(point) for point in curves.deaths(facts_of(run), step_ms)]


def latency(run: Run) -> dict[str, Any]:
    """The latency table; with intervals once the Run is sealed."""
    if run.summary and "latency" in run.summary:
        return dict(run.summary["latency"])
    return {
        phase: asdict(row) for phase, row in latency_query.latency(run.code).items()
    }


def by_submission(run: Run) -> dict[str, Any]:
    """TTI of the first 25 %, the middle 50 % and the last 25 % of submissions."""
    if run.summary and "submission" in run.summary:
        return dict(run.summary["submission"])
    found = latency_query.by_submission(run.code)
    return {part: asdict(row) for part, row in found.items()}


def causes(run: Run) -> list[dict[str, Any]]:
    """Counts by (outcome, cause, origin), each with an example."""
    if run.summary and "causes" in run.summary:
        return list(run.summary["causes"])
    return [asdict(row) for row in causes_query.causes(run.code)]


def findings(run: Run) -> list[dict[str, Any]]:
    """Every check of the verdict with value and thresholds; empty until sealed."""
    verdict = (run.summary or {}).get("verdict") or {}
    return list(verdict.get("findings", ()))


def shards(run: Run, only: int | None = None) -> list[dict[str, Any]]:
    """One row a Shard: state, attempts, Outcomes, health maxima, verdict, logs."""
    levels = ((run.summary or {}).get("verdict") or {}).get("shards", {})
    judged = {row.shard: row for row in shards_query.shards(facts_of(run), only)}
    states = _shard_states(run, only)
    plan = lifecycle.plan_of(run)
    indices = range(plan.shard_count) if only is None else [only]
    return [
        _shard(index, plan, judged.get(index), states.get(index, {}))
        | {"verdict": _level(run, levels, index)}
        for index in indices
    ]


def carriers(run: Run, index: int) -> list[dict[str, Any]]:
    """What carried each Attempt of a Shard, of the record alone: as after a rebuild."""
    return [
        {"number": number, "host": {"index": said.get("host"), "facts": _facts(said)}}
        for said in machines.carriers(run.code, index)
        for shard, number in said["attempts"]
        if shard == index
    ]


def _facts(said: dict[str, Any]) -> dict[str, Any]:
    """As the site keeps them of a host that it heard itself."""
    names = ("hostname", "version", "egress", "cpu_count")
    return {name: said.get(name) for name in names} | {"machine": said}


def shard_sandboxes(run: Run, index: int) -> list[dict[str, Any]]:
    """Each Sandbox's life in µs since T0, on the Run's clock; None where absent."""
    chosen = SandboxFilter(shard=index)
    rows: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None and len(rows) < SHARD_SANDBOXES_MAX:
        page, after = sandbox_rows.sandbox_rows(
            facts_of(run), chosen, after=after, limit=sandbox_rows.PAGE_MAX
        )
        rows += page
    return [_elapsed(row, run.t0_us) for row in rows]


def sandbox_events(run: Run, sandbox: int) -> list[dict[str, Any]]:
    """The record of one Sandbox: n, elapsed_us (corrected), kind, text."""
    shard = sandbox // lifecycle.plan_of(run).sandboxes_per_shard
    shift = _shift(run, shard)
    return [
        {
            "n": row["n"],
            "attempt": row["attempt"],
            "elapsed_us": _since(row["at_us"], shift, run.t0_us),
            "kind": row["kind"],
            "text": _event_text(row),
        }
        for row in sandbox_rows.sandbox_events(run.code, shard, sandbox)
    ]


def health(run: Run, index: int) -> list[dict[str, Any]]:
    """A Shard's health over time."""
    shift = _shift(run, index)
    return [
        {**row, "elapsed_us": _since(row["at_us"], shift, run.t0_us)}
        for row in shards_query.health(run.code, index)
    ]


def fleet_median(run: Run, until_us: int) -> list[dict[str, Any]]:
    """The health of the median Shard from T0 on, in at most MEDIAN_BINS points."""
    if run.t0_us is None or until_us <= run.t0_us:
        return []
    step_us = max(MEDIAN_STEP_LEAST_US, -(-(until_us - run.t0_us) // MEDIAN_BINS))
    rows = shards_query.fleet_median(run.code, run.t0_us, step_us, MEDIAN_BINS)
    return [{**row, "elapsed_us": (2 * row["bin"] + 1) * step_us // 2} for row in rows]


def log(
    run: Run,
    index: int,
    *,
    attempt: int | None = None,
    q: str = "",
    level: str = "",
    after: str | None = None,
    limit: int = 500,
) -> dict[str, Any]:
    """Log lines with stable numbers; `next` is the cursor of what follows.

    Raises ValueError where `after` is no cursor or `level` no level.
    """
    if level and level not in LOG_LEVELS:
        raise ValueError(f"level must be one of {', '.join(LOG_LEVELS)}")
    page = logs.log_lines(
        run.code,
        index,
        attempt=attempt,
        q=q,
        level=level,
        after=_position(after),
        limit=limit,
    )
    shift = _shift(run, index)
    rows = [
        {**asdict(line), "elapsed_us": _since(line.at_us, shift, run.t0_us)}
        for line in page.lines
    ]
    more = len(rows) >= limit or run.state != State.SEALED
    cursor = f"{page.cursor[0]}.{page.cursor[1]}" if more else None
    return {"lines": rows, "next": cursor}


def log_index(
    run: Run, view: LogView, *, q: str = "", number: int = 0
) -> dict[str, Any]:
    """Where errors, matches and phases are in a view of a log, by place."""
    shift = _shift(run, view.shard)
    known = [
        (name, at)
        for name, at in (
            ("burst", run.t0_us),
            ("hold", run.t_hold_us),
            ("teardown", run.t_end_us),
            ("destroy", run.t_destroy_us),
        )
        if at is not None
    ]
    instants = [at - shift for _, at in known]
    found = logs.log_index(run.code, view, q=q, number=number, instants=instants)
    row = asdict(found)
    begins = row.pop("begins")
    names = ["before T0", *(name for name, _ in known)]
    return row | {
        "phases": [
            {"name": name, "first": first}
            for name, first in zip(names, [0, *begins], strict=True)
        ]
    }


def log_window(run: Run, view: LogView, first: int, limit: int) -> list[list[Any]]:
    """Lines from a place on, each [number, elapsed_us, level, text]."""
    shift = _shift(run, view.shard)
    return [
        [
            row["number"],
            _since(row["at_us"], shift, run.t0_us),
            row["level"],
            row["text"],
        ]
        for row in logs.log_window(run.code, view, first, limit)
    ]


def log_search(
    run: Run, q: str, *, level: str = "", offset: int = 0, limit: int = 200
) -> dict[str, Any]:
    """Lines of every Shard's log that contain `q`, and how many each Shard has."""
    rows, by_shard = logs.search(run.code, q, level=level, offset=offset, limit=limit)
    return {
        "items": rows,
        "total": sum(lines for _, lines in by_shard),
        "shards": by_shard,
    }


def shard_story(run: Run, index: int) -> list[dict[str, Any]]:
    """What happened in a Shard, in order: elapsed_us, kind, text, sandbox or None."""
    shift = _shift(run, index)
    story = [
        {
            "elapsed_us": _since(row["at_us"], shift, run.t0_us),
            "kind": row["kind"],
            "attempt": row["attempt"],
            "text": _shard_event_text(row),
            "sandbox": None,
        }
        for row in shards_query.shard_events(run.code, index)
    ]
    for row in shards_query.shard_failures(run.code, index):
        first, last = (
            _since(row[name], shift, run.t0_us) for name in ("first_us", "last_us")
        )
        times = "" if row["count"] == 1 else f"{row['count']:,} times"
        parts = [str(row["cause"] or "").replace("_", " "), times, row["message"]]
        story.append(
            {
                "elapsed_us": first,
                "until_us": last if row["count"] > 1 else None,
                "kind": row["kind"],
                "attempt": None,
                "text": ", ".join(part for part in parts if part),
                "sandbox": row["sandbox"],
            }
        )
    return sorted(story, key=lambda row: row["elapsed_us"] or 0)


def _shard_event_text(row: dict[str, Any]) -> str:
    said = [
        row["reason"],
        _count(row["connections"], "connection"),
        _count(row["orphans"], "orphan"),
        "on its own: it heard no T_end" if row["autonomous"] else None,
    ]
    return ", ".join(part for part in said if part)


def _count(number: int | None, noun: str) -> str | None:
    return f"{number:,} {noun}{'' if number == 1 else 's'}" if number else None


def sandboxes(
    run: Run, chosen: SandboxFilter, *, after: str = "", limit: int
) -> dict[str, Any]:
    """A page of rows; ValueError where `after` is no cursor of that order."""
    rows, following = sandbox_rows.sandbox_rows(
        facts_of(run), chosen, after=after, limit=limit
    )
    if following is not None and chosen.sort in ("", "sandbox"):
        return {"items": rows, "next": int(following)}
    return {"items": rows, "next": following}


def sandbox_count(run: Run, chosen: SandboxFilter) -> int:
    return sandbox_rows.sandbox_count(facts_of(run), chosen)


def facets(run: Run, chosen: SandboxFilter) -> dict[str, list[tuple[Any, int]]]:
    """Counts by outcome, cause, origin and Shard, each under the other conditions."""
    facts = facts_of(run)
    names: tuple[Literal["outcome", "cause", "origin", "shard"], ...]
    names = ("outcome", "cause", "origin", "shard")
    return {name: sandbox_rows.facet(facts, chosen, name) for name in names}


def export(
    run: Run, chosen: SandboxFilter, kind: Literal["csv", "parquet", "json"]
) -> Iterator[bytes]:
    """All rows as a file; ClickHouse writes it, a chunk at a time."""
    return sandbox_rows.export_rows(facts_of(run), chosen, kind)


def by_size(run: Run, phase: str) -> list[dict[str, Any]]:
    """A phase's latencies in bins that are equal on a log scale."""
    return [asdict(row) for row in distribution.by_size(run.code, phase)]


def in_submission_order(run: Run, phase: str) -> list[dict[str, Any]]:
    """A phase's latencies in at most 100 bins, by order of submission."""
    return [asdict(row) for row in distribution.by_submission(run.code, phase)]


def start(run: Run) -> list[dict[str, Any]]:
    """Start skew and harness delay of each Shard."""
    rows = start_query.start(facts_of(run), lifecycle.plan_of(run))
    return [asdict(row) for row in rows]


def defects(run: Run, limit: int) -> list[dict[str, Any]]:
    return [asdict(row) for row in defects_query.defects(facts_of(run), limit)]


def _shard_states(run: Run, only: int | None) -> dict[int, dict[str, Any]]:
    """What heartbeats last told, for a Run that this site itself drove."""
    attempts = run.attempts.order_by("shard", "number").select_related("host")
    if only is not None:
        attempts = attempts.filter(shard=only)
    found: dict[int, dict[str, Any]] = {}
    for a in attempts:
        state = a.finished or a.phase or "waiting"
        found[a.shard] = {
            "state": "lost" if a.lost_at_us else state,
            "attempts": a.number + 1,
            "host": a.host.index,
            "alive": a.alive,
            "lost_at_us": a.lost_at_us,
        }
    return found


def _shard(
    index: int,
    plan: Plan,
    judged: shards_query.ShardRow | None,
    state: dict[str, Any],
) -> dict[str, Any]:
    row = _shallow(judged) if judged else {}
    row.pop("shard", None)
    outcomes = row.pop("outcomes", None) or {"pending": len(plan.sandboxes_of(index))}
    return {
        **row,
        "index": index,
        "state": state.get("state") or row.get("finished") or "never started",
        "attempts": state.get("attempts") or row.get("attempts") or 0,
        "host": state.get("host"),
        "lost_at_us": state.get("lost_at_us"),
        "outcomes": outcomes,
        "clock_bound_us": row.get("clock_bound_us"),
        "loop_lag_us": row.get("loop_lag_us"),
        "cpu_pct": row.get("cpu_pct"),
        "log_lines": row.get("log_lines") or 0,
        "log_errors": row.get("log_errors") or 0,
        "defects": row.get("defects") or 0,
    }


def _shallow(row: Any) -> dict[str, Any]:
    """asdict copies every value as well, which thousands of rows make felt."""
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def _level(run: Run, levels: dict[str, str], index: int) -> str | None:
    if run.state != State.SEALED:
        return None
    return levels.get(str(index), "VALID")


def _shift(run: Run, shard: int) -> int:
    """The Shard's clock offset, by its best sample: for showing, not for judging."""
    if run.state != State.SEALED:
        return shards_query.shift(run.code, shard)
    key = f"shift:{run.code}:{run.sealed_at_us}:{shard}"
    kept: int | None = cache.get(key)
    if kept is None:
        kept = shards_query.shift(run.code, shard)
        cache.set(key, kept, SEALED_KEPT_S)
    return kept


def _since(at_us: int | None, shift: int, t0_us: int | None) -> int | None:
    return None if at_us is None or t0_us is None else at_us + shift - t0_us


def _elapsed(row: dict[str, Any], t0_us: int | None) -> dict[str, Any]:
    shift = row["clock_offset_us"] or 0
    times = {
        name: _since(row[name], shift, t0_us)
        for name in (
            "sent_us",
            "created_us",
            "ready_us",
            "last_ok_us",
            "first_failed_us",
            "dead_us",
            "destroyed_us",
        )
    }
    kept = ("sandbox", "outcome", "cause", "origin", "suspended", "provider_id")
    return {**{name: row[name] for name in kept}, "message": row["message"], **times}


def _event_text(row: dict[str, Any]) -> str:
    """What the event says besides its kind, in one line."""
    shown = []
    if row["latency_us"] is not None:
        shown.append(f"{row['latency_us'] / 1_000:,.3f} ms")
    names = ("cause", "origin", "status", "tries", "ticks", "provider_id", "message")
    for name in names:
        value = row.get(name)
        if value not in (None, ""):
            shown.append(f"{name} {value}")
    if row.get("witness_ok") is not None:
        shown.append("witness right" if row["witness_ok"] else "witness wrong")
    if row.get("last"):
        shown.append("final")
    return " · ".join(shown)


def _position(after: str | None) -> tuple[int, int]:
    if not after:
        return (0, 0)
    attempt, dot, number = after.partition(".")
    if not dot or not attempt.isdigit() or not number.isdigit():
        raise ValueError("after must be a cursor that an answer gave as `next`")
    return (int(attempt), int(number))
