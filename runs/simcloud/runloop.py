"""Runloop's devboxes, as far as create, wait, execute, shut down and list go."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from runs.simcloud.boxes import Box, Boxes
from runs.simcloud.cloud import Cloud, Refused
from runs.simcloud.web import answer, behind_key, body_of

LONG_POLL_S_MAX = 25.0
PAGE_MAX = 5_000
_REFUSALS = {
    "quota": (429, "Account concurrent devbox limit reached"),
    "capacity": (503, "No capacity available to place devbox"),
    "not_found": (404, "Devbox not found"),
}


def routes(cloud: Cloud) -> list[web.RouteDef]:
    standin = _Standin(cloud)
    found = [
        web.post("/v1/devboxes", standin.create),
        web.post("/v1/devboxes/create_and_await_running", standin.create_and_await),
        web.get("/v1/devboxes", standin.list),
        web.get("/v1/devboxes/{id}", standin.retrieve),
        web.post("/v1/devboxes/{id}/wait_for_status", standin.wait_for_status),
        web.post("/v1/devboxes/{id}/execute", standin.execute),
        web.post("/v1/devboxes/{id}/shutdown", standin.shutdown),
    ]
    return behind_key(cloud, _unauthorised, found)


class _Standin:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._boxes = Boxes(cloud, "dbx_")

    async def create(self, request: web.Request) -> web.Response:
        return await self._create(request, wait_s=0)

    async def create_and_await(self, request: web.Request) -> web.Response:
        return await self._create(request, wait_s=LONG_POLL_S_MAX)

    async def _create(self, request: web.Request, wait_s: float) -> web.Response:
        asked = await body_of(request)
        launch = asked.get("launch_parameters") or {}
        ttl_s = float(launch.get("keep_alive_time_seconds") or 3_600)
        labels = asked.get("metadata") or {}
        try:
            box = await self._boxes.ask(labels, ttl_s, asked)
        except Refused as refused:
            return _refusal(refused)
        if wait_s:
            await self._boxes.wait(box, wait_s)
        return answer(_view(box))

    async def retrieve(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.match_info["id"])
        return answer(_view(box)) if box else _gone()

    async def wait_for_status(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.match_info["id"])
        if box is None:
            return _gone()
        asked = await body_of(request)
        limit_s = min(float(asked.get("timeout_seconds") or 10), LONG_POLL_S_MAX)
        if not await self._boxes.wait(box, limit_s):
            return answer({"message": "timed out waiting for status"}, 408)
        return answer(_view(box))

    async def execute(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.match_info["id"])
        if box is None or not box.inside:
            return _gone()
        asked = await body_of(request)
        limit_s = float(asked.get("optimistic_timeout") or LONG_POLL_S_MAX)
        try:
            code, output = await self._cloud.execute(
                box.inside, [asked["command"]], limit_s
            )
        except Refused as refused:
            return _refusal(refused)
        done = {
            "devbox_id": box.id,
            "execution_id": asked["command_id"],
            "status": "completed",
            "exit_status": code,
            "stdout": output,
            "stderr": "",
        }
        return answer(done)

    async def shutdown(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.match_info["id"])
        if box is None:
            return _gone()
        await self._boxes.destroy(box.id)
        return answer({**_view(box), "status": "shutdown"})

    async def list(self, request: web.Request) -> web.Response:
        rows = [_view(box) for box in await self._boxes.living()]
        wanted = request.query.get("status")
        rows = [row for row in rows if wanted in (None, row["status"])]
        after = request.query.get("starting_after")
        ids = [row["id"] for row in rows]
        first = ids.index(after) + 1 if after in ids else 0
        size = min(int(request.query.get("limit") or 20), PAGE_MAX)
        page = rows[first : first + size]
        return answer({"devboxes": page, "has_more": first + size < len(rows)})


def _view(box: Box) -> dict[str, Any]:
    status = "provisioning" if box.coming else "running"
    if box.refused is not None:
        status = "failure"
    return {
        "id": box.id,
        "name": box.asked.get("name"),
        "status": status,
        "metadata": dict(box.labels),
        "create_time_ms": 0,
        "capabilities": [],
        "launch_parameters": {},
        "state_transitions": [],
        **({"failure_reason": "execution_failed"} if box.refused else {}),
    }


def _refusal(refused: Refused) -> web.Response:
    status, text = _REFUSALS.get(refused.cause, (refused.status, refused.message))
    return answer({"message": text}, status)


def _gone() -> web.Response:
    return answer({"message": "Devbox not found"}, 404)


def _unauthorised() -> web.Response:
    return answer({"message": "Invalid bearer token"}, 401)
