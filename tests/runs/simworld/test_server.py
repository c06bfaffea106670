from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from shardagent.errors import Cause, ConfigError, Origin, ProviderError
from shardagent.providers.sim import SimProvider
from shardagent.wire import Plan
from tests.runs.simworld.worlds import SECRET, StartWorld, nothing, read_truth


async def test_it_listens_on_tcp_and_writes_its_pid(
    start_world: StartWorld, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    world = await start_world({}, listen="127.0.0.1:0", pid_file=str(pid_file))
    assert world.address.startswith("127.0.0.1:")
    assert int(pid_file.read_text()) == world.process.pid
    created = await world.create(world.provider(), 0)
    assert created.startswith("sim-alpha-0-")


async def test_sigterm_closes_the_truth(start_world: StartWorld) -> None:
    world = await start_world({})
    provider = world.provider()
    await asyncio.gather(*(world.create(provider, index) for index in range(20)))
    world.process.send_signal(signal.SIGTERM)
    assert await world.process.wait() == 0
    truth = read_truth(world.directory)
    assert len(truth) == 20
    assert {line["end"] for line in truth} == {"world_end"}


async def test_it_ends_by_itself(start_world: StartWorld) -> None:
    world = await start_world({}, lifetime_s=0.3)
    await world.create(world.provider(), 0)
    assert await world.process.wait() == 0
    assert len(read_truth(world.directory)) == 1


async def test_it_outlives_its_clients(start_world: StartWorld) -> None:
    world = await start_world({})
    first = world.provider()
    provider_id = await world.create(first, 0, shard=4)
    await first.close()
    second = world.provider()
    listed = await second.list({"run": "alpha", "shard": "4"})
    assert [(found.provider_id, found.labels["sandbox"]) for found in listed] == [
        (provider_id, "0")
    ]
    assert await second.list({"run": "beta"}) == []


async def test_a_listing_goes_over_many_pages(start_world: StartWorld) -> None:
    world = await start_world({}, sandbox_count=12_000)
    provider = world.provider()
    await asyncio.gather(*(world.create(provider, index) for index in range(12_000)))
    assert len(await provider.list({"run": "alpha"})) == 12_000
    (stats,) = await provider.drill("stats")
    assert stats["living"] == 12_000
    assert len(await world.finish()) == 12_000  # in more than one segment
    assert len(list(world.directory.glob("truth-*"))) > 1


async def test_a_wrong_secret_is_refused(start_world: StartWorld) -> None:
    world = await start_world({})
    with pytest.raises(ProviderError) as caught:
        await world.provider("wrong secret").warm(1)
    assert caught.value.cause is Cause.AUTH
    assert caught.value.origin is Origin.PROVIDER
    with pytest.raises(ProviderError) as caught:
        await world.provider().drill("finish", "wrong secret")
    assert caught.value.cause is Cause.AUTH


async def test_nonsense_closes_only_its_own_connection(
    start_world: StartWorld,
) -> None:
    world = await start_world({})
    for nonsense in (b"{}\n", b'[1,"hello"]\n', b'[[1,"hello"]]\n', b"\xff\n", b"[]\n"):
        reader, writer = await asyncio.open_unix_connection(
            world.address.removeprefix("unix:")
        )
        writer.write(nonsense)
        (answer,) = orjson.loads(await reader.readline())
        assert answer[1:3] == [1, "invalid_request"]
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    with pytest.raises(ProviderError) as caught:
        await world.create(world.provider(), 100)  # of 100
    assert caught.value.cause is Cause.INVALID_REQUEST


async def test_a_killed_world_is_a_network_failure(start_world: StartWorld) -> None:
    world = await start_world({"create_hangs": 1.0})
    provider = world.provider()
    await provider.warm(1)
    hanging = asyncio.ensure_future(world.create(provider, 0))
    await asyncio.sleep(0.05)
    world.process.kill()
    for call in (hanging, world.create(provider, 1)):
        with pytest.raises(ProviderError) as caught:
            await call
        assert caught.value.cause is Cause.NETWORK
        assert caught.value.origin is Origin.NETWORK


async def test_sent_is_called_when_the_request_leaves(start_world: StartWorld) -> None:
    world = await start_world({"create_hangs": 1.0})
    provider = world.provider()
    sent: list[int] = []
    call = provider.execute("x", ["true"], lambda: sent.append(1), 5)
    with pytest.raises(ProviderError):
        await call
    assert sent == [1]


def test_the_adapter_names_what_its_configuration_lacks() -> None:
    with pytest.raises(ConfigError, match="secret"):
        SimProvider({"address": "unix:/x"}, Plan(provider="sim", sandbox_count=1))


async def test_truth_is_put_to_the_store_and_tried_again(
    start_world: StartWorld,
) -> None:
    stored: dict[str, bytes] = {}
    refused: list[str] = []

    async def put(request: web.Request) -> web.Response:
        body = await request.read()
        if not refused:
            refused.append(request.path)
            return web.Response(status=503)
        assert request.path not in stored
        stored[request.path] = body
        return web.Response()

    app = web.Application()
    app.router.add_put("/{key}", put)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    urls = [f"http://{host}:{port}/truth-{seq:06d}.ndjson.zst" for seq in range(9)]
    world = await start_world({}, truth_dir=None, truth_urls=urls)
    await world.create(world.provider(), 0)
    (stats,) = await world.provider().drill("finish", SECRET)
    assert stats["truth_stored"] == 1
    assert await world.process.wait() == 0
    await runner.cleanup()
    for path, body in stored.items():
        (world.directory / path.removeprefix("/")).write_bytes(body)
    assert len(refused) == 1
    assert len(read_truth(world.directory)) == 1


async def test_a_bad_config_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"run": "alpha"}')
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runs.simworld", "--config", str(path)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"sandbox_count" in said


async def test_requests_are_cheap(start_world: StartWorld) -> None:
    """The aim is 0.05 ms; the bound leaves room for a busy machine."""
    world = await start_world({}, sandbox_count=2_000)
    provider = world.provider()
    (before,) = await provider.drill("stats")

    async def one(index: int) -> None:
        provider_id = await world.create(provider, index)
        for _ in range(4):
            await provider.probe(provider_id, ["true"], None, nothing, 10)

    await asyncio.gather(*(one(index) for index in range(2_000)))
    (after,) = await provider.drill("stats")
    spent: Any = after["cpu_s"] - before["cpu_s"]
    assert spent / 10_000 < 0.000_1
