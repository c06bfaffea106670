"""What each adapter adds to a create that takes the vendor exactly 1,000 ms.

    python -m bench.fairness [--together 100] [--rounds 5] [--json]

A process of its own (bench.metronome) answers each create as the vendor's stand-in
does, one second after it read it. Added = the client's latency less that second.
The quantile is of each round's creates, and of those the median over the rounds.
Warm: after the adapter has connected, and after one round that is thrown away. The
SDKs are measured where they are installed. What speaks no HTTP/1.1 (Modal) is answered
by its stand-in itself, whose own queue is then in the figure.

    python -m bench.fairness --record

writes runs/overhead.json, which a Run's page quotes. For that the machine must be idle.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from bench.metronome import Metronome
from runs.simcloud import boxes, web
from runs.simcloud.cloud import Cloud
from shardagent import providers
from shardagent.errors import ConfigError
from shardagent.providers.base import Wanted
from shardagent.wire import Plan

VENDOR_S = 1.0
SECRET = "bench-secret-0123456789"
LISTEN_S = 20
VENDORS = tuple(sorted(web.VENDORS))
RECORD = Path(__file__).resolve().parents[1] / "runs" / "overhead.json"


class Exact(Cloud):
    """Every create takes exactly one second from when it was read."""

    def __init__(self) -> None:
        self._secret = SECRET.encode()
        self._count = 0
        self.url = ""

    async def create(
        self, labels: Mapping[str, str], ttl_s: float, *, name: str = ""
    ) -> str:
        due = asyncio.get_running_loop().time() + VENDOR_S
        self._count += 1
        made = f"sim-{self._count}"
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        return made

    async def execute(
        self, provider_id: str, argv: Sequence[str], timeout_s: float
    ) -> tuple[int, str]:
        return 0, "v22\n"

    async def destroy(self, provider_id: str) -> bool:
        return True

    def is_alive(self, provider_id: str) -> bool:
        return True

    async def living(
        self, labels: Mapping[str, str]
    ) -> list[tuple[str, dict[str, str]]]:
        return []


def serve(vendor: str, tell: Connection) -> None:
    """The stand-in's process."""
    boxes.ACCEPT_S = 60  # the create itself waits, so that no polling is in it

    async def run() -> None:
        address, _ = await web.serve(vendor, Exact(), "127.0.0.1:0")
        if not hasattr(import_module(web.VENDORS[vendor]), "serve"):
            address = await Metronome(address, VENDOR_S).serve()
        tell.send(address)
        await asyncio.Event().wait()

    asyncio.run(run())


async def measure(
    plan: Plan, address: str, together: int, rounds: int
) -> list[list[float]]:
    """Added ms of every create, round by round; one before is thrown away."""
    entries = providers.about(plan.provider).entries
    config = {e.name: SECRET if e.secret else "bench" for e in entries if e.required}
    config["endpoint"] = f"http://{address}"
    provider = providers.open_provider(plan.provider, config, plan)
    added: list[list[float]] = []

    async def one(place: int, turn: int) -> float:
        sent: list[float] = []
        labels = {"run": f"bench-{turn}", "shard": "0", "sandbox": str(place)}
        wanted = Wanted(place, labels, 600, plan.spec.model_dump())
        await provider.create(wanted, lambda: sent.append(time.perf_counter()))
        return (time.perf_counter() - sent[0] - VENDOR_S) * 1_000

    try:
        for turn in range(rounds + 1):
            await provider.warm(together)
            found = await asyncio.gather(*(one(n, turn) for n in range(together)))
            if turn:
                added.append(sorted(found))
    finally:
        await provider.close()
    return added


def rows(
    together: int, rounds: int, vendors: Sequence[str] = VENDORS
) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for vendor in vendors:
        for transport in providers.about(vendor).transports:
            about = providers.about(vendor)
            asked = {"provider": vendor, "sandbox_count": 1, "transport": transport}
            plan = Plan.model_validate({**asked, **about.plan})
            ours, theirs = multiprocessing.Pipe(duplex=False)
            start = multiprocessing.get_context("spawn").Process
            server = start(target=serve, args=(vendor, theirs), daemon=True)
            server.start()
            theirs.close()
            try:
                if not ours.poll(LISTEN_S):
                    raise ConfigError("the stand-in did not start")
                added = asyncio.run(measure(plan, ours.recv(), together, rounds))
            except (ConfigError, EOFError):  # the vendor's package is not installed
                continue
            finally:
                server.terminate()
                server.join()
            found.append(
                {
                    "vendor": vendor,
                    "transport": transport,
                    "together": together,
                    "p50_ms": _of_rounds(added, 0.5),
                    "p99_ms": _of_rounds(added, 0.99),
                }
            )
    return found


def _of_rounds(added: Sequence[Sequence[float]], quantile: float) -> float:
    """The quantile of each round, and of those the median: one round in which this
    machine was busy otherwise does not count."""
    each = [one[min(len(one) - 1, int(len(one) * quantile))] for one in added]
    return round(median(each), 2)


def record(found: Sequence[Mapping[str, object]]) -> None:
    """What a Run's page quotes; rows of vendors that were not measured now stay."""
    old = json.loads(RECORD.read_text())["rows"] if RECORD.exists() else []
    today = time.strftime("%Y-%m-%d", time.gmtime())
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    new = [{**row, "measured": today, "machine": machine} for row in found]
    by_name = {(row["vendor"], row["transport"]): row for row in [*old, *new]}
    lines = [json.dumps(by_name[name]) for name in sorted(by_name)]
    text = ",\n  ".join(lines)
    RECORD.write_text(f'{{\n "rows": [\n  {text}\n ]\n}}\n')


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--together", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--vendors", nargs="*", default=VENDORS, choices=VENDORS)
    options = parser.parse_args()
    found = rows(options.together, options.rounds, options.vendors)
    if options.record:
        record(found)
    if options.json:
        print(json.dumps({"rows": found}))
        return
    for row in found:
        who = f"{row['vendor']:<12}{row['transport']:<6}"
        print(f"{who}{row['p50_ms']:>8} {row['p99_ms']:>8}")


if __name__ == "__main__":
    main()
