"""E2B through its own SDK (`transport: sdk`)."""

from __future__ import annotations

import os
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
from shardagent.providers.e2b import E2bProvider
from shardagent.providers.sdk import SdkProvider, not_there
from shardagent.wire import Plan

PAGE = 100


class E2bSdkProvider(SdkProvider):
    """config: as of the thin adapter."""

    slug = "e2b"
    about = E2bProvider.about
    rules = E2bProvider.rules
    package = "e2b"

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        super().__init__(config, plan)
        os.environ.setdefault("E2B_CONNECTION_RETRIES", "0")  # read at import
        os.environ.setdefault("E2B_MAX_CONNECTIONS", "2000")
        self._e2b = self.load("e2b")
        self._options: dict[str, Any] = {"api_key": config["api_key"], "retries": 0}
        if config.get(ENDPOINT):
            self._options["api_url"] = config[ENDPOINT]
            elsewhere = config.get("sandbox_url") or config[ENDPOINT]
            self._options["sandbox_url"] = elsewhere
        self._sandboxes: dict[str, Any] = {}

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        sent()
        sandbox: Any = await self.ask(
            "create",
            self._e2b.AsyncSandbox.create(
                template=wanted.spec.get("image") or "base",
                timeout=wanted.ttl_s,
                metadata=dict(wanted.labels),
                request_timeout=0,  # the caller's deadline ends it
                **self._options,
            ),
        )
        self._sandboxes[sandbox.sandbox_id] = sandbox
        return Created(sandbox.sandbox_id)

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        sandbox = self._sandboxes.get(provider_id)
        if sandbox is None:
            joining = self._e2b.AsyncSandbox.connect(provider_id, **self._options)
            sandbox = await self.ask("execute", joining)
        sent()
        done: Any = await self.ask("execute", self._run(sandbox, command, timeout_s))
        return Answer(done.exit_code, done.stdout)

    async def _run(self, sandbox: Any, command: Sequence[str], timeout_s: float) -> Any:
        try:
            return await sandbox.commands.run(shlex.join(command), timeout=timeout_s)
        except self._e2b.CommandExitException as error:  # an answer, not an error
            return error

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        sent()
        killing = self._e2b.AsyncSandbox.kill(provider_id, **self._options)
        try:
            await self.ask("destroy", killing)
        except ProviderError as error:
            if not not_there(error):
                raise
        self._sandboxes.pop(provider_id, None)

    async def list(self, labels: Mapping[str, str]) -> list[Listed]:
        query = self._e2b.SandboxQuery(
            metadata=dict(labels) or None, state=[self._e2b.SandboxState.RUNNING]
        )
        pages = self._e2b.AsyncSandbox.list(query=query, limit=PAGE, **self._options)
        found: list[Listed] = []
        while pages.has_next:
            for one in await self.ask("list", pages.next_items()):
                found.append(Listed(one.sandbox_id, one.metadata or {}))
        return found
