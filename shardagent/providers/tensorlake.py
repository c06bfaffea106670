"""Tensorlake's sandboxes over REST, their commands as server-sent events.

Wire as its SDK 0.5.163 (a Rust core) was seen to speak it. There are no labels: the
name carries them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
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
from shardagent.providers.http import Reply, unintelligible
from shardagent.providers.labels import labels_of, name_of
from shardagent.providers.rest import RestProvider, answer_of, text_of
from shardagent.providers.taxonomy import Rule

PROXY = "sandbox.tensorlake.ai"
NAMESPACE = "default"
LOOK_S = 0.1  # between two looks at a sandbox that is pending
_ALIVE = frozenset({"pending", "running", "snapshotting"})


class TensorlakeProvider(RestProvider):
    """config: `api_key`; `organization_id` and `project_id` for a personal token."""

    slug = "tensorlake"
    about = About(
        title="Tensorlake",
        endpoint="https://api.tensorlake.ai",
        entries=(
            Entry("api_key", "API key"),
            Entry("organization_id", "Organization", secret=False, required=False),
            Entry("project_id", "Project", secret=False, required=False),
            Entry("namespace", "Namespace", secret=False, required=False),
        ),
        maps=frozenset({"cpu", "memory_mb", "image"}),
        waits_for="the sandbox to be running (the server waits; then by polling)",
        plan={"spec": {"cpu": 1, "memory_mb": 1_024}},
        sdk="shardagent.providers.tensorlake_sdk:TensorlakeSdkProvider",
        stand_in=True,
    )
    rules = (
        Rule(Cause.NOT_FOUND, r"SANDBOX_(NOT_FOUND|TERMINATED)|not running"),
        Rule(Cause.PROVIDER_ERROR, r"SANDBOX_NOT_READY|PROXY_ERROR"),
    )

    def __init__(self, config: Mapping[str, str], plan: Any) -> None:
        super().__init__(config, plan)
        self._elsewhere = config.get(ENDPOINT, "").rstrip("/")
        self._all = f"/v1/namespaces/{config.get('namespace') or NAMESPACE}/sandboxes"
        self._urls: dict[str, str] = {}

    def headers(self, config: Mapping[str, str]) -> dict[str, str]:
        found = {"Authorization": f"Bearer {config['api_key']}"}
        for name, header in (
            ("organization_id", "X-Forwarded-Organization-Id"),
            ("project_id", "X-Forwarded-Project-Id"),
        ):
            if config.get(name):
                found[header] = config[name]
        return found

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        spec = wanted.spec
        order: dict[str, Any] = {
            "resources": {
                "cpus": float(str(spec.get("cpu", 1))),
                "memory_mb": int(str(spec.get("memory_mb", 1_024))),
            },
            "timeout_secs": wanted.ttl_s,
            "name": name_of(wanted.labels),
        }
        if spec.get("image"):
            order["image"] = spec["image"]
        reply = await self.http.ask("create", "POST", self._all, sent=sent, json=order)
        made = reply.object()
        provider_id = text_of(made, "sandbox_id", "id")
        while _status(made) == "pending":
            made = await self.look(f"{self._all}/{provider_id}", LOOK_S)
        if _status(made) != "running":
            reason = made.get("termination_reason") or made.get("reason") or ""
            said = f"the sandbox is {_status(made)} {reason}".strip()
            failure = self.http.error("create", None, said)
            raise ProviderError(failure.cause, Origin.PROVIDER, failure.message)
        if isinstance(made.get("sandbox_url"), str):
            self._urls[provider_id] = made["sandbox_url"].rstrip("/")
        return reply.timing.created(provider_id)

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        base = self._urls.get(provider_id, f"https://{provider_id}.{PROXY}")
        headers = {"Accept": "text/event-stream"}
        if self._elsewhere:  # one address for all: the Host says which sandbox
            base = self._elsewhere
            headers["Host"] = f"{provider_id}.local"
        reply = await self.http.ask(
            "execute",
            "POST",
            f"{base}/api/v1/processes/run",
            sent=sent,
            headers=headers,
            json={
                "command": command[0],
                "args": list(command[1:]),
                "timeout": timeout_s,
            },
        )
        return _answer(reply)

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        path = f"{self._all}/{provider_id}"
        await self.http.ask("destroy", "DELETE", path, sent=sent, also=(404,))
        self._urls.pop(provider_id, None)

    async def listed(self, labels: Mapping[str, str]) -> AsyncIterator[Listed]:
        """All of the namespace in one answer; the vendor has no pages here."""
        reply = await self.http.ask("list", "GET", self._all)
        for row in reply.object().get("sandboxes") or []:
            carried = labels_of(row.get("name") or "")
            if carried and _status(row) in _ALIVE:
                yield Listed(text_of(row, "id", "sandbox_id"), carried)


def _status(sandbox: Mapping[str, Any]) -> str:
    return str(sandbox.get("status") or sandbox.get("state") or "").lower()


def _answer(reply: Reply) -> Answer:
    """Events: what the command wrote, line by line, and how it ended."""
    output: list[str] = []
    for line in reply.body.split(b"\n"):
        if not line.startswith(b"data:"):
            continue
        try:
            event = orjson.loads(line[5:])
        except ValueError:
            raise unintelligible("an event is cut short", reply.status) from None
        if "line" in event:
            output.append(f"{event['line']}\n")
        elif event.get("exit_code") is not None or event.get("signal") is not None:
            if event.get("reason") == "timeout":
                text = "the command did not end in time"
                raise ProviderError(Cause.TIMEOUT, Origin.PROVIDER, text)
            code = event.get("exit_code")
            return answer_of(-event["signal"] if code is None else code, *output)
    raise unintelligible("the command's stream has no end", reply.status)
