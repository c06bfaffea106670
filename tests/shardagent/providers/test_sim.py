"""The adapter alone, against a stand-in that speaks the protocol; the real world is
in tests/runs/simworld."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Wanted
from shardagent.providers.sim import SimProvider
from shardagent.wire import Plan

PLAN = Plan(provider="sim", sandbox_count=1)
WANTED = Wanted(0, {"run": "alpha"}, 60)
Answer = Callable[[int, str], list[Any] | bytes | None]


def nothing() -> None:
    """Nobody measures the sending."""


class StandIn:
    """Answers by a function; None is silence, bytes are sent as they are."""

    def __init__(self) -> None:
        self.answer: Answer = lambda request_id, verb: [request_id, 0]
        self.connections = 0
        self.address = ""

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        while line := await reader.readline():
            for request_id, verb, *_ in orjson.loads(line):
                hello = verb == "hello"
                said = [request_id, 0] if hello else self.answer(request_id, verb)
                if said == b"":
                    writer.close()
                    return
                if isinstance(said, bytes):
                    writer.write(said)
                elif said is not None:
                    writer.write(orjson.dumps([said]) + b"\n")
        writer.close()


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    stand_in = StandIn()
    server = await asyncio.start_server(stand_in.serve, "127.0.0.1", 0)
    stand_in.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield stand_in
    server.close()
    await server.wait_closed()


@pytest.fixture
async def provider(stand_in: StandIn) -> AsyncIterator[SimProvider]:
    provider = SimProvider({"address": stand_in.address, "secret": "s"}, PLAN)
    yield provider
    await provider.close()
    await asyncio.sleep(0.01)


async def failure(call: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await call
    return caught.value


async def test_only_a_cold_create_reports_its_connect_time(
    stand_in: StandIn, provider: SimProvider
) -> None:
    stand_in.answer = lambda request_id, verb: [request_id, 0, "sim-1"]
    cold = await provider.create(WANTED, nothing)
    warm = await provider.create(WANTED, nothing)
    assert (cold.reused, warm.reused) == (False, True)
    assert cold.connect_us is not None
    assert warm.connect_us is None
    assert stand_in.connections == 1


@pytest.mark.parametrize(
    "cause", ["rate_limited", "quota", "capacity", "provider_error", "not_found"]
)
async def test_the_worlds_causes_pass_unchanged(
    stand_in: StandIn, provider: SimProvider, cause: str
) -> None:
    stand_in.answer = lambda request_id, verb: [request_id, 1, cause, 429, "no"]
    error = await failure(provider.create(WANTED, nothing))
    assert (error.cause, error.origin) == (Cause(cause), Origin.PROVIDER)
    assert (error.status, error.message) == (429, "no")


async def test_a_lost_connection_fails_all_calls_and_is_made_anew(
    stand_in: StandIn, provider: SimProvider
) -> None:
    stand_in.answer = lambda request_id, verb: b"" if verb == "destroy" else None
    waiting = asyncio.create_task(provider.create(WANTED, nothing))
    await asyncio.sleep(0.02)
    errors = [
        await failure(provider.destroy("sim-1", nothing)),
        await failure(waiting),
    ]
    assert {(error.cause, error.origin) for error in errors} == {
        (Cause.NETWORK, Origin.NETWORK)
    }
    stand_in.answer = lambda request_id, verb: [request_id, 0]
    await provider.destroy("sim-1", nothing)
    assert stand_in.connections == 2


@pytest.mark.parametrize("nonsense", [b"nonsense\n", b"5\n", b"[]\n", b'["x"]\n'])
async def test_nonsense_is_a_network_failure(
    stand_in: StandIn, provider: SimProvider, nonsense: bytes
) -> None:
    stand_in.answer = lambda request_id, verb: nonsense
    error = await failure(provider.destroy("sim-1", nothing))
    assert error.cause is Cause.NETWORK


async def test_nobody_listening_is_a_network_failure() -> None:
    provider = SimProvider({"address": "unix:/nowhere", "secret": "s"}, PLAN)
    error = await failure(provider.warm(1))
    assert (error.cause, error.origin) == (Cause.NETWORK, Origin.NETWORK)
    await provider.close()


async def test_an_answer_after_its_caller_gave_up_is_ignored(
    stand_in: StandIn, provider: SimProvider
) -> None:
    held: list[int] = []

    def answer(request_id: int, verb: str) -> list[Any] | bytes | None:
        if verb == "create":
            held.append(request_id)
            return None
        return orjson.dumps([[held[0], 0, "sim-late"], [request_id, 0]]) + b"\n"

    stand_in.answer = answer
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await provider.create(WANTED, nothing)
    await provider.destroy("sim-1", nothing)


async def test_many_calls_share_one_connection(
    stand_in: StandIn, provider: SimProvider
) -> None:
    stand_in.answer = lambda request_id, verb: [request_id, 0, f"sim-{request_id}"]
    sent: list[int] = []
    creates = [provider.create(WANTED, lambda: sent.append(1)) for _ in range(200)]
    created = await asyncio.gather(*creates)
    assert len({each.provider_id for each in created}) == 200
    assert len(sent) == 200
    assert stand_in.connections == 1


async def test_an_answer_before_an_unintelligible_one_in_the_same_read_counts(
    stand_in: StandIn,
) -> None:
    stand_in.answer = lambda request_id, verb: b'[[%d,0,"box"]]\n[oh no\n' % request_id
    provider = SimProvider({"address": stand_in.address, "secret": "s"}, PLAN)
    made = await provider.create(WANTED, nothing)
    assert made.provider_id == "box"
    await provider.create(WANTED, nothing)
    assert stand_in.connections == 2  # the first was given up
    await provider.close()
