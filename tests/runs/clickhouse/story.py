"""A Run of forty Sandboxes, each instant of it known: what it wrote, its truth."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from shardagent.wire import Plan

T0 = 1_000_000_000
COUNT = 40
PLAN = Plan(
    code="alpha-reads",
    provider="sim",
    sandbox_count=COUNT,
    sandboxes_per_shard=10,
    shard_count=4,
)


class Story:
    """A Run's events, written shard by shard, with its truth beside."""

    def __init__(self) -> None:
        self.events: dict[int, list[dict[str, Any]]] = {shard: [] for shard in range(4)}
        self.truth: list[dict[str, Any]] = []
        self.tti: dict[int, int] = {}

    def say(self, shard: int, at: int, kind: str, **fields: Any) -> None:
        self.events[shard].append({"at": at, "kind": kind, **fields})

    def objects(self) -> dict[str, bytes]:
        found = {}
        for shard, events in self.events.items():
            ordered = sorted(events, key=lambda event: event["at"])
            lines = [json.dumps({"v": 1, "n": n, **e}) for n, e in enumerate(ordered)]
            key = f"runs/{PLAN.code}/shards/{shard:05d}/00/events-000000.ndjson"
            found[key] = "\n".join(lines).encode() + b"\n"
        for shard in range(4):
            said = [f"{T0 + n * 1_000_000} {level(n)} line {n}" for n in range(-2, 12)]
            key = f"runs/{PLAN.code}/shards/{shard:05d}/00/log-000000.txt"
            found[key] = "\n".join(["#first_line 0", *said]).encode() + b"\n"
        truth = "\n".join(json.dumps(line) for line in self.truth)
        found[f"runs/{PLAN.code}/truth-000000.ndjson"] = truth.encode()
        journal = [
            {"kind": "clock", "at_us": 0, "clock_id": "c"},
            {"kind": "released", "at_us": T0, "t0_us": T0},
            {"kind": "holding", "at_us": T0, "t_hold_us": T0 + 2_000_000},
            {
                "kind": "teardown",
                "at_us": T0,
                "t_end_us": T0 + 9_000_000,
                "t_destroy_us": T0 + 12_000_000,
            },
        ]
        found[f"runs/{PLAN.code}/journal-000000.ndjson"] = "\n".join(
            json.dumps(line) for line in journal
        ).encode()
        return found


def level(number: int) -> str:
    return "ERROR" if number % 5 == 3 else "INFO"


def told() -> Story:
    story, rng = Story(), Random(7)
    for shard in range(4):
        for second in range(0, 15, 2):
            clock = {"offset_us": 0, "half_rtt_us": 400, "clock_id": "c"}
            story.say(shard, T0 + second * 1_000_000 - 1_000_000, "clock", **clock)
        if shard < 3:  # one process carries the first two; of the last nobody says
            told_by = {"host": "vm", "pid": 1 + shard // 2, "egress": None}
            story.say(shard, T0 - 2_000_000, "agent_started", **told_by)
        story.say(shard, T0 + 500_000, "health", loop_lag_us=shard * 1_000, cpu_pct=5.5)
        story.say(shard, T0 + 14_000_000, "agent_finished", reason="done", orphans=0)
    for box in range(COUNT - 1):  # the last one's create is never sent
        _sandbox(story, rng, box)
    return story


def _sandbox(story: Story, rng: Random, box: int) -> None:
    shard, at = box // 10, T0 + rng.randint(0, 900)
    say = story.say
    say(shard, at, "create_sent", sandbox=box, intended_us=T0)
    took = rng.randint(100_000, 800_000)
    world = {
        "sandbox": box,
        "asked_us": at,
        "create": "ok",
        "asleep": [],
        "interactive": True,
    }
    if box % 10 == 3:
        fault = {
            "cause": "capacity",
            "origin": "provider",
            "status": 503,
            "message": "full",
        }
        say(shard, at + took, "create_failed", sandbox=box, latency_us=took, **fault)
        story.truth.append({**world, "create": "capacity", "interactive": False})
        return
    made = at + took
    made_fields = {"latency_us": took, "provider_id": f"p{box}", "reused": box % 5 != 0}
    say(shard, made, "created", sandbox=box, **made_fields)
    ready = made + rng.randint(5_000, 60_000)
    story.tti[box] = ready - at
    say(shard, ready, "ready", sandbox=box, latency_us=ready - made, tti_us=ready - at)
    world |= {
        "alive_from_us": made - 50,
        "create_us": took - 50,
        "ready_us": ready - made,
    }
    dies = box % 10 == 7
    for second in range(1, 5 if dies else 10):
        sent = T0 + second * 1_000_000 + box
        probe = {"latency_us": 900, "sent_us": sent, "final": second == 9}
        say(shard, sent + 900, "probe_ok", sandbox=box, **probe)
    if dies:
        fault = {"cause": "not_found", "origin": "provider"}
        failed = {**fault, "latency_us": 500, "sent_us": T0 + 5_000_000, "final": False}
        say(shard, T0 + 5_000_500, "probe_failed", sandbox=box, **failed)
        say(shard, T0 + 5_000_501, "dead", sandbox=box, **fault)
        story.truth.append({**world, "alive_to_us": T0 + 4_500_000, "end": "died"})
    else:
        say(shard, T0 + 12_000_100, "destroy_sent", sandbox=box)
        say(shard, T0 + 12_003_000, "destroyed", sandbox=box, latency_us=2_900)
        story.truth.append(
            {**world, "alive_to_us": T0 + 12_002_000, "end": "destroyed"}
        )
