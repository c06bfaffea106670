"""The vendors' own SDKs, told no: the same table as of the thin adapters, and how often
each asked."""

from __future__ import annotations

import asyncio

import pytest

from shardagent import providers
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Wanted
from tests.shardagent.providers.test_failures import KEY, REFUSALS, refusal
from tests.shardagent.providers.test_http import saying, serving
from tests.vendors.standin import plan_of

pytestmark = [pytest.mark.vendors, pytest.mark.filterwarnings("default")]

SDKS = [
    slug for slug in sorted(providers.OWN) if len(providers.about(slug).transports) > 1
]
# Tensorlake's takes a 504 for an answer, and does not find the sandbox in it.
UNLIKE = {("tensorlake", 504): Cause.PROVIDER_ERROR}
LIMIT_S = 45  # Tensorlake's tries for 30 s to open a connection
LABELS = {"run": "alpha-1", "shard": "0", "attempt": "0", "sandbox": "0"}


@pytest.mark.parametrize("vendor", SDKS)
async def test_each_refusal_has_its_cause_and_is_one_request(vendor: str) -> None:
    answer, asked = "", 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        first = await reader.readuntil(b"\r\n")
        asked += first.startswith(b"POST")  # Daytona's looks for its event channel, too
        await saying(answer)(reader, writer)

    wrong = []
    async with serving(serve) as base:
        for status, said, cause in REFUSALS:
            cause = UNLIKE.get((vendor, status), cause)
            answer, asked = refusal(vendor, status, said), 0
            found = await refused(vendor, base)
            if (found.cause, found.origin, asked) != (cause, Origin.PROVIDER, 1):
                seen = f"{found.cause} of {found.origin}, asked {asked} times"
                wrong.append(f"{status} {said!r} is {cause}, not {seen}: {found}")
    assert wrong == []


@pytest.mark.parametrize("vendor", SDKS)
async def test_one_that_cannot_be_reached_is_the_network(vendor: str) -> None:
    async with serving(saying("")) as base:
        pass  # nobody listens there any more
    found = await refused(vendor, base)
    assert (found.cause, found.origin) == (Cause.NETWORK, Origin.NETWORK), found


async def refused(vendor: str, base: str) -> ProviderError:
    plan = plan_of(vendor, "sdk")
    entries = providers.about(vendor).entries
    account = {e.name: KEY if e.secret else "x" for e in entries if e.required}
    provider = providers.open_provider(vendor, {**account, "endpoint": base}, plan)
    wanted = Wanted(0, LABELS, 600, plan.spec.model_dump())
    try:
        with pytest.raises(ProviderError) as caught:
            async with asyncio.timeout(LIMIT_S):
                await provider.create(wanted, lambda: None)
    finally:
        await provider.close()
    assert KEY not in caught.value.message
    return caught.value
