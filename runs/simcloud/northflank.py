"""Northflank's deployment services and their exec sockets, as far as create, run,
delete and list go."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import WSMsgType, web

from runs.simcloud.boxes import Box, Boxes
from runs.simcloud.cloud import Cloud, Refused
from runs.simcloud.web import answer, behind_key, body_of

PAGE_MAX = 100
EXEC_S = 600.0
TTL_S = 7 * 24 * 3_600.0
_REFUSALS = {
    "rate_limited": (429, "Rate limit exceeded. Try again later."),
    "quota": (403, "Your account has reached the maximum number of services."),
    "capacity": (503, "Insufficient capacity in this region."),
    "not_found": (404, "Service not found."),
    "conflict": (409, "A service with this name already exists."),
}


def routes(cloud: Cloud) -> list[web.RouteDef]:
    standin = _Standin(cloud)
    found: list[web.RouteDef] = []
    for scope in ("projects/{project}", "teams/{team}/projects/{project}"):
        every = f"/v1/{scope}/services"
        found += behind_key(
            cloud,
            _unauthorised,
            [
                web.post(every + "/deployment", standin.create),
                web.get(every, standin.list),
                web.get(every + "/{id}", standin.get),
                web.delete(every + "/{id}", standin.delete),
            ],
        )
        exec_ = f"/v1/command-exec/{scope}/services/{{id}}"
        found.append(web.get(exec_, standin.execute))  # its first message has the key
    return found


class _Standin:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._boxes = Boxes(cloud, "service-")

    async def create(self, request: web.Request) -> web.Response:
        asked = await body_of(request)
        options = asked.get("createOptions") or {}
        name = str(asked["name"])
        try:
            box = await self._boxes.ask(
                {}, float(options.get("expiryTime") or TTL_S), asked, name=name
            )
        except Refused as refused:
            return _refusal(refused)
        return answer({"data": _shown(box)})

    async def get(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.match_info["id"])
        return answer({"data": _shown(box)}) if box else _gone()

    async def delete(self, request: web.Request) -> web.Response:
        if await self._boxes.destroy(request.match_info["id"]):
            return answer({"data": {}})
        return _gone()

    async def list(self, request: web.Request) -> web.Response:
        rows = [_shown(box) for box in await self._boxes.living()]
        first = int(request.query.get("cursor") or 0)
        size = min(int(request.query.get("per_page") or 50), PAGE_MAX)
        more = first + size < len(rows)
        page = rows[first : first + size]
        pagination: dict[str, Any] = {"hasNextPage": more, "count": len(page)}
        pagination |= {"cursor": str(first + size)} if more else {}
        return answer({"data": {"services": page}, "pagination": pagination})

    async def execute(self, request: web.Request) -> web.StreamResponse:
        """A WebSocket for one command; its first message says who asks."""
        box = await self._boxes.find(request.match_info["id"])
        if box is None or not box.inside:
            return _gone()
        socket = web.WebSocketResponse(max_msg_size=1_048_576)
        await socket.prepare(request)
        first = await socket.receive(timeout=EXEC_S)
        if first.type is not WSMsgType.TEXT:
            await socket.close()
            return socket
        begin = orjson.loads(first.data)["data"]
        if not self._cloud.knows(begin["auth"].get("apiToken")):
            await _say(socket, "init", {"auth": "failed", "message": "Invalid token"})
            await socket.close()
            return socket
        await _say(socket, "init", {"auth": "successful"})
        command = begin["context"]["command"]
        argv = [command] if isinstance(command, str) else list(command)
        try:
            code, output = await self._cloud.execute(box.inside, argv, EXEC_S)
        except Refused as refused:
            _, text = _REFUSALS.get(refused.cause, (0, refused.message))
            await _say(socket, "error", {"message": text})
        else:
            if output:
                await _say(socket, "stdOut", output)
            status = "Failure" if code else "Success"
            # Its exit code comes as a string.
            done = {"exitCode": str(code), "status": status, "message": ""}
            await _say(socket, "completion", done)
        await socket.close()
        return socket


async def _say(socket: web.WebSocketResponse, kind: str, data: object) -> None:
    await socket.send_str(orjson.dumps({"type": kind, "data": data}).decode())


def _shown(box: Box) -> dict[str, Any]:
    status = "IN_PROGRESS" if box.coming else "COMPLETED"
    if box.refused is not None:
        status = "FAILED"
    return {
        "id": box.id,
        "appId": f"/standin/standin/{box.id}",
        "name": box.name,
        "projectId": "standin",
        "serviceType": "deployment",
        "tags": [],
        "status": {"deployment": {"reason": "DEPLOYING", "status": status}},
    }


def _refusal(refused: Refused) -> web.Response:
    known = (refused.status, refused.message)
    status, text = _REFUSALS.get(refused.cause, known)
    body = {"status": status, "message": text, "id": refused.cause, "details": {}}
    return answer({"error": body}, status)


def _gone() -> web.Response:
    return _refusal(Refused("not_found", 404, ""))


def _unauthorised() -> web.Response:
    body = {"status": 401, "message": "Invalid authentication token.", "id": "auth"}
    return answer({"error": body}, 401)
