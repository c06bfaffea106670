"""Calls to the Provider as values: what is asked, how it ended, what that means."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Answer, Created, Listed

SECRET_BYTES = 16
SECRETS_AT_ONCE = 256
OUTPUT_SHOWN_MAX = 200  # characters of a wrong answer kept in its message

# Answers by which the Provider refused: nothing was made. After any other the
# sandbox may exist (measurement.md §4).
REFUSALS = frozenset(
    {
        Cause.RATE_LIMITED,
        Cause.QUOTA,
        Cause.CAPACITY,
        Cause.AUTH,
        Cause.INVALID_REQUEST,
    }
)
# The edge answered; nothing died.
NEVER_COUNTED = frozenset({Cause.RATE_LIMITED, Cause.QUOTA})

CUT = ProviderError(Cause.HARNESS, Origin.HARNESS, "cut short by the teardown")


class Verb(StrEnum):
    """What a call asks of the Provider."""

    WARM = "warm"
    CREATE = "create"
    READY = "ready"
    WITNESS = "witness"
    PROBE = "probe"
    DESTROY = "destroy"
    LIST = "list"
    OBSERVE = "observe"


# A member that is looked up in its class costs as much as a call of a function.
PROBE: Final = Verb.PROBE
CREATE: Final = Verb.CREATE
DESTROY: Final = Verb.DESTROY
OBSERVE: Final = Verb.OBSERVE


@dataclass(slots=True)  # not frozen: made for every call, and that costs
class Call:
    """One call to make now, within timeout_s."""

    verb: Verb
    timeout_s: float
    sandbox: int = -1
    provider_id: str = ""
    final: bool = False
    secret: str | None = None  # nonce of a witness, challenge of a probe
    connections: int = 0
    ttl_s: int = 0


@dataclass(frozen=True, slots=True)
class Warmed:
    """Connections that are open, and what opening one took (one round trip)."""

    connections: int
    connect_us: int | None = None


Value = Created | Answer | list[Listed] | Warmed | None


@dataclass(slots=True)
class Result:
    """How a call ended. sent_us is None where it failed before anything was sent."""

    started_us: int
    sent_us: int | None
    done_us: int
    value: Value = None
    error: ProviderError | None = None

    @property
    def from_us(self) -> int:
        """Where latencies begin."""
        return self.started_us if self.sent_us is None else self.sent_us

    @property
    def latency_us(self) -> int:
        return self.done_us - self.from_us


def _secrets() -> Iterator[str]:
    while True:
        pool = os.urandom(SECRET_BYTES * SECRETS_AT_ONCE).hex()
        for start in range(0, len(pool), 2 * SECRET_BYTES):
            yield pool[start : start + 2 * SECRET_BYTES]


# A nonce or a challenge; the system's source is asked for many of them at once.
fresh_secret = _secrets().__next__


def facts(failure: ProviderError) -> dict[str, object]:
    return {
        "cause": failure.cause,
        "origin": failure.origin,
        "status": failure.status,
        "message": failure.message,
    }


def words(failure: ProviderError) -> str:
    status = "" if failure.status is None else f" status {failure.status}"
    message = f": {failure.message}" if failure.message else ""
    return f"{failure.cause} ({failure.origin}){status}{message}"


def mismatch(
    value: Value, expect: re.Pattern[str] | None = None
) -> ProviderError | None:
    """A command that ran and answered wrongly."""
    assert isinstance(value, Answer)
    if value.exit_code == 0 and (expect is None or expect.search(value.output)):
        return None
    return ProviderError(
        Cause.COMMAND_FAILED,
        Origin.PROVIDER,
        value.output[:OUTPUT_SHOWN_MAX],
        status=value.exit_code,
    )


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
