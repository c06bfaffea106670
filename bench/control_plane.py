"""Heartbeats of thousands of agents against one site process, load included.

    python -m bench.control_plane [--agents N] [--interval S] [--seconds S]
        [--web N]   N processes of `manage.py web` instead of one embedded site; the
                    database is DATABASE_URL's, as for every other command

Every agent has a connection and a Shard of its own, and says a heartbeat at each
interval, as agents do in a hold. Prints JSON: P50, P99 and the largest answer time in
ms, errors, CPU ms of the site for each heartbeat, and whether the database held each
agent's last one.
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
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.site_process import free_port

ROOT = Path(__file__).resolve().parents[1]
CODE = "bench-beats"
START_LIMIT_S = 60
ANSWER_LIMIT_S = 30.0
PATH = "/agent/v1/heartbeat"


@dataclass
class Load:
    """What was said and heard."""

    answers_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    last_us: dict[int, int] = field(default_factory=dict)  # by agent, of its last beat


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=2_000)
    parser.add_argument("--interval", type=float, default=5)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--web", type=int, default=0)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--heard", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        _prepare(arguments.prepare, arguments.agents, arguments.interval)
        return
    if arguments.heard:
        _tell_heard()
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as scratch:
        print(json.dumps(_measured(Path(scratch), arguments)))


def _measured(data: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    ports = [free_port() for _ in range(max(1, arguments.web))]
    environments = [
        {**os.environ, "DATA": str(data), "PORT": str(port), "LOG_LEVEL": "ERROR"}
        for port in ports
    ]
    sizes = ["--agents", str(arguments.agents), "--interval", str(arguments.interval)]
    _again(environments[0], "--prepare", str(data), *sizes)
    sites = [
        subprocess.Popen(
            [sys.executable, "manage.py", "web" if arguments.web else "up"],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for environment in environments
    ]
    try:
        tokens = json.loads((data / "tokens.json").read_text())
        pids = [site.pid for site in sites]
        load, took_s, cpu_s = asyncio.run(_driven(pids, ports, tokens, arguments))
    finally:
        for site in sites:
            site.terminate()
        for site in sites:
            site.wait(30)
    beats = len(load.answers_ms)
    heard = json.loads(_again(environments[0], "--heard"))
    quantiles = np.quantile(load.answers_ms, [0.5, 0.99]) if beats else [0.0, 0.0]
    return {
        "agents": arguments.agents,
        "interval_s": arguments.interval,
        "web": arguments.web,
        "database": os.environ.get("DATABASE_URL", "sqlite").partition(":")[0],
        "seconds": round(took_s, 1),
        "heartbeats": beats,
        "per_s": round(beats / took_s, 1),
        "errors": sum(load.errors.values()),
        "error_kinds": dict(load.errors.most_common(5)),
        "p50_ms": round(float(quantiles[0]), 2),
        "p99_ms": round(float(quantiles[1]), 2),
        "max_ms": round(max(load.answers_ms, default=0.0), 1),
        "site_cpu_ms_per_beat": round(cpu_s * 1e3 / max(beats, 1), 3),
        "site_cpu_pct": round(100 * cpu_s / took_s, 1),
        "not_recorded": _behind(heard, load),
    }


def _again(environment: dict[str, str], *words: str) -> str:
    """This program once more, as one that knows the database."""
    again = [sys.executable, "-m", "bench.control_plane", *words]
    done = subprocess.run(
        again, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def _django() -> None:
    sys.path.insert(0, str(ROOT))
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchsite.settings"
    import django

    django.setup()


def _tell_heard() -> None:
    _django()
    from runs.models import Attempt

    rows = Attempt.objects.filter(run__code=CODE)
    print(json.dumps(dict(rows.values_list("shard", "heard_at_us"))))


def _prepare(data: Path, agents: int, interval_s: float) -> None:
    """A Run in its hold, as the site's own tables have it, before the site starts."""
    _django()
    from django.core.management import call_command

    call_command("migrate", verbosity=0, interactive=False)
    from runs import hosts
    from runs.clock import RunClock
    from runs.models import Attempt, Host, Run, State
    from shardagent.wire import Plan

    Run.objects.filter(code=CODE).delete()  # of an earlier measurement
    clock = RunClock.start()
    now = clock.now_us()
    plan = Plan(
        code=CODE,
        provider="sim",
        created_at_us=now,
        sandbox_count=agents,
        sandboxes_per_shard=1,
        shard_count=agents,
        target=agents,
        hold_s=3_600,
        heartbeat_interval_s=interval_s,
        seed=1,
    )
    run = Run.objects.create(
        code=CODE,
        provider="sim",
        plan=plan.model_dump(mode="json"),
        state=State.HOLDING,
        clock_id=clock.clock_id,
        clock_base_wall_us=clock.base_wall_us,
        clock_base_mono_ns=clock.base_mono_ns,
        clock_boot_id=clock.boot_id,
        state_at_us=now,
        t0_us=now,
        t_hold_us=now,
    )
    hosts.assign(run, plan)
    Host.objects.filter(run=run).update(registered_at_us=now, claimed_at_us=now)
    for host in Host.objects.filter(run=run).iterator():
        Host.objects.filter(pk=host.pk).update(machine=f"bench-{host.index}")
    Attempt.objects.filter(run=run).update(phase="holding", heard_at_us=now)
    tokens = [hosts.token_of(CODE, index) for index in range(agents)]
    (data / "tokens.json").write_text(json.dumps(tokens))


async def _driven(
    pids: list[int], ports: list[int], tokens: list[str], arguments: argparse.Namespace
) -> tuple[Load, float, float]:
    for port in ports:
        await _until_up(port)
    load = Load()
    interval_s = arguments.interval
    begins = time.monotonic() + 2.0
    ends = begins + arguments.seconds
    agents = [
        Agent(
            load,
            ports[index % len(ports)],
            index,
            token,
            begins + index * interval_s / len(tokens),
        )
        for index, token in enumerate(tokens)
    ]
    running = asyncio.gather(*(_spaced(agent, interval_s, ends) for agent in agents))
    await asyncio.sleep(begins - time.monotonic())
    before = sum(map(_cpu_s, pids))
    await running
    return load, time.monotonic() - begins, sum(map(_cpu_s, pids)) - before


async def _spaced(agent: Agent, interval_s: float, ends: float) -> None:
    due = agent.begins
    while due < ends:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await agent.beat()
        due += interval_s
    agent.close()


class Agent:
    """As much of an agent as says heartbeats: one connection, kept alive."""

    def __init__(
        self, load: Load, port: int, index: int, token: str, begins: float
    ) -> None:
        self.begins = begins
        self._load = load
        self._port = port
        self._index = index
        self._head = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        )
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def beat(self) -> None:
        """One request; how it ended goes to the load's account."""
        t1_us = time.time_ns() // 1_000
        body = json.dumps(_request(self._index, t1_us)).encode()
        began = time.perf_counter()
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                status = await self._ask(body)
        except (
            OSError,
            TimeoutError,
            asyncio.IncompleteReadError,
            ValueError,
        ) as error:
            self._load.errors[type(error).__name__] += 1
            self.close()
            return
        if status != 200:
            self._load.errors[str(status)] += 1
            return
        self._load.answers_ms.append((time.perf_counter() - began) * 1e3)
        self._load.last_us[self._index] = t1_us

    async def _ask(self, body: bytes) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        head = f"{self._head}Content-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        lengths = [
            int(line.partition(":")[2])
            for line in answer.split("\r\n")
            if line.lower().startswith("content-length:")
        ]
        await reader.readexactly(lengths[0])
        return int(answer.split()[1])

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _request(index: int, t1_us: int) -> dict[str, Any]:
    counts = {"sent": 1, "created": 1, "ready": 1, "alive": 1}
    beat = {
        "shard": index,
        "attempt": 0,
        "phase": "holding",
        "connections": 1,
        "clock_samples": 10,
        "counts": counts,
        "heard": {"t0_us": 1, "t_hold_us": 1},
        "segments": [],
        "events_dropped": 0,
    }
    return {
        "protocol": 1,
        "run": CODE,
        "host": index,
        "process": "bench",
        "t1_us": t1_us,
        "beats": [beat],
    }


def _behind(heard: dict[str, int], load: Load) -> int:
    """Agents whose last answered heartbeat is not in the database."""
    late = 1_000_000  # the Run's clock began at this host's wall time
    return sum(1 for index, t1 in load.last_us.items() if heard[str(index)] < t1 - late)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _until_up(port: int) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.2)
            continue
        writer.close()
        await asyncio.sleep(3)  # what starting left to do is done
        return
    raise SystemExit("the site did not start")


if __name__ == "__main__":
    main()
