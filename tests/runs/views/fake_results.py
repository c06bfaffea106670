"""A stand-in for runs.results: the facts of a small Run, made up but consistent."""

from __future__ import annotations

import random
from typing import Any

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
PER_SHARD = 100
FATES = {
    17: ("failed", "rate_limited", "429 Too Many Requests"),
    42: ("failed", "timeout", "no answer within 12 s"),
    150: ("readiness_failed", "command_failed", "exit status 127: node: not found"),
    333: ("partial", "not_found", "404 sandbox does not exist"),
    334: ("partial", "not_found", "404 sandbox does not exist"),
    335: ("partial", "timeout", "no answer within 2 s"),
    700: ("unobserved", None, ""),
}


def curve(run: Any, step_ms: int, corrected: bool = True) -> Any:
    if run.t0_us is None:
        return None
    points = []
    for at in range(0, 48_000, step_ms):
        risen = min(1.0, max(0.0, (at - 400) / 4_000)) ** 0.5
        proven = round(993 * risen) - (3 if at > 26_000 else 0)
        if at > 42_000:
            proven = max(0, round(990 * (1 - (at - 42_000) / 3_000)))
        implied = round(997 * min(1.0, at / 3_000) ** 0.5)
        possible = min(1_000, proven + 6) if at < 45_000 else 6
        row = {"elapsed_ms": at, "proven": proven, "possible": possible}
        points.append(row | {"implied": implied})
    return {"t0_us": run.t0_us, "step_ms": step_ms, "points": points}


def answered_until(run: Any) -> int:
    return int(run.t0_us) + 41_000_000


def deaths(run: Any, step_ms: int) -> Any:
    return [
        {"elapsed_ms": 22_000, "certain": 0, "possible": 2},
        {"elapsed_ms": 25_000, "certain": 2, "possible": 3},
        {"elapsed_ms": 29_000, "certain": 3, "possible": 3},
    ]


def latency(run: Any) -> Any:
    if run.t0_us is None:
        return {}

    def row(p50: int, *, all_observed: bool = True) -> dict[str, Any]:
        found = {
            "count": 997,
            "p50_us": p50,
            "p95_us": round(p50 * 1.4),
            "p99_us": round(p50 * 1.8),
            "max_us": p50 * 9,
            "mean_us": round(p50 * 1.1),
            "ci95": {},
            "all_observed": None,
            "from_intended": None,
        }
        if all_observed:
            found["all_observed"] = {"count": 999, "p50_us": p50, "p95_us": p50 * 2}
            found["all_observed"]["p99_us"] = None
            best = {"count": 1_000, "p50_us": p50 - 1_000, "p99_us": p50 * 3}
            found["at_best"] = best
            found["at_worst"] = {"count": 1_000, "p50_us": p50 + 1_000, "p99_us": None}
        return found

    return {
        "create": row(321_000),
        "ready": row(48_000),
        "tti": row(374_000) | {"ci95": {"p99_us": [551_000, 590_000]}},
        "probe": row(14_000, all_observed=False),
        "destroy": row(90_000, all_observed=False),
    }


def causes(run: Any) -> Any:
    return [
        {
            "outcome": outcome,
            "cause": cause,
            "origin": "provider" if cause else None,
            "count": 1,
            "message": message,
            "sandbox": sandbox,
            "shard": sandbox // PER_SHARD,
        }
        for sandbox, (outcome, cause, message) in FATES.items()
    ]


def shards(run: Any, only: int | None = None) -> Any:
    found = []
    for index in range(run.plan["shard_count"]) if only is None else [only]:
        fates = [o for s, (o, _, _) in FATES.items() if s // PER_SHARD == index]
        names = "success partial readiness_failed failed unobserved not_attempted"
        outcomes = {name: fates.count(name) for name in names.split()}
        outcomes["success"] = PER_SHARD - len(fates)
        outcomes["pending"] = 0
        found.append(
            {
                "index": index,
                "state": "lost" if index % 37 == 7 else "done",
                "attempts": 1,
                "outcomes": outcomes,
                "verdict": "SUSPECT" if index % 50 == 3 else "VALID",
                "clock_bound_us": 2_300,
                "loop_lag_us": 140_000 if index % 50 == 3 else 12_000,
                "cpu_pct": 38.0,
                "log_lines": 640,
                "log_errors": len(fates),
                "defects": 0,
            }
        )
    return found


def findings(run: Any) -> Any:
    return ((run.summary or {}).get("verdict") or {}).get("findings", [])


def shard_sandboxes(run: Any, index: int) -> Any:
    draw = random.Random(index)
    rows = []
    for sandbox in range(index * PER_SHARD, (index + 1) * PER_SHARD):
        fate = FATES.get(sandbox)
        outcome = fate[0] if fate else "success"
        created = 5_000 + round(draw.uniform(250_000, 900_000))
        ready = created + round(draw.uniform(30_000, 2_000_000))
        row: dict[str, Any] = {
            "sandbox": sandbox,
            "outcome": outcome,
            "cause": fate[1] if fate else None,
            "origin": "provider" if fate and fate[1] else None,
            "suspended": False,
            "sent_us": 4_000,
            "created_us": created,
            "ready_us": ready,
            "last_ok_us": 41_500_000,
            "dead_us": None,
            "first_failed_us": None,
            "destroyed_us": 45_000_000 + round(draw.uniform(0, 2e6)),
            "provider_id": f"sb-{sandbox:06x}",
            "message": fate[2] if fate else None,
        }
        if outcome == "failed":
            row |= dict.fromkeys(("created_us", "ready_us", "last_ok_us"))
            row |= {"destroyed_us": None}
        if outcome == "readiness_failed":
            row |= {"ready_us": None, "last_ok_us": None}
        if outcome == "partial":
            row |= {"last_ok_us": 22_000_000, "first_failed_us": 25_000_000}
            row |= {"dead_us": 29_000_000, "destroyed_us": None}
        rows.append(row)
    return rows


def sandbox_events(run: Any, sandbox: int) -> Any:
    kinds = ("create_sent", "created", "ready", "witness_started", "probe_ok")
    return [
        {"n": n, "elapsed_us": 4_000 + n * 330_000, "kind": kind, "text": "321 ms"}
        for n, kind in enumerate(kinds)
    ]


def health(run: Any, index: int) -> Any:
    draw = random.Random(index)
    return [
        {
            "elapsed_us": at * 1_000_000,
            "cpu_pct": 90.0 if at < 3 else draw.uniform(8, 20),
            "loop_lag_us": round(draw.uniform(800, 9_000)) if at != 2 else 61_000,
            "rss_bytes": 80_000_000,
            "in_flight": 100 if at < 3 else 4,
            "alive": min(98, at * 40),
        }
        for at in range(0, 48, 2)
    ]


def fleet_median(run: Any, until_us: int) -> Any:
    quiet = {"cpu_pct": 14.0, "loop_lag_us": 4_000, "in_flight": 4, "alive": None}
    return [{"elapsed_us": at * 1_000_000, **quiet} for at in range(2, 48, 5)]


def log(
    run: Any,
    index: int,
    attempt: int | None = None,
    q: str = "",
    level: str = "",
    after: Any = None,
    limit: int = 500,
) -> Any:
    lines = []
    for number in range(1_203):
        bad = number % 97 == 55
        said = f"create {index * PER_SHARD + number % 100}: "
        said += "429 Too Many Requests (rate_limited)" if bad else "created in 321 ms"
        row = {"attempt": 0, "number": number, "at_us": 1_795_457_967_415_946}
        row |= {"elapsed_us": number * 38_000, "text": said}
        lines.append(row | {"level": "ERROR" if bad else "INFO"})
    lines = [x for x in lines if q in x["text"] and level in ("", x["level"])]
    first = int(after or -1) + 1
    page = [x for x in lines if x["number"] >= first][:limit]
    more = page and page[-1]["number"] != lines[-1]["number"]
    cursor = str(page[-1]["number"]) if more else None
    return {"lines": page, "next": cursor}


def sandboxes(run: Any, chosen: Any, after: str, limit: int) -> Any:
    if after and not after.isdigit():
        raise ValueError("after is a cursor that an answer gave as `next`")
    rows = [_full(row) for index in range(10) for row in shard_sandboxes(run, index)]
    rows = [row for row in rows if chosen.outcome in ("", row["outcome"])]
    first = int(after or 0)
    more = first + limit if len(rows) > first + limit else None
    return {"items": rows[first : first + limit], "next": more}


def _full(row: dict[str, Any]) -> dict[str, Any]:
    latencies = ("create_latency_us", "ready_latency_us", "tti_latency_us")
    return (
        {**row, "shard": row["sandbox"] // PER_SHARD, "clock_offset_us": 0}
        | dict.fromkeys(latencies, 321_000)
        | {"probes_ok": 9, "probes_failed": 0, "harness_delay_us": 4_000}
    )


def sandbox_count(run: Any, chosen: Any) -> int:
    return len(sandboxes(run, chosen, "", 10_000)["items"])


def facets(run: Any, chosen: Any) -> Any:
    return {
        "outcome": [("success", 993), ("partial", 3), ("failed", 2)],
        "cause": [("not_found", 2), ("timeout", 2)],
        "origin": [("provider", 6)],
        "shard": [(3, 100), (4, 100)],
    }


def export(run: Any, chosen: Any, kind: str) -> Any:
    yield b"sandbox,outcome\n"
    for row in sandboxes(run, chosen, "", 10_000)["items"]:
        yield f"{row['sandbox']},{row['outcome']}\n".encode()


def by_size(run: Any, phase: str) -> Any:
    return [
        {"from_us": 100_000.0 * n, "to_us": 100_000.0 * (n + 1), "count": 10 * n}
        for n in range(1, 9)
    ]


def in_submission_order(run: Any, phase: str) -> Any:
    row = {"count": 10, "never": 0, "min_us": 90_000, "p50_us": 300_000}
    row |= {"p95_us": 500_000, "max_us": 900_000}
    return [{"first": n * 10, "last": n * 10 + 9, **row} for n in range(100)]


def start(run: Any) -> Any:
    return [
        {
            "shard": index,
            "creates": PER_SHARD,
            "skew_min_us": 100,
            "skew_max_us": 9_000,
            "delay_p50_us": 2_000,
            "delay_p99_us": 8_000,
            "delay_max_us": 9_500,
        }
        for index in range(10)
    ]


def shard_story(run: Any, index: int) -> Any:
    return [
        {"elapsed_us": -8_000_000, "kind": "armed", "text": "", "sandbox": None},
        {"elapsed_us": 800_000, "kind": "dead", "text": "gone", "sandbox": 333},
    ]


def log_index(run: Any, view: Any, q: str = "", number: int = 0) -> Any:
    return {"total": 1_203, "phases": [{"name": "before T0", "first": 0}]}


def log_window(run: Any, view: Any, first: int, limit: int) -> Any:
    return [[first + n, 0, "INFO", "x"] for n in range(min(limit, 5))]


def log_search(
    run: Any, q: str, level: str = "", offset: int = 0, limit: int = 200
) -> Any:
    text = f"\x1b[31m<b>{q}</b>\x1b[0m & more"
    row = {"shard": 3, "attempt": 0, "number": 55, "level": "ERROR", "text": text}
    found = [row] if q != "nothing" else []
    return {"items": found, "total": len(found), "shards": [(3, 1)] if found else []}


def defects(run: Any, limit: int) -> list[dict[str, Any]]:
    rows = [
        ("not_json", f"runs/{run.code}/shards/00003/00/events-000002.ndjson.zst", 17, 3,
         "<b>oops"),
        ("t0_us_disagrees", "", 0, None, ""),
    ]  # fmt: skip
    names = ("reason", "key", "line", "shard", "detail")
    return [dict(zip(names, row, strict=True), attempt=0) for row in rows][:limit]


def carriers(run: Any, index: int) -> list[dict[str, Any]]:
    machine = {"type": "t3.small", "zone": "eu-west-1a", "kernel": "6.1"}
    facts = {"hostname": "vm-7", "version": "0.1.0", "machine": machine}
    return [{"number": 1, "host": {"index": 3, "facts": facts}}]
