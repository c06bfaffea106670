"""E2B over its REST API, and its sandboxes' daemon over Connect with JSON.

Wire as of the vendor's Python SDK 2.63 (e2b/api, e2b/envd), read in its source.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import orjson

from shardagent.errors import Cause, ProviderError
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
from shardagent.providers.rest import PAGES_MAX, RestProvider, answer_of, text_of
from shardagent.providers.taxonomy import Rule
from shardagent.wire import Plan

EDGE = "https://sandbox.e2b.app"  # carries the commands of every sandbox
ENVD_PORT = "49983"
PAGE = 100
_END_OF_STREAM = 2
_CODES = {
    "unauthenticated": 401,
    "permission_denied": 403,
    "not_found": 404,
    "resource_exhausted": 429,
    "unavailable": 503,
    "internal": 500,
    "unimplemented": 501,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
}


class E2bProvider(RestProvider):
    """config: `api_key`; `endpoint`, `sandbox_url` where it is not E2B's cloud."""

    slug = "e2b"
    about = About(
        title="E2B",
        endpoint="https://api.e2b.app",
        entries=(
            Entry("api_key", "API key"),
            Entry("sandbox_url", "Sandbox URL", secret=False, required=False),
        ),
        maps=frozenset({"image"}),
        waits_for="the microVM to be resumed and its daemon to answer",
        ttl_s_max=24 * 3600,
        sdk="shardagent.providers.e2b_sdk:E2bSdkProvider",
        stand_in=True,
    )
    rules = (
        # Its edge's word for a sandbox that is no more there.
        Rule(Cause.NOT_FOUND, r"sandbox.{0,60}(not found|doesn't exist)", (502,)),
        Rule(
            Cause.INVALID_REQUEST, r"template.{0,60}(not found|does not exist)", (404,)
        ),
        Rule(Cause.QUOTA, r"cannot create a sandbox with timeout|timeout cannot be"),
    )

    create_path = "/v2/sandboxes"

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        super().__init__(config, plan)
        elsewhere = config.get("sandbox_url") or config.get(ENDPOINT)
        self._edge = (elsewhere or EDGE).rstrip("/")
        self._tokens: dict[str, str] = {}  # of each sandbox's daemon

    def headers(self, config: Mapping[str, str]) -> dict[str, str]:
        return {"X-API-KEY": config["api_key"]}

    def edge(self, provider_id: str) -> str:
        """Where the commands of this sandbox go."""
        return self._edge

    def bases(self) -> list[str]:
        return list(dict.fromkeys((self.http.base, self._edge)))

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        reply = await self.http.ask(
            "create",
            "POST",
            self.create_path,
            sent=sent,
            json={
                "templateID": wanted.spec.get("image") or "base",
                "timeout": wanted.ttl_s,
                "autoPause": False,
                "metadata": dict(wanted.labels),
            },
        )
        made = reply.object()
        provider_id = text_of(made, "sandboxID")
        if isinstance(made.get("envdAccessToken"), str):
            self._tokens[provider_id] = made["envdAccessToken"]
        return reply.timing.created(provider_id)

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        process = {"cmd": command[0], "args": list(command[1:])}
        message = orjson.dumps({"process": process, "stdin": False})
        headers = {
            "Content-Type": "application/connect+json",
            "Connect-Protocol-Version": "1",
            "Connect-Timeout-Ms": str(max(1, int(timeout_s * 1_000))),
            "E2b-Sandbox-Id": provider_id,
            "E2b-Sandbox-Port": ENVD_PORT,
        }
        if provider_id in self._tokens:
            headers["X-Access-Token"] = self._tokens[provider_id]
        reply = await self.http.ask(
            "execute",
            "POST",
            f"{self.edge(provider_id)}/process.Process/Start",
            sent=sent,
            data=struct.pack(">BI", 0, len(message)) + message,
            headers=headers,
        )
        return self._answer(reply)

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        path = f"/sandboxes/{provider_id}"
        await self.http.ask("destroy", "DELETE", path, sent=sent, also=(404,))
        self._tokens.pop(provider_id, None)

    async def listed(self, labels: Mapping[str, str]) -> AsyncIterator[Listed]:
        params = {"state": "running", "limit": str(PAGE)}
        if labels:
            params["metadata"] = urlencode(dict(labels))
        for _ in range(PAGES_MAX):
            reply = await self.http.ask("list", "GET", "/v2/sandboxes", params=params)
            rows = reply.json()
            for row in rows if isinstance(rows, list) else []:
                carried = row.get("metadata") or {}
                yield Listed(text_of(row, "sandboxID"), carried)
            following = reply.headers.get("X-Next-Token")
            if not following:
                return
            params["nextToken"] = following

    def _answer(self, reply: Reply) -> Answer:
        """Envelopes: what the command wrote, and how it ended."""
        output: list[str] = []
        for flag, message in envelopes(reply.body):
            if flag & _END_OF_STREAM:
                if "error" in message:
                    raise self._said(message["error"])
                continue
            event = message.get("event") or {}
            if data := event.get("data"):
                output += [decoded(data.get(name)) for name in ("stdout", "stderr")]
            if "end" in event:
                end = event["end"]
                # Connect's JSON leaves a zero out.
                return answer_of(end.get("exitCode", 0), *output)
        raise unintelligible("the command's stream has no end", reply.status)

    def _said(self, error: Any) -> ProviderError:
        code = str(error.get("code", "")) if isinstance(error, dict) else ""
        text = str(error.get("message", "")) if isinstance(error, dict) else ""
        return self.http.error("execute", _CODES.get(code, 500), f"{code}: {text}")


def envelopes(body: bytes) -> list[tuple[int, dict[str, Any]]]:
    """(flag, message) of each; ProviderError where one is cut or no JSON."""
    found, at = [], 0
    while at < len(body):
        try:
            flag, size = struct.unpack_from(">BI", body, at)
            message = orjson.loads(body[at + 5 : at + 5 + size])
        except (struct.error, ValueError):
            raise unintelligible("a message of the stream is cut short") from None
        if isinstance(message, dict):
            found.append((flag, message))
        at += 5 + size
    return found


def decoded(data: object) -> str:
    if not isinstance(data, str):
        return ""
    try:
        return base64.b64decode(data).decode(errors="replace")
    except binascii.Error:
        raise unintelligible("output is not base64") from None
