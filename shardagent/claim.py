"""Which host a machine carries is claimed from the site, not baked into the machine.

So any machine can take any host's Shards, a spare waits until one is lost, and a
machine that is started twice does no harm.
"""

from __future__ import annotations

import asyncio
import random
import time

import aiohttp
import pydantic

from shardagent.errors import ConfigError, FencedError, SiteError
from shardagent.wire import ClaimAnswer, ClaimRequest

REQUEST_TIMEOUT_S = 10.0
UNHEARD_LIMIT_S = 120.0  # without any answer of the site
SPARE_LIMIT_S = 7_200.0  # as a spare; the site ends this wait long before
PAUSE_S = (0.5, 1.5)  # between two tries, at random: a fleet does not ask in step
ANSWER_SHOWN_MAX = 200  # characters


async def claim(
    site: str, token: str, *, run: str, machine: str, index: int | None = None
) -> ClaimAnswer:
    """Ask until a host is given.

    Raises FencedError where no machine is wanted any more, ConfigError where the site
    does not know us, SiteError where it did not answer for UNHEARD_LIMIT_S.
    """
    request = ClaimRequest(run=run, machine=machine, index=index)
    began = heard = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    why = "the site was never asked"
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            try:
                status, body = await _ask(session, site, token, request)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                why = f"{type(error).__name__}: {error}"
            else:
                why = f"status {status}: {body[:ANSWER_SHOWN_MAX]!r}"
                if status == 200:
                    try:
                        return ClaimAnswer.model_validate_json(body)
                    except pydantic.ValidationError as error:
                        raise ConfigError(f"claim: not an answer: {error}") from error
                if status == 409:
                    raise FencedError(why)
                if status in (401, 403, 404, 422):
                    raise ConfigError(f"claim: {why}")
                heard = time.monotonic()
            now = time.monotonic()
            if now - heard > UNHEARD_LIMIT_S or now - began > SPARE_LIMIT_S:
                raise SiteError(f"claim: {why}")
            await asyncio.sleep(random.uniform(*PAUSE_S))


async def _ask(
    session: aiohttp.ClientSession, site: str, token: str, request: ClaimRequest
) -> tuple[int, bytes]:
    async with session.post(
        site.rstrip("/") + "/agent/v1/claim",
        data=request.model_dump_json().encode(),
        headers={
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
        },
        allow_redirects=False,
    ) as response:
        return response.status, await response.read()
