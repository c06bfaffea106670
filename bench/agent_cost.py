"""What one sandbox costs its client: create, ready, six probes, destroy, over HTTP.

    python -m bench.agent_cost [--together 100] [--rounds 3]

A server on the other core answers each create and command after exactly 1,000 ms, in
E2B's wire format. The same work is done by our adapter, by httpx over HTTP/1.1 and by
E2B's own SDK, each on one core in a process that is set up as the agent's. Prints JSON:
for each client CPU ms a sandbox and the delay that it adds to a create at P99, in the
first round (cold) and in those after it (warm), and its memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from bench.fairness import LISTEN_S, SECRET, VENDOR_S, serve
from shardagent import cli, providers
from shardagent.providers.base import Wanted
from shardagent.wire import Plan

CLIENTS = ("ours", "httpx", "sdk")
PROBES = 6
COMMAND = ["/bin/bash", "-l", "-c", "true"]
RESULT_S_MAX = 120.0


class Client(Protocol):
    """As much of a provider as a life needs."""

    async def create(self, place: int) -> str: ...

    async def run(self, sandbox: str) -> None: ...

    async def destroy(self, sandbox: str) -> None: ...

    async def close(self) -> None: ...


class Adapter:
    """Ours, or the same on the vendor's SDK."""

    def __init__(self, address: str, transport: str) -> None:
        asked = {"provider": "e2b", "sandbox_count": 1, "transport": transport}
        plan = Plan.model_validate({**asked, **providers.about("e2b").plan})
        config = {"api_key": SECRET, "endpoint": f"http://{address}"}
        self.provider = providers.open_provider("e2b", config, plan)

    async def create(self, place: int) -> str:
        made = await self.provider.create(Wanted(place, _labels(place), 600), _nothing)
        return made.provider_id

    async def run(self, sandbox: str) -> None:
        answer = await self.provider.execute(sandbox, COMMAND, _nothing, 30)
        assert answer.exit_code == 0, answer

    async def destroy(self, sandbox: str) -> None:
        await self.provider.destroy(sandbox, _nothing)

    async def close(self) -> None:
        await self.provider.close()


class Httpx:
    """The same requests by httpx over HTTP/1.1, with room for every connection."""

    def __init__(self, address: str) -> None:
        import httpx

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self.client = httpx.AsyncClient(
            base_url=f"http://{address}", limits=limits, timeout=60
        )

    async def create(self, place: int) -> str:
        body = {"templateID": "base", "timeout": 600, "metadata": _labels(place)}
        headers = {"X-API-KEY": SECRET}
        answer = await self.client.post("/v2/sandboxes", json=body, headers=headers)
        return str(answer.raise_for_status().json()["sandboxID"])

    async def run(self, sandbox: str) -> None:
        process = {"cmd": COMMAND[0], "args": COMMAND[1:]}
        message = json.dumps({"process": process, "stdin": False}).encode()
        answer = await self.client.post(
            "/process.Process/Start",
            content=struct.pack(">BI", 0, len(message)) + message,
            headers={
                "Content-Type": "application/connect+json",
                "Connect-Protocol-Version": "1",
                "E2b-Sandbox-Id": sandbox,
                "E2b-Sandbox-Port": "49983",
            },
        )
        assert b'"end"' in answer.raise_for_status().content

    async def destroy(self, sandbox: str) -> None:
        headers = {"X-API-KEY": SECRET}
        await self.client.delete(f"/sandboxes/{sandbox}", headers=headers)

    async def close(self) -> None:
        await self.client.aclose()


def _labels(place: int) -> dict[str, str]:
    return {"run": "bench", "shard": "0", "attempt": "0", "sandbox": str(place)}


def _nothing() -> None:
    """Nobody measures the sending."""


def _client(name: str, address: str) -> Client:
    if name == "httpx":
        return Httpx(address)
    return Adapter(address, "thin" if name == "ours" else "sdk")


async def lives(client: Client, together: int, rounds: int) -> dict[str, Any]:
    """The first round is cold: it connects, which agents do before T0."""
    cpu_s: list[float] = []
    added: list[list[float]] = []

    async def life(place: int) -> float:
        asked = time.perf_counter()
        sandbox = await client.create(place)
        took_s = time.perf_counter() - asked
        for _ in range(1 + PROBES):
            await client.run(sandbox)
        await client.destroy(sandbox)
        return (took_s - VENDOR_S) * 1_000

    for turn in range(rounds):
        first = turn * together
        places = range(first, first + together)
        began_s = time.process_time()
        added.append(sorted(await asyncio.gather(*map(life, places))))
        cpu_s.append(time.process_time() - began_s)
    warm = sorted(one for part in added[1:] for one in part)
    return {
        "cold_cpu_ms": round(cpu_s[0] * 1e3 / together, 3),
        "cpu_ms": round(sum(cpu_s[1:]) * 1e3 / (together * (rounds - 1)), 3),
        "cold_p99_ms": _p99(added[0]),
        "warm_p99_ms": _p99(warm),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024),
    }


def _p99(values: Sequence[float]) -> float | None:
    if not values:
        return None
    return round(values[min(len(values) - 1, int(len(values) * 0.99))], 1)


def _measure(name: str, address: str, sizes: tuple[int, int], tell: Any) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cli.settle_in()

    async def measured() -> dict[str, Any]:
        client = _client(name, address)
        await client.destroy(await client.create(10**6))  # connected, imported, known
        try:
            return await lives(client, *sizes)
        finally:
            await client.close()

    tell.send(asyncio.run(measured()))


def _serve(tell: Any) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    serve("e2b", tell)


def measured(together: int, rounds: int) -> dict[str, Mapping[str, Any]]:
    """Each client's figures, one after the other."""
    context = multiprocessing.get_context("spawn")
    found: dict[str, Mapping[str, Any]] = {}
    ours, theirs = context.Pipe(duplex=False)
    server = context.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    try:
        if not ours.poll(LISTEN_S):
            raise SystemExit("the server did not start")
        address = ours.recv()
        for name in CLIENTS:
            here, there = context.Pipe(duplex=False)
            arguments = (name, address, (together, rounds), there)
            child = context.Process(target=_measure, args=arguments, daemon=True)
            child.start()
            if not here.poll(RESULT_S_MAX):
                raise SystemExit(f"{name} did not finish")
            found[name] = here.recv()
            child.join()
    finally:
        server.terminate()
        server.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--together", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="at least 2")
    options = parser.parse_args()
    print(json.dumps(measured(options.together, options.rounds)))


if __name__ == "__main__":
    main()
