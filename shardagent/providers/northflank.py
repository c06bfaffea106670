"""Northflank: a sandbox is a deployment service; wire as of its Python SDK 2.1.

Commands go over a WebSocket each. There are no labels that a listing shows: the name
carries them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import (
    About,
    Answer,
    Created,
    Entry,
    Listed,
    Sent,
    Wanted,
)
from shardagent.providers.http import unintelligible
from shardagent.providers.labels import labels_of, name_of
from shardagent.providers.rest import PAGES_MAX, RestProvider, answer_of, text_of
from shardagent.providers.taxonomy import Rule
from shardagent.wire import Plan

IMAGE = "node:22-slim"
TTL_S_MIN, TTL_S_MAX = 300, 7 * 24 * 3_600
NAME_LENGTH_MAX = 54
PAGE = 100
# Between two looks at a deployment: each counts against 1,000 requests an hour.
LOOK_S = 1.0
# (vCPUs, MiB) of the plans that are sold; docs/v1/application/billing, 2026-11-24.
PLANS = {
    (0.1, 256): "nf-compute-10",
    (0.2, 512): "nf-compute-20",
    (0.5, 1_024): "nf-compute-50",
    (1, 1_024): "nf-compute-100-1",
    (1, 2_048): "nf-compute-100-2",
    (1, 4_096): "nf-compute-100-4",
    (2, 4_096): "nf-compute-200",
    (2, 8_192): "nf-compute-200-8",
    (2, 16_384): "nf-compute-200-16",
    (4, 8_192): "nf-compute-400",
    (4, 16_384): "nf-compute-400-16",
    (8, 16_384): "nf-compute-800-16",
    (8, 32_768): "nf-compute-800-32",
}


class NorthflankProvider(RestProvider):
    """config: `api_key`, `project_id`, and `team_id` for an organisation's token."""

    slug = "northflank"
    about = About(
        title="Northflank",
        endpoint="https://api.northflank.com",
        entries=(
            Entry("api_key", "API token"),
            Entry("project_id", "Project id", secret=False),
            Entry("team_id", "Team id", secret=False, required=False),
        ),
        maps=frozenset({"cpu", "memory_mb", "image"}),
        plan={"spec": {"cpu": 0.5, "memory_mb": 1_024}},
        waits_for="the deployment to be completed (its status, looked at each second)",
        ttl_s_max=TTL_S_MAX,
        stand_in=True,
    )
    rules = (
        Rule(Cause.RATE_LIMITED, r"rate limit|too many requests", (429,)),
        Rule(
            Cause.NOT_FOUND,
            r"no (running )?(instance|container|pod)s?\b|not (found|running)|paused",
            verbs=("execute",),
        ),
    )

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        super().__init__(config, plan)
        team = config.get("team_id")
        project = f"projects/{quote(config['project_id'])}"
        self._scope = f"teams/{quote(team)}/{project}" if team else project
        self._all = f"/v1/{self._scope}/services"

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        reply = await self.http.ask(
            "create",
            "POST",
            f"{self._all}/deployment",
            sent=sent,
            json=order_of(wanted),
        )
        made = _data(reply.object())
        provider_id = text_of(made, "id")
        while _status(made) not in ("COMPLETED", "FAILED"):
            made = _data(await self.look(f"{self._all}/{provider_id}", LOOK_S))
        if _status(made) == "FAILED":
            text = "the deployment has failed"
            raise ProviderError(Cause.PROVIDER_ERROR, Origin.PROVIDER, text)
        return reply.timing.created(provider_id)

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        auth = {"type": "apiToken", "apiToken": self.config["api_key"]}
        context = {"shell": "none", "encoding": "utf-8", "tty": False}
        begin = {"auth": auth, "context": {**context, "command": list(command)}}
        frames = await self.http.talk(
            "execute",
            f"/v1/command-exec/{self._scope}/services/{quote(provider_id)}",
            [{"type": "init", "data": begin}, {"type": "stdInEnd"}],
            sent=sent,
            until=("completion", "error"),
        )
        return self._answer(frames)

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        path = f"{self._all}/{quote(provider_id)}"
        await self.http.ask("destroy", "DELETE", path, sent=sent, also=(404,))

    async def listed(self, labels: Mapping[str, str]) -> AsyncIterator[Listed]:
        """All services of the project, page by page; ours by their names."""
        params = {"per_page": str(PAGE)}
        for _ in range(PAGES_MAX):
            reply = await self.http.ask("list", "GET", self._all, params=params)
            body = reply.object()
            for row in _data(body).get("services") or []:
                carried = labels_of(str(row.get("name") or ""))
                if carried:
                    yield Listed(text_of(row, "id"), carried)
            following = body.get("pagination") or {}
            if not (following.get("hasNextPage") and following.get("cursor")):
                return
            params["cursor"] = str(following["cursor"])

    def _answer(self, frames: Sequence[Mapping[str, Any]]) -> Answer:
        """What came back: what the command wrote, and how it ended."""
        output: list[str] = []
        for frame in frames:
            data = frame.get("data")
            match frame.get("type"):
                case "init" if isinstance(data, dict):
                    if data.get("auth") != "successful":
                        said = f"not let in: {data.get('message') or data.get('auth')}"
                        raise self.http.error("execute", 401, said)
                case "stdOut" | "stdErr":
                    output.append(str(data))
                case "completion" if isinstance(data, dict):
                    code = str(data.get("exitCode"))
                    if not code.lstrip("-").isdecimal():
                        said = f"{data.get('status')}: {data.get('message')}"
                        raise self.http.error("execute", None, said)
                    return answer_of(int(code), *output)
                case "error":
                    why = data.get("message") if isinstance(data, dict) else data
                    raise self.http.error("execute", None, f"exec error: {why}")
        raise unintelligible("the command's stream has no end")


def order_of(wanted: Wanted) -> dict[str, Any]:
    """The service that is asked for."""
    spec = wanted.spec
    size = (float(str(spec.get("cpu", 0.5))), int(str(spec.get("memory_mb", 1_024))))
    name = name_of(wanted.labels)
    if size not in PLANS or len(name) > NAME_LENGTH_MAX:
        sold = ", ".join(f"{cpu:g}/{mb}" for cpu, mb in PLANS)
        text = f"no plan has {size[0]:g} vCPU and {size[1]} MB; there are {sold}"
        if size in PLANS:
            text = f"the name {name} is over {NAME_LENGTH_MAX} characters"
        raise ProviderError(Cause.INVALID_REQUEST, Origin.HARNESS, text)
    return {
        "name": name,
        "billing": {"deploymentPlan": PLANS[size]},
        "deployment": {
            "instances": 1,
            "external": {"imagePath": spec.get("image") or IMAGE},
            "docker": {
                "configType": "customCommand",
                "customCommand": "sleep infinity",
            },
        },
        "createOptions": {"expiryTime": min(max(wanted.ttl_s, TTL_S_MIN), TTL_S_MAX)},
    }


def _data(body: Mapping[str, Any]) -> dict[str, Any]:
    found = body.get("data")
    if not isinstance(found, dict):
        raise unintelligible("no 'data'")
    return found


def _status(service: Mapping[str, Any]) -> str:
    deployment = (service.get("status") or {}).get("deployment") or {}
    return str(deployment.get("status"))
