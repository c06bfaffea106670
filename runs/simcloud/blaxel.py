"""Blaxel's control plane and its sandboxes' own API, as far as create, run, delete and
list go."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from runs.simcloud.boxes import Box, Boxes
from runs.simcloud.cloud import Cloud, Refused
from runs.simcloud.web import answer, behind_key, body_of

PAGE_MAX = 200
CREATE_S = 50.0  # the server waits no longer for a sandbox to be deployed
TTL_S = 24 * 3_600.0
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_REFUSALS = {
    "rate_limited": (429, "TOO_MANY_REQUESTS", "Rate limit exceeded"),
    "quota": (403, "QUOTA_EXCEEDED", "You have reached the sandboxes of your tier"),
    "capacity": (503, "NO_CAPACITY", "No capacity available in this region"),
    "not_found": (404, "SANDBOX_NOT_FOUND", "Sandbox not found"),
    "conflict": (409, "SANDBOX_ALREADY_EXISTS", "Sandbox already exists"),
}


def routes(cloud: Cloud) -> list[web.RouteDef]:
    standin = _Standin(cloud)
    found = [
        web.post("/sandboxes", standin.create),
        web.get("/sandboxes", standin.list),
        web.get("/sandboxes/{name}", standin.get),
        web.delete("/sandboxes/{name}", standin.delete),
        web.post("/run/{name}/process", standin.process),
    ]
    return behind_key(cloud, _unauthorised, found, header="X-Blaxel-Authorization")


class _Standin:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._boxes = Boxes(cloud, "sbx-")

    async def create(self, request: web.Request) -> web.Response:
        asked = await body_of(request)
        about, spec = asked.get("metadata") or {}, asked.get("spec") or {}
        labels = about.get("labels") or {}
        ttl_s = _seconds((spec.get("runtime") or {}).get("ttl"))
        name = str(about.get("name") or "")
        try:
            box = await self._boxes.ask(labels, ttl_s, asked, key=name)
        except Refused as refused:
            return _refusal(refused)
        await self._boxes.wait(box, CREATE_S)
        if box.refused is not None:
            return _refusal(box.refused)
        return answer(self._shown(box))

    async def get(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.match_info["name"])
        return answer(self._shown(box)) if box else _gone()

    async def delete(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.match_info["name"])
        if box is None:
            return _gone()
        await self._boxes.destroy(box.id)
        return answer({**self._shown(box), "status": "DELETING"})

    async def list(self, request: web.Request) -> web.Response:
        rows = [self._shown(box) for box in await self._boxes.living()]
        first = int(request.query.get("cursor") or 0)
        size = min(int(request.query.get("limit") or 50), PAGE_MAX)
        more = first + size < len(rows)
        meta: dict[str, Any] = {"hasMore": more, "total": len(rows)}
        meta |= {"nextCursor": str(first + size)} if more else {}
        return answer({"data": rows[first : first + size], "meta": meta})

    async def process(self, request: web.Request) -> web.Response:
        """Of a sandbox: run a command and wait for its end."""
        box = await self._boxes.find(request.match_info["name"])
        if box is None or not box.inside:
            return _gone()
        asked = await body_of(request)
        command = str(asked["command"])
        limit_s = float(asked.get("timeout") or 60)
        try:
            code, output = await self._cloud.execute(box.inside, [command], limit_s)
        except Refused as refused:
            return _refusal(refused)
        done = {
            "command": command,
            "name": str(asked.get("name") or "proc-standin"),
            "pid": "42",
            "status": "failed" if code else "completed",
            "exitCode": code,
            "stdout": output,
            "stderr": "",
            "logs": output,
            "workingDir": "/blaxel",
            "startedAt": "Tue, 24 Nov 2026 12:00:00 GMT",
            "completedAt": "Tue, 24 Nov 2026 12:00:00 GMT",
        }
        return answer(done)

    def _shown(self, box: Box) -> dict[str, Any]:
        about = {
            "name": box.id,
            "labels": dict(box.labels),
            "workspace": "standin",
            "url": f"{self._cloud.url}/run/{box.id}",
        }
        status = "DEPLOYING" if box.coming else "DEPLOYED"
        spec = box.asked.get("spec") or {}
        return {"metadata": about, "spec": spec, "status": status, "state": "RUNNING"}


def _seconds(said: object) -> float:
    found = re.fullmatch(r"(\d+)([smhdw])", str(said or ""))
    return float(found[1]) * _UNITS[found[2]] if found else TTL_S


def _refusal(refused: Refused) -> web.Response:
    known = (refused.status, "INTERNAL_ERROR", refused.message)
    status, code, text = _REFUSALS.get(refused.cause, known)
    return answer({"code": code, "message": text, "status_code": status}, status)


def _gone() -> web.Response:
    return _refusal(Refused("not_found", 404, ""))


def _unauthorised() -> web.Response:
    body = {"code": "TOKEN_REVOKED", "message": "Authentication failed"}
    return answer({**body, "status_code": 401}, 401)
