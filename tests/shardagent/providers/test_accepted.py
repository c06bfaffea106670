"""A create that was accepted is no more refused, whatever the looks at it answer; and
what comes back over a command's WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.agent_sandbox import bound_to
from shardagent.providers.rest import LOOK_AGAIN_S
from tests.shardagent.providers.test_failures import opened

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """Every request to one handler."""
    runner = web.ServerRunner(web.Server(handler))  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def shown(vendor: str, ready: bool) -> dict[str, Any]:  # noqa: FBT001
    match vendor:
        case "daytona":
            return {"id": "box", "state": "started" if ready else "creating"}
        case "runloop":
            return {"id": "box", "status": "running" if ready else "provisioning"}
        case _:
            status = "running" if ready else "pending"
            box = {"name": "box", "currentSessionId": "s", "status": status}
            return {"sandbox": box}


@pytest.mark.parametrize("vendor", ["daytona", "runloop", "vercel"])
async def test_a_refused_look_decides_nothing(vendor: str) -> None:
    looks = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal looks
        if request.method == "POST" and not request.path.endswith("wait_for_status"):
            return web.json_response(shown(vendor, ready=False))
        looks += 1
        if looks == 1:
            return web.json_response({"message": "slow down"}, status=429)
        return web.json_response(shown(vendor, ready=True))

    async with serving(handler) as base:
        provider, wanted = opened(vendor, base)
        async with asyncio.timeout(LOOK_AGAIN_S + 5):
            made = await provider.create(wanted, lambda: None)
        await provider.close()
    assert made.provider_id.startswith("box")
    assert looks == 2


async def test_one_that_is_gone_while_we_look_is_the_vendors_fault() -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.method == "POST":
            return web.json_response(shown("daytona", ready=False))
        return web.json_response({"message": "not found"}, status=404)

    async with serving(handler) as base:
        provider, wanted = opened("daytona", base)
        with pytest.raises(ProviderError) as caught:
            await provider.create(wanted, lambda: None)
        await provider.close()
    # No refusal: it was there, so it may be billed, and is looked for.
    assert caught.value.cause is Cause.PROVIDER_ERROR
    assert "gone" in caught.value.message


def claim(name: str, *conditions: dict[str, str]) -> dict[str, Any]:
    status = {"conditions": list(conditions), "sandbox": {"name": f"{name}-x"}}
    return {"metadata": {"name": name}, "status": status}


async def test_a_watch_that_is_refused_is_no_refused_claim() -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.method == "POST":
            about = (await request.json())["metadata"]
            return web.json_response({"metadata": about}, status=201)
        return web.json_response({"message": "may not watch"}, status=403)

    async with serving(handler) as base:
        provider, wanted = opened("agent-sandbox", base)
        with pytest.raises(ProviderError) as caught:
            await provider.create(wanted, lambda: None)
        await provider.close()
    assert caught.value.cause is Cause.PROVIDER_ERROR
    assert "may not watch" in caught.value.message


async def test_a_watch_that_ends_is_begun_anew() -> None:
    watches = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal watches
        if request.method == "POST":
            about = (await request.json())["metadata"]
            return web.json_response({"metadata": about}, status=201)
        watches += 1
        stream = web.StreamResponse()
        await stream.prepare(request)
        gone: dict[str, Any] = {"type": "ERROR", "object": {"code": 410}}
        ready = {"type": "Ready", "status": "True"}
        bound = {"type": "MODIFIED", "object": claim("hf-alpha-1-0-0-0", ready)}
        event = gone if watches == 1 else bound
        await stream.write(json.dumps(event).encode() + b"\n")
        return stream

    async with serving(handler) as base:
        provider, wanted = opened("agent-sandbox", base)
        async with asyncio.timeout(5):
            made = await provider.create(wanted, lambda: None)
        await provider.close()
    assert made.provider_id == "hf-alpha-1-0-0-0/hf-alpha-1-0-0-0-x"
    assert watches == 2


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("WarmPoolNotFound", Cause.INVALID_REQUEST),
        ("TemplateNotFound", Cause.INVALID_REQUEST),
        ("PodFailed", Cause.PROVIDER_ERROR),
        ("ClaimExpired", Cause.PROVIDER_ERROR),
    ],
)
def test_a_claim_that_will_never_be_ready(reason: str, cause: Cause) -> None:
    condition = {"type": "Ready", "status": "False", "reason": reason}
    with pytest.raises(ProviderError) as caught:
        bound_to(claim("a", condition))
    assert caught.value.cause is cause


@pytest.mark.parametrize(
    "conditions",
    [
        (),
        ({"type": "Ready", "status": "False", "reason": "AdoptionPending"},),
        ({"type": "Ready", "status": "Unknown"},),
        ({"type": "Scheduled", "status": "True"},),
    ],
)
def test_a_claim_that_may_still_be_ready(conditions: tuple[dict[str, str]]) -> None:
    assert bound_to(claim("a", *conditions)) == ""


OK = {"type": "init", "data": {"auth": "successful"}}
TOKEN = {"auth": "failed", "message": "Invalid token"}


@pytest.mark.parametrize(
    ("frames", "cause", "words"),
    [
        ([{"type": "init", "data": TOKEN}], Cause.AUTH, "Invalid token"),
        ([OK, {"type": "error", "data": {"message": "no running instances"}}],)
        + (Cause.NOT_FOUND, "no running instances"),
        ([OK, {"type": "error", "data": {"message": "boom"}}],)
        + (Cause.PROVIDER_ERROR, "boom"),
        ([OK], Cause.PROVIDER_ERROR, "no end"),
        (["no JSON"], Cause.PROVIDER_ERROR, "no JSON object"),
        ([OK, {"type": "completion", "data": {"status": "Unknown"}}],)
        + (Cause.PROVIDER_ERROR, "Unknown"),
    ],
    ids=["token", "gone", "error", "cut", "no JSON", "no exit code"],
)
async def test_what_goes_wrong_in_a_commands_socket(
    frames: list[Any], cause: Cause, words: str
) -> None:
    asked: list[Any] = []

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        asked.append((await socket.receive()).json())
        for frame in frames:
            await socket.send_str(
                frame if isinstance(frame, str) else json.dumps(frame)
            )
        await socket.close()
        return socket

    sent: list[int] = []
    async with serving(handler) as base:
        provider, _ = opened("northflank", base)
        with pytest.raises(ProviderError) as caught:
            await provider.execute("box", ["node", "-v"], lambda: sent.append(1), 5)
        await provider.close()
    assert caught.value.cause is cause
    assert caught.value.origin is Origin.PROVIDER
    assert words in caught.value.message
    assert sent == [1]
    assert asked[0]["data"]["context"]["command"] == ["node", "-v"]
