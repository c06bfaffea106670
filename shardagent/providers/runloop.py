"""Runloop's devboxes over its REST API; wire as of its Python SDK 3.0."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

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
from shardagent.providers.rest import (
    PAGES_MAX,
    RestProvider,
    answer_of,
    patience,
    random_bits,
    text_of,
)
from shardagent.providers.taxonomy import Rule

LONG_POLL_S = 25  # the longest that the vendor holds one request
PAGE = 5_000
BOOTING = frozenset({"scheduled", "queued", "provisioning", "initializing"})
# (CPUs, MiB) of the sizes that are sold by name; anything else is CUSTOM_SIZE.
_SIZES = {
    (0.5, 1_024): "X_SMALL",
    (1, 2_048): "SMALL",
    (2, 4_096): "MEDIUM",
    (2, 8_192): "LARGE",
    (4, 16_384): "X_LARGE",
    (8, 32_768): "XX_LARGE",
}


class RunloopProvider(RestProvider):
    """config: `api_key`."""

    slug = "runloop"
    about = About(
        title="Runloop",
        endpoint="https://api.runloop.ai",
        entries=(Entry("api_key", "API key"),),
        maps=frozenset({"cpu", "memory_mb", "image"}),
        waits_for="the devbox to be running (its status, by long polling)",
        ttl_s_max=48 * 3600,
        plan={"spec": {"cpu": 1, "memory_mb": 2_048}},
        sdk="shardagent.providers.runloop_sdk:RunloopSdkProvider",
        stand_in=True,
    )
    rules = (
        Rule(Cause.NOT_FOUND, r"not running|shut ?down|suspended", (400, 409, 422)),
        Rule(Cause.INVALID_REQUEST, r"blueprint.{0,40}not found", (404,)),
    )

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        reply = await self.http.ask(
            "create",
            "POST",
            "/v1/devboxes",
            sent=sent,
            json=order_of(wanted),
            # Its SDK gives each create a key; without one a proxy's re-send makes two.
            headers={"x-request-id": str(uuid7())},
        )
        made = reply.object()
        provider_id = text_of(made, "id")
        while made.get("status") in BOOTING:
            made = await self._wait(provider_id) or made
        if made.get("status") != "running":
            reason = made.get("failure_reason") or made.get("shutdown_reason") or ""
            text = f"the devbox is {made.get('status')} {reason}".strip()
            raise ProviderError(Cause.PROVIDER_ERROR, Origin.PROVIDER, text)
        return reply.timing.created(provider_id)

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        reply = await self.http.ask(
            "execute",
            "POST",
            f"/v1/devboxes/{provider_id}/execute",
            sent=sent,
            json={
                "command": shlex.join(command),
                "command_id": str(uuid7()),
                "optimistic_timeout": max(1, min(LONG_POLL_S, round(timeout_s))),
            },
        )
        done = reply.object()
        if done.get("status") != "completed":
            text = f"the command is still {done.get('status')}"
            raise ProviderError(Cause.TIMEOUT, Origin.PROVIDER, text)
        return answer_of(
            done.get("exit_status"), done.get("stdout"), done.get("stderr")
        )

    async def _wait(self, provider_id: str) -> dict[str, Any] | None:
        """By one long poll; None: not yet. One that fails decides nothing."""
        try:
            waited = await self.http.ask(
                "create",
                "POST",
                f"/v1/devboxes/{provider_id}/wait_for_status",
                json={
                    "statuses": ["running", "failure", "shutdown"],
                    "timeout_seconds": LONG_POLL_S,
                },
                also=(408,),  # not yet
            )
        except ProviderError as error:
            await asyncio.sleep(patience(error))
            return None
        return None if waited.status == 408 else waited.object()

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        path = f"/v1/devboxes/{provider_id}/shutdown"
        await self.http.ask("destroy", "POST", path, sent=sent, json={}, also=(404,))

    async def listed(self, labels: Mapping[str, str]) -> AsyncIterator[Listed]:
        """The vendor has no filter by label: all that live, page by page."""
        params = {"limit": str(PAGE), "include_total_count": "false"}
        for _ in range(PAGES_MAX):
            reply = await self.http.ask("list", "GET", "/v1/devboxes", params=params)
            page = reply.object()
            rows = page.get("devboxes") or []
            for row in rows:
                if row.get("status") in {*BOOTING, "running", "suspended"}:
                    yield Listed(text_of(row, "id"), row.get("metadata") or {})
            if not page.get("has_more") or not rows:
                return
            params["starting_after"] = text_of(rows[-1], "id")


def order_of(wanted: Wanted) -> dict[str, Any]:
    """What the vendor is asked for; the same by REST and by its SDK."""
    spec = wanted.spec
    cpu, memory_mb = float(str(spec["cpu"])), int(str(spec["memory_mb"]))
    launch: dict[str, Any] = {
        "keep_alive_time_seconds": wanted.ttl_s,
        "resource_size_request": _SIZES.get((cpu, memory_mb), "CUSTOM_SIZE"),
    }
    if launch["resource_size_request"] == "CUSTOM_SIZE":
        launch["custom_cpu_cores"] = cpu
        launch["custom_gb_memory"] = max(1, round(memory_mb / 1_024))
    order: dict[str, Any] = {
        "name": f"hf-{wanted.labels.get('run', '')}-{wanted.sandbox}",
        "metadata": dict(wanted.labels),
        "launch_parameters": launch,
    }
    if spec.get("image"):
        order["blueprint_name"] = spec["image"]
    return order


def uuid7() -> UUID:
    """RFC 9562: the vendor wants ids of commands that sort by time."""
    value = (time.time_ns() // 1_000_000) << 80 | random_bits(80)
    return UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 7 << 76 | 2 << 62)
