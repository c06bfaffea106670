"""One sandbox through its whole life, before hundreds are asked for.

Each step is timed and, where it fails, says why and what to do; the sandbox is always
destroyed. What it finds inside (CPUs, memory) is what the vendor really gives.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from runs import credentials, worlds
from runs.errors import StateError
from runs.models import Credential, PreflightTurn
from runs.plan import has_world, is_simulated
from shardagent import observe, providers
from shardagent.calls import mismatch
from shardagent.errors import Cause, Origin, ProviderError, ShardAgentError
from shardagent.providers.base import Answer, Created, Provider, Wanted
from shardagent.scrub import Scrubber
from shardagent.wire import Plan

LIMIT_S = 180.0  # a whole preflight
CLEAN_UP_S = 30.0  # of which kept for destroying what it made
TTL_S = 600  # of its sandbox, should all else fail
RETRY_S = 0.1  # between two tries of the readiness command
STEPS = ("key", "create", "ready", "observe", "probe", "destroy", "list")
_REMEDIES = {
    Cause.AUTH: "check the key on the page Credentials, and what it may do",
    Cause.QUOTA: "ask the vendor for a larger quota, or destroy what still runs there",
    Cause.RATE_LIMITED: "wait a minute; is something else using this account?",
    Cause.CAPACITY: "try another region or size, or ask the vendor",
    Cause.INVALID_REQUEST: "check image, region, CPU and memory of the Plan",
    Cause.NETWORK: "check the endpoint, DNS and the way out of this machine",
    Cause.TIMEOUT: "try again; if it stays, raise the Plan's timeouts",
    Cause.NOT_FOUND: "the sandbox was gone early: check the vendor's lifetime limits",
    Cause.COMMAND_FAILED: "check the readiness command, and that the image has it",
    Cause.PROVIDER_ERROR: "try again, and look at the vendor's status page",
    Cause.HARNESS: "this is our own fault or setting: see the detail",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step; ok is None where it was not reached. ms is None then, too."""

    name: str
    ms: float | None = None
    ok: bool | None = None
    detail: str = ""
    cause: str | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Preflight:
    """What one sandbox went through. observed: cpus, memory_bytes (None: not said)."""

    ok: bool
    provider: str
    simulated: bool
    steps: list[Step]
    observed: dict[str, float | None] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        return asdict(self)


def preflight(plan: Plan, credential: Credential | None) -> Preflight:
    """Run it; takes LIMIT_S at most. CredentialError where the account is sealed."""
    simulated = is_simulated(plan)
    opening: AbstractContextManager[dict[str, str]]
    if has_world(plan):
        opening = worlds.brief(plan)
    else:
        opening = nullcontext(credentials.config_of(credential, plan))
    with opening as config:
        scrubber = Scrubber(providers.secrets_of(plan.provider, config))
        try:
            provider = providers.open_provider(plan.provider, config, plan)
        except ShardAgentError as error:
            failure = ProviderError(Cause.HARNESS, Origin.HARNESS, str(error))
            first = _failed("key", 0.0, failure, scrubber)
            rest = [Step(name) for name in STEPS[1:]]
            return Preflight(False, plan.provider, simulated, [first, *rest])
        life = _Life(provider, plan, scrubber)
        asyncio.run(life.live())
    steps = [life.steps.get(name, Step(name)) for name in STEPS]
    ok = all(step.ok for step in steps)
    return Preflight(ok, plan.provider, simulated, steps, life.observed)


def for_operator(user: User, plan: Plan, credential: Credential | None) -> Preflight:
    """The same, one at a time an operator: StateError while another is under way."""
    now = timezone.now()
    until = now + timedelta(seconds=LIMIT_S + CLEAN_UP_S)
    turn = PreflightTurn.objects.filter(operator=user)
    taken = turn.filter(until__lt=now).update(until=until)
    if not taken:
        try:
            with transaction.atomic():
                PreflightTurn.objects.create(operator=user, until=until)
        except IntegrityError:
            text = "a preflight of yours is under way; wait until it has ended"
            raise StateError(text) from None
    try:
        return preflight(plan, credential)
    finally:
        turn.delete()


class _Life:
    """The steps, in order; the first that fails ends them, but for the clean-up."""

    def __init__(self, provider: Provider, plan: Plan, scrubber: Scrubber) -> None:
        self._provider = provider
        self._plan = plan
        self._scrubber = scrubber
        run = f"preflight-{secrets.token_hex(4)}"
        self._labels = {"run": run, "shard": "0", "attempt": "0", "sandbox": "0"}
        self._id = ""
        self._asked = False
        self.steps: dict[str, Step] = {}
        self.observed: dict[str, float | None] = {"cpus": None, "memory_bytes": None}

    async def live(self) -> None:
        plan = self._plan
        try:
            async with asyncio.timeout(LIMIT_S - CLEAN_UP_S):
                _ = (
                    await self._step("key", self._key, CLEAN_UP_S)
                    and await self._step("create", self._create, plan.create_timeout_s)
                    and await self._step("ready", self._ready, plan.ready_timeout_s)
                    and await self._step("observe", self._observe, plan.probe_timeout_s)
                    and await self._step("probe", self._probe, plan.probe_timeout_s)
                )
        except TimeoutError:
            pass  # the step that was under way has said so
        if self._asked:
            half_s = CLEAN_UP_S / 2
            await self._step("destroy", self._destroy, half_s)
            await self._step("list", self._list, half_s)
        await self._provider.close()

    async def _step(
        self, name: str, act: Callable[[], Awaitable[str]], limit_s: float
    ) -> bool:
        began = time.monotonic()
        try:
            async with asyncio.timeout(limit_s):
                detail = await act()
        except ProviderError as error:
            failure = error
        except TimeoutError:
            text = f"no answer within {limit_s:g} s"
            failure = ProviderError(Cause.TIMEOUT, Origin.PROVIDER, text)
        except asyncio.CancelledError:
            text = f"the preflight's limit of {LIMIT_S:g} s is over"
            failure = ProviderError(Cause.TIMEOUT, Origin.PROVIDER, text)
            self.steps[name] = _failed(name, began, failure, self._scrubber)
            raise
        except Exception as error:  # an adapter's bug is one failed step, no more
            text = f"{type(error).__name__}: {error}"
            failure = ProviderError(Cause.HARNESS, Origin.HARNESS, text)
        else:
            said = self._scrubber.clean(detail)
            self.steps[name] = Step(name, _ms(began), ok=True, detail=said)
            return True
        self.steps[name] = _failed(name, began, failure, self._scrubber)
        return False

    async def _key(self) -> str:
        await self._provider.warm(1)
        listed = await self._provider.list({})
        count = len(listed)
        return f"the key is valid; {count} sandbox{'es' * (count != 1)} of ours there"

    async def _create(self) -> str:
        spec = self._plan.spec.model_dump()
        self._asked = True
        wanted = Wanted(0, self._labels, TTL_S, spec)
        made: Created = await self._provider.create(wanted, _unmeasured)
        self._id = made.provider_id
        return f"made {made.provider_id}"

    async def _ready(self) -> str:
        plan, tries = self._plan, 0
        deadline = time.monotonic() + plan.ready_timeout_s
        expect = re.compile(plan.ready_expect)
        while True:
            tries += 1
            answer: Answer | None = None
            try:
                answer = await self._run(plan.ready_command)
                failure = mismatch(answer, expect)
            except ProviderError as error:
                failure = error
            if failure is None and answer is not None:
                said = answer.output.strip()[:100]
                return f"{said!r} at try {tries}"
            assert failure is not None
            if time.monotonic() + RETRY_S * 2 > deadline:
                raise failure
            await asyncio.sleep(RETRY_S)

    async def _observe(self) -> str:
        answer = await self._run([*observe.COMMAND])
        found = observe.read(answer.output)
        self.observed |= asdict(found)
        spec = self._plan.spec
        mb = found.memory_bytes / 1_048_576
        asked = f"asked for {spec.cpu:g} CPUs, {spec.memory_mb} MB"
        return f"{found.cpus:g} CPUs, {mb:,.0f} MB inside; {asked}"

    async def _probe(self) -> str:
        plan, provider = self._plan, self._provider
        challenge = None
        if plan.witness and provider.supports_witness:
            nonce, challenge = secrets.token_hex(16), secrets.token_hex(16)
            await provider.start_witness(self._id, nonce, _unmeasured)
        answer = await provider.probe(
            self._id, plan.probe_command, challenge, _unmeasured, plan.probe_timeout_s
        )
        failure = mismatch(answer)
        if failure is not None:
            raise failure
        if challenge is None:
            return "it answers; no witness"
        if answer.digest is None:
            text = "the witness does not answer: no background process lasts there"
            raise ProviderError(Cause.COMMAND_FAILED, Origin.PROVIDER, text)
        return "it answers, and so does its witness"

    async def _destroy(self) -> str:
        ids = {self._id} if self._id else set()
        ids |= {one.provider_id for one in await self._provider.list(self._labels)}
        for provider_id in ids:
            await self._provider.destroy(provider_id, _unmeasured)
        return f"destroyed {len(ids)}"

    async def _list(self) -> str:
        while True:  # the step's limit ends it
            if not await self._provider.list(self._labels):
                return "nothing is left"
            await asyncio.sleep(RETRY_S)

    async def _run(self, command: list[str]) -> Answer:
        timeout_s = self._plan.probe_timeout_s
        return await self._provider.execute(self._id, command, _unmeasured, timeout_s)


def _failed(
    name: str, began: float, failure: ProviderError, scrubber: Scrubber
) -> Step:
    status = "" if failure.status is None else f"status {failure.status}: "
    step = Step(
        name,
        _ms(began) if began else 0.0,
        ok=False,
        detail=status + (failure.message or str(failure.cause)),
        cause=str(failure.cause),
        remedy=_REMEDIES[failure.cause],
    )
    return replace(step, detail=scrubber.clean(step.detail))


def _ms(began: float) -> float:
    return round((time.monotonic() - began) * 1_000, 1)


def _unmeasured() -> None:
    """For calls whose sending nobody measures."""
