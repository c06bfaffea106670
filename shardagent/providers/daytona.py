"""Daytona over its REST API and its toolbox; wire as of its Python SDK 0.226."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from math import ceil
from typing import Any

import orjson

from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import (
    ENDPOINT,
    About,
    Answer,
    Created,
    Entry,
    Listed,
    Sent,
    Wanted,
)
from shardagent.providers.rest import PAGES_MAX, RestProvider, answer_of, text_of
from shardagent.providers.taxonomy import Rule

TOOLBOX = "https://proxy.app.daytona.io/toolbox"  # unless a create says otherwise
LOOK_S = 0.1  # between two looks at a sandbox that is not started yet
PAGE = 200
_COMING = frozenset(
    {
        "creating",
        "restoring",
        "starting",
        "pulling_snapshot",
        "pending_build",
        "unknown",
    }
    | {"building_snapshot", "resuming"}
)
_OVER = frozenset({"destroyed", "destroying", "archived", "error", "build_failed"})


class DaytonaProvider(RestProvider):
    """config: `api_key`; `target` (region) is the Plan's spec.region."""

    slug = "daytona"
    about = About(
        title="Daytona",
        endpoint="https://app.daytona.io/api",
        entries=(
            Entry("api_key", "API key"),
            Entry("organization_id", "Organization", secret=False, required=False),
        ),
        maps=frozenset({"image", "region"}),
        waits_for="the sandbox to be started (its state, by polling each 100 ms)",
        sdk="shardagent.providers.daytona_sdk:DaytonaSdkProvider",
        stand_in=True,
    )
    rules = (
        Rule(Cause.CAPACITY, r"no available runners?"),
        Rule(
            Cause.NOT_FOUND, r"not (running|started)|is stopped|no IP", (400, 409, 502)
        ),
        Rule(Cause.INVALID_REQUEST, r"snapshot.{0,80}not found", (404,)),
    )

    def __init__(self, config: Mapping[str, str], plan: Any) -> None:
        super().__init__(config, plan)
        elsewhere = config.get(ENDPOINT, "").rstrip("/")
        self._toolbox = f"{elsewhere}/toolbox" if elsewhere else TOOLBOX
        self._toolboxes: dict[str, str] = {}

    def headers(self, config: Mapping[str, str]) -> dict[str, str]:
        found = {"Authorization": f"Bearer {config['api_key']}"}
        if config.get("organization_id"):
            found["X-Daytona-Organization-ID"] = config["organization_id"]
        return found

    def bases(self) -> list[str]:
        origins = {base.split("/")[2]: base for base in (self._toolbox, self.http.base)}
        return [*origins.values()]

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        order: dict[str, Any] = {
            "labels": dict(wanted.labels),
            "autoStopInterval": 0,
            "autoDeleteInterval": 0,  # once it stops, it goes
            "ttlMinutes": max(1, ceil(wanted.ttl_s / 60)),
        }
        if wanted.spec.get("image"):
            order["snapshot"] = wanted.spec["image"]
        if wanted.spec.get("region"):
            order["target"] = wanted.spec["region"]
        reply = await self.http.ask("create", "POST", "/sandbox", sent=sent, json=order)
        made = reply.object()
        provider_id = text_of(made, "id")
        while made.get("state") in _COMING or "state" not in made:
            made = await self.look(f"/sandbox/{provider_id}", LOOK_S)
        if made["state"] != "started":
            said = f"the sandbox is {made['state']}: {made.get('errorReason') or ''}"
            failure = self.http.error("create", None, said)
            raise ProviderError(failure.cause, Origin.PROVIDER, failure.message)
        self._toolboxes[provider_id] = made.get("toolboxProxyUrl") or self._toolbox
        return reply.timing.created(provider_id)

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        toolbox = self._toolboxes.get(provider_id, self._toolbox).rstrip("/")
        reply = await self.http.ask(
            "execute",
            "POST",
            f"{toolbox}/{provider_id}/process/execute",
            sent=sent,
            json={"command": shlex.join(command), "timeout": max(1, ceil(timeout_s))},
        )
        done = reply.object()
        return answer_of(done.get("exitCode", done.get("code")), done.get("result"))

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        path = f"/sandbox/{provider_id}"
        await self.http.ask("destroy", "DELETE", path, sent=sent, also=(404,))
        self._toolboxes.pop(provider_id, None)

    async def listed(self, labels: Mapping[str, str]) -> AsyncIterator[Listed]:
        params = {"limit": str(PAGE)}
        if labels:
            params["labels"] = orjson.dumps(dict(labels)).decode()
        for _ in range(PAGES_MAX):
            reply = await self.http.ask("list", "GET", "/sandbox", params=params)
            page = reply.object()
            for row in page.get("items") or []:
                if row.get("state") not in _OVER:
                    yield Listed(text_of(row, "id"), row.get("labels") or {})
            if not page.get("nextCursor"):
                return
            params["cursor"] = str(page["nextCursor"])
