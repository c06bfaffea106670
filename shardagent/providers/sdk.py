"""What the adapters on vendors' own SDKs share: slower, but as customers use them.

Retries are switched off where the SDK allows it; `sent` is the call. These are the
oracle of the thin adapters' tests too: both must pass the same ones.
"""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from shardagent.errors import Cause, ConfigError, Origin, ProviderError
from shardagent.providers import witness
from shardagent.providers.base import About, Answer, Sent
from shardagent.providers.taxonomy import Rule, cause_of
from shardagent.scrub import Scrubber
from shardagent.wire import Plan

WITNESS_TIMEOUT_S = 30.0
LISTED_MAX = 1_000_000
# How vendors' SDKs and the HTTP libraries under them name a way that did not open.
_NETWORK = ("connect", "network", "readerror", "writeerror", "protocol", "transport")
_STATUS = re.compile(r"^(?:\D{0,40}status |Error code: )?([45]\d\d)\b")
_GONE = ("notfound", "notrunning", "terminated")

Value = TypeVar("Value")


class SdkProvider:
    """A vendor adds create, execute, destroy, list and the package it needs."""

    slug: ClassVar[str]
    about: ClassVar[About]
    package: ClassVar[str]
    rules: ClassVar[tuple[Rule, ...]] = ()
    supports_witness = True
    connect_us: int | None = None

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        for entry in self.about.entries:
            if entry.required and not config.get(entry.name):
                raise ConfigError(f"{self.slug} needs {entry.name!r} ({entry.label})")
        self.config = config
        self.plan = plan
        self._scrubber = Scrubber(self.about.secrets(config))

    def load(self, module: str) -> Any:
        """A module of the SDK; ConfigError where it is not installed."""
        try:
            return importlib.import_module(module)
        except ImportError as error:
            text = f"{self.slug} needs {self.package} (pip install {self.package})"
            raise ConfigError(f"{text}: {error}") from error

    async def warm(self, connections: int) -> int:
        """The SDK's own pool connects when it is used; it cannot be warmed."""
        return 0

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        raise NotImplementedError

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

    async def ask(self, verb: str, asking: Awaitable[Value]) -> Value:
        """The SDK's answer; its exceptions as ours."""
        try:
            return await asking
        except (asyncio.CancelledError, ProviderError):
            raise
        except Exception as error:
            raise self.failed(verb, error) from None

    def status_of(self, error: Exception) -> int | None:
        """The HTTP status that an exception of this SDK carries."""
        for holder in (error, getattr(error, "response", None)):
            for name in ("status_code", "status"):
                found = getattr(holder, name, None)
                if isinstance(found, int):
                    return found
        said = _STATUS.search(str(error))  # some say it in words alone
        return int(said[1]) if said else None

    def failed(self, verb: str, error: Exception) -> ProviderError:
        """An exception of the SDK, classed."""
        kind = type(error).__name__.lower()
        text = self._scrubber.clean(f"{type(error).__name__}: {error}")
        status = self.status_of(error)
        if status is None:
            if any(word in kind for word in _GONE) and verb != "create":
                return ProviderError(Cause.NOT_FOUND, Origin.PROVIDER, text)
            if any(word in kind for word in _NETWORK):
                return ProviderError(Cause.NETWORK, Origin.NETWORK, text)
            if isinstance(error, TypeError | AttributeError):
                return ProviderError(Cause.HARNESS, Origin.HARNESS, text)
            if "timeout" in kind:
                return ProviderError(Cause.TIMEOUT, Origin.PROVIDER, text)
            if isinstance(error, OSError):
                return ProviderError(Cause.NETWORK, Origin.NETWORK, text)
        cause = cause_of(verb, status, text, self.rules)
        return ProviderError(cause, Origin.PROVIDER, text, status=status)

    async def close(self) -> None:
        """Nothing to let go of, unless the vendor's SDK says otherwise."""


def not_there(error: ProviderError) -> bool:
    """What a destroy may answer: it is gone already."""
    return error.cause is Cause.NOT_FOUND
