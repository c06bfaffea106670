"""Modal's own SDK, told no: what each status means, and that it is asked once."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from shardagent import providers
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Wanted
from tests.vendors.standin import plan_of

pytestmark = [pytest.mark.vendors, pytest.mark.filterwarnings("default")]

SECRET = "standin-secret-0123456789"
LABELS = {"run": "alpha-1", "shard": "0", "attempt": "0", "sandbox": "0"}
A, Q, R, C = Cause.AUTH, Cause.QUOTA, Cause.RATE_LIMITED, Cause.CAPACITY
BAD, N, P, T = (
    Cause.INVALID_REQUEST,
    Cause.NOT_FOUND,
    Cause.PROVIDER_ERROR,
    Cause.TIMEOUT,
)
# (status, words, cause) of a create.
REFUSALS = [
    ("UNAUTHENTICATED", "Token validation failed", A),
    ("PERMISSION_DENIED", "not a member of this workspace", A),
    ("NOT_FOUND", "Image im-nope not found", BAD),
    ("ALREADY_EXISTS", "a sandbox with this name exists", BAD),
    ("INVALID_ARGUMENT", "memory must be at least 128", BAD),
    ("FAILED_PRECONDITION", "the app is stopped", BAD),
    ("RESOURCE_EXHAUSTED", "Rate limit exceeded", R),
    ("RESOURCE_EXHAUSTED", "reached its maximum number of containers", Q),
    ("UNAVAILABLE", "No capacity available for this Sandbox", C),
    ("UNAVAILABLE", "the server is restarting", P),
    ("INTERNAL", "internal error", P),
    ("UNKNOWN", "what was that", P),
    ("DEADLINE_EXCEEDED", "took too long", T),
]


def cloud(status: str, said: str) -> Any:
    """Lets everybody in and refuses each create; counts them."""
    from grpclib.const import Status
    from grpclib.exceptions import GRPCError

    from runs.simcloud.cloud import Cloud

    class Refusing(Cloud):
        def __init__(self) -> None:
            self.url = ""
            self.asked = 0

        def knows(self, key: str | None) -> bool:
            return key == SECRET

        def is_alive(self, provider_id: str) -> bool:
            return False

        async def create(self, *_: Any, **__: Any) -> str:
            self.asked += 1
            raise GRPCError(Status[status], said)

    return Refusing()


async def attempt(address: str, provider_id: str = "") -> ProviderError:
    """A create, or a command to that sandbox: how it failed."""
    plan = plan_of("modal")
    account = {"token_id": SECRET, "token_secret": SECRET}
    config = {**account, "endpoint": f"http://{address}"}
    provider = providers.open_provider("modal", config, plan)
    wanted = Wanted(0, LABELS, 600, plan.spec.model_dump())

    async def ask() -> None:
        if provider_id:
            await provider.execute(provider_id, ["true"], lambda: None, 5)
        else:
            await provider.create(wanted, lambda: None)

    try:
        with pytest.raises(ProviderError) as caught:
            await ask()
    finally:
        await provider.close()
    assert SECRET not in caught.value.message
    return caught.value


@pytest.mark.parametrize(("status", "said", "cause"), REFUSALS)
async def test_each_refusal_has_its_cause_and_is_one_request(
    status: str, said: str, cause: Cause
) -> None:
    from runs.simcloud.modal import serve

    refusing = cloud(status, said)
    address, close = await serve(refusing, "127.0.0.1", 0)
    try:
        found = await attempt(address)
    finally:
        await close()
    assert (found.cause, found.origin) == (cause, Origin.PROVIDER), found
    assert said in found.message
    assert refusing.asked == 1


async def test_a_command_to_one_that_is_gone() -> None:
    from runs.simcloud.modal import serve

    address, close = await serve(cloud("INTERNAL", ""), "127.0.0.1", 0)
    try:
        found = await attempt(address, "sb-gone")
    finally:
        await close()
    assert (found.cause, found.origin) == (N, Origin.PROVIDER), found


async def test_nobody_listening_is_the_network() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = await attempt(f"127.0.0.1:{port}")
    assert (found.cause, found.origin) == (Cause.NETWORK, Origin.NETWORK), found


async def test_the_sdk_works_on_the_loop_of_the_agent() -> None:
    """So that its time is seen by what judges this process; and never on a loop that
    is over, or in a thread that is not the agent's."""
    from runs.simcloud.modal import serve

    threads = set(threading.enumerate())
    address, close = await serve(cloud("INTERNAL", ""), "127.0.0.1", 0)
    try:
        await attempt(address)
        assert set(threading.enumerate()) <= threads
        # In another thread, the SDK has its own.
        found = await asyncio.to_thread(lambda: asyncio.run(attempt(address)))
        assert found.cause is P
        # Which is then used here too, as there can be only one.
        assert (await attempt(address)).cause is P
    finally:
        await close()
