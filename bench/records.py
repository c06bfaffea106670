"""Synthetic raw records, as large as wanted: every Sandbox lives well for 60 s.

Thirteen events a Sandbox, in segments of each Shard, written and compressed as agents
do it, byte by byte: readers take a short way through what agents write.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import orjson

from shardagent import zstd
from shardagent.wire import Plan, segment_key

T0_US = 1_750_000_000_000_000
PER_SHARD = 100
PROBES = 7
EVENTS_PER_SANDBOX = PROBES + 6
SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Written:
    """One segment as its agent reported it."""

    shard: int
    seq: int
    sha256: str
    bytes: int
    events: int


def plan_of(code: str, sandboxes: int) -> Plan:
    return Plan(
        code=code,
        provider="sim",
        created_at_us=T0_US - 10 * SECOND_US,
        sandbox_count=sandboxes,
        sandboxes_per_shard=PER_SHARD,
        shard_count=-(-sandboxes // PER_SHARD),
        target=sandboxes,
        hold_s=50,
        probe_interval_s=8,
        seed=1,
    )


def write(bucket: Path, plan: Plan, segments: int) -> list[Written]:
    """The Run's objects, `segments` a Shard; what agents would have reported."""
    folder = bucket / "runs" / plan.code
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(plan.model_dump_json())
    (folder / "journal-000000.ndjson").write_bytes(_journal())
    work = [(bucket, plan, shard, segments) for shard in range(plan.shard_count)]
    with multiprocessing.get_context("spawn").Pool() as pool:
        return [one for part in pool.imap(_shard, work, 16) for one in part]


def _journal() -> bytes:
    lines = [
        {"kind": "clock", "clock_id": "bench", "at_us": T0_US},
        {"kind": "released", "t0_us": T0_US, "at_us": T0_US},
        {"kind": "holding", "t_hold_us": T0_US + 5 * SECOND_US, "at_us": T0_US},
        {
            "kind": "teardown",
            "t_end_us": T0_US + 55 * SECOND_US,
            "t_destroy_us": T0_US + 60 * SECOND_US,
            "at_us": T0_US,
        },
    ]
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


def _shard(work: tuple[Path, Plan, int, int]) -> list[Written]:
    bucket, plan, shard, segments = work
    events = sorted(_events(plan, shard))
    size = -(-len(events) // segments)
    found = []
    n = 0
    for seq in range(segments):
        part = events[seq * size : (seq + 1) * size]
        lines = []
        for at, rest in part:
            lines.append(b'{"v":1,"n":%d,"at":%d,%s}\n' % (n, at, rest))
            n += 1
        stored = zstd.compress(b"".join(lines), 1)
        key = segment_key(plan.code, shard, 0, "events", seq)
        path = bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stored)
        digest = sha256(stored).hexdigest()
        found.append(Written(shard, seq, digest, len(stored), len(lines)))
    return found


def _events(plan: Plan, shard: int) -> Iterator[tuple[int, bytes]]:
    for second in range(-2, 62, 2):
        t4 = T0_US + second * SECOND_US
        yield (
            t4,
            b'"kind":"clock","t1_us":%d,"t2_us":%d,"t3_us":%d,"clock_id":"bench",'
            b'"offset_us":-10,"half_rtt_us":400' % (t4 - 900, t4 - 500, t4 - 420),
        )
    yield T0_US, b'"kind":"released","t0_us":%d' % T0_US
    for sandbox in plan.sandboxes_of(shard):
        yield from _life(sandbox)
    yield T0_US + 62 * SECOND_US, b'"kind":"agent_finished","reason":"done","orphans":0'


def _life(sandbox: int) -> Iterator[tuple[int, bytes]]:
    def event(kind: bytes, fields: bytes = b"") -> bytes:
        return b'"kind":"%s","sandbox":%d%s' % (kind, sandbox, fields)

    jitter = sandbox * 7_919 % 400_000
    sent = T0_US + sandbox % 100 * 10
    created = sent + 300_000 + jitter
    ready = created + 80_000
    yield sent, event(b"create_sent", b',"intended_us":%d' % T0_US)
    yield (
        created,
        event(
            b"created",
            b',"provider_id":"sbx-%012d","latency_us":%d,"reused":true'
            b',"dns_us":null,"connect_us":null,"tls_us":null'
            % (sandbox, created - sent),
        ),
    )
    yield (
        ready,
        event(
            b"ready",
            b',"latency_us":80000,"sent_us":%d,"tti_us":%d,"tries":1'
            % (created + 50, ready - sent),
        ),
    )
    for probe in range(PROBES):
        last = probe == PROBES - 1
        at = T0_US + (3 + probe * 8 + 5 * last) * SECOND_US + jitter
        yield (
            at,
            event(
                b"probe_ok",
                b',"latency_us":15000,"sent_us":%d,"final":%s'
                % (at - 15_000, b"true" if last else b"false"),
            ),
        )
    gone = T0_US + 61 * SECOND_US + jitter
    yield gone - 40_000, event(b"destroy_sent")
    yield gone, event(b"destroyed", b',"latency_us":40000')
