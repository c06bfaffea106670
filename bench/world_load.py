"""The simulated world's CPU, by verb: requests as a Run's agents send them.

In one process, with the real connection, engine and timers; only the socket is not
there. A batch of requests comes every 5 ms, as from agents whose world has ticks.
Prints JSON: CPU µs a request, the best of several rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from typing import Any, cast

import orjson

from runs.simworld.config import RunClock, WorldConfig
from runs.simworld.engine import Engine
from runs.simworld.server import Connection, WorldServer
from runs.simworld.timers import Clock, Timers

SECRET = "bench-secret"
BATCH = 50  # 10,000 requests a second
BATCH_S = 0.005
SETTLE_S = 0.3  # the slowest answer is out by then
PROBES = 4


class _Answers:
    """What a transport must have to be written to."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.parts.append(data)

    def take(self) -> dict[int, list[Any]]:
        lines = b"".join(self.parts).splitlines()
        self.parts.clear()
        return {one[0]: one for line in lines for one in orjson.loads(line)}


class _World:
    def __init__(self, count: int) -> None:
        raw = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        base = RunClock(base_wall_us=time.time_ns() // 1_000, base_mono_raw_ns=raw)
        world = {"profile": "blaxel", "latency_scale": 0.1, "tick_ms": 5}
        config = WorldConfig.model_validate(
            {
                "run": "bench",
                "seed": 1,
                "sandbox_count": count,
                "world": world,
                "secret": SECRET,
                "clock": base,
                "truth_dir": "/nowhere",
            }
        )
        clock = Clock(base)
        timers = Timers(clock)
        self.truth: list[bytes] = []
        engine = Engine(config, clock, timers, self.truth.append)
        server = WorldServer(
            engine, timers, SECRET, stats=dict, on_finish=lambda pending: None
        )
        self._answers = _Answers()
        self._connection = Connection(server)
        transport = cast(asyncio.Transport, self._answers)
        self._connection.connection_made(transport)
        self._connection.data_received(orjson.dumps([[0, "hello", SECRET]]) + b"\n")

    async def spend(self, requests: list[list[Any]]) -> tuple[float, list[list[Any]]]:
        """CPU µs each, and the answers, in the order of the requests."""
        numbered = [[place, *one] for place, one in enumerate(requests, start=1)]
        batches = [
            orjson.dumps(numbered[start : start + BATCH]) + b"\n"
            for start in range(0, len(numbered), BATCH)
        ]
        await asyncio.sleep(0)
        self._answers.take()
        before = time.process_time()
        for batch in batches:
            self._connection.data_received(batch)
            await asyncio.sleep(BATCH_S)
        await asyncio.sleep(SETTLE_S)
        spent = time.process_time() - before
        found = self._answers.take()
        answers = [found[place] for place in range(1, len(numbered) + 1)]
        assert not any(answer[1] for answer in answers), "a request has failed"
        return spent * 1e6 / len(numbered), answers


async def _round(count: int) -> dict[str, float]:
    world = _World(count)
    labels = {"run": "bench", "attempt": "0"}
    spent: dict[str, float] = {}
    spent["create"], answers = await world.spend(
        [
            ["create", i, {**labels, "shard": str(i // 100), "sandbox": str(i)}, 600]
            for i in range(count)
        ]
    )
    ids = [answer[2] for answer in answers]
    nonce = "0123456789abcdef" * 2
    argv = ["node", "-v"]
    spent["exec"], _ = await world.spend([["exec", each, argv, 10] for each in ids])
    spent["witness"], _ = await world.spend([["witness", each, nonce] for each in ids])
    probes = [["probe", each, ["true"], nonce] for each in ids * PROBES]
    spent["probe"], _ = await world.spend(probes)
    spent["destroy"], _ = await world.spend([["destroy", each] for each in ids])
    assert len(world.truth) == count
    return spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sandboxes", type=int, default=2_500)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    gc.disable()  # as the world's process does
    rounds = [asyncio.run(_round(arguments.sandboxes)) for _ in range(arguments.rounds)]
    best = {verb: min(each[verb] for each in rounds) for verb in rounds[0]}
    print(json.dumps({verb: round(us, 1) for verb, us in best.items()}))


if __name__ == "__main__":
    main()
