"""Modal through its own SDK: there is no REST.

The SDK speaks gRPC, in an agent on the agent's own loop (modal_loop.py). Its retries of
the control plane are pinned off (no public switch; a test sees that one refusal is one
request); those of the command router, which carries commands, cannot be
(docs/providers.md).
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

from shardagent.errors import Cause, ConfigError, Origin, ProviderError
from shardagent.providers import witness
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
from shardagent.providers.modal_loop import Stay
from shardagent.providers.rest import OUTPUT_CHARACTERS_MAX, WITNESS_TIMEOUT_S
from shardagent.providers.taxonomy import Rule, cause_of
from shardagent.scrub import Scrubber
from shardagent.wire import Plan

APP = "holdfast"
IMAGE = "node:22-slim"
URL = "https://api.modal.com"
LISTED_MAX = 1_000_000
TAGS_IN_FLIGHT = 50
_STATUSES = {
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "FAILED_PRECONDITION": 400,
    "INVALID_ARGUMENT": 400,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "ABORTED": 409,
}
_RULES = (
    Rule(Cause.QUOTA, r"maximum number|spend|billing|concurrent", (429, 400)),
    Rule(Cause.NOT_FOUND, r"already (finished|shut ?down|completed)|has terminated"),
)


class ModalProvider:
    """config: `token_id` and `token_secret`."""

    slug = "modal"
    supports_witness = True
    connect_us: int | None = None  # the SDK does not say
    about = About(
        title="Modal",
        endpoint=URL,
        entries=(
            Entry("token_id", "Token id"),
            Entry("token_secret", "Token secret"),
        ),
        plan={"transport": "sdk"},
        maps=frozenset({"cpu", "memory_mb", "image", "region"}),
        waits_for="a task to be placed on a worker (V2 sandboxes)",
        ttl_s_max=24 * 3600,
        sdk="shardagent.providers.modal:ModalProvider",
        thin=False,
        stand_in=True,
    )

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        os.environ.setdefault("MODAL_MAX_THROTTLE_WAIT", "0")
        try:
            self._modal: Any = importlib.import_module("modal")
            grpc: Any = importlib.import_module("modal._grpc_client")
        except ImportError as error:
            text = f"modal needs the vendor's package (pip install modal): {error}"
            raise ConfigError(text) from error
        object.__setattr__(grpc._DEFAULT_RETRY, "max_retries", 0)
        self._config = config
        self._image_asked = plan.spec.image or IMAGE
        self._scrubber = Scrubber(self.about.secrets(config))
        self._opening = asyncio.Lock()
        self._stay = Stay()
        self._client: Any = None
        self._app: Any = None
        self._image: Any = None
        self._sandboxes: dict[str, Any] = {}

    async def warm(self, connections: int) -> int:
        """One HTTP/2 channel carries every create: so there is one."""
        await self._open()
        return min(1, connections)

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        await self._open()
        spec = wanted.spec
        sent()
        sandbox = await self._ask(
            "create",
            self._modal.Sandbox.create.aio(
                "sleep",
                "infinity",
                app=self._app,
                image=self._image,
                client=self._client,
                tags=dict(wanted.labels),
                timeout=wanted.ttl_s,
                cpu=float(str(spec.get("cpu", 1))),
                memory=int(str(spec.get("memory_mb", 512))),
                region=spec.get("region"),
            ),
        )
        self._sandboxes[sandbox.object_id] = sandbox
        return Created(sandbox.object_id, reused=True)

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        sandbox = await self._sandbox(provider_id)
        sent()
        limit_s = max(1, round(timeout_s))
        running = sandbox.exec.aio(*command, timeout=limit_s)
        process = await self._ask("execute", running)
        output = await self._ask("execute", process.stdout.read.aio())
        code = await self._ask("execute", process.wait.aio())
        return Answer(int(code), str(output)[:OUTPUT_CHARACTERS_MAX])

    async def start_witness(self, provider_id: str, nonce: str, sent: Sent) -> None:
        command = witness.start_command(nonce)
        answer = await self.execute(provider_id, command, sent, WITNESS_TIMEOUT_S)
        if answer.exit_code:
            text = f"the witness did not start: {answer.output}"
            raise ProviderError(
                Cause.COMMAND_FAILED, Origin.PROVIDER, text, status=answer.exit_code
            )

    async def probe(
        self,
        provider_id: str,
        command: Sequence[str],
        challenge: str | None,
        sent: Sent,
        timeout_s: float,
    ) -> Answer:
        if challenge is not None:
            command = witness.probe_command(command, challenge)
        answer = await self.execute(provider_id, command, sent, timeout_s)
        return witness.read_answer(answer)

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        sandbox = await self._sandbox(provider_id)
        sent()
        try:
            await self._ask("destroy", sandbox.terminate.aio())
        except ProviderError as error:
            if error.cause is not Cause.NOT_FOUND:
                raise
        self._sandboxes.pop(provider_id, None)

    async def list(self, labels: Mapping[str, str]) -> list[Listed]:
        """Those of our app. The SDK's listing tells no tags: each is asked for its."""
        await self._open()
        sandboxes = await self._ask("list", self._listing(labels))
        room = asyncio.Semaphore(TAGS_IN_FLIGHT)

        async def tags(sandbox: Any) -> Listed:
            async with room:
                return Listed(sandbox.object_id, await sandbox.get_tags.aio())

        tagging = asyncio.gather(*(tags(sandbox) for sandbox in sandboxes))
        return list(await self._ask("list", tagging))

    async def _listing(self, labels: Mapping[str, str]) -> Sequence[Any]:
        found: Any = []
        async for sandbox in self._modal.Sandbox.list.aio(
            app_id=self._app.app_id, tags=dict(labels), client=self._client
        ):
            found.append(sandbox)
            if len(found) >= LISTED_MAX:
                break
        return cast(Sequence[Any], found)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await self._ask("close", client.close.aio())
        self._stay.leave()

    async def _open(self) -> None:
        """The channel, the app and the image: once, before anything is measured."""
        async with self._opening:
            if self._image is not None:
                return
            self._stay.enter()
            modal, config = self._modal, self._config
            api: Any = importlib.import_module("modal_proto.api_pb2")
            client = modal.Client(
                config.get(ENDPOINT) or URL,
                api.CLIENT_TYPE_CLIENT,
                (config["token_id"], config["token_secret"]),
            )
            await self._ask("list", client._open.aio())
            self._client = client
            looking = modal.App.lookup.aio(APP, create_if_missing=True, client=client)
            self._app = await self._ask("list", looking)
            asked = self._image_asked
            if asked.startswith("im-"):
                image = modal.Image.from_id(asked, client=client)
                await self._ask("create", image.hydrate.aio(client))
            else:
                image = modal.Image.from_registry(asked)
                await self._ask("create", image.build.aio(self._app))
            self._image = image

    async def _sandbox(self, provider_id: str) -> Any:
        await self._open()
        found = self._sandboxes.get(provider_id)
        if found is None:
            finding = self._modal.Sandbox.from_id.aio(provider_id, client=self._client)
            found = await self._ask("execute", finding)
        return found

    async def _ask(self, verb: str, asking: Any) -> Any:
        """The SDK's answer; its exceptions as ours."""
        try:
            return await asking
        except asyncio.CancelledError:
            raise
        except Exception as error:
            raise self._failed(verb, error) from None

    def _failed(self, verb: str, error: Exception) -> ProviderError:
        text = self._scrubber.clean(f"{type(error).__name__}: {error}")
        status = getattr(getattr(error, "_grpc_status", None), "name", None)
        status = status or getattr(getattr(error, "status", None), "name", None)
        kind = type(error).__name__
        if status in _STATUSES:
            number = _STATUSES[status]
            cause = cause_of(verb, number, text, _RULES)
            return ProviderError(cause, Origin.PROVIDER, text, status=number)
        if kind in ("ConnectionError", "StreamTerminatedError", "gaierror"):
            return ProviderError(Cause.NETWORK, Origin.NETWORK, text)
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            return ProviderError(Cause.NETWORK, Origin.NETWORK, text)
        if kind.endswith("TimeoutError"):
            return ProviderError(Cause.TIMEOUT, Origin.PROVIDER, text)
        if kind in ("SandboxTerminatedError", "NotFoundError"):
            return ProviderError(Cause.NOT_FOUND, Origin.PROVIDER, text)
        if kind in ("InvalidError", "TypeError", "ValueError"):
            return ProviderError(Cause.INVALID_REQUEST, Origin.PROVIDER, text)
        cause = cause_of(verb, None, text, _RULES)
        return ProviderError(cause, Origin.PROVIDER, text)
