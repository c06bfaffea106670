"""Kubernetes' agent-sandbox: a claim on a warm pool, commands through its router.

Wire as of its Python client, k8s-agent-sandbox 1.0 (claims and commands), and of the
Kubernetes API. An id of ours is the claim's name and, behind a slash, its sandbox's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import shlex
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from shardagent.errors import Cause, ConfigError, Origin, ProviderError
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
from shardagent.providers.http import Http, trusting, unintelligible
from shardagent.providers.labels import PREFIX, name_of
from shardagent.providers.rest import PAGES_MAX, RestProvider, answer_of, text_of
from shardagent.providers.taxonomy import Rule
from shardagent.wire import Plan

GROUP = "extensions.agents.x-k8s.io"
VERSION = "v1beta1"
NAMESPACE = "default"
# The router as its manifests install it, through the API server's own proxy.
ROUTER = (
    "/api/v1/namespaces/agent-sandbox-system/services/http:sandbox-router-svc:8080"
    "/proxy"
)
PORT = "8888"  # on which a sandbox's runtime listens
PAGE = 500
WATCH_S = 600  # after which the server ends a watch, and we begin another
WATCH_FAILURES_MAX = 5  # in a row, without an event between them
WATCH_PAUSE_S = 0.2
# Of a claim that is not ready: its controller tries these no more.
_WRONG = frozenset(
    {"TemplateNotFound", "WarmPoolNotFound", "InvalidMetadata"}
    | {"EnvVarsInjectionRejected", "VolumeClaimTemplatesError"}
)
_OVER = frozenset({"ClaimExpired", "SandboxExpired", "PodFailed", "PodSucceeded"})


class AgentSandboxProvider(RestProvider):
    """config: `api_key` (a service account's token), `endpoint` (the API server)."""

    slug = "agent-sandbox"
    about = About(
        title="Kubernetes agent-sandbox",
        entries=(
            Entry("api_key", "Service account token"),
            Entry("namespace", "Namespace", secret=False, required=False),
            Entry("ca", "CA data (base64)", secret=False, required=False),
            Entry("router_url", "Router's URL", secret=False, required=False),
            Entry("router_token", "Router's token", required=False),
        ),
        maps=frozenset({"image"}),
        plan={"spec": {"image": "holdfast"}},
        waits_for="the claim to be bound to a sandbox that is Ready (by one watch)",
        stand_in=True,
    )
    rules = (
        Rule(Cause.QUOTA, r"exceeded quota", (403,)),
        Rule(
            Cause.INVALID_REQUEST,
            r"admission webhook|(maximum|minimum) .{0,20}usage per|being terminated",
            (400, 403),
        ),
    )

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        if not config.get(ENDPOINT):
            raise ConfigError(
                "agent-sandbox needs the API server's URL as its endpoint"
            )
        super().__init__(config, plan)
        self._namespace = config.get("namespace") or NAMESPACE
        self._claims = (
            f"/apis/{GROUP}/{VERSION}/namespaces/{self._namespace}/sandboxclaims"
        )
        self._router, self._way = self.http, ROUTER
        if config.get("router_url"):
            token = config.get("router_token")
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            secrets = self.about.secrets(config)
            self._router = Http(
                config["router_url"], headers, secrets=secrets, rules=self.rules
            )
            self._way = ""
        self._watch = Watch(self.http, self._claims)

    def trusted(self, config: Mapping[str, str]) -> ssl.SSLContext | None:
        """A cluster's own authority, as a kubeconfig has it."""
        if not config.get("ca"):
            return None
        try:
            return trusting(base64.b64decode(config["ca"], validate=True).decode())
        except (binascii.Error, ValueError, OSError) as error:
            text = f"agent-sandbox: 'ca' is no certificate in base64: {error}"
            raise ConfigError(text) from None

    async def warm(self, connections: int) -> int:
        """One more for the watch, so that it takes none from a create."""
        held = await self.http.warm(connections + 1)
        self.connect_us = self.http.connect_us
        if self._router is not self.http:
            held = min(held, await self._router.warm(connections))
        return min(held, connections)

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        name = name_of(wanted.labels)
        shared = {k: v for k, v in wanted.labels.items() if k != "sandbox"}
        bound = self._watch.expect(name, shared)
        try:
            reply = await self.http.ask(
                "create", "POST", self._claims, sent=sent, json=order_of(wanted, name)
            )
            made = reply.object()
            text_of(made.get("metadata") or {}, "name")  # a claim, or nonsense
            sandbox = bound_to(made) or await bound
        finally:
            self._watch.forget(name)
        return reply.timing.created(f"{name}/{sandbox}")

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        claim, _, sandbox = provider_id.partition("/")
        try:
            reply = await self._router.ask(
                "execute",
                "POST",
                f"{self._way}/execute",
                sent=sent,
                json={"command": shlex.join(command)},
                headers={
                    "X-Sandbox-ID": sandbox,
                    "X-Sandbox-Namespace": self._namespace,
                    "X-Sandbox-Port": PORT,
                    "X-Sandbox-Timeout": str(timeout_s),
                },
            )
        except ProviderError as error:
            # The router says the same of a sandbox that is gone and of one that is
            # not answering; the control plane knows.
            if error.status == 502 and not await self._is_there(claim):
                raise ProviderError(
                    Cause.NOT_FOUND, Origin.PROVIDER, error.message, status=502
                ) from None
            raise
        done = reply.object()
        return answer_of(done.get("exit_code"), done.get("stdout"), done.get("stderr"))

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        path = f"{self._claims}/{provider_id.partition('/')[0]}"
        await self.http.ask("destroy", "DELETE", path, sent=sent, also=(404,))

    async def listed(self, labels: Mapping[str, str]) -> AsyncIterator[Listed]:
        params = {"limit": str(PAGE)}
        if labels:
            params["labelSelector"] = selector_of(labels)
        for _ in range(PAGES_MAX):
            reply = await self.http.ask("list", "GET", self._claims, params=params)
            page = reply.object()
            for row in page.get("items") or []:
                about = row.get("metadata") or {}
                name = text_of(about, "name")
                if name.startswith(f"{PREFIX}-") and not about.get("deletionTimestamp"):
                    found = f"{name}/{_sandbox_of(row)}"
                    yield Listed(found, about.get("labels") or {})
            following = (page.get("metadata") or {}).get("continue")
            if not following:
                return
            params["continue"] = str(following)

    async def close(self) -> None:
        await self._watch.close()
        if self._router is not self.http:
            await self._router.close()
        await super().close()

    async def _is_there(self, claim: str) -> bool:
        path = f"{self._claims}/{claim}"
        reply = await self.http.ask("execute", "GET", path, also=(404,))
        return reply.status != 404


class Watch:
    """One stream of events for all claims of a Shard: who waits is told, by name."""

    def __init__(self, http: Http, claims: str) -> None:
        self._http = http
        self._claims = claims
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._task: asyncio.Task[None] | None = None

    def expect(self, name: str, labels: Mapping[str, str]) -> asyncio.Future[str]:
        """The name of the claim's sandbox, once it is bound and ready."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[name] = waiting
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(selector_of(labels)))
        return waiting

    def forget(self, name: str) -> None:
        waiting = self._waiting.pop(name, None)
        if waiting is not None and waiting.done() and not waiting.cancelled():
            waiting.exception()  # nobody needs it any more

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _look(self, selector: str) -> None:
        params = {"watch": "true", "resourceVersion": "0", "labelSelector": selector}
        params["timeoutSeconds"] = str(WATCH_S)
        failures = 0
        while self._waiting:
            try:
                async for line in self._http.lines(
                    "create", self._claims, params=params
                ):
                    if not self._tell(line):
                        break
                    failures = 0
            except ProviderError as error:
                failures += 1
                refused = error.status is not None and 400 <= error.status < 500
                if refused or failures >= WATCH_FAILURES_MAX:
                    self._fail(error)
                    return
            await asyncio.sleep(WATCH_PAUSE_S)

    def _tell(self, line: bytes) -> bool:
        """False where the server wants the watch begun anew."""
        if not line.strip():
            return True
        try:
            event = orjson.loads(line)
            kind, claim = event["type"], event["object"]
        except (ValueError, LookupError, TypeError):
            raise unintelligible("an event of the watch is no JSON") from None
        if kind == "ERROR":
            return False
        name = str((claim.get("metadata") or {}).get("name"))
        waiting = self._waiting.get(name)
        if waiting is None or waiting.done():
            return True
        try:
            if kind == "DELETED":
                text = "the claim was deleted before it was bound"
                raise ProviderError(Cause.PROVIDER_ERROR, Origin.PROVIDER, text)
            sandbox = bound_to(claim)
        except ProviderError as error:
            waiting.set_exception(error)
        else:
            if sandbox:
                waiting.set_result(sandbox)
        return True

    def _fail(self, error: ProviderError) -> None:
        """The claims were accepted: what is refused is the watch, no create."""
        text = f"cannot watch the claims: {error.message}"
        cause = Cause.PROVIDER_ERROR
        if error.origin is not Origin.PROVIDER:
            cause = error.cause
        failure = ProviderError(cause, error.origin, text, status=error.status)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(failure)


def order_of(wanted: Wanted, name: str) -> dict[str, Any]:
    """The claim that is asked for."""
    until = datetime.now(UTC) + timedelta(seconds=wanted.ttl_s)
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "SandboxClaim",
        "metadata": {"name": name, "labels": dict(wanted.labels)},
        "spec": {
            "warmPoolRef": {"name": str(wanted.spec.get("image") or "holdfast")},
            "lifecycle": {
                "shutdownTime": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "shutdownPolicy": "Delete",
            },
        },
    }


def bound_to(claim: Mapping[str, Any]) -> str:
    """The sandbox of a claim that is ready, or nothing; ProviderError where it never
    will be."""
    sandbox = _sandbox_of(claim)
    for condition in (claim.get("status") or {}).get("conditions") or []:
        if condition.get("type") != "Ready":
            continue
        if condition.get("status") == "True":
            return sandbox
        reason = str(condition.get("reason"))
        if reason in _WRONG or reason in _OVER:
            cause = Cause.INVALID_REQUEST if reason in _WRONG else Cause.PROVIDER_ERROR
            text = f"{reason}: {condition.get('message') or ''}"
            raise ProviderError(cause, Origin.PROVIDER, text)
    return ""


def selector_of(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _sandbox_of(claim: Mapping[str, Any]) -> str:
    found = ((claim.get("status") or {}).get("sandbox") or {}).get("name")
    return found if isinstance(found, str) else ""
