"""Daytona's sandboxes and their toolbox, as far as create, run, delete and list go.

Without a websocket: its SDK then asks for the state again and again, as it does behind
a proxy that lets none through.
"""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from runs.simcloud.boxes import Box, Boxes
from runs.simcloud.cloud import Cloud, Refused
from runs.simcloud.web import answer, behind_key, body_of

PAGE_MAX = 200
_REFUSALS = {
    "rate_limited": (429, "ThrottlerException: Too Many Requests"),
    "quota": (403, "Total CPU limit exceeded. Maximum allowed: 100."),
    "capacity": (400, "No available runners"),
    "not_found": (404, "Sandbox not found"),
}


def routes(cloud: Cloud) -> list[web.RouteDef]:
    standin = _Standin(cloud)
    found = [
        web.post("/sandbox", standin.create),
        web.get("/sandbox", standin.list),
        web.get("/sandbox/{id}", standin.get),
        web.delete("/sandbox/{id}", standin.delete),
        web.post("/toolbox/{id}/process/execute", standin.execute),
    ]
    return behind_key(cloud, _unauthorised, found)


class _Standin:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._boxes = Boxes(cloud, "5b0e7a8c-0000-4000-8000-0000")

    async def create(self, request: web.Request) -> web.Response:
        asked = await body_of(request)
        ttl_s = float(asked.get("ttlMinutes") or 24 * 60) * 60
        try:
            box = await self._boxes.ask(asked.get("labels") or {}, ttl_s, asked)
        except Refused as refused:
            return _refusal(refused)
        return answer(self._view(box))

    async def get(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.match_info["id"])
        return answer(self._view(box)) if box else _gone()

    async def delete(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.match_info["id"])
        if box is None:
            return _gone()
        await self._boxes.destroy(box.id)
        return answer({**self._view(box), "state": "destroyed"})

    async def list(self, request: web.Request) -> web.Response:
        wanted = orjson.loads(request.query.get("labels") or "{}").items()
        boxes = [b for b in await self._boxes.living() if wanted <= b.labels.items()]
        first = int(request.query.get("cursor") or 0)
        size = min(int(float(request.query.get("limit") or 100)), PAGE_MAX)
        more = first + size < len(boxes)
        page = [self._view(box) for box in boxes[first : first + size]]
        following = str(first + size) if more else None
        return answer({"items": page, "nextCursor": following})

    async def execute(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.match_info["id"])
        if box is None or not box.inside:
            return _gone()
        asked = await body_of(request)
        limit_s = float(asked.get("timeout") or 60)
        command = [asked["command"]]
        try:
            code, output = await self._cloud.execute(box.inside, command, limit_s)
        except Refused as refused:
            return _refusal(refused)
        return answer({"exitCode": code, "result": output})

    def _view(self, box: Box) -> dict[str, Any]:
        state = "creating" if box.coming else "started"
        return {
            "id": box.id,
            "organizationId": "standin",
            "name": box.id,
            "snapshot": box.asked.get("snapshot"),
            "user": "daytona",
            "env": {},
            "labels": dict(box.labels),
            "public": False,
            "networkBlockAll": False,
            "kvm": False,
            "target": "us",
            "cpu": 1,
            "gpu": 0,
            "memory": 1,
            "disk": 3,
            "state": "error" if box.refused else state,
            "toolboxProxyUrl": f"{self._cloud.url}/toolbox",
            **({"errorReason": box.refused.message} if box.refused else {}),
        }


def _refusal(refused: Refused) -> web.Response:
    status, text = _REFUSALS.get(refused.cause, (refused.status, refused.message))
    return answer({"statusCode": status, "message": text, "error": "refused"}, status)


def _gone() -> web.Response:
    return _refusal(Refused("not_found", 404, ""))


def _unauthorised() -> web.Response:
    return answer({"statusCode": 401, "message": "Unauthorized"}, 401)
