"""The standing cast: Run "alpha" with Shards 0, 1, 2 at provider sim."""

from __future__ import annotations

from typing import Any

from runs import hosts, lifecycle
from runs.launch import create_run
from runs.models import Attempt, Run
from runs.plan import parse_plan
from shardagent.wire import Beat, Counts, HeartbeatRequest, SegmentReport, ShardPhase


def make_run(**plan: Any) -> Run:
    asked = {
        "provider": "sim",
        "sandbox_count": 30,
        "sandboxes_per_shard": 10,
        "fleet": {"driver": "local", "shards_per_host": 1},
        **plan,
    }
    return create_run(parse_plan(asked, sandbox_count_max=1_000_000), None)


def make_arming_run(**plan: Any) -> Run:
    """Provisioned, hosts and Attempts assigned, nothing launched."""
    run = make_run(**plan)
    assert lifecycle.queue(run, "a test")
    assert lifecycle.begin_provisioning(run)
    hosts.assign(run, lifecycle.plan_of(run))
    run.hosts.update(launched_at_us=lifecycle.now_us(run))
    assert lifecycle.arm(run, run.hosts.count())
    return run


def make_beat(shard: int = 0, attempt: int = 0, **changes: Any) -> Beat:
    return Beat(
        **{
            "shard": shard,
            "attempt": attempt,
            "phase": ShardPhase.ARMED,
            "counts": Counts(),
            **changes,
        }
    )


def make_request(run: Run, host: int, *beats: Beat) -> HeartbeatRequest:
    return HeartbeatRequest(run=run.code, host=host, t1_us=1, beats=list(beats))


def make_report(seq: int = 0, sha256: str = "a" * 64) -> SegmentReport:
    return SegmentReport(kind="events", seq=seq, sha256=sha256, bytes=10, events=3)


def phases(run: Run, phase: ShardPhase, **fields: Any) -> None:
    """Every Attempt says it is in `phase`, heard just now."""
    now = lifecycle.now_us(run)
    Attempt.objects.filter(run=run).update(
        **{"phase": phase, "heard_at_us": now, **fields}
    )
