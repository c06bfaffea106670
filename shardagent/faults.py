"""Faults of our own rig, for tests alone: each trips one check of the verdict for real.

HOLDFAST_TEST_FAULT is a list `name[=value][@host]`, separated by commas; without @host
every agent process has it. Names:

    block=S        the event loop stands still for S seconds from T0 on
    block_end=S    … from T_end on, so that final probes are late
    burn=S         a busy event loop for S seconds, from one second after T0
    cold           the Provider's connections are closed shortly before T0
    slow_beats=S   S seconds lie between a heartbeat's first timestamp and its sending
    stall=S        no heartbeat is sent for S seconds, from one second after T0
    step=US        the clock jumps by so much, two seconds after T0
    die=S          the process kills itself S seconds after T0
    resend         every create is sent twice, and nobody is told
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from shardagent.clock import Clock
from shardagent.errors import ConfigError
from shardagent.providers.base import Created, Provider, Sent, Waiting, Wanted

VARIABLE = "HOLDFAST_TEST_FAULT"
NAMES = frozenset(
    {
        "block",
        "block_end",
        "burn",
        "cold",
        "slow_beats",
        "stall",
        "step",
        "die",
        "resend",
    }
)
LOOK_S = 0.005
BEFORE_T0_US = 10_000
COLD_BEFORE_T0_US = 300_000
SECOND_US = 1_000_000


class Instants(Protocol):
    """The shared instants on this agent's clock; None until heard."""

    t0_us: int | None
    end_us: int | None


class Faults:
    """What this process is to do wrong; nothing unless a test says so."""

    def __init__(self, values: Mapping[str, float], clock: Clock) -> None:
        self._values = values
        self._clock = clock
        self._stalled_until_us = 0

    @classmethod
    def from_environment(
        cls, host: int, clock: Clock, environ: Mapping[str, str] = os.environ
    ) -> Faults:
        """Those of this host. Raises ConfigError where one is not known."""
        values: dict[str, float] = {}
        for word in environ.get(VARIABLE, "").split(","):
            fault, _, where = word.strip().partition("@")
            name, _, value = fault.partition("=")
            if not name or (where and int(where) != host):
                continue
            if name not in NAMES:
                raise ConfigError(f"{VARIABLE}: {name!r} is not a fault")
            values[name] = float(value or 0)
        return cls(values, clock)

    def __bool__(self) -> bool:
        return bool(self._values)

    async def before_beat(self) -> None:
        """Between a heartbeat's first timestamp and its sending."""
        await asyncio.sleep(self._values.get("slow_beats", 0))
        stalled_us = self._stalled_until_us - self._clock.now_us()
        await asyncio.sleep(max(0, stalled_us) / SECOND_US)

    def provider(self, provider: Provider) -> Provider:
        """The adapter that this process shall use."""
        if "resend" in self._values:
            return cast(Provider, _Resending(provider))
        return provider

    async def act(
        self, instants: Callable[[], Instants | None], close: Callable[[], None]
    ) -> None:
        """Wait for each fault's moment; `close` closes the Provider's connections."""
        values = self._values
        plan: list[tuple[str, int, str]] = [
            ("cold", -COLD_BEFORE_T0_US, "t0_us"),
            ("block", -BEFORE_T0_US, "t0_us"),
            ("stall", SECOND_US, "t0_us"),
            ("burn", SECOND_US, "t0_us"),
            ("step", 2 * SECOND_US, "t0_us"),
            ("die", int(values.get("die", 0) * SECOND_US), "t0_us"),
            ("block_end", -BEFORE_T0_US, "end_us"),
        ]
        for name, after_us, edge in plan:
            if name in values:
                await self._until(instants, edge, after_us)
                await self._do(name, values[name], close)

    async def _until(
        self, instants: Callable[[], Instants | None], edge: str, after_us: int
    ) -> None:
        while True:
            times = instants()
            at: int | None = None if times is None else getattr(times, edge)
            if at is not None and self._clock.now_us() >= at + after_us:
                return
            await asyncio.sleep(LOOK_S)

    async def _do(self, name: str, value: float, close: Callable[[], None]) -> None:
        match name:
            case "cold":
                close()
            case "block" | "block_end":
                time.sleep(value)  # noqa: ASYNC251  standing still is the point
            case "burn":
                until_s = time.monotonic() + value
                while time.monotonic() < until_s:
                    pause_s = time.monotonic() + 0.05
                    while time.monotonic() < pause_s:
                        pass
                    await asyncio.sleep(0)
            case "stall":
                self._stalled_until_us = self._clock.now_us() + int(value * SECOND_US)
            case "step":
                self._clock.step(int(value))
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case _:
                raise AssertionError(name)


class _Resending:
    """Sends every create twice, as a client that retries behind our back would."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def __getattr__(self, name: str) -> object:
        return getattr(self._provider, name)

    def create_quickly(self, wanted: Wanted, waiting: Waiting) -> None:
        """Every create goes the usual way, which is below."""

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        made = await self._provider.create(wanted, sent)
        await self._provider.create(wanted, lambda: None)
        return made
