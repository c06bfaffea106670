"""E2B's control API and its sandboxes' daemon, as far as create, run, kill, list go."""

from __future__ import annotations

import base64
import struct
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from runs.simcloud.cloud import Cloud, Refused
from runs.simcloud.web import answer, behind_key, body_of

PAGE_MAX = 100
_REFUSALS = {
    "rate_limited": (429, "Rate limit exceeded, please try again later"),
    "quota": (
        429,
        "you have reached the maximum number of concurrent E2B sandboxes",
    ),
    "capacity": (503, "Failed to place sandbox: no nodes available"),
    "not_found": (502, "The sandbox was not found"),
    "auth": (401, "Invalid API key"),
}


def routes(cloud: Cloud) -> list[web.RouteDef]:
    """Both services on one address, as E2B_API_URL and E2B_SANDBOX_URL allow."""
    standin = _Standin(cloud)
    found = [
        web.post("/v2/sandboxes", standin.create),
        web.post("/sandboxes", standin.create),
        web.get("/v2/sandboxes", standin.list),
        web.delete("/sandboxes/{id}", standin.kill),
        web.post("/sandboxes/{id}/timeout", standin.set_timeout),
        web.post("/sandboxes/{id}/connect", standin.connect),
        web.post("/v2/sandboxes/{id}/connect", standin.connect),
    ]
    return [
        *behind_key(cloud, _unauthorised, found, header="X-API-KEY"),
        # A sandbox's daemon has a token of its own.
        web.post("/process.Process/Start", standin.start),
        web.get("/health", standin.health),
    ]


class _Standin:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def create(self, request: web.Request) -> web.Response:
        asked = await body_of(request)
        try:
            made = await self._cloud.create(
                asked.get("metadata") or {}, float(asked.get("timeout") or 15)
            )
        except Refused as refused:
            return _refusal(refused)
        return answer(_joined(asked["templateID"], made), 201)

    async def connect(self, request: web.Request) -> web.Response:
        sandbox = request.match_info["id"]
        if not self._cloud.is_alive(sandbox):
            return answer({"code": 404, "message": "Sandbox not found"}, 404)
        return answer(_joined("base", sandbox))

    async def list(self, request: web.Request) -> web.Response:
        wanted = dict(parse_qsl(request.query.get("metadata", "")))
        first = int(request.query.get("nextToken") or 0)
        size = min(int(request.query.get("limit") or PAGE_MAX), PAGE_MAX)
        living = await self._cloud.living(wanted)
        now = datetime.now(UTC)
        rows = [
            {
                "templateID": "base",
                "sandboxID": provider_id,
                "clientID": "standin",
                "startedAt": now.isoformat(),
                "endAt": (now + timedelta(seconds=60)).isoformat(),
                "cpuCount": 2,
                "memoryMB": 512,
                "diskSizeMB": 1024,
                "state": "running",
                "envdVersion": "0.6.4",
                "metadata": labels,
            }
            for provider_id, labels in living[first : first + size]
        ]
        more = first + size < len(living)
        headers = {"X-Next-Token": str(first + size)} if more else {}
        return answer(rows, headers=headers)

    async def kill(self, request: web.Request) -> web.Response:
        if await self._cloud.destroy(request.match_info["id"]):
            return web.Response(status=204)
        return answer({"code": 404, "message": "Sandbox not found"}, 404)

    async def set_timeout(self, request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def health(self, request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def start(self, request: web.Request) -> web.Response:
        """process.Process/Start of the daemon: Connect's streaming with JSON."""
        sandbox = request.headers.get("E2b-Sandbox-Id") or (
            request.headers.get("X-Access-Token", "").removeprefix("ea_")
        )
        if not self._cloud.is_alive(sandbox):
            return _refusal(Refused("not_found", 502, ""), sandbox)
        if request.headers.get("X-Access-Token") != f"ea_{sandbox}":
            return answer({"code": "unauthenticated", "message": "no token"}, 401)
        body = await request.read()
        _, size = struct.unpack_from(">BI", body)
        process = orjson.loads(body[5 : 5 + size])["process"]
        timeout_ms = float(request.headers.get("Connect-Timeout-Ms") or 60_000)
        argv = [process["cmd"], *process.get("args", [])]
        try:
            code, output = await self._cloud.execute(sandbox, argv, timeout_ms / 1_000)
        except Refused as refused:
            return _refusal(refused, sandbox)
        data = base64.b64encode(output.encode()).decode()
        end = {"exited": True, "status": f"exit status {code}"}
        if code:
            end |= {"exitCode": code, "error": f"exit status {code}"}
        events: list[dict[str, Any]] = [{"start": {"pid": 42}}]
        if output:
            events.append({"data": {"stdout": data}})
        events.append({"end": end})
        stream = b"".join(_envelope(0, {"event": event}) for event in events)
        return web.Response(
            body=stream + _envelope(2, {}),
            content_type="application/connect+json",
        )


def _joined(template: str, sandbox: str) -> dict[str, str]:
    return {
        "templateID": template,
        "sandboxID": sandbox,
        "clientID": "standin",
        "envdVersion": "0.6.4",
        "envdAccessToken": f"ea_{sandbox}",
    }


def _refusal(refused: Refused, sandbox: str = "") -> web.Response:
    status, message = _REFUSALS.get(refused.cause, (refused.status, refused.message))
    body: dict[str, Any] = {"code": status, "message": message}
    if sandbox:
        body["sandboxId"] = sandbox
    return answer(body, status)


def _unauthorised() -> web.Response:
    return _refusal(Refused("auth", 401, ""))


def _envelope(flag: int, message: object) -> bytes:
    packed = orjson.dumps(message)
    return struct.pack(">BI", flag, len(packed)) + packed
