"""The HTTP server of a stand-in, and what its handlers share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

import orjson
from aiohttp import web

from runs.simcloud.cloud import Cloud

VENDORS: Mapping[str, str] = {
    "agent-sandbox": "runs.simcloud.agent_sandbox",
    "blaxel": "runs.simcloud.blaxel",
    "daytona": "runs.simcloud.daytona",
    "e2b": "runs.simcloud.e2b",
    "modal": "runs.simcloud.modal",
    "northflank": "runs.simcloud.northflank",
    "novita": "runs.simcloud.novita",
    "runloop": "runs.simcloud.runloop",
    "tensorlake": "runs.simcloud.tensorlake",
    "vercel": "runs.simcloud.vercel",
}
BODY_BYTES_MAX = 1_048_576
BACKLOG = 4_096
SHUTDOWN_S = 1.0
KEEP_S = 600.0

Routes = Callable[[Cloud], Iterable[web.RouteDef]]
Close = Callable[[], Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve(vendor: str, cloud: Cloud, listen: str) -> tuple[str, Close]:
    """Listen on "host:port" (0: any); the address, and what ends it."""
    module = import_module(VENDORS[vendor])
    host, _, port = listen.rpartition(":")
    if hasattr(module, "serve"):  # not HTTP/1.1
        address, close = await module.serve(cloud, host, int(port))
        return address, close
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.add_routes(module.routes(cloud))
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=SHUTDOWN_S, keepalive_timeout=KEEP_S
    )
    await runner.setup()
    site = web.TCPSite(runner, host, int(port), backlog=BACKLOG)
    await site.start()
    where = runner.addresses[0]
    cloud.url = f"http://{where[0]}:{where[1]}"
    return f"{where[0]}:{where[1]}", runner.cleanup


def behind_key(
    cloud: Cloud,
    unauthorised: Callable[[], web.Response],
    routes: Iterable[web.RouteDef],
    *,
    header: str = "Authorization",
) -> list[web.RouteDef]:
    """These routes for who shows the account's key; others hear `unauthorised`."""

    def guarded(handler: Handler) -> Handler:
        async def asked(request: web.Request) -> web.StreamResponse:
            key = request.headers.get(header, "").removeprefix("Bearer ")
            return await handler(request) if cloud.knows(key) else unauthorised()

        return asked

    return [
        web.route(route.method, route.path, guarded(route.handler), **route.kwargs)
        for route in routes
    ]


def answer(
    value: object, status: int = 200, *, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=orjson.dumps(value),
        status=status,
        content_type="application/json",
        headers=headers,
    )


async def body_of(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request; 400 where it is none."""
    try:
        found = orjson.loads(await request.read())
    except ValueError:
        raise web.HTTPBadRequest(text="not JSON") from None
    if not isinstance(found, dict):
        raise web.HTTPBadRequest(text="not a JSON object")
    return found
