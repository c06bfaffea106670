"""Tensorlake through its own SDK (`transport: sdk`); its core is Rust."""

from __future__ import annotations

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
from shardagent.providers.labels import labels_of, name_of
from shardagent.providers.sdk import SdkProvider, not_there
from shardagent.providers.tensorlake import NAMESPACE, PROXY, TensorlakeProvider
from shardagent.wire import Plan


class TensorlakeSdkProvider(SdkProvider):
    """config: as of the thin adapter."""

    slug = "tensorlake"
    about = TensorlakeProvider.about
    rules = TensorlakeProvider.rules
    package = "tensorlake"

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        super().__init__(config, plan)
        self._proxy = config.get(ENDPOINT) or f"https://{PROXY}"
        self._client: Any = self.load("tensorlake.sandbox").AsyncSandboxClient(
            api_url=config.get(ENDPOINT) or self.about.endpoint,
            api_key=config["api_key"],
            organization_id=config.get("organization_id"),
            project_id=config.get("project_id"),
            namespace=config.get("namespace") or NAMESPACE,
            max_retries=0,
            _internal=True,
        )
        self._sandboxes: dict[str, Any] = {}

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        spec = wanted.spec
        sent()
        made = await self.ask(
            "create",
            self._client.create(
                image=spec.get("image"),
                cpus=float(str(spec.get("cpu", 1))),
                memory_mb=int(str(spec.get("memory_mb", 1_024))),
                timeout_secs=wanted.ttl_s,
                name=name_of(wanted.labels),
            ),
        )
        return Created(made.sandbox_id)

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        sandbox: Any = self._sandboxes.get(provider_id)
        if sandbox is None:
            joining = self._client.connect(provider_id, proxy_url=self._proxy)
            sandbox = await self.ask("execute", joining)
            self._sandboxes[provider_id] = sandbox
        sent()
        running = sandbox.run(command[0], list(command[1:]), timeout=timeout_s)
        done = await self.ask("execute", running)
        return Answer(int(done.exit_code), f"{done.stdout}\n{done.stderr}")

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        sent()
        try:
            await self.ask("destroy", self._client.delete(provider_id))
        except ProviderError as error:
            if not not_there(error):
                raise
        self._sandboxes.pop(provider_id, None)

    async def list(self, labels: Mapping[str, str]) -> list[Listed]:
        listed: Any = await self.ask("list", self._client.list())
        rows = [(one.sandbox_id, labels_of(one.name or "")) for one in listed]
        return [
            Listed(i, own) for i, own in rows if own and labels.items() <= own.items()
        ]
