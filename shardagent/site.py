"""The site, as the agent speaks to it: register, heartbeat, upload URLs."""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
import pydantic

from shardagent import __version__
from shardagent.clock import Clock, Sample
from shardagent.errors import ConfigError, FencedError, SiteError
from shardagent.wire import (
    Beat,
    HeartbeatAnswer,
    HeartbeatRequest,
    Machine,
    RegisterAnswer,
    RegisterRequest,
    UploadUrl,
    UrlsAnswer,
    UrlsRequest,
    UrlWish,
    Wire,
)

REQUEST_TIMEOUT_S = 10.0
ANSWER_SHOWN_MAX = 200  # characters of a refusal kept in the error

AnswerT = TypeVar("AnswerT", bound=Wire)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One heartbeat answered, and the clock sample it made."""

    answer: HeartbeatAnswer
    sample: Sample


class Site:
    """The /agent/v1 API of one site for one host of one Run."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        token: str,
        *,
        run: str,
        host: int,
        clock: Clock,
        machine: Machine | None = None,
    ) -> None:
        self.heard_us: int | None = None  # agent time of the last answer
        self.before_beat: Callable[[], Awaitable[None]] | None = None  # a test's fault
        self._session = session
        self._url = url.rstrip("/") + "/agent/v1/"
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
        }
        self._run = run
        self._process = secrets.token_hex(8)
        self._host = host
        self._machine = machine or Machine()
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)

    async def register(self) -> RegisterAnswer:
        """Say who we are; learn the Plan and the leases."""
        request = RegisterRequest(
            run=self._run,
            host=self._host,
            hostname=platform.node()[:253],
            pid=os.getpid(),
            process=self._process,
            version=__version__,
            cpu_count=os.cpu_count() or 0,
            egress=self._machine.egress or None,
            machine=self._machine,
        )
        answer, _ = await self._ask("register", request, RegisterAnswer)
        return answer

    async def heartbeat(
        self, beats: Sequence[Beat], lately: tuple[int, float] = (0, 0.0)
    ) -> Exchange:
        """Say how each Shard is; hear the instants. Makes one clock sample.

        lately: the largest loop lag (µs) and CPU (%) of this process.
        """
        # t1 is in the body, so it is read here: nothing waits before the write, as
        # the connection is kept alive.
        request = HeartbeatRequest(
            run=self._run,
            host=self._host,
            process=self._process,
            t1_us=self._clock.now_us(),
            loop_lag_us=lately[0],
            cpu_pct=lately[1],
            beats=list(beats),
        )
        if self.before_beat is not None:
            await self.before_beat()
        answer, t4_us = await self._ask("heartbeat", request, HeartbeatAnswer)
        sample = Sample(
            request.t1_us, answer.t2_us, answer.t3_us, t4_us, answer.clock_id
        )
        return Exchange(answer, sample)

    async def urls(self, wishes: Sequence[UrlWish]) -> list[UploadUrl]:
        """Presigned URLs for segments to come; maybe fewer than wished."""
        request = UrlsRequest(
            run=self._run,
            host=self._host,
            process=self._process,
            wishes=list(wishes),
        )
        answer, _ = await self._ask("urls", request, UrlsAnswer)
        return answer.urls

    async def _ask(
        self, path: str, request: Wire, expected: type[AnswerT]
    ) -> tuple[AnswerT, int]:
        """One POST: the parsed answer and when its head arrived."""
        try:
            async with self._session.post(
                self._url + path,
                data=request.model_dump_json().encode(),
                headers=self._headers,
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                arrived_us = self._clock.now_us()
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise SiteError(f"{path}: {type(error).__name__}: {error}") from error
        if not 200 <= response.status < 300:
            raise _refusal(path, response.status, body)
        try:
            answer = expected.model_validate_json(body)
        except pydantic.ValidationError as error:
            raise SiteError(f"{path}: not an answer: {error}") from error
        self.heard_us = arrived_us
        return answer, arrived_us


def _refusal(path: str, status: int, body: bytes) -> SiteError | ConfigError:
    shown = body[:ANSWER_SHOWN_MAX].decode(errors="replace")
    text = f"{path}: status {status}: {shown}"
    if status == 409:
        return FencedError(text)
    if path == "register" and status in (401, 403, 404, 422):
        return ConfigError(text)
    return SiteError(text)
