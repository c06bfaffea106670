"""Every documented failure, at every vendor: through the adapter itself, in the
vendor's own wrapping, and what its cause and origin are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from shardagent import providers
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Provider, Wanted
from shardagent.wire import Plan
from tests.shardagent.providers.test_http import HTML, Serve, head, saying, serving

KEY = "a-key-of-the-test"
A, Q, R, C = Cause.AUTH, Cause.QUOTA, Cause.RATE_LIMITED, Cause.CAPACITY
BAD, N, P, T = (
    Cause.INVALID_REQUEST,
    Cause.NOT_FOUND,
    Cause.PROVIDER_ERROR,
    Cause.TIMEOUT,
)
# How each vendor wraps what it says: (status, words) → body.
WRAPPED: dict[str, Callable[[int, str], Any]] = {
    "agent-sandbox": lambda status, said: {
        "kind": "Status",
        "status": "Failure",
        "message": said,
        "code": status,
    },
    "blaxel": lambda status, said: {
        "code": "SOME_CODE",
        "message": said,
        "status_code": status,
    },
    "daytona": lambda status, said: {
        "statusCode": status,
        "message": said,
        "error": "Some Error",
    },
    "e2b": lambda status, said: {"code": status, "message": said},
    "northflank": lambda status, said: {"error": {"status": status, "message": said}},
    "novita": lambda status, said: {"code": status, "message": said},
    "runloop": lambda status, said: {"message": said},
    "tensorlake": lambda status, said: {"code": "SOME_CODE", "error": said},
    "vercel": lambda status, said: {"error": {"code": "some_code", "message": said}},
}
# (status, words, cause): the same of all, whatever wraps it.
REFUSALS = [
    (400, "a field is wrong", BAD),
    (401, "who are you", A),
    (402, "payment required", Q),
    (403, "this key may not", A),
    (403, "quota exceeded for this account", Q),
    (404, "no such image", BAD),
    (409, "a sandbox with this name exists", BAD),
    (409, "concurrency limit reached", Q),
    (422, "memory: not a valid value", BAD),
    (429, "Too Many Requests", R),
    (429, "maximum number of concurrent sandboxes reached", Q),
    (500, "internal error", P),
    (502, "bad gateway", P),
    (503, "service unavailable", P),
    (503, "no capacity available", C),
    (504, "upstream timed out", T),
]
# Of a command to a sandbox that is no more: (vendor, status, words).
GONE = [
    ("agent-sandbox", 404, "the server could not find the requested resource"),
    ("blaxel", 404, "Sandbox not found"),
    ("daytona", 400, "Sandbox is not running"),
    ("daytona", 404, "Sandbox not found"),
    ("e2b", 502, "The sandbox was not found"),
    ("northflank", 404, "Service not found"),
    ("novita", 502, "The sandbox was not found"),
    ("runloop", 400, "Devbox is not running: shutdown"),
    ("tensorlake", 404, "sandbox not found (SANDBOX_NOT_FOUND)"),
    ("vercel", 410, "The sandbox session has stopped"),
]


def opened(vendor: str, base: str) -> tuple[Provider, Wanted]:
    about = providers.about(vendor)
    plan = Plan.model_validate({"provider": vendor, "sandbox_count": 1, **about.plan})
    account = {e.name: KEY if e.secret else "x" for e in about.entries if e.required}
    provider = providers.open_provider(vendor, {**account, "endpoint": base}, plan)
    labels = {"run": "alpha-1", "shard": "0", "attempt": "0", "sandbox": "0"}
    return provider, Wanted(0, labels, 600, plan.spec.model_dump())


async def create_failure(vendor: str, base: str) -> ProviderError:
    provider, wanted = opened(vendor, base)
    try:
        return await failure_of(provider, wanted)
    finally:
        await provider.close()


async def failure_of(provider: Provider, wanted: Wanted) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        async with asyncio.timeout(5):
            await provider.create(wanted, lambda: None)
    assert KEY not in caught.value.message
    return caught.value


def refusal(vendor: str, status: int, said: str, *extra: str) -> str:
    body = json.dumps(WRAPPED[vendor](status, said))
    lines = "".join(f"{line}\r\n" for line in extra)
    first, rest = head(f"{status} X", len(body)).split("\r\n", 1)
    return f"{first}\r\n{lines}Connection: close\r\n{rest}{body}"


def refusing(vendor: str, status: int, said: str, *extra: str) -> Serve:
    return saying(refusal(vendor, status, said, *extra))


def test_every_thin_vendor_is_here() -> None:
    speak_rest = {slug for slug in providers.OWN if providers.about(slug).stand_in} - {
        "modal"
    }  # gRPC; tests/vendors
    assert speak_rest == set(WRAPPED) == {vendor for vendor, *_ in GONE}


@pytest.mark.parametrize("vendor", WRAPPED)
async def test_each_refusal_of_a_create(vendor: str) -> None:
    answer = ""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(answer)(reader, writer)

    async with serving(serve) as base:
        provider, wanted = opened(vendor, base)
        for status, said, cause in REFUSALS:
            answer = refusal(vendor, status, said)
            found = await failure_of(provider, wanted)
            seen = found.cause, found.origin, found.status
            assert seen == (cause, Origin.PROVIDER, status), said
            assert said in found.message
        await provider.close()


@pytest.mark.parametrize("vendor", WRAPPED)
async def test_retry_after_is_kept_with_the_vendors_words(vendor: str) -> None:
    async with serving(refusing(vendor, 429, "slow down", "Retry-After: 7")) as base:
        found = await create_failure(vendor, base)
    assert found.cause is R
    assert "slow down" in found.message
    assert "(Retry-After: 7)" in found.message


@pytest.mark.parametrize("vendor", WRAPPED)
@pytest.mark.parametrize(
    ("serve", "cause", "origin"),
    [
        (saying(head("200 OK", len(HTML), "text/html") + HTML), P, Origin.PROVIDER),
        (saying(head("502 Bad", len(HTML), "text/html") + HTML), P, Origin.PROVIDER),
        (saying(head("200 OK", 2) + "{}"), P, Origin.PROVIDER),
        (saying(head("200 OK", 50) + '{"id": '), Cause.NETWORK, Origin.NETWORK),
        (saying("", cut=True), Cause.NETWORK, Origin.NETWORK),
    ],
    ids=["HTML", "HTML with 502", "another JSON", "half a body", "reset"],
)
async def test_each_answer_that_is_none(
    vendor: str, serve: Serve, cause: Cause, origin: Origin
) -> None:
    async with serving(serve) as base:
        found = await create_failure(vendor, base)
    assert (found.cause, found.origin) == (cause, origin)


@pytest.mark.parametrize("vendor", WRAPPED)
async def test_a_vendor_that_cannot_be_reached_is_the_network(vendor: str) -> None:
    found = await create_failure(vendor, "http://nobody.invalid")
    assert (found.cause, found.origin) == (Cause.NETWORK, Origin.NETWORK)
    assert found.message.startswith("DNS")


@pytest.mark.parametrize(("vendor", "status", "said"), GONE)
async def test_a_sandbox_that_is_gone(vendor: str, status: int, said: str) -> None:
    async with serving(refusing(vendor, status, said)) as base:
        provider, _ = opened(vendor, base)
        where = f"box {base}" if vendor == "blaxel" else "box/session"
        try:
            with pytest.raises(ProviderError) as caught:
                await provider.execute(where, ["true"], lambda: None, 5)
        finally:
            await provider.close()
    assert (caught.value.cause, caught.value.origin) == (N, Origin.PROVIDER)
