"""The standing cast: Run "alpha" with Shards 0, 1, 2 at provider sim."""

from __future__ import annotations

from typing import Any

from runs import hosts, lifecycle
from runs.clock import RunClock
from runs.launch import create_run
from runs.models import Attempt, Host, Run, State
from runs.plan import freeze, parse_plan
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
    now = lifecycle.now_us(run)
    for host in run.hosts.all():
        given = {"machine": f"vm-{host.index}", "claimed_at_us": now}
        Host.objects.filter(pk=host.pk).update(launched_at_us=now, **given)
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


def make_run_in(state: State, *, code: str = "alpha-1", **fields: Any) -> Run:
    """A Run with six Sandboxes in this state, on a clock that began now."""
    plan = parse_plan(
        {"provider": "sim", "sandbox_count": 6, "sandboxes_per_shard": 2},
        sandbox_count_max=1_000,
    )
    frozen = freeze(plan, code=code, now_us=1_750_000_000_000_000, software={})
    clock = RunClock.start()
    defaults = {
        "provider": frozen.provider,
        "plan": frozen.model_dump(mode="json"),
        "lane": code,
        "state": state,
        "state_at_us": clock.now_us(),
        "clock_id": clock.clock_id,
        "clock_base_wall_us": clock.base_wall_us,
        "clock_base_mono_ns": clock.base_mono_ns,
        "clock_boot_id": clock.boot_id,
    }
    return Run.objects.create(code=code, **{**defaults, **fields})


def make_host(run: Run, *shards: int) -> Host:
    """One that carries these Shards, not yet registered."""
    host = Host.objects.create(run=run, index=run.hosts.count())
    for shard in shards:
        Attempt.objects.create(run=run, shard=shard, host=host)
    return host
