"""Behaviours of the world, seen through the adapter over a real socket."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from hashlib import sha256
from statistics import median

import pytest

from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Answer
from shardagent.providers.sim import SimProvider
from tests.runs.simworld.worlds import LivingWorld, StartWorld, nothing


async def cause_of(call: Awaitable[object]) -> Cause:
    with pytest.raises(ProviderError) as caught:
        await call
    assert caught.value.origin is Origin.PROVIDER
    return caught.value.cause


async def failure_of(call: Awaitable[object]) -> Cause | None:
    try:
        await call
    except ProviderError as error:
        return error.cause
    return None


async def settle(
    world: LivingWorld, provider: SimProvider, count: int, *, timeout_s: float = 0.5
) -> dict[int, str | Cause]:
    """Creates and readies so many at once: their ids, or why not."""

    async def one(index: int) -> str | Cause:
        try:
            async with asyncio.timeout(timeout_s):
                provider_id = await world.create(provider, index)
                answer = await ready(provider, provider_id)
        except ProviderError as error:
            return error.cause
        except TimeoutError:
            return Cause.TIMEOUT
        return provider_id if answer.exit_code == 0 else Cause.COMMAND_FAILED

    found = await asyncio.gather(*(one(index) for index in range(count)))
    return dict(enumerate(found))


async def ready(provider: SimProvider, provider_id: str) -> Answer:
    return await provider.execute(provider_id, ["node", "-v"], nothing, 10)


async def probe(
    provider: SimProvider, provider_id: str, challenge: str | None = None
) -> Answer:
    return await provider.probe(provider_id, ["true"], challenge, nothing, 10)


async def test_a_life_from_create_to_destroy(start_world: StartWorld) -> None:
    world = await start_world({})
    provider = world.provider()
    assert await provider.warm(4) == 1
    provider_id = await world.create(provider, 3)
    assert (await ready(provider, provider_id)).output.startswith("v")
    assert await probe(provider, provider_id) == Answer(0, "")
    await provider.destroy(provider_id, nothing)
    assert await cause_of(probe(provider, provider_id)) is Cause.NOT_FOUND
    await provider.destroy(provider_id, nothing)  # absent is destroyed
    (line,) = await world.finish()
    assert line["provider_id"] == provider_id
    assert (line["sandbox"], line["create"], line["end"]) == (3, "ok", "destroyed")
    assert line["interactive"] is True
    assert line["asked_us"] <= line["alive_from_us"] <= line["alive_to_us"]
    assert line["asleep"] == []


async def test_the_witness_ticks_and_answers(start_world: StartWorld) -> None:
    world = await start_world({})
    provider = world.provider()
    provider_id = await world.create(provider, 0)
    assert (await probe(provider, provider_id, "c")).digest is None
    await provider.start_witness(provider_id, "nonce", nothing)
    await asyncio.sleep(0.55)
    answer = await probe(provider, provider_id, "challenge")
    assert answer.ticks == 2
    assert answer.digest == sha256(b"noncechallenge").hexdigest()


async def test_each_failure_happens_as_often_as_asked(start_world: StartWorld) -> None:
    faults = {"create_errors": 5, "create_hangs": 4, "late_creates": 3}
    world = await start_world({**faults, "never_ready": 7}, create_timeout_s=0.5)
    provider = world.provider()
    settled = await settle(world, provider, 100, timeout_s=1.2)
    failed = Counter(found for found in settled.values() if isinstance(found, Cause))
    unready = failed.total() - 12
    assert unready == 7
    await asyncio.sleep(0.6)  # the late ones come
    truth = await world.finish()
    assert Counter(line["create"] for line in truth) == {
        "ok": 88,
        "error": 5,
        "timeout": 7,
    }
    late = [line for line in truth if line["create"] == "timeout"]
    assert sum(line["alive_from_us"] is not None for line in late) == 3
    assert sum(line["interactive"] for line in truth) == 81
    for line in truth:  # what the client saw is what the world says
        interactive = not isinstance(settled[line["sandbox"]], Cause)
        assert interactive == line["interactive"]


async def test_deaths_and_a_rack(start_world: StartWorld) -> None:
    parameters = {"deaths": 6, "death_window_s": [0.1, 0.4]}
    world = await start_world({**parameters, "rack_size": 5, "rack_at_s": 0.3})
    provider = world.provider()
    settled = await settle(world, provider, 100)
    await asyncio.sleep(0.6)
    gone = []
    for index, provider_id in settled.items():
        if await failure_of(probe(provider, str(provider_id))) is Cause.NOT_FOUND:
            gone.append(index)
    truth = await world.finish()
    ends = Counter(line["end"] for line in truth)
    assert ends == {"died": 6, "rack": 5, "world_end": 89}
    assert gone == [line["sandbox"] for line in truth if line["end"] != "world_end"]
    at = {line["alive_to_us"] for line in truth if line["end"] == "rack"}
    assert len(at) == 1


async def test_admission_refuses_above_its_rate(start_world: StartWorld) -> None:
    world = await start_world({"rate_per_s": 1, "rate_burst": 10})
    settled = await settle(world, world.provider(), 50)
    refused = Counter(found for found in settled.values() if isinstance(found, Cause))
    assert refused == {Cause.RATE_LIMITED: 40}
    truth = await world.finish()
    assert Counter(line["create"] for line in truth)["rate_limited"] == 40


@pytest.mark.parametrize("limit", ["capacity", "quota"])
async def test_a_ceiling_opens_when_somebody_leaves(
    start_world: StartWorld, limit: str
) -> None:
    world = await start_world({limit: 10})
    provider = world.provider()
    settled = await settle(world, provider, 12)
    living = [found for found in settled.values() if not isinstance(found, Cause)]
    assert len(living) == 10
    assert await cause_of(world.create(provider, 50)) is Cause(limit)
    await provider.destroy(living[0], nothing)
    await world.create(provider, 51)
    truth = await world.finish()
    assert Counter(line["create"] for line in truth) == {"ok": 11, limit: 3}


async def test_a_sleeper_misses_ticks_and_wakes_when_reached(
    start_world: StartWorld,
) -> None:
    world = await start_world({"hibernate_after_s": 0.3})
    provider = world.provider()
    provider_id = await world.create(provider, 0)
    await ready(provider, provider_id)
    await provider.start_witness(provider_id, "n", nothing)
    await asyncio.sleep(1.3)
    answer = await probe(provider, provider_id, "c")
    assert answer.ticks == 1  # of five: awake for 0.3 s
    await asyncio.sleep(0.6)
    (line,) = await world.finish()
    assert len(line["asleep"]) == 2  # the second sleep lasts to the end
    first, second = line["asleep"]
    assert 900_000 < first[1] - first[0] < 1_300_000
    assert second[1] == line["alive_to_us"]


async def test_drills_put_to_sleep_and_kill(start_world: StartWorld) -> None:
    world = await start_world({})
    provider = world.provider()
    sleeper, victim = [await world.create(provider, index) for index in (0, 1)]
    await provider.drill("hibernate", sleeper)
    await provider.drill("kill", victim)
    await asyncio.sleep(0.1)
    assert await cause_of(probe(provider, victim)) is Cause.NOT_FOUND
    await probe(provider, sleeper)
    slept, died = await world.finish()
    assert len(slept["asleep"]) == 1
    assert died["end"] == "died"


async def test_time_to_live_ends_a_life_on_time(start_world: StartWorld) -> None:
    world = await start_world({"ttl_max_s": 0.2})
    provider = world.provider()
    asked = await world.create(provider, 0)
    await world.create(provider, 1)  # nobody asks after it again
    await asyncio.sleep(0.3)
    assert await cause_of(probe(provider, asked)) is Cause.NOT_FOUND
    truth = await world.finish()
    assert [line["end"] for line in truth] == ["ttl", "ttl"]
    lived = [line["alive_to_us"] - line["alive_from_us"] for line in truth]
    assert lived == [200_000, 200_000]


async def test_a_flaky_probe_fails_once(start_world: StartWorld) -> None:
    world = await start_world({"flaky_probes": 3}, sandbox_count=20)
    provider = world.provider()
    settled = await settle(world, provider, 20)
    failures = []
    for _ in range(4):
        for provider_id in settled.values():
            failures.append(await failure_of(probe(provider, str(provider_id))))
    assert Counter(failures) == {Cause.PROVIDER_ERROR: 3, None: 77}
    assert {line["end"] for line in await world.finish()} == {"world_end"}


async def test_a_sandbox_may_refuse_until_it_is_ready(start_world: StartWorld) -> None:
    parameters = {"profile": "e2b", "ready_share": 1, "before_ready": "refuse"}
    world = await start_world(parameters)
    provider = world.provider()
    provider_id = await world.create(provider, 0)
    assert await cause_of(ready(provider, provider_id)) is Cause.PROVIDER_ERROR


async def test_latencies_are_the_drawn_ones_and_repeat(
    start_world: StartWorld,
) -> None:
    parameters = {"profile": "e2b", "latency_scale": 0.5, "slow_shards": 10}
    served = []
    for order in (range(60), reversed(range(60))):
        world = await start_world({**parameters, "slow_factor": 1})
        provider = world.provider()

        async def one(
            index: int,
            world: LivingWorld = world,
            provider: SimProvider = provider,
        ) -> None:
            await ready(provider, await world.create(provider, index))

        await asyncio.gather(*(one(index) for index in order))
        truth = await world.finish()
        served.append([line["create_us"] + line["ready_us"] for line in truth])
    there, back = served
    # The same draws whatever the order: alike but for timers, unlike any neighbour's.
    same = median(abs(a - b) for a, b in zip(there, back, strict=True))
    other = median(abs(a - b) for a, b in zip(there, back[1:], strict=False))
    assert same < other / 2
    assert 200_000 < sorted(there)[30] < 300_000  # half of 489.5 ms
