"""What every stand-in does with a request, whatever its wire: ask the world, wait."""

from __future__ import annotations

import asyncio
import hmac
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from runs.simworld.engine import Engine
from runs.simworld.timers import Timers
from shardagent.providers import witness
from shardagent.providers.labels import labels_of

SHELLS = ("sh", "bash", "/bin/sh", "/bin/bash")
UNWRAP_MAX = 3  # shells in shells


class Refused(Exception):
    """The world's no; the stand-in says it in its vendor's words."""

    def __init__(self, cause: str, status: int, message: str) -> None:
        super().__init__(message)
        self.cause = cause
        self.status = status
        self.message = message


class _Waiting:
    """A Reply of the engine as a future."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[Any, ...]] = (
            asyncio.get_running_loop().create_future()
        )

    def ok(self, *values: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(values)

    def error(self, cause: str, status: int, message: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(Refused(cause, status, message))


class Cloud:
    """The world as a vendor's servers see it."""

    def __init__(
        self, engine: Engine, timers: Timers, secret: str, sandbox_count: int
    ) -> None:
        self._engine = engine
        self._timers = timers
        self._secret = secret.encode()
        self._sandbox_count = sandbox_count
        self._asked = 0
        self.url = ""  # where it listens, once it does

    def knows(self, key: str | None) -> bool:
        """Whether this is the account's key."""
        return hmac.compare_digest((key or "").encode(), self._secret)

    async def create(
        self, labels: Mapping[str, str], ttl_s: float, *, name: str = ""
    ) -> str:
        """Its id; Refused where the world says no; never, where it hangs."""
        carried = {**labels_of(name), **labels}
        if name:
            carried["name"] = name
        index = carried.get("sandbox", "")
        place = int(index) if index.isdecimal() else self._asked % self._sandbox_count
        self._asked += 1
        found = await self._ask(self._engine.create, place, carried, ttl_s)
        return str(found[0])

    async def execute(
        self, provider_id: str, argv: Sequence[str], timeout_s: float
    ) -> tuple[int, str]:
        """Exit code and output of a command in the sandbox."""
        match _plain(argv):
            case ["sh", "-c", _, witness.START_NAME, nonce, *_]:
                await self._ask(self._engine.witness, provider_id, nonce)
                return 0, ""
            case ["sh", "-c", _, witness.PROBE_NAME, challenge, _, *command]:
                found = await self._ask(
                    self._engine.probe, provider_id, command, challenge
                )
                code, output, ticks, digest = found
                if digest is not None:
                    output = witness.spoken(output, ticks, digest)
                return int(code), str(output)
            case command:
                # The world counts what comes after readiness as probes.
                if self._engine.is_interactive(provider_id):
                    found = await self._ask(
                        self._engine.probe, provider_id, command, None
                    )
                else:
                    found = await self._ask(
                        self._engine.execute, provider_id, command, timeout_s
                    )
                return int(found[0]), str(found[1])

    async def destroy(self, provider_id: str) -> bool:
        """Whether it was there."""
        there = self.is_alive(provider_id)
        await self._ask(self._engine.destroy, provider_id)
        return there

    def is_alive(self, provider_id: str) -> bool:
        """Whether it lives at this instant."""
        self._timers.run_due()
        return self._engine.is_living(provider_id)

    async def living(
        self, labels: Mapping[str, str]
    ) -> list[tuple[str, dict[str, str]]]:
        """Everything alive that carries these labels."""
        found: list[tuple[str, dict[str, str]]] = []
        offset: int | None = 0
        while offset is not None:
            page, offset = await self._ask(self._engine.list, dict(labels), offset)
            found += page
        return found

    async def _ask(self, verb: Any, *values: object) -> tuple[Any, ...]:
        self._timers.run_due()
        waiting = _Waiting()
        verb(waiting, *values)
        return await waiting.answer


def _plain(argv: Sequence[str]) -> list[str]:
    """The command itself, out of the shells that a vendor wraps it in."""
    command = [*argv]
    for _ in range(UNWRAP_MAX):
        match command:
            case [shell, *flags, script] if (
                shell in SHELLS and flags and all(f.startswith("-") for f in flags)
            ):
                if not _simple(script):
                    return ["sh", "-c", script]
                command = shlex.split(script)
            case [one] if " " in one:
                command = shlex.split(one)
            case _:
                break
    return command


def _simple(script: str) -> bool:
    """A quoted command, not a script that only a shell understands."""
    lexer = shlex.shlex(script, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        return not any(set(word) <= set(";|&<>()") and word for word in lexer)
    except ValueError:
        return False
