"""A real HTTP site on loopback with a store beside it: just enough for agents."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from shardagent import zstd
from shardagent.schedule import teardown_us
from shardagent.wire import (
    Beat,
    CauseCount,
    HeartbeatAnswer,
    HeartbeatRequest,
    Instants,
    Lease,
    Plan,
    RegisterAnswer,
    ShardPhase,
    UploadUrl,
    UrlsAnswer,
    UrlsRequest,
    segment_key,
)


def now_us() -> int:
    return time.time_ns() // 1_000


@dataclass
class StandInSite:
    plan: Plan
    leases: list[Lease]
    t0_ahead_us: int = 400_000
    interval_s: float = 0.1
    away: bool = False  # answers nothing but 503
    store_away: bool = False
    puts_refused: int = 0  # so many uploads find their URL expired
    refuse: bool = False  # 409 to everything
    withhold_end: bool = False
    clock_id: str = "clock-1"
    provider_config: dict[str, str] = field(
        default_factory=lambda: {"key": "top-secret-key"}
    )
    instants: Instants = Instants()
    leave: str | None = None
    fenced: list[Lease] = field(default_factory=list)
    beats: dict[tuple[int, int], Beat] = field(default_factory=dict)
    causes: dict[tuple[int, int], list[CauseCount]] = field(default_factory=dict)
    causes_told: int = 0  # beats that held some
    reported: dict[str, str] = field(default_factory=dict)  # key: sha256
    objects: dict[str, bytes] = field(default_factory=dict)
    registered: int = 0
    on_beat: Callable[[StandInSite], None] | None = None
    url: str = ""

    async def __aenter__(self) -> StandInSite:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/agent/v1/register", self._register)
        app.router.add_post("/agent/v1/heartbeat", self._heartbeat)
        app.router.add_post("/agent/v1/urls", self._urls)
        app.router.add_put("/store/{key:.*}", self._put)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def until(self, condition: Callable[[], bool], limit_s: float = 10) -> None:
        async with asyncio.timeout(limit_s):
            while not condition():  # noqa: ASYNC110 - conditions have no event
                await asyncio.sleep(0.01)

    def events(self, shard: int = 0, attempt: int = 0) -> list[dict[str, object]]:
        lines: list[bytes] = []
        for key in sorted(self.objects):
            if f"/{shard:05d}/{attempt:02d}/events-" in key:
                lines += self.text(key).splitlines()
        return [orjson.loads(line) for line in lines]

    def log(self, shard: int = 0, attempt: int = 0) -> list[str]:
        lines: list[str] = []
        for key in sorted(self.objects):
            if f"/{shard:05d}/{attempt:02d}/log-" in key:
                head, *rest = self.text(key).decode().splitlines()
                assert head == f"#first_line {len(lines)}"
                lines += rest
        return lines

    def text(self, key: str) -> bytes:
        return zstd.decompress(self.objects[key])

    def _closed(self, request: web.Request) -> web.Response | None:
        assert request.headers["Authorization"] == "Bearer the-agent-token"
        if self.refuse:
            return web.Response(status=409, text="fenced")
        if self.away:
            return web.Response(status=503, text="away")
        return None

    async def _register(self, request: web.Request) -> web.Response:
        if closed := self._closed(request):
            return closed
        self.registered += 1
        return _json(
            RegisterAnswer(
                plan=self.plan,
                shards=self.leases,
                clock_id=self.clock_id,
                heartbeat_interval_s=self.interval_s,
                provider_config=self.provider_config,
            )
        )

    async def _heartbeat(self, request: web.Request) -> web.Response:
        t2_us = now_us()
        if closed := self._closed(request):
            return closed
        asked = HeartbeatRequest.model_validate_json(await request.read())
        for beat in asked.beats:
            self.beats[beat.shard, beat.attempt] = beat
            if beat.causes is not None:
                self.causes[beat.shard, beat.attempt] = beat.causes
                self.causes_told += 1
            for report in beat.segments:
                key = segment_key(
                    self.plan.code, beat.shard, beat.attempt, report.kind, report.seq
                )
                assert self.reported.setdefault(key, report.sha256) == report.sha256
                stored = hashlib.sha256(self.objects[key]).hexdigest()
                assert stored == report.sha256
        self._decide()
        if self.on_beat is not None:
            self.on_beat(self)
        return _json(
            HeartbeatAnswer(
                clock_id=self.clock_id,
                t2_us=t2_us,
                t3_us=now_us(),
                interval_s=self.interval_s,
                instants=self.instants,
                leave=self.leave,
                fenced=self.fenced,
            )
        )

    def _decide(self) -> None:
        phases = [beat.phase for beat in self.beats.values()]
        known, update = self.instants, {}
        if known.t0_us is None:
            if len(phases) == len(self.leases) and set(phases) == {ShardPhase.ARMED}:
                update["t0_us"] = now_us() + self.t0_ahead_us
        elif known.t_hold_us is None:
            if set(phases) == {ShardPhase.SETTLED}:
                update["t_hold_us"] = now_us()
        elif known.t_end_us is None and not self.withhold_end:
            end_us = known.t_hold_us + round(self.plan.hold_s * 1e6)
            if now_us() >= end_us - 300_000:
                update["t_end_us"] = end_us
                update["t_destroy_us"] = end_us + teardown_us(self.plan)
        if update:
            self.instants = known.model_copy(update=update)

    async def _urls(self, request: web.Request) -> web.Response:
        if closed := self._closed(request):
            return closed
        asked = UrlsRequest.model_validate_json(await request.read())
        urls = []
        for wish in asked.wishes:
            for seq in range(wish.first_seq, wish.first_seq + wish.count):
                key = segment_key(
                    self.plan.code, wish.shard, wish.attempt, wish.kind, seq
                )
                urls.append(
                    UploadUrl(
                        shard=wish.shard,
                        attempt=wish.attempt,
                        kind=wish.kind,
                        seq=seq,
                        url=f"{self.url}/store/{key}",
                    )
                )
        return _json(UrlsAnswer(urls=urls[:2_000]))

    async def _put(self, request: web.Request) -> web.Response:
        assert "Authorization" not in request.headers
        if self.store_away:
            return web.Response(status=503)
        if self.puts_refused:
            self.puts_refused -= 1
            return web.Response(status=403, text="expired")
        body = await request.read()
        key = request.match_info["key"]
        assert self.objects.setdefault(key, body) == body
        return web.Response()


def _json(answer: RegisterAnswer | HeartbeatAnswer | UrlsAnswer) -> web.Response:
    return web.Response(
        body=answer.model_dump_json().encode(), content_type="application/json"
    )
