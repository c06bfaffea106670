"""Runloop through its own SDK (`transport: sdk`)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
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
from shardagent.providers.runloop import PAGE, RunloopProvider, order_of
from shardagent.providers.sdk import LISTED_MAX, SdkProvider, not_there
from shardagent.wire import Plan


class RunloopSdkProvider(SdkProvider):
    """config: as of the thin adapter."""

    slug = "runloop"
    about = RunloopProvider.about
    rules = RunloopProvider.rules
    package = "runloop_api_client"

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        super().__init__(config, plan)
        self._client: Any = self.load("runloop_api_client").AsyncRunloop(
            bearer_token=config["api_key"],
            base_url=config.get(ENDPOINT) or self.about.endpoint,
            max_retries=0,
        )

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        sent()
        creating = self._client.devboxes.create_and_await_running(**order_of(wanted))
        devbox = await self.ask("create", creating)
        return Created(devbox.id)

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        sent()
        done = await self.ask(
            "execute",
            self._client.devboxes.execute_and_await_completion(
                provider_id, command=shlex.join(command)
            ),
        )
        return Answer(int(done.exit_status), (done.stdout or "") + (done.stderr or ""))

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        sent()
        try:
            await self.ask("destroy", self._client.devboxes.shutdown(provider_id))
        except ProviderError as error:
            if not not_there(error):
                raise

    async def list(self, labels: Mapping[str, str]) -> list[Listed]:
        async def every() -> list[Listed]:
            found: list[Listed] = []
            listing = self._client.devboxes.list(limit=PAGE, status="running")
            async for devbox in listing:
                found.append(Listed(devbox.id, devbox.metadata or {}))
                if len(found) >= LISTED_MAX:
                    break
            return found

        listed = await self.ask("list", every())
        return [one for one in listed if labels.items() <= one.labels.items()]

    async def close(self) -> None:
        await self._client.close()
