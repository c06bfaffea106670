"""Tensorlake's sandboxes and their process API, as far as create, run, delete, list go.

One address for both: the Host header says which sandbox a command is for.
"""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from runs.simcloud.boxes import Box, Boxes
from runs.simcloud.cloud import Cloud, Refused
from runs.simcloud.web import answer, behind_key, body_of

WAIT_S = 300.0  # the server waits so long before it answers "pending"
_REFUSALS = {
    "rate_limited": (429, "RATE_LIMITED", "too many requests"),
    "quota": (403, "QUOTA_EXCEEDED", "quota exceeded: too many sandboxes"),
    "capacity": (503, "NO_CAPACITY", "no capacity available"),
    "not_found": (404, "SANDBOX_NOT_FOUND", "sandbox not found"),
}


def routes(cloud: Cloud) -> list[web.RouteDef]:
    standin = _Standin(cloud)
    every = "/v1/namespaces/{namespace}/sandboxes"
    found = [
        web.post(every, standin.create),
        web.get(every, standin.list),
        web.get(every + "/{id}", standin.get),
        web.delete(every + "/{id}", standin.delete),
        web.post("/api/v1/processes/run", standin.run),
    ]
    return behind_key(cloud, _unauthorised, found)


class _Standin:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._boxes = Boxes(cloud, "sb")

    async def create(self, request: web.Request) -> web.Response:
        asked = await body_of(request)
        ttl_s = float(asked.get("timeout_secs") or 600)
        name = str(asked.get("name") or "")
        try:
            box = await self._boxes.ask({}, ttl_s, asked, name=name)
        except Refused as refused:
            return _refusal(refused)
        if asked.get("wait") is False:
            return answer({"sandbox_id": box.id, "state": "pending"}, 202)
        await self._boxes.wait(box, WAIT_S)
        if box.refused is not None:
            return _refusal(box.refused)
        status = "pending" if box.coming else "running"
        return answer({"sandbox_id": box.id, "status": status})

    async def get(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.match_info["id"])
        return answer(_shown(box)) if box else _gone()

    async def delete(self, request: web.Request) -> web.Response:
        if await self._boxes.destroy(request.match_info["id"]):
            return answer({})
        return _gone()

    async def list(self, request: web.Request) -> web.Response:
        return answer({"sandboxes": [_shown(b) for b in await self._boxes.living()]})

    async def run(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.host.partition(".")[0])
        if box is None or not box.inside:
            return _gone()
        asked = await body_of(request)
        command = [asked["command"], *(asked.get("args") or [])]
        limit_s = float(asked.get("timeout") or 60)
        try:
            code, output = await self._cloud.execute(box.inside, command, limit_s)
        except Refused as refused:
            return _refusal(refused)
        events: list[dict[str, Any]] = [{"pid": 7, "started_at": 1}]
        events += [
            {"line": line, "timestamp": 1, "stream": "stdout"}
            for line in output.splitlines()
        ]
        events.append({"exit_code": code, "reason": "exited"})
        return web.Response(
            body=b"".join(b"data: %s\n\n" % orjson.dumps(event) for event in events),
            content_type="text/event-stream",
        )


def _shown(box: Box) -> dict[str, Any]:
    return {
        "id": box.id,
        "namespace": "default",
        "status": "pending" if box.coming else "running",
        "resources": {"cpus": 1, "memory_mb": 1_024, "disk_mb": 10_240},
        "name": box.name or None,
    }


def _refusal(refused: Refused) -> web.Response:
    known = (refused.status, "INTERNAL", refused.message)
    status, code, text = _REFUSALS.get(refused.cause, known)
    return answer({"code": code, "error": text}, status)


def _gone() -> web.Response:
    return _refusal(Refused("not_found", 404, ""))


def _unauthorised() -> web.Response:
    return answer({"code": "UNAUTHORIZED", "error": "invalid API key"}, 401)
