"""Blaxel's sandboxes over its REST API; wire as of its Python SDK 0.4.24.

A sandbox that nobody calls for some 15 s is put on standby and resumed by the next
call: the witness tells such a one from one that stays awake.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from math import ceil
from typing import Any

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
from shardagent.providers.rest import PAGES_MAX, RestProvider, answer_of, text_of
from shardagent.providers.taxonomy import Rule

VERSION = "2026-09-22"  # of the API, as the SDK says it
IMAGE = "blaxel/base-image:latest"
TTL_S_MIN = 300
PAGE = 200
LOOK_S = 0.1  # between two looks at a sandbox that is not deployed yet
LEAVING_LOOK_S = 0.5  # at one that is being deleted
_COMING = frozenset({"UPLOADING", "BUILDING", "BUILT", "DEPLOYING"})
_OVER = frozenset({"DELETING", "TERMINATED", "DEACTIVATING", "DEACTIVATED", "FAILED"})


class BlaxelProvider(RestProvider):
    """config: `api_key` and `workspace`."""

    slug = "blaxel"
    about = About(
        title="Blaxel",
        endpoint="https://api.blaxel.ai/v0",
        entries=(
            Entry("api_key", "API key"),
            Entry("workspace", "Workspace", secret=False),
        ),
        maps=frozenset({"memory_mb", "image", "region"}),
        plan={"spec": {"cpu": 1, "memory_mb": 2_048, "region": "us-pdx-1"}},
        waits_for="the sandbox to be deployed (the server waits; then by polling)",
        stand_in=True,
    )
    rules = (
        Rule(Cause.QUOTA, r"QUOTA_EXCEEDED|\btier\b", (400, 403, 409, 429)),
        Rule(Cause.TIMEOUT, r"CREATION_TIMEOUT"),
        Rule(
            Cause.NOT_FOUND,
            r"(WORKLOAD|SANDBOX)_NOT_FOUND|terminated",
            (400, 502),
            ("execute",),
        ),
        Rule(Cause.AUTH, r"AUTHENTICATION_UNAVAILABLE", (503,)),
    )

    def headers(self, config: Mapping[str, str]) -> dict[str, str]:
        return {
            "X-Blaxel-Authorization": f"Bearer {config['api_key']}",
            "X-Blaxel-Workspace": config["workspace"],
            "Blaxel-Version": VERSION,
        }

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        reply = await self.http.ask(
            "create", "POST", "/sandboxes", sent=sent, json=order_of(wanted)
        )
        made = reply.object()
        name = text_of(made.get("metadata") or {}, "name")
        while made.get("status") in _COMING:
            made = await self.look(f"/sandboxes/{name}", LOOK_S)
        if made.get("status") not in (None, "DEPLOYED"):
            said = f"the sandbox is {made.get('status')}: {_reason(made)}"
            failure = self.http.error("create", None, said)
            raise ProviderError(failure.cause, Origin.PROVIDER, failure.message)
        where = text_of(made.get("metadata") or {}, "url").rstrip("/")
        return reply.timing.created(f"{name} {where}")

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        _, _, where = provider_id.partition(" ")
        reply = await self.http.ask(
            "execute",
            "POST",
            f"{where}/process",
            sent=sent,
            json={
                "command": shlex.join(command),
                "waitForCompletion": True,
                "timeout": max(1, ceil(timeout_s)),
            },
        )
        done = reply.object()
        if done.get("status") == "running":
            text = "the command is still running"
            raise ProviderError(Cause.TIMEOUT, Origin.PROVIDER, text)
        exit_code = done.get("exitCode", done.get("exit_code"))
        return answer_of(exit_code, done.get("stdout"), done.get("stderr"))

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        """Deleting goes on behind the answer; confirmed is what is gone."""
        path = f"/sandboxes/{provider_id.partition(' ')[0]}"
        reply = await self.http.ask("destroy", "DELETE", path, sent=sent, also=(404,))
        while reply.status != 404:
            reply = await self.http.ask("destroy", "GET", path, also=(404,))
            if reply.status == 404 or reply.object().get("status") == "TERMINATED":
                return
            await asyncio.sleep(LEAVING_LOOK_S)

    async def listed(self, labels: Mapping[str, str]) -> AsyncIterator[Listed]:
        """The vendor has no filter by label: all that live, page by page."""
        params = {"limit": str(PAGE), "showTerminated": "false"}
        for _ in range(PAGES_MAX):
            reply = await self.http.ask("list", "GET", "/sandboxes", params=params)
            page = reply.object()
            for row in page.get("data") or []:
                about = row.get("metadata") or {}
                if row.get("status") not in _OVER and "run" in _labels(about):
                    found = f"{text_of(about, 'name')} {about.get('url') or ''}"
                    yield Listed(found.rstrip("/"), _labels(about))
            following = (page.get("meta") or {}).get("nextCursor")
            if not following:
                return
            params["cursor"] = str(following)


def order_of(wanted: Wanted) -> dict[str, Any]:
    """No name of ours: only unnamed ones may come out of the vendor's warm pool."""
    spec = wanted.spec
    asked: dict[str, Any] = {
        "runtime": {
            "image": spec.get("image") or IMAGE,
            "memory": int(str(spec.get("memory_mb", 2_048))),
            "ttl": f"{max(TTL_S_MIN, wanted.ttl_s)}s",
        }
    }
    if spec.get("region"):
        asked["region"] = spec["region"]
    return {"metadata": {"labels": dict(wanted.labels)}, "spec": asked}


def _labels(about: Mapping[str, Any]) -> Mapping[str, str]:
    found = about.get("labels")
    return found if isinstance(found, dict) else {}


def _reason(sandbox: Mapping[str, Any]) -> str:
    errors = sandbox.get("errors") or []
    said = errors[-1].get("message") if errors and isinstance(errors[-1], dict) else ""
    return str(said or "")
