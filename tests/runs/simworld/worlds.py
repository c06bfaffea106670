"""A real world process, and a client on a real socket."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from shardagent import zstd
from shardagent.providers.base import Wanted
from shardagent.providers.sim import SimProvider
from shardagent.wire import Plan

SECRET = "a world's secret"


StartWorld = Callable[..., Awaitable["LivingWorld"]]


def nothing() -> None:
    """Nobody measures the sending."""


def clock_base() -> dict[str, int]:
    return {
        "base_wall_us": time.time_ns() // 1_000,
        "base_mono_raw_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW),
    }


@dataclass
class LivingWorld:
    process: asyncio.subprocess.Process
    address: str
    directory: Path
    providers: list[SimProvider] = field(default_factory=list)

    def provider(self, secret: str = SECRET) -> SimProvider:
        plan = Plan(provider="sim", sandbox_count=1)
        provider = SimProvider({"address": self.address, "secret": secret}, plan)
        self.providers.append(provider)
        return provider

    async def create(
        self, provider: SimProvider, index: int, *, shard: int = 0, ttl_s: int = 600
    ) -> str:
        labels = {
            "run": "alpha",
            "shard": str(shard),
            "attempt": "0",
            "sandbox": str(index),
        }
        created = await provider.create(Wanted(index, labels, ttl_s), nothing)
        return created.provider_id

    async def finish(self) -> list[dict[str, Any]]:
        """Ends the world and returns its truth, by sandbox."""
        await self.provider().drill("finish", SECRET)
        assert await self.process.wait() == 0
        return read_truth(self.directory)

    async def stop(self) -> None:
        for provider in self.providers:
            await provider.close()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


def read_truth(directory: Path) -> list[dict[str, Any]]:
    lines: list[bytes] = []
    segments = sorted(directory.glob("truth-*.ndjson.zst"))
    for seq, path in enumerate(segments):
        assert path.name == f"truth-{seq:06d}.ndjson.zst"
        body = zstd.decompress(path.read_bytes())
        assert len(body) <= 1_048_576
        lines += body.splitlines()
    truth = [orjson.loads(line) for line in lines]
    return sorted(truth, key=lambda line: line["sandbox"])


async def launch(
    directory: Path, world: dict[str, Any], sandbox_count: int, changes: dict[str, Any]
) -> LivingWorld:
    """Starts a world's process and waits until it listens."""
    config = {
        "run": "alpha",
        "seed": 7,
        "sandbox_count": sandbox_count,
        "shard_count": 10,
        "world": {"profile": "zero", **world},
        "listen": f"unix:{directory}/socket",
        "secret": SECRET,
        "clock": clock_base(),
        "truth_dir": str(directory),
        **changes,
    }
    path = directory / "config.json"
    path.write_text(json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runs.simworld", "--config", str(path)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    word, _, address = (await process.stdout.readline()).decode().partition(" ")
    assert word == "ready"
    return LivingWorld(process, address.strip(), directory)
