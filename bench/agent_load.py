"""What one agent process costs a call, against a simulated world beside it.

    python bench/agent_load.py [--shards N] [--per-shard N] [--interval S] [--json]

Every sandbox is created, made ready, given a witness, probed through the hold and
destroyed; a site on loopback takes heartbeats and segments. Prints CPU a call of agent
and world, harness delay, loop lag and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from shardagent.wire import Lease, Plan
from tests.shardagent.stand_in_site import StandInSite

ROOT = Path(__file__).resolve().parents[1]
SECRET = "bench-secret"
LIMIT_S = 300.0
CALLS = {
    "created": 1,
    "ready": 1,
    "witness_started": 1,
    "probe_ok": 1,
    "probe_failed": 1,
    "destroyed": 1,
}


def plan_of(arguments: argparse.Namespace) -> Plan:
    sandboxes = arguments.shards * arguments.per_shard
    stagger_us = max(1, round(arguments.spread * 1e6 / sandboxes))
    return Plan.model_validate(
        {
            "code": "bench-agent-load",
            "provider": "sim",
            "created_at_us": 0,
            "sandbox_count": sandboxes,
            "shard_count": arguments.shards,
            "sandboxes_per_shard": arguments.per_shard,
            "load": {"shape": "staggered", "stagger_us": stagger_us},
            "hold_s": arguments.hold,
            "probe_interval_s": arguments.interval,
            "probe_timeout_s": 5,
            "final_spread_s": arguments.interval,
            "flush_interval_s": arguments.flush,
            "heartbeat_interval_s": 2,
            "seed": 1,
        }
    )


async def carried(plan: Plan, scratch: Path) -> dict[str, Any]:
    world, address = _world(plan, scratch)
    config = {"address": address, "secret": SECRET}
    leases = [Lease(shard=shard, attempt=0) for shard in range(plan.shard_count)]
    site = StandInSite(
        plan, leases, t0_ahead_us=3_000_000, interval_s=1, provider_config=config
    )
    async with site:
        agent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shardagent", "--site", site.url),
            *("--run", plan.code, "--host", "0", "--spool", str(scratch / "spool")),
            cwd=ROOT,
            env={**os.environ, "HOLDFAST_AGENT_TOKEN": "the-agent-token"},
        )
        async with asyncio.timeout(LIMIT_S):
            rss = cpu_s = 0.0
            while agent.returncode is None:
                found = _usage(agent.pid)
                if found is not None:
                    cpu_s, rss = found[0], max(rss, found[1])
                await asyncio.sleep(0.1)
        world_s, world_rss = _usage(world.pid) or (0.0, 0.0)
        world.terminate()
        world.wait(10)
        return _figures(site, plan, cpu_s, rss, world_s, world_rss)


def _world(plan: Plan, scratch: Path) -> tuple[subprocess.Popen[bytes], str]:
    config = {
        "run": plan.code,
        "seed": 1,
        "sandbox_count": plan.sandbox_count,
        "shard_count": plan.shard_count,
        "world": {"profile": "blaxel", "tick_ms": 5},
        "secret": SECRET,
        "listen": f"unix:{scratch}/world.sock",
        "truth_dir": str(scratch),
        "clock": {
            "base_wall_us": time.time_ns() // 1_000,
            "base_mono_raw_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW),
        },
    }
    path = scratch / "config.json"
    path.write_text(json.dumps(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "runs.simworld", "--config", str(path)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    socket = scratch / "world.sock"
    deadline = time.monotonic() + 20
    while not socket.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return process, f"unix:{socket}"


def _usage(pid: int) -> tuple[float, float] | None:
    """CPU s and peak MB of a process, by /proc; None once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    ticks = int(fields[11]) + int(fields[12])
    peak = [line for line in status.splitlines() if line.startswith("VmHWM")]
    if not peak:
        return None
    return ticks / os.sysconf("SC_CLK_TCK"), int(peak[0].split()[1]) / 1_024


def _figures(
    site: StandInSite,
    plan: Plan,
    cpu_s: float,
    rss: float,
    world_s: float,
    world_rss: float,
) -> dict[str, Any]:
    delays: list[int] = []
    lags: list[int] = []
    calls = failed = 0
    for shard in range(plan.shard_count):
        for event in site.events(shard):
            kind = str(event["kind"])
            calls += CALLS.get(kind, 0)
            failed += kind in ("probe_failed", "create_failed", "readiness_failed")
            if kind == "create_sent":
                delays.append(int(str(event["at"])) - int(str(event["intended_us"])))
            if kind == "health":
                lags.append(int(str(event["loop_lag_us"])))
    return {
        "sandboxes": plan.sandbox_count,
        "shards": plan.shard_count,
        "calls": calls,
        "failed": failed,
        "segments": len(site.objects),
        "agent_cpu_s": round(cpu_s, 2),
        "agent_ms_per_call": round(cpu_s * 1e3 / max(calls, 1), 4),
        "world_cpu_s": round(world_s, 2),
        "world_ms_per_call": round(world_s * 1e3 / max(calls, 1), 4),
        "delay_p50_ms": round(float(np.quantile(delays, 0.5)) / 1e3, 2),
        "delay_p99_ms": round(float(np.quantile(delays, 0.99)) / 1e3, 2),
        "lag_max_ms": round(max(lags) / 1e3, 1),
        "agent_mb": round(rss),
        "world_mb": round(world_rss),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=50)
    parser.add_argument("--per-shard", type=int, default=100)
    parser.add_argument("--spread", type=float, default=5)
    parser.add_argument("--hold", type=float, default=10)
    parser.add_argument("--interval", type=float, default=2)
    parser.add_argument("--flush", type=float, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as scratch:
        found = asyncio.run(carried(plan_of(arguments), Path(scratch)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
