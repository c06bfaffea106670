"""What every adapter must do, as checks that run against a Provider: a real account,
or a stand-in. `shardagent conformance PROVIDER` prints them; tests run them too.

It makes up to SANDBOXES_MAX small sandboxes and destroys them all again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from shardagent import providers
from shardagent.errors import Cause, ProviderError
from shardagent.providers.base import Answer, Created, Provider, Wanted
from shardagent.wire import Plan

TOGETHER = 20  # creates at once, none of which may wait for another in the client
SANDBOXES_MAX = TOGETHER + 3
QUEUE_S = 0.25  # within which all of them must have been sent
TTL_S = 600
CHECK_LIMIT_S = 120.0
READY_PAUSE_S = 0.1
WITNESS_S = 1.2
CANCEL_S = 1.0


@dataclass(frozen=True, slots=True)
class Checked:
    """One check and how it ended; detail says what was seen, or what was wrong."""

    name: str
    ok: bool
    ms: float
    detail: str


class Failed(Exception):
    """The adapter does not do what it must."""


class Sendings:
    """Counts the calls of `sent`, and when they came (s, monotonic)."""

    def __init__(self, tell: Callable[[], None] | None = None) -> None:
        self.at: list[float] = []
        self._tell = tell

    def __call__(self) -> None:
        self.at.append(time.monotonic())
        if self._tell is not None:
            self._tell()


class Conformance:
    """One run of all checks against one Provider."""

    def __init__(
        self,
        plan: Plan,
        config: Mapping[str, str],
        *,
        open_provider: Callable[..., Provider] = providers.open_provider,
        together: int = TOGETHER,
    ) -> None:
        self._plan = plan
        self._config = config
        self._open = open_provider
        self._together = together
        self._run = f"conformance-{secrets.token_hex(4)}"
        self._provider = open_provider(plan.provider, config, plan)
        self._first = ""
        self._count = 0

    async def checks(self) -> AsyncIterator[Checked]:
        """Each check as it ends; later ones run even where an earlier one failed."""
        every: list[tuple[str, Callable[[], Awaitable[str]]]] = [
            ("warm: connections are there before they are needed", self._warm),
            ("key: a wrong one is `auth`", self._wrong_key),
            ("create: one sandbox, sent once", self._create),
            ("ready: a command runs and its output comes back", self._ready),
            ("arguments arrive as they were given", self._arguments),
            ("a command that fails is an answer, not an error", self._exit_code),
            ("witness: it lives on and knows its nonce", self._witness),
            ("list: by label, ours and nobody else's", self._list),
            ("together: no create waits for another in the client", self._burst),
            ("cancel: a create can be given up at once", self._cancel),
            ("destroy: confirmed, and twice is no error", self._destroy),
            ("gone: a command to it is `not_found`", self._gone),
            ("clean: nothing of ours is left", self._clean),
        ]
        for name, check in every:
            began = time.monotonic()
            try:
                async with asyncio.timeout(CHECK_LIMIT_S):
                    detail = await check()
                ok = True
            except Failed as failure:
                ok, detail = False, str(failure)
            except ProviderError as error:
                status = "" if error.status is None else f" status {error.status}"
                ok, detail = False, f"{error.cause} ({error.origin}){status}: {error}"
            except Exception as error:  # an adapter raises ProviderError, nothing else
                ok, detail = False, f"{type(error).__name__} got out: {error}"
            yield Checked(name, ok, (time.monotonic() - began) * 1_000, detail)
        await self._provider.close()

    async def _warm(self) -> str:
        count = await self._provider.warm(2)
        _need(isinstance(count, int) and count >= 0, f"warm gave {count!r}")
        return f"{count} held"

    async def _wrong_key(self) -> str:
        entries = providers.about(self._plan.provider).entries
        wrong = {e.name: "wrong-" + secrets.token_hex(12) for e in entries if e.secret}
        if not wrong:
            return "this Provider has no keys"
        other = self._open(self._plan.provider, {**self._config, **wrong}, self._plan)
        try:
            await other.list({"run": self._run})
        except ProviderError as error:
            _need(error.cause is Cause.AUTH, f"it is {error.cause}: {error.message}")
            for value in wrong.values():
                _need(value not in error.message, "the key stands in the message")
            return error.message[:100]
        finally:
            await other.close()
        raise Failed("it was let in")

    async def _create(self) -> str:
        made, sendings = await self._make()
        self._first = made.provider_id
        _need(bool(made.provider_id), "no provider_id")
        _need(len(sendings.at) == 1, f"sent was called {len(sendings.at)} times")
        for name in ("dns_us", "connect_us", "tls_us"):
            value = getattr(made, name)
            _need(value is None or value >= 0, f"{name} is {value}")
        return made.provider_id

    async def _ready(self) -> str:
        deadline = time.monotonic() + self._plan.ready_timeout_s
        expect = re.compile(self._plan.ready_expect)
        while True:
            try:
                answer = await self._execute(self._first, self._plan.ready_command)
                if answer.exit_code == 0 and expect.search(answer.output):
                    return answer.output.strip()[:100]
                wrong = f"exit {answer.exit_code}, output {answer.output[:200]!r}"
            except ProviderError as error:
                wrong = str(error)
            _need(time.monotonic() < deadline, f"never ready: {wrong}")
            await asyncio.sleep(READY_PAUSE_S)

    async def _arguments(self) -> str:
        words = ["one two", "it's", '"', "$HOME", "*"]
        answer = await self._execute(self._first, ["echo", *words])
        _need(answer.exit_code == 0, f"exit {answer.exit_code}")
        said = answer.output.strip()
        _need(said == " ".join(words), f"echo said {said!r}")
        return said

    async def _exit_code(self) -> str:
        answer = await self._execute(self._first, ["false"])
        _need(answer.exit_code == 1, f"exit {answer.exit_code}")
        return "exit 1"

    async def _witness(self) -> str:
        provider = self._provider
        if not provider.supports_witness:
            return "this Provider allows none"
        nonce, challenge = secrets.token_hex(16), secrets.token_hex(16)
        await provider.start_witness(self._first, nonce, _nothing)
        await asyncio.sleep(WITNESS_S)
        sendings = Sendings()
        answer = await provider.probe(
            self._first, self._plan.probe_command, challenge, sendings, 30
        )
        _need(answer.exit_code == 0, f"exit {answer.exit_code}: {answer.output}")
        _need(len(sendings.at) == 1, f"sent was called {len(sendings.at)} times")
        right = hashlib.sha256((nonce + challenge).encode()).hexdigest()
        _need(answer.digest == right, f"the digest is {answer.digest}")
        ticks = answer.ticks or 0
        least = int(0.8 * WITNESS_S / 0.25) - 2
        _need(ticks >= least, f"{ticks} ticks in {WITNESS_S} s")
        return f"{ticks} ticks in {WITNESS_S} s"

    async def _list(self) -> str:
        mine = await self._listed({"run": self._run})
        _need(mine == {self._first}, f"listed {sorted(mine)}")
        _need(not await self._listed({"run": "nobody-1"}), "found another's")
        both = await self._listed({"run": self._run, "sandbox": "0"})
        _need(both == mine, "two labels find less than one")
        return "1 found"

    async def _burst(self) -> str:
        await self._provider.warm(self._together)
        began = time.monotonic()
        first_s: list[float] = []

        async def one() -> tuple[Created, Sendings]:
            try:
                return await self._make()
            finally:
                first_s.append(time.monotonic() - began)

        creating = (one() for _ in range(self._together))
        results = await asyncio.gather(*creating, return_exceptions=True)
        refused, sent_s = 0, []
        for result in results:
            if isinstance(result, ProviderError):
                refused += 1  # a quota is the vendor's right
            elif isinstance(result, BaseException):
                raise result
            else:
                sent_s.append(result[1].at[0] - began)
        _need(bool(sent_s), "all were refused")
        last_s = max(sent_s)
        queued = last_s > QUEUE_S and last_s > first_s[0]
        _need(not queued, f"one was sent after {last_s:.3f} s, when another had ended")
        return f"{len(sent_s)} made, {refused} refused, sent in {last_s * 1e3:.0f} ms"

    async def _cancel(self) -> str:
        sending = asyncio.Event()
        sendings = Sendings(sending.set)
        creating = asyncio.ensure_future(self._make(sendings))
        waiting = asyncio.ensure_future(sending.wait())
        await asyncio.wait({creating, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        began = time.monotonic()
        creating.cancel()
        with _quiet():
            await creating
        took_s = time.monotonic() - began
        _need(took_s < CANCEL_S, f"it took {took_s:.1f} s")
        await self._listed({"run": self._run})  # the adapter still works
        return f"after {took_s * 1e3:.0f} ms"

    async def _destroy(self) -> str:
        for _ in range(2):
            sendings = Sendings()
            await self._provider.destroy(self._first, sendings)
        left = await self._listed({"run": self._run})
        _need(self._first not in left, "it is still listed")
        return "confirmed"

    async def _gone(self) -> str:
        try:
            await self._execute(self._first, ["true"])
        except ProviderError as error:
            _need(error.cause is Cause.NOT_FOUND, f"it is {error.cause}: {error}")
            return error.message[:100]
        raise Failed("it still answers")

    async def _clean(self) -> str:
        count = 0
        while left := await self._listed({"run": self._run}):
            count = max(count, len(left))
            destroying = (self._provider.destroy(one, _nothing) for one in left)
            await asyncio.gather(*destroying)
        return f"{count} destroyed"

    async def _make(self, sendings: Sendings | None = None) -> tuple[Created, Sendings]:
        sendings = sendings or Sendings()
        place = self._count
        self._count += 1
        labels = {"run": self._run, "shard": "0", "attempt": "0", "sandbox": str(place)}
        wanted = Wanted(place, labels, TTL_S, self._plan.spec.model_dump())
        return await self._provider.create(wanted, sendings), sendings

    async def _execute(self, provider_id: str, command: list[str]) -> Answer:
        return await self._provider.execute(provider_id, command, _nothing, 30)

    async def _listed(self, labels: Mapping[str, str]) -> set[str]:
        return {one.provider_id for one in await self._provider.list(labels)}


def _need(truth: bool, otherwise: str) -> None:  # noqa: FBT001
    if not truth:
        raise Failed(otherwise)


class _quiet:
    """Whatever a call that was given up says now."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        return isinstance(error, asyncio.CancelledError | ProviderError)


def _nothing() -> None:
    """For calls whose sending nobody looks at."""
