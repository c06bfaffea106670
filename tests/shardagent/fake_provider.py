"""An in-memory Provider whose sandboxes do as they are told."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shardagent import observe
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import About, Answer, Created, Listed, Sent, Wanted


@dataclass
class Box:
    labels: Mapping[str, str]
    created_s: float
    nonce: str | None = None
    witness_s: float = 0.0
    destroyed_s: float | None = None
    probes: list[float] = field(default_factory=list)


@dataclass
class World:
    """What all Shards share; sets hold global Sandbox indices."""

    create_s: float = 0.02
    answer_s: float = 0.002
    refused: frozenset[int] = frozenset()
    hanging: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()  # made, but the answer is a 5xx
    mute: frozenset[int] = frozenset()  # never interactive
    short_lived: frozenset[int] = frozenset()  # gone 0.3 s after their create
    sticky: frozenset[int] = frozenset()  # destroy fails for ever
    boxes: dict[str, Box] = field(default_factory=dict)
    warmed: list[float] = field(default_factory=list)
    wanted: list[Wanted] = field(default_factory=list)

    def open(self, slug: str, config: Mapping[str, str], plan: object) -> FakeProvider:
        assert slug
        return FakeProvider(self)


class FakeProvider:
    slug = "fake"
    about = About(title="Fake")
    supports_witness = True
    connect_us: int | None = 250

    def __init__(self, world: World) -> None:
        self._world = world

    async def warm(self, connections: int) -> int:
        await asyncio.sleep(0)
        self._world.warmed.append(time.monotonic())
        return connections

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        world = self._world
        sent()
        world.wanted.append(wanted)
        if wanted.sandbox in world.hanging:
            await asyncio.Event().wait()
        await asyncio.sleep(world.create_s)
        if wanted.sandbox in world.refused:
            text = "Bearer abcdef0123 slow down, key top-secret-key"
            raise ProviderError(Cause.RATE_LIMITED, Origin.PROVIDER, text, status=429)
        name = f"box-{wanted.sandbox}"
        world.boxes[name] = Box(wanted.labels, time.monotonic())
        if wanted.sandbox in world.lost:
            raise ProviderError(
                Cause.PROVIDER_ERROR, Origin.PROVIDER, "bad gateway", status=502
            )
        return Created(name, reused=True)

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        sent()
        await asyncio.sleep(self._world.answer_s)
        box = self._alive(provider_id)
        mute = int(box.labels["sandbox"]) in self._world.mute
        if tuple(command) == observe.COMMAND:
            return Answer(0, "4\n50000 100000\n2048 kB\nmax\n\n")
        return Answer(0, "no shell" if mute else "v22.1.0\n")

    async def start_witness(self, provider_id: str, nonce: str, sent: Sent) -> None:
        sent()
        await asyncio.sleep(self._world.answer_s)
        box = self._alive(provider_id)
        box.nonce, box.witness_s = nonce, time.monotonic()

    async def probe(
        self,
        provider_id: str,
        command: Sequence[str],
        challenge: str | None,
        sent: Sent,
        timeout_s: float,
    ) -> Answer:
        sent()
        await asyncio.sleep(self._world.answer_s)
        box = self._alive(provider_id)
        box.probes.append(time.monotonic())
        if challenge is None or box.nonce is None:
            return Answer(0, "")
        ticks = int((time.monotonic() - box.witness_s) / 0.25)
        digest = hashlib.sha256((box.nonce + challenge).encode()).hexdigest()
        return Answer(0, "", ticks, digest)

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        sent()
        await asyncio.sleep(self._world.answer_s)
        box = self._world.boxes[provider_id]
        if int(box.labels["sandbox"]) in self._world.sticky:
            raise ProviderError(Cause.PROVIDER_ERROR, Origin.PROVIDER, "no", status=500)
        box.destroyed_s = time.monotonic()

    async def list(self, labels: Mapping[str, str]) -> list[Listed]:
        return [
            Listed(name, box.labels)
            for name, box in self._world.boxes.items()
            if box.destroyed_s is None and labels.items() <= box.labels.items()
        ]

    async def close(self) -> None:
        pass

    def _alive(self, provider_id: str) -> Box:
        box = self._world.boxes[provider_id]
        aged = time.monotonic() - box.created_s > 0.3
        gone = aged and int(box.labels["sandbox"]) in self._world.short_lived
        if gone or box.destroyed_s is not None:
            raise ProviderError(Cause.NOT_FOUND, Origin.PROVIDER, "gone", status=404)
        return box
