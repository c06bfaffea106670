"""A slow, obvious judge of a raw record, written from measurement.md alone.

Input: the Plan's few numbers and the segments as (key, bytes). No SQL, no sharing
of code with runs.clickhouse: loops over dicts, so that each rule can be read.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

Event = dict[str, Any]

SHARD_KINDS = {
    "agent_started", "clock", "armed", "released", "health", "settled", "holding",
    "teardown", "agent_finished",
}  # fmt: skip
SANDBOX_KINDS = {
    "create_sent", "created", "create_failed", "ready_probe_failed", "ready",
    "witness_started", "readiness_failed", "probe_ok", "probe_failed", "dead",
    "destroy_sent", "destroyed", "destroy_failed", "orphaned",
}  # fmt: skip
REQUIRED: dict[str, dict[str, type]] = {
    "created": {"latency_us": int},
    "create_failed": {"cause": str, "origin": str, "latency_us": int},
    "ready_probe_failed": {
        "cause": str, "origin": str, "sent_us": int, "latency_us": int,
    },
    "ready": {"latency_us": int},
    "witness_started": {"latency_us": int},
    "readiness_failed": {"cause": str, "origin": str, "latency_us": int},
    "probe_ok": {"sent_us": int, "final": bool, "latency_us": int},
    "probe_failed": {
        "cause": str, "origin": str, "sent_us": int, "final": bool, "latency_us": int,
    },
    "dead": {"cause": str, "origin": str},
    "destroyed": {"latency_us": int},
    "destroy_failed": {"cause": str, "latency_us": int},
}  # fmt: skip
INSTANT_MAX = 2 * 10**18  # µs; beyond it nothing is an instant
INSTANTS = {
    "intended_us", "t1_us", "t2_us", "t3_us", "offset_us", "half_rtt_us", "t0_us",
    "t_hold_us", "t_end_us", "t_destroy_us",
}  # fmt: skip
OPTIONAL_INTS = INSTANTS | {"ticks", "tti_us"}
REFUSED = {"rate_limited", "quota", "capacity", "auth", "invalid_request"}


@dataclass
class Plan:
    sandbox_count: int
    per_shard: int
    shard_count: int
    target: int
    witness: bool
    clock_id: str | None
    t0: int | None
    t_hold: int | None
    t_end: int | None


@dataclass
class Life:
    """What came of one planned Sandbox."""

    outcome: str
    cause: str = ""
    origin: str = ""
    judged: str = ""
    attempt: int | None = None
    suspended: bool = False
    duplicate: bool = False
    settled_again: int = 0
    proven: list[tuple[int, int, int, int]] = field(default_factory=list)
    possible: tuple[int, int] | None = None
    implied: int | None = None


@dataclass
class Judgement:
    lives: dict[int, Life]
    defects: list[tuple[str, int]]  # (key, line)
    gaps: dict[tuple[int, int], list[tuple[int, int]]]
    conflicts: dict[tuple[int, int], list[int]]
    disagree: dict[tuple[int, int], bool]
    plan: Plan

    def intervals(self) -> list[tuple[int, int, int, int]]:
        return [i for life in self.lives.values() for i in life.proven]

    def proven(self, t: int) -> int:
        return sum(a <= t < b for a, b, _, _ in self.intervals())

    def possible(self, t: int) -> int:
        spans = [life.possible for life in self.lives.values() if life.possible]
        return sum(a <= t < b for a, b in spans)

    def implied(self, t: int) -> int:
        done = [x.implied for x in self.lives.values() if x.implied is not None]
        return sum(at <= t for at in done)

    def clock_bound(self) -> int | None:
        return max((max(i[2], i[3]) for i in self.intervals()), default=None)

    def _changes(self) -> list[int]:
        return sorted({t for i in self.intervals() for t in i[:2]})

    def held(self) -> tuple[int, int, int] | None:
        plan = self.plan
        if plan.t_hold is None or plan.t_end is None:
            return None
        until = plan.t_end - 2 * (self.clock_bound() or 0)
        if until < plan.t_hold:
            return None
        instants = [plan.t_hold]
        instants += [t for t in self._changes() if plan.t_hold < t <= until]
        return min(self.proven(t) for t in instants), plan.t_hold, until

    def peak(self) -> tuple[int, int | None]:
        best: tuple[int, int | None] = (0, None)
        for t in self._changes():
            if self.proven(t) > best[0]:
                best = (self.proven(t), t)
        return best

    def time_to(self, percent: int) -> int | None:
        need = math.ceil(Fraction(self.plan.target * percent, 100))
        for t in self._changes():
            if self.proven(t) >= need and self.plan.t0 is not None:
                return math.ceil(Fraction(t - self.plan.t0, 1000))
        return None


def _reject(_: str) -> None:
    raise ValueError("not JSON")


def _reason(raw: bytes, shard: int, plan: Plan) -> tuple[bool, Event | None]:
    """(is a defect, the event that is kept or None)."""
    try:
        event = json.loads(raw, parse_constant=_reject)
    except ValueError:
        return True, None
    if not isinstance(event, dict):
        return True, None

    def has(name: str, kind: type) -> bool:
        value = event.get(name)
        if kind is int and isinstance(value, int):
            instant = name in ("at", "sent_us")
            low, high = (
                (-INSTANT_MAX, INSTANT_MAX) if instant else (-(2**63), 2**63 - 1)
            )
            return not isinstance(value, bool) and low <= value <= high
        return isinstance(value, kind)

    # Of the wrong type is as good as missing, where a field may be.
    for name in OPTIONAL_INTS & event.keys():
        most = INSTANT_MAX if name in INSTANTS else 2**63 - 1
        if not has(name, int) or abs(event[name]) > most:
            event[name] = None
    if not has("clock_id", str):
        event["clock_id"] = None

    good = has("v", int) and event["v"] == 1 and has("n", int) and event["n"] >= 0
    good = good and has("at", int) and has("kind", str) and event["kind"] != ""
    if not good:
        return True, None
    kind = event["kind"]
    foreign = shard >= plan.shard_count
    if kind in SANDBOX_KINDS:
        if not has("sandbox", int) or event["sandbox"] < 0:
            return True, None
        index = event["sandbox"]
        first = shard * plan.per_shard
        last = min(first + plan.per_shard, plan.sandbox_count) - 1
        foreign = foreign or not first <= index <= last
    for name, type_ in REQUIRED.get(kind, {}).items():
        if not has(name, type_):
            return True, None
    known = kind in SHARD_KINDS or kind in SANDBOX_KINDS
    event["counts"] = known and not foreign
    return foreign, event


def judge(plan: Plan, segments: dict[str, bytes]) -> Judgement:
    """Everything that the record says, all of it final."""
    defects: list[tuple[str, int]] = []
    copies: dict[tuple[int, int], dict[int, list[tuple[int, int, bytes, Event]]]] = {}
    for key, blob in segments.items():
        found = re.search(r"/shards/(\d+)/(\d+)/events-(\d+)\.", key)
        assert found
        shard, attempt, seq = (int(part) for part in found.groups())
        lines = blob.split(b"\n")
        if lines[-1] == b"":
            lines.pop()
        for number, raw in enumerate(lines, 1):
            defect, event = _reason(raw, shard, plan)
            if defect:
                defects.append((key, number))
            if event is not None:
                of = copies.setdefault((shard, attempt), {})
                of.setdefault(event["n"], []).append((seq, number, raw, event))
    record: dict[tuple[int, int], list[Event]] = {}
    gaps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    conflicts: dict[tuple[int, int], list[int]] = {}
    for who, by_n in copies.items():
        record[who] = []
        conflicts[who] = []
        gaps[who] = []
        before = -1
        for n in sorted(by_n):
            same = sorted(by_n[n], key=lambda copy: copy[:2])
            if len({raw for _, _, raw, _ in same}) > 1:
                conflicts[who].append(n)
            if same[0][3]["counts"]:
                record[who].append(same[0][3])
            if n > before + 1:
                gaps[who].append((before + 1, n - 1))
            before = n
    clocks = {who: _samples(events, plan) for who, events in record.items()}
    last = max(
        (
            e["at"] + correct(clocks[who], e["at"])[0]
            for who, events in record.items()
            if clocks[who]
            for e in events
        ),
        default=None,
    )
    lives = {
        box: _life(box, plan, record, clocks, last) for box in range(plan.sandbox_count)
    }
    disagree = {who: _disagree(samples) for who, samples in clocks.items()}
    return Judgement(lives, defects, gaps, conflicts, disagree, plan)


# --- time -------------------------------------------------------------------------

Sample = tuple[int, int, int]  # t4, offset, half_rtt


def _half_even(twice: int) -> int:
    return round(Fraction(twice, 2))


def _samples(events: list[Event], plan: Plan) -> list[Sample]:
    samples = []
    for event in events:
        if event["kind"] != "clock":
            continue
        said = event.get("clock_id")
        if plan.clock_id is not None and said is not None and said != plan.clock_id:
            continue
        offset, half = event.get("offset_us"), event.get("half_rtt_us")
        ts = [event.get(name) for name in ("t1_us", "t2_us", "t3_us")]
        if None not in ts:
            t1, t2, t3 = ts
            t4 = event["at"]
            if offset is None:
                offset = _half_even((t2 - t1) + (t3 - t4))
            if half is None:
                half = math.ceil(Fraction((t4 - t1) - (t3 - t2), 2))
        if offset is not None and half is not None:
            if max(abs(offset), abs(half)) > INSTANT_MAX:
                continue
            samples.append((event["at"], offset, half))
    return sorted(samples, key=lambda sample: sample[0])  # stable: by n on a tie


def correct(samples: list[Sample], at: int) -> tuple[int, int]:
    """(offset, bound) of the best sample for this instant."""
    best: tuple[int, int] | None = None
    for t4, offset, half in samples:
        cost = half + math.ceil(Fraction(abs(at - t4), 10_000))
        if best is None or cost < best[1]:
            best = (offset, cost)
    assert best is not None
    return best


def _disagree(samples: list[Sample]) -> bool:
    for place, (t1, o1, h1) in enumerate(samples):
        for t2, o2, h2 in samples[:place]:
            allowed = h1 + h2 + math.ceil(Fraction(abs(t1 - t2), 10_000))
            if abs(o1 - o2) > allowed:
                return True
    return False


# --- one Sandbox ------------------------------------------------------------------


def _life(
    box: int,
    plan: Plan,
    record: dict[tuple[int, int], list[Event]],
    clocks: dict[tuple[int, int], list[Sample]],
    last: int | None,
) -> Life:
    senders = sorted(
        who
        for who, events in record.items()
        if any(e["kind"] == "create_sent" and e["sandbox"] == box for e in events)
    )
    if not senders:
        return Life("not_attempted")
    who = senders[0]
    everything = record[who]
    events = [e for e in everything if e.get("sandbox") == box]
    life = _outcome(events, everything)
    life.attempt = who[1]
    life.duplicate = len(senders) > 1
    raw, life.suspended = _proven(events, plan)
    samples = clocks[who]
    _possible(life, events, samples, plan, last)
    created = _first(events, "created")
    if created is not None:
        offset = correct(samples, created["at"])[0] if samples else 0
        life.implied = created["at"] + offset
    for start, end in raw if samples else []:
        o1, b1 = correct(samples, start)
        o2, b2 = correct(samples, end)
        if start + o1 + b1 < end + o2 - b2:
            life.proven.append((start + o1 + b1, end + o2 - b2, b1, b2))
    return life


def _first(events: list[Event], kind: str) -> Event | None:
    return next((e for e in events if e["kind"] == kind), None)


def _outcome(events: list[Event], everything: list[Event]) -> Life:
    settling = [
        e
        for e in events
        if e["kind"] in ("create_failed", "readiness_failed", "dead")
        or (e["kind"] == "probe_ok" and e["final"])
    ]
    if not settling:
        return Life("unobserved")
    first = settling[0]
    again = len(settling) - 1
    ready = _first(events, "ready") is not None
    if first["kind"] == "probe_ok":
        return Life("success" if ready else "unobserved", settled_again=again)
    fault = _fault(first, everything)
    outcome = {
        "create_failed": "failed",
        "readiness_failed": "readiness_failed",
        "dead": "partial" if ready else "unobserved",
    }[first["kind"]]
    return Life(
        outcome if fault == "provider" else "unobserved",
        cause=first["cause"],
        origin=first["origin"],
        judged=fault,
        settled_again=again,
    )


def _fault(event: Event, everything: list[Event]) -> str:
    if event["origin"] == "provider":
        return "provider"
    if event["origin"] != "network":
        return "harness"
    heard = [e["at"] for e in everything if e["kind"] == "clock"]
    at = event["at"]
    before = any(at - 10_000_000 <= h <= at for h in heard)
    after = any(at <= h <= at + 10_000_000 for h in heard)
    return "provider" if before and after else "harness"


def _proven(events: list[Event], plan: Plan) -> tuple[list[tuple[int, int]], bool]:
    """Raw proven intervals, and whether a gap of the witness is not proven."""
    ready = _first(events, "ready")
    good = [e for e in events if e["kind"] == "probe_ok"]
    good.sort(key=lambda e: e["sent_us"])  # stable: by n on a tie
    if ready is None or not good:
        return [], False
    if not plan.witness:
        end = good[-1]["sent_us"]
        return ([(ready["at"], end)] if end > ready["at"] else []), False
    started = _first(events, "witness_started")
    chains: list[list[tuple[int, int | None, bool]]] = []
    points = [(e["sent_us"], e.get("ticks"), e.get("witness_ok") is True) for e in good]
    if started is None:
        chains.append(points)
    else:
        begin = started["at"]
        chains.append([p for p in points if p[0] < begin])
        chains.append([(begin, 0, True), *(p for p in points if p[0] >= begin)])
    proven: list[tuple[int, int]] = []
    suspended = False
    for chain in chains:
        for (s1, k1, ok1), (s2, k2, ok2) in zip(chain, chain[1:], strict=False):
            stands = ok1 and ok2 and k1 is not None and k2 is not None
            if stands:
                assert k1 is not None
                assert k2 is not None
                needed = Fraction(8, 10) * (s2 - s1) / 250_000 - 2
                stands = k2 - k1 >= needed
            if not stands:
                suspended = True
            elif s2 > s1:
                if proven and proven[-1][1] == s1:
                    proven[-1] = (proven[-1][0], s2)
                else:
                    proven.append((s1, s2))
    return proven, suspended


def _possible(
    life: Life,
    events: list[Event],
    samples: list[Sample],
    plan: Plan,
    last: int | None,
) -> None:
    failed = _first(events, "create_failed")
    never_came = not any(e["kind"] in ("created", "ready") for e in events)
    uncreated = failed is not None and never_came
    if failed is not None and never_came and failed["cause"] in REFUSED:
        return
    if not samples:
        if plan.t0 is not None and last is not None and plan.t0 < last:
            life.possible = (plan.t0, last)
        return
    sent = _first(events, "create_sent")
    assert sent is not None
    assert last is not None
    offset, bound = correct(samples, sent["at"])
    start, end = sent["at"] + offset - bound, last
    gone = None if uncreated else _gone(events)
    if gone is not None:
        offset, bound = correct(samples, gone)
        end = gone + offset + bound
    if start < end:
        life.possible = (start, end)


def _gone(events: list[Event]) -> int | None:
    """When it was certain to be over; None where that was never learnt."""
    for position, event in enumerate(events):
        lost = event["kind"] == "probe_failed" and event["cause"] == "not_found"
        if lost and any(e["kind"] == "dead" for e in events[position:]):
            return int(event["at"])
    destroyed = _first(events, "destroyed")
    return None if destroyed is None else int(destroyed["at"])
