"""A Kubernetes API server that knows claims on sandboxes alone, and their router.

Claims are made, watched, listed and deleted; commands go to the router itself or by way
of the API server's proxy.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from runs.simcloud.boxes import Box, Boxes
from runs.simcloud.cloud import Cloud, Refused
from runs.simcloud.web import answer, behind_key, body_of

GROUP = "extensions.agents.x-k8s.io"
CORE = "agents.x-k8s.io"
PAGE_MAX = 500
EVENTS_MAX = 100_000  # that wait for one who watches
WATCH_S = 600.0
TTL_S = 3_600.0
_REFUSALS = {
    "rate_limited": (
        429,
        "TooManyRequests",
        "Too many requests, please try again later.",
    ),
    "quota": (
        403,
        "Forbidden",
        'sandboxclaims.extensions.agents.x-k8s.io "x" is forbidden: exceeded quota: '
        "sandboxes, requested: count/sandboxclaims.extensions.agents.x-k8s.io=1",
    ),
    "capacity": (503, "ServiceUnavailable", "no nodes available to schedule pods"),
    "conflict": (409, "AlreadyExists", "sandboxclaims already exists"),
}
Event = tuple[str, dict[str, Any]]
Fits = Callable[[Mapping[str, Any]], bool]


def routes(cloud: Cloud) -> list[web.RouteDef]:
    standin = _Standin(cloud)
    claims = f"/apis/{GROUP}/v1beta1/namespaces/{{namespace}}/sandboxclaims"
    proxy = "/api/v1/namespaces/{namespace}/services/{service}/proxy/execute"
    found = [
        web.post(claims, standin.create),
        web.get(claims, standin.list),
        web.get(claims + "/{name}", standin.get),
        web.delete(claims + "/{name}", standin.delete),
        web.get(
            f"/apis/{CORE}/v1beta1/namespaces/{{namespace}}/sandboxes/{{name}}",
            standin.sandbox,
        ),
    ]
    return [
        *behind_key(cloud, _unauthorised, found),
        # The sandboxes' router asks for none.
        web.post(proxy, standin.execute),
        web.post("/execute", standin.execute),
    ]


class _Standin:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._boxes = Boxes(cloud, "claim-", self._changed)
        self._version = 1
        self._watches: dict[asyncio.Queue[Event], Fits] = {}

    async def create(self, request: web.Request) -> web.Response:
        asked = await body_of(request)
        about = asked.get("metadata") or {}
        lifecycle = (asked.get("spec") or {}).get("lifecycle") or {}
        try:
            box = await self._boxes.ask(
                about.get("labels") or {},
                _ttl_s(lifecycle.get("shutdownTime")),
                asked,
                key=str(about["name"]),
            )
        except Refused as refused:
            return _refusal(refused)
        return answer(self._shown(box), 201)

    async def list(self, request: web.Request) -> web.StreamResponse:
        fits = _selector(request)
        if request.query.get("watch") in ("true", "True", "1"):
            return await self._watch(request, fits)
        rows = [self._shown(box) for box in await self._boxes.living()]
        rows = [row for row in rows if fits(row["metadata"])]
        first = int(request.query.get("continue") or 0)
        size = min(int(request.query.get("limit") or PAGE_MAX), PAGE_MAX)
        more = first + size < len(rows)
        about = {"resourceVersion": str(self._version)}
        about |= {"continue": str(first + size)} if more else {}
        page = {"kind": "SandboxClaimList", "apiVersion": f"{GROUP}/v1beta1"}
        return answer({**page, "metadata": about, "items": rows[first : first + size]})

    async def get(self, request: web.Request) -> web.Response:
        box = await self._boxes.find(request.match_info["name"])
        return answer(self._shown(box)) if box else _gone()

    async def delete(self, request: web.Request) -> web.Response:
        if not await self._boxes.destroy(request.match_info["name"]):
            return _gone()
        return answer({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    async def sandbox(self, request: web.Request) -> web.Response:
        """The resource behind a claim, as far as clients look: where its pod is."""
        box = await self._boxes.find(_claim(request.match_info["name"]))
        if box is None:
            return _gone()
        found = self._shown(box)
        found["kind"], found["apiVersion"] = "Sandbox", f"{CORE}/v1beta1"
        found["status"]["podIPs"] = []
        return answer(found)

    async def execute(self, request: web.Request) -> web.Response:
        """The router, and the sandbox's runtime behind it. Its key is not asked for:
        a router is set up with a token of its own, or none."""
        sandbox = request.headers.get("X-Sandbox-ID", "")
        if not sandbox:
            return answer({"detail": "X-Sandbox-ID header is required."}, 400)
        box = await self._boxes.find(_claim(sandbox))
        lost = {"detail": f"Could not connect to the backend sandbox: {sandbox}"}
        if box is None or not box.inside:
            return answer(lost, 502)
        asked = await body_of(request)
        command = shlex.split(str(asked["command"]))
        limit_s = float(request.headers.get("X-Sandbox-Timeout") or 60)
        try:
            code, output = await self._cloud.execute(box.inside, command, limit_s)
        except Refused as refused:
            if refused.cause == "not_found":
                return answer(lost, 502)
            return answer({"detail": refused.message}, refused.status)
        return answer({"stdout": output, "stderr": "", "exit_code": code})

    async def _watch(self, request: web.Request, fits: Fits) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        events: asyncio.Queue[Event] = asyncio.Queue(EVENTS_MAX)
        self._watches[events] = fits
        for box in await self._boxes.living():
            shown = self._shown(box)
            if fits(shown["metadata"]):
                events.put_nowait(("ADDED", shown))
        limit_s = min(float(request.query.get("timeoutSeconds") or WATCH_S), WATCH_S)
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    kind, shown = await events.get()
                    event = {"type": kind, "object": shown}
                    packed = orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
                    await stream.write(packed)
        except (TimeoutError, ConnectionResetError):
            pass
        finally:
            del self._watches[events]
        return stream

    def _changed(self, kind: str, box: Box) -> None:
        self._version += 1
        shown = self._shown(box)
        for events, fits in self._watches.items():
            if fits(shown["metadata"]) and not events.full():
                events.put_nowait((kind, shown))

    def _shown(self, box: Box) -> dict[str, Any]:
        ready = {"type": "Ready", "status": "False", "reason": "SandboxNotReady"}
        status: dict[str, Any] = {"conditions": [ready]}
        if box.refused is not None:
            ready |= {"reason": "PodFailed", "message": box.refused.message}
        elif not box.coming:
            ready |= {"status": "True", "reason": "DependenciesReady"}
            status["sandbox"] = {"name": f"{box.id}-x", "podIPs": []}
        about = {
            "name": box.id,
            "namespace": "default",
            "labels": dict(box.labels),
            "resourceVersion": str(self._version),
        }
        return {
            "apiVersion": f"{GROUP}/v1beta1",
            "kind": "SandboxClaim",
            "metadata": about,
            "spec": box.asked.get("spec"),
            "status": status,
        }


def _claim(sandbox: str) -> str:
    """A pool's sandbox has a name of its own, which is not the claim's."""
    return sandbox.removesuffix("-x")


def _ttl_s(until: object) -> float:
    if not isinstance(until, str):
        return TTL_S
    end = datetime.fromisoformat(until)
    return max(1.0, (end - datetime.now(UTC)).total_seconds())


def _selector(request: web.Request) -> Fits:
    """By labels, and by name: all that a claim's clients select by."""
    labels = _pairs(request.query.get("labelSelector", ""))
    fields = _pairs(request.query.get("fieldSelector", ""))
    name = fields.get("metadata.name")

    def fits(about: Mapping[str, Any]) -> bool:
        named = name is None or about["name"] == name
        return bool(named and labels.items() <= about["labels"].items())

    return fits


def _pairs(selector: str) -> dict[str, str]:
    parts = (part.partition("=") for part in selector.split(",") if part)
    return {key: value.removeprefix("=") for key, _, value in parts}


def _refusal(refused: Refused) -> web.Response:
    known = (refused.status, "InternalError", refused.message)
    status, reason, text = _REFUSALS.get(refused.cause, known)
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return answer({**body, "message": text, "reason": reason, "code": status}, status)


def _gone() -> web.Response:
    text = "sandboxclaims.extensions.agents.x-k8s.io not found"
    body = {"kind": "Status", "status": "Failure", "message": text, "code": 404}
    return answer({**body, "reason": "NotFound"}, 404)


def _unauthorised() -> web.Response:
    body = {"kind": "Status", "status": "Failure", "message": "Unauthorized"}
    return answer({**body, "reason": "Unauthorized", "code": 401}, 401)
