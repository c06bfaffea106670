"""What the thin REST adapters share: connections, the witness, one way to say no."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

from shardagent.errors import Cause, ConfigError, Origin, ProviderError
from shardagent.providers import witness
from shardagent.providers.base import ENDPOINT, About, Answer, Listed, Sent
from shardagent.providers.http import Http, unintelligible
from shardagent.providers.taxonomy import Rule
from shardagent.wire import Plan

OUTPUT_CHARACTERS_MAX = 65_536
PAGES_MAX = 1_000  # of one listing
WITNESS_TIMEOUT_S = 30.0
LOOK_AGAIN_S = 1.0  # after a look that failed


class RestProvider:
    """The half of an adapter that is the same everywhere; a vendor adds its wire."""

    slug: ClassVar[str]
    about: ClassVar[About]
    rules: ClassVar[tuple[Rule, ...]] = ()
    supports_witness = True
    connect_us: int | None = None

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        for entry in self.about.entries:
            if entry.required and not config.get(entry.name):
                text = f"{self.slug} needs {entry.name!r} ({entry.label})"
                raise ConfigError(text)
        self.config = config
        self.plan = plan
        base = config.get(ENDPOINT) or self.about.endpoint
        self.http = Http(
            base,
            self.headers(config),
            secrets=self.about.secrets(config),
            rules=self.rules,
            tls=self.trusted(config),
        )

    def headers(self, config: Mapping[str, str]) -> dict[str, str]:
        """Sent with every request: how this vendor wants its key."""
        return {"Authorization": f"Bearer {config['api_key']}"}

    def trusted(self, config: Mapping[str, str]) -> ssl.SSLContext | None:
        """Where not the authorities that this machine trusts."""
        return None

    def bases(self) -> list[str]:
        """Hosts whose connections are warmed: the API's, and the commands' if known."""
        return [self.http.base]

    async def warm(self, connections: int) -> int:
        """As many to each host; the number held is that of the API's."""
        counts = [await self.http.warm(connections, base) for base in self.bases()]
        self.connect_us = self.http.connect_us
        return min(counts)

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

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        raise NotImplementedError

    async def look(
        self, path: str, pause_s: float, params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """At a sandbox whose create was accepted, after a pause; its JSON object.

        A look that fails decides nothing, least of all that the create was refused: the
        next follows LOOK_AGAIN_S later, until the caller's deadline.
        """
        while True:
            await asyncio.sleep(pause_s)
            try:
                reply = await self.http.ask("create", "GET", path, params=params)
            except ProviderError as error:
                pause_s = patience(error)
            else:
                return reply.object()

    async def list(self, labels: Mapping[str, str]) -> list[Listed]:
        """Every page of it; the vendor filters where it can, we do in any case."""
        found: list[Listed] = []
        async for one in self.listed(labels):
            if labels.items() <= one.labels.items():
                found.append(one)
        return found

    def listed(self, labels: Mapping[str, str]) -> AsyncIterator[Listed]:
        raise NotImplementedError

    async def close(self) -> None:
        await self.http.close()


def patience(error: ProviderError) -> float:
    """How long to wait before the next look; raises where there is nothing to see."""
    if error.origin is Origin.HARNESS:
        raise error
    if error.status in (404, 410):
        text = f"accepted, then gone: {error.message}"
        raise ProviderError(
            Cause.PROVIDER_ERROR, Origin.PROVIDER, text, status=error.status
        )
    return LOOK_AGAIN_S


def text_of(body: Mapping[str, Any], *keys: str) -> str:
    """The first of these keys that holds a string; what the API promises is there."""
    for key in keys:
        value = body.get(key)
        if isinstance(value, str) and value:
            return value
    raise unintelligible(f"no {keys[0]!r}")


def answer_of(exit_code: object, *outputs: object) -> Answer:
    """A command's answer, however the vendor wraps it."""
    if not isinstance(exit_code, int):
        raise unintelligible("no exit code")
    output = "".join(part for part in outputs if isinstance(part, str))
    return Answer(exit_code, output[:OUTPUT_CHARACTERS_MAX])


def once(sent: Sent) -> Sent:
    """For a call of several requests: the first of them is the one that counts."""
    told = False

    def first() -> None:
        nonlocal told
        if not told:
            told = True
            sent()

    return first


def random_bits(count: int) -> int:
    """For ids that a vendor wants its callers to make."""
    return secrets.randbits(count)
