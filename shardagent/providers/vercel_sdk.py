"""Vercel Sandbox through its own SDK (`transport: sdk`).

Its connections are capped at 100 by the SDK itself: a larger Shard queues in it.
"""

from __future__ import annotations

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
from shardagent.providers.labels import PREFIX, name_of
from shardagent.providers.sdk import LISTED_MAX, SdkProvider, not_there
from shardagent.providers.vercel import MB_PER_VCPU, VercelProvider
from shardagent.wire import Plan


class VercelSdkProvider(SdkProvider):
    """config: as of the thin adapter; an id is the sandbox's name."""

    slug = "vercel"
    about = VercelProvider.about
    rules = VercelProvider.rules
    package = "vercel"

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        super().__init__(config, plan)
        self._sdk: Any = self.load("vercel.sandbox")
        account = self._sdk.SandboxCredentials(
            token=config["api_key"],
            team_id=config["team_id"],
            project_id=config["project_id"],
        )

        async def credentials() -> Any:
            return account

        options = self._sdk.SandboxServiceOptions(
            base_url=config.get(ENDPOINT) or self.about.endpoint,
            credentials_factory=credentials,
        )
        module = self.load("vercel.sandbox.client")
        self._client: Any = module.SandboxClient.create(options=options)
        self._sandboxes: dict[str, Any] = {}

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        spec = wanted.spec
        vcpus = max(1, ceil(float(str(spec.get("cpu", 1)))))
        order = {name: spec[name] for name in ("image", "region") if spec.get(name)}

        async def creating() -> Any:
            return await self._client.create_sandbox(
                name=name_of(wanted.labels),
                execution_time_limit=wanted.ttl_s,
                resources=self._sdk.SandboxResources(
                    vcpus=vcpus, memory=vcpus * MB_PER_VCPU
                ),
                persistent=False,
                tags=dict(wanted.labels),
                **order,
            )

        sent()
        sandbox = await self.ask("create", creating())
        self._sandboxes[sandbox.name] = sandbox
        return Created(sandbox.name)

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        sandbox = await self._sandbox(provider_id)
        sent()
        done = await self.ask(
            "execute",
            # Of the session: the sandbox's own would resume what has stopped.
            sandbox.current_session.run_process(
                command[0],
                list(command[1:]),
                capture_output=True,
                kill_after=timeout_s,
            ),
        )
        return Answer(int(done.returncode), (done.stdout or "") + (done.stderr or ""))

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        try:
            sandbox = await self._sandbox(provider_id)
            sent()
            await self.ask("destroy", sandbox.destroy())
        except ProviderError as error:
            if not not_there(error):
                raise
        self._sandboxes.pop(provider_id, None)

    async def list(self, labels: Mapping[str, str]) -> list[Listed]:
        async def every() -> list[Listed]:
            found: list[Listed] = []
            query = self._sdk.SandboxQueryByName(name_prefix=f"{PREFIX}-")
            async for one in self._client.query_sandboxes(query=query):
                found.append(Listed(one.name, one.tags or {}))
                if len(found) >= LISTED_MAX:
                    break
            return found

        listed = await self.ask("list", every())
        return [one for one in listed if labels.items() <= one.labels.items()]

    async def close(self) -> None:
        await self._client.aclose()

    async def _sandbox(self, provider_id: str) -> Any:
        found = self._sandboxes.get(provider_id)
        if found is None:
            getting = self._client.get_sandbox(name=provider_id)
            found = await self.ask("execute", getting)
        return found
