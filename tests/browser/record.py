"""Raw records to look at: lives that end in every way, and logs as long as wanted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from shardagent import zstd
from shardagent.wire import Plan, segment_key

SECOND = 1_000_000
HOLD_S = 60
SEGMENT_LINES = 10_000
FAILURES = (
    ("rate_limited", 429, "429 Too Many Requests: retry after 12 s"),
    ("capacity", 409, "no host has room for 1 CPU, 512 MB"),
    ("provider_error", 503, '503 {"code": "no_capacity"}'),
)


def write(
    bucket: Path,
    code: str,
    *,
    shards: int,
    per_shard: int,
    log_lines: int = 20,
    first_log_lines: int | None = None,
    tti_ms: int = 300,
    seed: int = 1,
    late: bool = True,
) -> Plan:
    """A sealed Run's objects; Shard 0 may have a log of another length.

    late: some agents were, so that the Run is not VALID.
    """
    t0 = time.time_ns() // 1_000 - 3_600 * SECOND
    plan = Plan(
        code=code,
        provider="sim",
        created_at_us=t0 - 30 * SECOND,
        sandbox_count=shards * per_shard,
        sandboxes_per_shard=per_shard,
        shard_count=shards,
        target=shards * per_shard,
        hold_s=HOLD_S,
        probe_interval_s=8,
        seed=seed,
        software={"version": "0.1.0", "commit": "2f67f35aa011"},
    )
    folder = bucket / "runs" / code
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(plan.model_dump_json())
    (folder / "journal-000000.ndjson").write_text(_lines(_journal(t0)))
    for shard in range(shards):
        rng = Random(seed * 100_003 + shard)
        events = sorted(
            _shard(plan, shard, t0, tti_ms, rng, late=late), key=lambda e: e[0]
        )
        numbered = [
            {"v": 1, "n": n, "at": at, **fields}
            for n, (at, fields) in enumerate(events)
        ]
        _put(bucket, segment_key(code, shard, 0, "events", 0), _lines(numbered))
        count = first_log_lines if shard == 0 and first_log_lines else log_lines
        said = list(_log(shard, t0, count))
        for seq, first in enumerate(range(0, len(said), SEGMENT_LINES)):
            part = said[first : first + SEGMENT_LINES]
            text = "\n".join([f"#first_line {first}", *part]) + "\n"
            _put(bucket, segment_key(code, shard, 0, "log", seq), text)
    return plan


def _journal(t0: int) -> list[dict[str, Any]]:
    end = t0 + (24 + HOLD_S) * SECOND
    return [
        {"kind": "clock", "clock_id": "c", "at_us": t0},
        {"kind": "released", "t0_us": t0, "at_us": t0},
        {"kind": "holding", "t_hold_us": t0 + 24 * SECOND, "at_us": t0},
        {
            "kind": "teardown",
            "t_end_us": end,
            "t_destroy_us": end + 11 * SECOND,
            "at_us": t0,
        },
    ]


def _shard(
    plan: Plan, shard: int, t0: int, tti_ms: int, rng: Random, *, late: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
    for second in range(-10, 100, 8):
        clock = {"clock_id": "c", "offset_us": 0, "half_rtt_us": 400}
        yield t0 + second * SECOND, {"kind": "clock", **clock}
    slow = late and shard % 33 == 7  # an agent that was late and busy
    for second in range(0, 96, 8):
        yield (
            t0 + second * SECOND,
            {
                "kind": "health",
                "cpu_pct": 60.0 if second == 0 else 12.0 + rng.random(),
                "loop_lag_us": 130_000 if slow and second == 8 else 4_000,
                "in_flight": 4,
                "alive": plan.sandboxes_per_shard,
            },
        )
    yield t0 - 8 * SECOND, {"kind": "armed", "connections": 10}
    yield t0 + 23 * SECOND, {"kind": "settled"}
    for sandbox in plan.sandboxes_of(shard):
        spread_us = 5 * SECOND * sandbox // plan.sandbox_count
        for at, kind, fields in _life(t0, tti_ms, spread_us, rng, slow=slow):
            yield at, {"kind": kind, "sandbox": sandbox, **fields}
    yield t0 + 100 * SECOND, {"kind": "agent_finished", "reason": "done", "orphans": 0}


def _life(
    t0: int, tti_ms: int, spread_us: int, rng: Random, *, slow: bool
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    sent = t0 + rng.randint(100, 9_000) + (60_000 if slow else 0)
    yield sent, "create_sent", {"intended_us": t0}
    took = round(tti_ms * 1_000 * rng.lognormvariate(0, 0.35))
    if rng.random() < 0.02:
        cause, status, message = rng.choice(FAILURES)
        fault: dict[str, Any] = {"cause": cause, "origin": "provider"}
        fault["status"] = status
        yield (
            sent + took,
            "create_failed",
            {**fault, "message": message, "latency_us": took},
        )
        return
    created = sent + took
    yield created, "created", {"latency_us": took, "reused": True, "provider_id": "i1"}
    ready = created + round(80_000 * rng.lognormvariate(0, 0.4))
    waited = {"latency_us": ready - created, "tti_us": ready - sent, "tries": 1}
    yield ready, "ready", {**waited, "sent_us": ready - 15_000}
    dies_at = t0 + rng.randint(30, 70) * SECOND if rng.random() < 0.02 else None
    at = t0 + rng.randint(3, 10) * SECOND
    end = t0 + (24 + HOLD_S) * SECOND
    while at < end:
        probe = {"latency_us": 14_000, "sent_us": at - 14_000, "final": False}
        if dies_at is not None and at > dies_at:
            gone = {"cause": "not_found", "origin": "provider", "message": "gone"}
            yield at, "probe_failed", {**probe, **gone, "status": 404}
            yield at + 1, "dead", {"cause": "not_found", "origin": "provider"}
            return
        yield at, "probe_ok", probe
        at += 8 * SECOND
    last = end + 20_000 + spread_us
    yield (
        last,
        "probe_ok",
        {"latency_us": 14_000, "sent_us": last - 14_000, "final": True},
    )
    yield end + 12 * SECOND, "destroy_sent", {}
    yield end + 12 * SECOND + 40_000, "destroyed", {"latency_us": 40_000}


def _log(shard: int, t0: int, count: int) -> Iterator[str]:
    for n in range(count):
        at = t0 - 10 * SECOND + 110 * SECOND * n // count
        if n == count // 2:
            markup = "<b>is bold</b> <script>x</script>"
            yield f"{at} INFO the needle of Shard {shard} {markup}"
        elif n == count // 2 + 2:
            yield f"{at} INFO {'a long line, ' * 60}and its end"
        elif n % 250 == 3:
            yield f"{at} ERROR create {n}: 429 Too Many Requests"
        elif n % 50 == 7:
            yield f"{at} INFO \x1b[32m✓\x1b[0m sandbox \x1b[1m{n}\x1b[0m ready"
        else:
            yield f"{at} {'DEBUG' if n % 4 else 'INFO'} probe {n} answered in 14 ms"


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def _put(bucket: Path, key: str, text: str) -> None:
    path = bucket / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstd.compress(text.encode(), 1))
