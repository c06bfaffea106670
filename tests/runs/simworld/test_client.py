from __future__ import annotations

import asyncio

import pytest

from runs.simworld.client import WorldError, ask
from tests.runs.simworld.worlds import SECRET, StartWorld, read_truth


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
async def test_the_site_ends_a_world(start_world: StartWorld, *, tcp: bool) -> None:
    changes = {"listen": "127.0.0.1:0"} if tcp else {}
    world = await start_world({}, **changes)
    await world.create(world.provider(), 0)
    stats = await asyncio.to_thread(ask, world.address, SECRET, "stats", timeout_s=5)
    assert stats["living"] == 1
    ended = await asyncio.to_thread(
        ask, world.address, SECRET, "finish", SECRET, timeout_s=5
    )
    assert (ended["truth_stored"], ended["truth_lines"]) == (1, 1)
    assert await world.process.wait() == 0
    assert len(read_truth(world.directory)) == 1
    with pytest.raises(WorldError):
        await asyncio.to_thread(ask, world.address, SECRET, "stats", timeout_s=5)


async def test_a_refusal_is_an_error(start_world: StartWorld) -> None:
    world = await start_world({})
    with pytest.raises(WorldError, match="secret"):
        await asyncio.to_thread(ask, world.address, "wrong", "stats", timeout_s=5)
    with pytest.raises(WorldError, match="not_found"):
        await asyncio.to_thread(ask, world.address, SECRET, "kill", "x", timeout_s=5)


async def test_what_is_asked_when_the_world_ends_has_its_line(
    start_world: StartWorld,
) -> None:
    world = await start_world({"profile": "codesandbox"})
    provider = world.provider()
    creates = [asyncio.create_task(world.create(provider, i)) for i in range(5)]
    await asyncio.sleep(0.1)
    truth = await world.finish()
    assert [line["create"] for line in truth] == ["timeout"] * 5
    assert [line["alive_from_us"] for line in truth] == [None] * 5
    await asyncio.gather(*creates, return_exceptions=True)
