"""Vercel Sandbox over its REST API; wire as of its Python SDK 0.10 (vercel.sandbox).

A sandbox has a name, ours, and a session in which commands run; an id of ours is both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from math import ceil
from typing import Any
from urllib.parse import quote, urlencode

import orjson

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
from shardagent.providers.http import Reply, unintelligible
from shardagent.providers.labels import PREFIX, name_of
from shardagent.providers.rest import PAGES_MAX, RestProvider, answer_of, text_of
from shardagent.providers.taxonomy import Rule
from shardagent.wire import Plan

LOOK_S = 0.1  # between two looks at a sandbox that is pending
PAGE = 100
MB_PER_VCPU = 2_048
_ALIVE = frozenset({None, "pending", "running", "snapshotting"})


class VercelProvider(RestProvider):
    """config: `api_key` (a token), `team_id`, `project_id`."""

    slug = "vercel"
    about = About(
        title="Vercel Sandbox",
        endpoint="https://vercel.com/api",
        entries=(
            Entry("api_key", "Access token"),
            Entry("team_id", "Team id", secret=False),
            Entry("project_id", "Project id", secret=False),
        ),
        maps=frozenset({"cpu", "image", "region"}),
        waits_for="the session to be running (its status, by polling each 100 ms)",
        ttl_s_max=5 * 3600,
        plan={"spec": {"cpu": 1, "memory_mb": MB_PER_VCPU}},
        sdk="shardagent.providers.vercel_sdk:VercelSdkProvider",
        stand_in=True,
    )
    rules = (
        Rule(Cause.NOT_FOUND, r"stopped|stopping|not running|expired", (400, 409, 422)),
        Rule(Cause.QUOTA, r"payment|hobby|plan limit|usage limit", (402, 403, 429)),
    )

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        super().__init__(config, plan)
        # Ready-made: encoding a query anew costs a third of a request.
        self._team = f"?{urlencode({'teamId': config['team_id']})}"
        project = urlencode({"projectId": config["project_id"]})
        self._project = f"{self._team}&{project}"

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        spec = wanted.spec
        vcpus = max(1, ceil(float(str(spec.get("cpu", 1)))))
        order: dict[str, Any] = {
            "projectId": self.config["project_id"],
            "name": name_of(wanted.labels),
            "timeout": wanted.ttl_s * 1_000,
            "resources": {"vcpus": vcpus, "memory": vcpus * MB_PER_VCPU},
            "persistent": False,
            "tags": dict(wanted.labels),
        }
        for field in ("image", "region"):
            if spec.get(field):
                order[field] = spec[field]
        reply = await self.http.ask(
            "create",
            "POST",
            f"/v3/sandboxes{self._team}",
            sent=sent,
            json=order,
        )
        made = _sandbox(reply.object())
        name = text_of(made, "name")
        while made.get("status") == "pending":
            path = f"/v2/sandboxes/{quote(name)}{self._project}"
            made = _sandbox(await self.look(path, LOOK_S))
        if made.get("status") not in (None, "running"):
            text = f"the sandbox is {made.get('status')}"
            raise ProviderError(Cause.PROVIDER_ERROR, Origin.PROVIDER, text)
        return reply.timing.created(_id_of(made))

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        _, session = _parts(provider_id)
        reply = await self.http.ask(
            "execute",
            "POST",
            f"/v2/sandboxes/sessions/{quote(session)}/cmd{self._team}"
            "&wait=true&logs=true",
            sent=sent,
            json={
                "command": command[0],
                "args": list(command[1:]),
                "wait": True,
                "logs": True,
                "timeout": max(1, int(timeout_s * 1_000)),
            },
        )
        return self._answer(reply)

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        name, _ = _parts(provider_id)
        await self.http.ask(
            "destroy",
            "DELETE",
            f"/v2/sandboxes/{quote(name)}{self._project}",
            sent=sent,
            also=(404,),
        )

    async def listed(self, labels: Mapping[str, str]) -> AsyncIterator[Listed]:
        params = {"teamId": self.config["team_id"]}
        params |= {"project": self.config["project_id"]}
        params |= {"limit": str(PAGE), "namePrefix": f"{PREFIX}-", "sortBy": "name"}
        for _ in range(PAGES_MAX):
            reply = await self.http.ask("list", "GET", "/v2/sandboxes", params=params)
            page = reply.object()
            for row in page.get("sandboxes") or []:
                if row.get("status") in _ALIVE:
                    yield Listed(_id_of(row), row.get("tags") or {})
            following = (page.get("pagination") or {}).get("next")
            if not following:
                return
            params["cursor"] = str(following)

    def _answer(self, reply: Reply) -> Answer:
        """One JSON object a line: the command, what it wrote, the command again."""
        output: list[str] = []
        ended: object = None
        for line in reply.body.splitlines():
            if not line.strip():
                continue
            try:
                record = orjson.loads(line)
            except ValueError:
                raise unintelligible("a line of the output is cut short") from None
            if record.get("stream") == "error":
                data = record.get("data") or {}
                said = f"{data.get('message', '')} ({data.get('code', '')})"
                raise self.http.error("execute", None, said)
            if "command" in record:
                ended = (record["command"] or {}).get("exitCode")
            else:
                output.append(str(record.get("data", "")))
        return answer_of(ended, *output)


def _sandbox(body: Mapping[str, Any]) -> dict[str, Any]:
    found = body.get("sandbox")
    if not isinstance(found, dict):
        raise unintelligible("no 'sandbox'")
    return found


def _id_of(sandbox: Mapping[str, Any]) -> str:
    return f"{text_of(sandbox, 'name')}/{text_of(sandbox, 'currentSessionId')}"


def _parts(provider_id: str) -> tuple[str, str]:
    name, _, session = provider_id.partition("/")
    return name, session
