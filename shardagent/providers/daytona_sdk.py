"""Daytona through its own SDK (`transport: sdk`)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from shardagent.errors import ProviderError
from shardagent.providers.base import (
    ENDPOINT,
    Answer,
    Created,
    Listed,
    Sent,
    Wanted,
)
from shardagent.providers.daytona import PAGE, DaytonaProvider
from shardagent.providers.sdk import LISTED_MAX, SdkProvider, not_there
from shardagent.wire import Plan


class DaytonaSdkProvider(SdkProvider):
    """config: as of the thin adapter."""

    slug = "daytona"
    about = DaytonaProvider.about
    rules = DaytonaProvider.rules
    package = "daytona"

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        super().__init__(config, plan)
        self._daytona: Any = self.load("daytona")
        options: dict[str, Any] = {
            "api_key": config["api_key"],
            "api_url": config.get(ENDPOINT) or self.about.endpoint,
            "connection_pool_maxsize": None,
        }
        if plan.spec.region:
            options["target"] = plan.spec.region
        settings = self._daytona.DaytonaConfig(**options)
        self._client: Any = self._daytona.AsyncDaytona(settings)
        self._sandboxes: dict[str, Any] = {}

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        order = self._daytona.CreateSandboxFromSnapshotParams(
            snapshot=wanted.spec.get("image"),
            labels=dict(wanted.labels),
            auto_stop_interval=0,
            auto_delete_interval=0,
            ttl_minutes=max(1, ceil(wanted.ttl_s / 60)),
        )
        sent()
        sandbox = await self.ask("create", self._client.create(order, timeout=0))
        self._sandboxes[sandbox.id] = sandbox
        return Created(sandbox.id)

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        sandbox = await self._sandbox(provider_id)
        sent()
        limit_s = max(1, ceil(timeout_s))
        running = sandbox.process.exec(shlex.join(command), timeout=limit_s)
        done = await self.ask("execute", running)
        return Answer(int(done.exit_code), done.result or "")

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        try:
            sandbox = await self._sandbox(provider_id)
            sent()
            await self.ask("destroy", self._client.delete(sandbox))
        except ProviderError as error:
            if not not_there(error):
                raise
        self._sandboxes.pop(provider_id, None)

    async def list(self, labels: Mapping[str, str]) -> list[Listed]:
        async def every() -> list[Listed]:
            found: list[Listed] = []
            query = self._daytona.ListSandboxesQuery(
                labels=dict(labels) or None, limit=PAGE
            )
            async for sandbox in self._client.list(query):
                found.append(Listed(sandbox.id, sandbox.labels or {}))
                if len(found) >= LISTED_MAX:
                    break
            return found

        return await self.ask("list", every())

    async def close(self) -> None:
        await self._client.close()

    async def _sandbox(self, provider_id: str) -> Any:
        found = self._sandboxes.get(provider_id)
        if found is None:
            found = await self.ask("execute", self._client.get(provider_id))
        return found
