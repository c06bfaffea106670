"""Random raw records: lives of Sandboxes, and all that can go wrong with them."""

from __future__ import annotations

import gzip
import json
from random import Random
from typing import Any

from shardagent import zstd
from tests.runs.clickhouse.reference import Plan

CAUSES = ["timeout", "rate_limited", "capacity", "network", "not_found", "harness"]
ORIGINS = ["provider", "provider", "network", "harness"]
ODD: list[Any] = [
    None, "x", "12", "", 1.5, 1e300, True, False, [], {}, -1, 0,
    2 * 10**18, -2 * 10**18, 2 * 10**18 + 1, 4 * 10**18, 2**63 - 1, -(2**63), 2**63,
    2**64 - 1,
]  # fmt: skip
START = 1_750_000_000_000_000
KINDS = [
    "create_sent", "created", "create_failed", "ready_probe_failed", "ready",
    "witness_started", "readiness_failed", "probe_ok", "probe_failed", "dead",
    "destroy_sent", "destroyed", "destroy_failed", "orphaned", "odd_kind",
]  # fmt: skip


def random_plan(rng: Random) -> Plan:
    shards = rng.randint(1, 3)
    per_shard = rng.randint(1, 4)
    count = max(1, shards * per_shard - rng.randint(0, per_shard - 1))
    t0 = START + 1_000_000
    hold = t0 + rng.choice([2_000_000, 5_000_000, 9_000_000])
    return Plan(
        sandbox_count=count,
        per_shard=per_shard,
        shard_count=shards,
        target=rng.choice([count, max(1, count - 1)]),
        witness=rng.random() < 0.4,
        clock_id=rng.choice([None, "site", "site"]),
        t0=rng.choice([t0, t0, t0, None]),
        t_hold=rng.choice([hold, hold, None]),
        t_end=rng.choice([hold + 8_000_000, hold + 8_000_000, hold, None]),
    )


def random_segments(rng: Random, plan: Plan, code: str) -> dict[str, bytes]:
    """Object keys and contents, before compression."""
    segments: dict[str, bytes] = {}
    for shard in range(plan.shard_count + (rng.random() < 0.1)):
        for attempt in range(rng.choice([1, 1, 1, 2])):
            events = _attempt(rng, plan, shard)
            if rng.random() < 0.4:
                rng.shuffle(events)
                events.sort(key=lambda e: e["at"])
            lines = [_line(n, event) for n, event in enumerate(events)]
            lines = _harmed(rng, lines)
            at = seq = 0
            while at < len(lines):
                size = rng.randint(1, 30)
                blob = b"\n".join(lines[at : at + size])
                if rng.random() < 0.8:
                    blob += b"\n"
                elif rng.random() < 0.5:
                    blob = blob[:-3]
                key = f"runs/{code}/shards/{shard:05d}/{attempt:02d}/events-{seq:06d}"
                segments[key + ".ndjson"] = blob
                at, seq = at + size, seq + 1
    return segments


def packed(rng: Random, segments: dict[str, bytes]) -> dict[str, bytes]:
    """The same, each stored in one of the accepted ways."""
    stored = {}
    for key, blob in segments.items():
        how = rng.randrange(3)
        if how == 0:
            stored[key] = blob
        elif how == 1:
            stored[key + ".gz"] = gzip.compress(blob)
        else:
            stored[key + ".zst"] = zstd.compress(blob, 1)
    return stored


def _line(n: int, event: dict[str, Any]) -> bytes:
    return json.dumps({"v": 1, "n": n, **event}).encode()


def _harmed(rng: Random, lines: list[bytes]) -> list[bytes]:
    out: list[bytes] = []
    for raw in lines:
        event = json.loads(raw)
        dice = rng.random()
        if dice < 0.02:
            continue
        if dice < 0.03:
            out.append(rng.choice([b"[1]", b"", b"nonsense", b"\xff{}", b"7"]))
        elif dice < 0.05:
            event.pop(rng.choice(sorted(event)))
            raw = json.dumps(event).encode()
        elif dice < 0.06:
            event[rng.choice(sorted(event))] = rng.choice(ODD)
            raw = json.dumps(event).encode()
        elif dice < 0.08:
            out.append(raw)
        elif dice < 0.09:
            out.append(json.dumps({**event, "at": event["at"] + 5}).encode())
        elif dice < 0.10 and "sandbox" in event:
            event["sandbox"] = rng.randint(0, 14)
            raw = json.dumps(event).encode()
        out.append(raw)
    if rng.random() < 0.2:
        out.reverse()
    return out


def _clock(rng: Random, at: int, offset: int) -> dict[str, Any]:
    half = rng.choice([100, 300, 300, 2_000, 40_000])
    said = offset + rng.randint(-half, half) * rng.choice([1, 1, 1, 1, 3])
    event: dict[str, Any] = {"at": at, "kind": "clock"}
    if rng.random() < 0.7:
        t1 = at - 2 * half - rng.randint(0, 1)
        wait = rng.randint(0, 50)
        event |= {
            "t1_us": t1,
            "t2_us": t1 + half + said,
            "t3_us": t1 + half + said + wait,
        }
    if "t1_us" not in event or rng.random() < 0.6:
        event |= {"offset_us": said, "half_rtt_us": half}
    dice = rng.random()
    if dice < 0.9:
        event["clock_id"] = "site" if dice < 0.8 else "other"
    return event


def _attempt(rng: Random, plan: Plan, shard: int) -> list[dict[str, Any]]:
    offset = rng.choice([0, 0, 700, -2_000_000, 10**12, -START + 5])
    begin = START - offset
    events: list[dict[str, Any]] = [{"at": begin, "kind": "agent_started"}]
    if rng.random() < 0.9:
        until = rng.choice([3, 12, 40])
        at = begin
        while at < begin + until * 1_000_000:
            events.append(_clock(rng, at, offset))
            at += rng.choice([500_000, 2_000_000, 9_000_000])
    first = shard * plan.per_shard
    for box in range(first, first + plan.per_shard + (rng.random() < 0.05)):
        if rng.random() < 0.9:
            wild = rng.random() < 0.15
            events += (_noise if wild else _life)(rng, box, begin + 1_000_000)
    events.append(
        {"at": begin + 22_000_000, "kind": "agent_finished", "reason": "done"}
    )
    events.sort(key=lambda event: event["at"])
    return events


def _failure(rng: Random) -> dict[str, Any]:
    return {
        "cause": rng.choice(CAUSES),
        "origin": rng.choice(ORIGINS),
        "latency_us": 5,
        "status": rng.choice([None, 429, 503]),
    }


def _noise(rng: Random, box: int, begin: int) -> list[dict[str, Any]]:
    events = []
    for _ in range(rng.randint(1, 14)):
        at = begin + rng.randint(0, 12) * 1_000_000
        events.append(
            {
                "at": at,
                "kind": rng.choice(KINDS),
                "sandbox": box,
                "sent_us": at - rng.choice([0, 0, 1_000, 500_000]),
                "final": rng.random() < 0.3,
                "ticks": rng.randint(0, 40),
                "witness_ok": rng.random() < 0.8,
                **_failure(rng),
            }
        )
    return events


def _life(rng: Random, box: int, begin: int) -> list[dict[str, Any]]:
    """One sandbox's events; stops wherever the dice say."""
    events: list[dict[str, Any]] = []
    now = begin

    def say(kind: str, wait: int, **fields: Any) -> None:
        nonlocal now
        now += wait
        events.append({"at": now, "kind": kind, "sandbox": box, **fields})

    pause = [0, 20_000, 300_000, 1_000_000]
    say("create_sent", rng.choice(pause), intended_us=begin)
    if rng.random() < 0.05:
        return events
    if rng.random() < 0.1:
        say("create_failed", rng.choice(pause), **_failure(rng))
        return events
    say("created", rng.choice(pause), latency_us=9, provider_id=f"p{box}")
    if rng.random() < 0.1:
        say("readiness_failed", rng.choice(pause), **_failure(rng))
        return events
    say("ready", rng.choice(pause), latency_us=7, tti_us=16)
    if rng.random() < 0.7:
        say("witness_started", rng.choice(pause), latency_us=3)
    begun, ticks, slack = now, 0, rng.choice([0, 0, 3])
    for round_ in range(rng.randint(0, 8)):
        sent = now + rng.choice([0, 1_000, 1_000_000, 2_000_000])
        if rng.random() < 0.12:
            say(
                "probe_failed",
                sent - now + 900,
                **_failure(rng),
                sent_us=sent,
                final=False,
            )
            if rng.random() < 0.5:
                say("dead", 0, cause=events[-1]["cause"], origin=events[-1]["origin"])
                break
            continue
        if rng.random() < 0.85:
            ticks = max(0, (sent - begun) // 312_500 - slack * round_)
        extra = {"ticks": ticks, "witness_ok": rng.random() < 0.95}
        say(
            "probe_ok",
            sent - now + 700,
            latency_us=4,
            sent_us=sent,
            final=False,
            **extra,
        )
    if rng.random() < 0.7:
        ticks = (now + 500_000 - begun) // 250_000
        extra = {"ticks": ticks, "witness_ok": True}
        say(
            "probe_ok",
            500_700,
            latency_us=4,
            sent_us=now + 500_000,
            final=True,
            **extra,
        )
    if rng.random() < 0.7:
        say("destroy_sent", rng.choice(pause))
        say("destroyed", rng.choice(pause), latency_us=8)
    return events
