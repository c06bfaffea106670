"""What will become of each sandbox: drawn from seed and index, not from arrival.

The same seed gives sandbox 17 the same fate whenever and by whomever it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import log
from random import Random

from runs.simworld.latency import Latencies
from runs.simworld.parameters import CHOSEN, ZERO, World

_MASK = (1 << 64) - 1


class CreateFate(Enum):
    OK = "ok"
    ERROR = "error"
    HANG = "hang"
    LATE = "late"


class Unready(Enum):
    """How a sandbox that is never interactive answers."""

    REFUSES = "refuses"
    WRONG = "wrong"
    HANGS = "hangs"


@dataclass(frozen=True, slots=True)
class Fate:
    create: CreateFate
    create_us: int
    ready_us: int
    unready: Unready | None
    dies_after_us: int | None
    flaky_probe: int | None  # this probe, counted from 1, fails
    factor: float  # of a slow Shard


class Draws:
    """Numbers in [0, 1) that depend on seed, salt and index alone (splitmix64)."""

    __slots__ = ("_base",)

    def __init__(self, seed: int, salt: int) -> None:
        self._base = (seed * 0x9E3779B97F4A7C15 + salt * 0x8CB92BA72F3D8DD7) & _MASK

    def of(self, index: int) -> float:
        z = (self._base + index * 0xD1B54A32D192ED03) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) >> 11) * 2.0**-53


def uniform(seed: int, index: int, salt: int) -> float:
    """One such number."""
    return Draws(seed, salt).of(index)


class Dealer:
    """Deals fates. Exact counts are chosen once, without overlap."""

    def __init__(
        self, world: World, seed: int, sandbox_count: int, shard_count: int
    ) -> None:
        self._world = world
        self._seed = seed
        self._latencies = (
            None
            if world.profile == ZERO
            else Latencies(world.profile, world.mode, world.day, world.latency_scale)
        )
        self._tti = Draws(seed, 1)
        self._death = Draws(seed, 5)
        self._chosen: dict[int, str] = {}
        self.rack: frozenset[int] = self._choose(sandbox_count)
        self._shares = [
            (name, salt, rate)
            for salt, name in enumerate(CHOSEN, start=101)
            if isinstance(rate := getattr(world, name), float) and rate > 0
        ]
        slow = world.slow_shards
        self._slow_share = slow if isinstance(slow, float) else 0.0
        count = slow if isinstance(slow, int) else 0
        shuffled = Random(f"{seed}:slow").sample(range(shard_count), count)
        self._slow = frozenset(shuffled)

    def _choose(self, sandbox_count: int) -> frozenset[int]:
        world = self._world
        counts = [
            (name, count)
            for name in CHOSEN
            if isinstance(count := getattr(world, name), int)
        ]
        total = sum(count for _, count in counts) + world.rack_size
        left = Random(f"{self._seed}:chosen").sample(range(sandbox_count), total)
        for name, count in counts:
            for _ in range(count):
                self._chosen[left.pop()] = name
        return frozenset(left)

    def deal(self, index: int, shard: int | None) -> Fate:
        """The fate of one sandbox."""
        world, seed = self._world, self._seed
        role = self._role(index)
        factor = self._factor(shard)
        tti = 0
        if self._latencies is not None:
            tti = int(self._latencies.tti_us(self._tti.of(index)) * factor)
        ready_us = int(tti * world.ready_share)
        create = _CREATES.get(role, CreateFate.OK)
        unready = None
        if role == "never_ready":
            unready = list(Unready)[int(uniform(seed, index, 2) * 3)]
        flaky = None
        if role == "flaky_probes":
            flaky = 1 + int(uniform(seed, index, 3) * 2)
        return Fate(
            create=create,
            create_us=tti - ready_us,
            ready_us=ready_us,
            unready=unready,
            dies_after_us=self._dies_after_us(index, role),
            flaky_probe=flaky,
            factor=factor,
        )

    def _role(self, index: int) -> str:
        role = self._chosen.get(index)
        if role is not None:
            return role
        if index not in self.rack:
            for name, salt, share in self._shares:
                if uniform(self._seed, index, salt) < share:
                    return name
        return ""

    def _factor(self, shard: int | None) -> float:
        if shard is None:
            return 1.0
        slow = shard in self._slow or (
            self._slow_share > 0 and uniform(self._seed, shard, 4) < self._slow_share
        )
        return self._world.slow_factor if slow else 1.0

    def _dies_after_us(self, index: int, role: str) -> int | None:
        world = self._world
        if role == "deaths":
            earliest, latest = world.death_window_s
            draw = self._death.of(index)
            return int((earliest + draw * (latest - earliest)) * 1_000_000)
        if world.death_rate_per_s > 0:
            return int(
                -log(1 - self._death.of(index)) / world.death_rate_per_s * 1_000_000
            )
        return None


_CREATES = {
    "create_errors": CreateFate.ERROR,
    "create_hangs": CreateFate.HANG,
    "late_creates": CreateFate.LATE,
}
