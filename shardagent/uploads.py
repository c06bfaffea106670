"""Segments to object storage by presigned URLs held ahead, in order per stream."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import aiohttp
import tenacity
import yarl

from shardagent.clock import Clock
from shardagent.errors import SiteError, StorageError
from shardagent.site import Site
from shardagent.spool import Segment, ShardSpool, Stream
from shardagent.wire import URLS_AHEAD, UploadUrl, UrlWish

UPLOADS_MAX = 16  # PUTs in flight, all Shards of the process
UPLOAD_TIMEOUT_S = 30.0
RETRY_FIRST_S = 0.25
RETRY_MAX_S = 20.0
URLS_AHEAD_MIN = 8  # where flushes are far apart
URLS_TICK_MIN_S, URLS_TICK_MAX_S = 0.2, 2.0
URLS_TICKS = 10  # in a flush interval
URLS_AT_ONCE = 500  # of a request: to read an answer of 2,000 takes longer than a turn
URLS_RETRY_S = 2.0
LOG_FLUSH_MIN_US, LOG_FLUSH_MAX_US = 5_000_000, 60_000_000
LOG_FLUSH_TIMES = 3  # the usual interval, within those: few lines, as many objects
AWAY_AFTER_S = 10.0  # without an answer for this long the site counts as away
URLS_LAST_S = 600.0  # an absence of the site that the URLs held are to last for
CONTENT_TYPE = "application/octet-stream"


class UrlRefused(StorageError):
    """The store takes nothing by this URL (any more); another is needed."""


@dataclass(slots=True, eq=False)
class Lane:
    """One stream on its way to the store."""

    spool: ShardSpool
    stream: Stream
    leftover: bool
    urls: dict[int, str] = field(default_factory=dict)
    busy: bool = False

    @property
    def first_seq(self) -> int:
        """The oldest segment that is not stored."""
        waiting = self.stream.waiting
        return waiting[0].report.seq if waiting else self.stream.next_seq


class Uploads:
    """All lanes of a process; run() keeps URLs ahead, kick() starts what can start."""

    def __init__(
        self,
        site: Site,
        session: aiohttp.ClientSession,
        clock: Clock,
        tasks: asyncio.TaskGroup,
        *,
        flush_interval_s: float,
    ) -> None:
        self._site = site
        self._session = session
        self._clock = clock
        self._tasks = tasks
        self._lanes: dict[tuple[int, int, str], Lane] = {}
        self._room = asyncio.Semaphore(UPLOADS_MAX)
        self._timeout = aiohttp.ClientTimeout(total=UPLOAD_TIMEOUT_S)
        self._drains: set[asyncio.Task[None]] = set()
        self._stored = asyncio.Condition()
        enough = math.ceil(URLS_LAST_S / flush_interval_s) + 1
        tick_s = flush_interval_s / URLS_TICKS
        self._tick_s = min(max(tick_s, URLS_TICK_MIN_S), URLS_TICK_MAX_S)
        self._ahead = max(URLS_AHEAD_MIN, min(URLS_AHEAD, enough))
        self._behind = False  # some lanes' wishes did not fit into the last request

    def add(self, spool: ShardSpool, *, leftover: bool = False) -> None:
        """Carry the segments of one more attempt."""
        for stream in spool.streams:
            self._lanes[_key(spool, stream)] = Lane(spool, stream, leftover)

    def kick(self) -> None:
        """Begin the upload of whatever waits and has a URL."""
        for lane in self._lanes.values():
            if not lane.busy and lane.stream.waiting and lane.first_seq in lane.urls:
                lane.busy = True
                task = self._tasks.create_task(self._drain(lane))
                self._drains.add(task)
                task.add_done_callback(self._drains.discard)

    def flush_us(self, spool: ShardSpool, stream: Stream, usual_us: int) -> int:
        """The usual interval, or so long that the URLs outlast the site's absence."""
        now = self._clock.now_us()
        away_s = (now - (self._site.heard_us or now)) / 1e6
        if stream.kind == "log":
            longest_us = max(usual_us, LOG_FLUSH_MAX_US)
            usual_us = min(
                max(LOG_FLUSH_TIMES * usual_us, LOG_FLUSH_MIN_US), longest_us
            )
        if away_s < AWAY_AFTER_S:
            return usual_us
        lane = self._lanes[_key(spool, stream)]
        urls = sum(1 for seq in lane.urls if seq >= stream.next_seq)
        left_s = max(URLS_LAST_S - away_s, URLS_LAST_S / self._ahead)
        return max(usual_us, int(left_s * 1e6) // max(1, urls))

    def close(self) -> None:
        """Let go of uploads under way; what they carry stays in the spool."""
        for task in self._drains:
            task.cancel()

    async def run(self) -> None:
        """Keep URLs ahead for every lane, until cancelled."""
        while True:
            self._behind = False
            # Apart, as the site may refuse those of attempts that are not ours now.
            well = [await self._ask(leftover=which) for which in (False, True)]
            self.kick()
            tick_s = URLS_TICK_MIN_S if self._behind else self._tick_s
            await asyncio.sleep(tick_s if all(well) else URLS_RETRY_S)

    async def stored(self, spool: ShardSpool) -> None:
        """Wait until nothing of this attempt is left to store."""
        async with self._stored:
            await self._stored.wait_for(lambda: spool.stored)

    async def _ask(self, *, leftover: bool) -> bool:
        """Whether all that was wished for came, or nothing had to be."""
        wishes = self._wishes(leftover=leftover)
        if not wishes:
            return True
        try:
            answer = await self._site.urls(wishes)
        except SiteError as error:
            self._trouble(f"no upload URLs: {error}")
            return False
        self._hold(answer)
        return bool(answer)

    def _wishes(self, *, leftover: bool) -> list[UrlWish]:
        """Those with the fewest URLs first, as many as one request may ask for."""
        short: list[tuple[int, UrlWish]] = []
        for (shard, attempt, kind), lane in self._lanes.items():
            done = lane.spool.sealed and lane.spool.stored
            if done or lane.leftover is not leftover:
                continue
            held = len(lane.urls)
            if held >= self._ahead // 2:
                continue
            first_seq = lane.first_seq
            while first_seq in lane.urls:
                first_seq += 1
            wish = UrlWish(
                shard=shard,
                attempt=attempt,
                kind="log" if kind == "log" else "events",
                first_seq=first_seq,
                count=self._ahead - held,
            )
            short.append((held, wish))
        short.sort(key=lambda one: one[0])
        fit = URLS_AT_ONCE // self._ahead
        self._behind = self._behind or len(short) > fit
        return [wish for _, wish in short[:fit]]

    def _hold(self, urls: Iterable[UploadUrl]) -> None:
        for one in urls:
            lane = self._lanes.get((one.shard, one.attempt, one.kind))
            if lane is not None and one.seq >= lane.first_seq:
                lane.urls[one.seq] = one.url

    async def _drain(self, lane: Lane) -> None:
        """Store what waits, oldest first; the same bytes again until taken."""
        try:
            while lane.stream.waiting:
                segment = lane.stream.waiting[0]
                url = lane.urls.get(segment.report.seq)
                if url is None:
                    return
                try:
                    await self._store(lane, segment, url)
                except UrlRefused as error:
                    self._tell(lane, f"upload URL refused: {error}")
                    lane.urls.clear()
                    await asyncio.sleep(RETRY_FIRST_S)
                    return
                lane.urls.pop(segment.report.seq, None)
                lane.stream.stored(segment)
                async with self._stored:
                    self._stored.notify_all()
        finally:
            lane.busy = False

    async def _store(self, lane: Lane, segment: Segment, url: str) -> None:
        content = segment.read()
        retrying = tenacity.AsyncRetrying(
            wait=tenacity.wait_random_exponential(RETRY_FIRST_S, RETRY_MAX_S),
            retry=tenacity.retry_if_exception(
                lambda error: (
                    isinstance(error, StorageError)
                    and not isinstance(error, UrlRefused)
                )
            ),
            before_sleep=lambda state: self._tell(
                lane, f"upload of {segment.path.name} failed: {_error(state)}"
            ),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                async with self._room:
                    await self._put(url, content)

    async def _put(self, url: str, content: bytes) -> None:
        try:
            async with self._session.put(
                yarl.URL(url, encoded=True),  # signed as it stands
                data=content,
                timeout=self._timeout,
                headers={"Content-Type": CONTENT_TYPE},
                skip_auto_headers=["User-Agent"],
                allow_redirects=False,
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # Not its text: it may hold the URL, which is a permission.
            raise StorageError(type(error).__name__) from error
        if response.status in (400, 401, 403, 404, 410):
            shown = body[:200].decode(errors="replace")
            raise UrlRefused(f"status {response.status}: {shown}")
        if not 200 <= response.status < 300:
            raise StorageError(f"status {response.status}")

    def _trouble(self, text: str) -> None:
        told = set()
        for lane in self._lanes.values():
            if id(lane.spool) not in told:
                told.add(id(lane.spool))
                self._tell(lane, text)

    def _tell(self, lane: Lane, text: str) -> None:
        lane.spool.log(self._clock.now_us(), "WARNING", text)


def _key(spool: ShardSpool, stream: Stream) -> tuple[int, int, str]:
    return spool.lease.shard, spool.lease.attempt, stream.kind


def _error(state: tenacity.RetryCallState) -> object:
    return state.outcome.exception() if state.outcome is not None else None
