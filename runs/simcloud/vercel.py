"""Vercel's sandboxes and sessions, as far as create, run, destroy and list go."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from runs.simcloud.boxes import Box, Boxes
from runs.simcloud.cloud import Cloud, Refused
from runs.simcloud.web import answer, behind_key, body_of

PAGE_MAX = 100
WAIT_S = 600.0  # a command to a pending session waits for it
_REFUSALS = {
    "rate_limited": (429, "rate_limited", "Rate limit exceeded"),
    "quota": (429, "concurrency_limit", "Maximum number of concurrent sandboxes"),
    "capacity": (503, "no_capacity", "No capacity available, try again later"),
    "not_found": (410, "sandbox_stopped", "The sandbox session has stopped"),
    "conflict": (409, "conflict", "A sandbox with this name already exists"),
}


def routes(cloud: Cloud) -> list[web.RouteDef]:
    standin = _Standin(cloud)
    found = [
        web.post("/v3/sandboxes", standin.create),
        web.get("/v2/sandboxes", standin.list),
        web.get("/v2/sandboxes/{name}", standin.get),
        web.delete("/v2/sandboxes/{name}", standin.destroy),
        web.post("/v2/sandboxes/sessions/{session}/cmd", standin.run),
        web.post("/v2/sandboxes/sessions/{session}/stop", standin.stop),
    ]
    return behind_key(cloud, _unauthorised, found)


class _Standin:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._boxes = Boxes(cloud, "sbx-")
        self._count = 0

    async def create(self, request: web.Request) -> web.Response:
        asked = await body_of(request)
        self._count += 1
        name = str(asked.get("name") or f"standin-{self._count}")
        ttl_s = float(asked.get("timeout") or 300_000) / 1_000
        labels = asked.get("tags") or {}
        try:
            box = await self._boxes.ask(labels, ttl_s, asked, key=name)
        except Refused as refused:
            return _refusal(refused)
        return answer(_shown(box), 201)

    async def get(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.match_info["name"])
        return answer(_shown(box)) if box else _gone()

    async def destroy(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.match_info["name"])
        if box is None:
            return _gone()
        await self._boxes.destroy(box.id)
        return answer(_shown(box))

    async def stop(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(_name(request))
        if box is None:
            return _refusal(Refused("not_found", 410, ""))
        await self._boxes.destroy(box.id)
        shown = _shown(box)
        shown["session"]["status"] = "stopped"
        return answer(shown)

    async def list(self, request: web.Request) -> web.Response:
        prefix = request.query.get("namePrefix", "")
        tag, _, value = request.query.get("tags", "").partition(":")
        boxes = [
            box
            for box in await self._boxes.living()
            if box.id.startswith(prefix) and (not tag or box.labels.get(tag) == value)
        ]
        first = int(request.query.get("cursor") or 0)
        size = min(int(request.query.get("limit") or 20), PAGE_MAX)
        more = first + size < len(boxes)
        page = [_shown(box)["sandbox"] for box in boxes[first : first + size]]
        pagination = {"count": len(page), "next": str(first + size) if more else None}
        return answer({"sandboxes": page, "pagination": pagination})

    async def run(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(_name(request))
        if box is None or not await self._boxes.wait(box, WAIT_S) or not box.inside:
            return _refusal(Refused("not_found", 410, ""))
        asked = await body_of(request)
        command = [asked["command"], *(asked.get("args") or [])]
        limit_s = float(asked.get("timeout") or 60_000) / 1_000
        try:
            code, output = await self._cloud.execute(box.inside, command, limit_s)
        except Refused as refused:
            return _refusal(refused)
        begun = {
            "id": "cmd_standin",
            "name": command[0],
            "args": command[1:],
            "cwd": "/vercel/sandbox",
            "sessionId": _session(box),
            "startedAt": 1,
            "exitCode": None,
        }
        records: list[dict[str, Any]] = [{"command": begun}]
        if output:
            records.append({"stream": "stdout", "data": output})
        records.append({"command": {**begun, "exitCode": code}})
        return web.Response(
            body=b"".join(
                orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
                for record in records
            ),
            content_type="application/x-ndjson",
        )


def _shown(box: Box) -> dict[str, Any]:
    status = "pending" if box.coming else "running"
    if box.refused is not None:
        status = "failed"
    sandbox = {
        "name": box.id,
        "currentSessionId": _session(box),
        "status": status,
        "persistent": False,
        "projectId": box.asked.get("projectId"),
        "cwd": "/vercel/sandbox",
        "region": "iad1",
        "tags": dict(box.labels),
        "createdAt": 1,
        "updatedAt": 1,
    }
    session = {
        "id": _session(box),
        "sourceSandboxName": box.id,
        "projectId": box.asked.get("projectId"),
        "status": status,
        "cwd": "/vercel/sandbox",
    }
    return {"sandbox": sandbox, "session": session, "routes": []}


def _session(box: Box) -> str:
    return f"sbs_{box.id}"


def _name(request: web.Request) -> str:
    return request.match_info["session"].removeprefix("sbs_")


def _refusal(refused: Refused) -> web.Response:
    known = (refused.status, "internal_error", refused.message)
    status, code, text = _REFUSALS.get(refused.cause, known)
    return answer({"error": {"code": code, "message": text}}, status)


def _gone() -> web.Response:
    return answer({"error": {"code": "not_found", "message": "Sandbox not found"}}, 404)


def _unauthorised() -> web.Response:
    return answer({"error": {"code": "forbidden", "message": "Not authorized"}}, 403)
