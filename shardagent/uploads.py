"""Segments to object storage by presigned URLs held ahead, in order per stream."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import aiohttp
import tenacity
import yarl

from shardagent.clock import Clock
from shardagent.errors import SiteError, StorageError
from shardagent.site import Site
from shardagent.spool import Segment, ShardSpool, Stream, flush_together
from shardagent.wire import URLS_AHEAD, UploadUrl, UrlWish

UPLOADS_MAX = 16  # PUTs in flight, all Shards of the process
STARTS_A_TURN = 2  # of them that begin in one turn of the loop
LANES_A_TURN = 500  # that are asked in one turn what they wish for
UPLOAD_TIMEOUT_S = 30.0
RETRY_FIRST_S = 0.25
RETRY_MAX_S = 20.0
URLS_AHEAD_MIN = 8  # where flushes are far apart
URLS_TICK_MIN_S, URLS_TICK_MAX_S = 0.2, 2.0
URLS_TICKS = 10  # in a flush interval
URLS_AT_ONCE = 500  # of a request: to read an answer of 2,000 takes longer than a turn
URLS_RETRY_S = 2.0
FLUSH_TICKS = 20  # in a flush interval
FLUSH_TICK_MIN_S, FLUSH_TURN_S = 0.1, 0.2
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
    moved: asyncio.Event  # a segment of its attempt was stored
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
        self._turn = asyncio.Semaphore(STARTS_A_TURN)
        self._timeout = aiohttp.ClientTimeout(total=UPLOAD_TIMEOUT_S)
        self._drains: set[asyncio.Task[None]] = set()
        self._spools: list[ShardSpool] = []
        self._flush_s = flush_interval_s
        enough = math.ceil(URLS_LAST_S / flush_interval_s) + 1
        tick_s = flush_interval_s / URLS_TICKS
        self._tick_s = min(max(tick_s, URLS_TICK_MIN_S), URLS_TICK_MAX_S)
        self._ahead = max(URLS_AHEAD_MIN, min(URLS_AHEAD, enough))
        self._behind = False  # some lanes' wishes did not fit into the last request

    def add(self, spool: ShardSpool, *, leftover: bool = False) -> None:
        """Carry the segments of one more attempt."""
        moved = asyncio.Event()
        self._spools.append(spool)
        for stream in spool.streams:
            self._lanes[_key(spool, stream)] = Lane(spool, stream, leftover, moved)

    def kick(self, *spools: ShardSpool) -> None:
        """Begin the upload of what waits in these and has a URL."""
        named = ((spool, stream) for spool in spools for stream in spool.streams)
        self._begin(self._lanes[_key(*one)] for one in named)

    def _begin(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            if not lane.busy and lane.stream.waiting and lane.first_seq in lane.urls:
                lane.busy = True
                task = self._tasks.create_task(self._drain(lane))
                self._drains.add(task)
                task.add_done_callback(self._drains.discard)

    async def flush(self) -> None:
        """Cut what waited for an interval, until cancelled.

        Each Shard is looked at FLUSH_TICKS times in an interval, a few of them at a
        time: to look at thousands takes longer than a turn may.
        """
        tick_s = max(self._flush_s / FLUSH_TICKS, FLUSH_TICK_MIN_S)
        turns = math.ceil(tick_s / FLUSH_TURN_S)
        for turn in itertools.cycle(range(turns)):
            await asyncio.sleep(tick_s / turns)
            now = self._clock.now_us()
            due = []
            for spool in self._spools[turn::turns]:
                streams = [
                    stream
                    for stream in spool.streams
                    if stream.oldest_us is not None
                    and stream.flush_due(
                        now,
                        max(1, self._flush_us(spool, stream) - int(tick_s * 1e6)),
                        spool.phase,
                    )
                ]
                if streams:
                    due.append((spool, streams))
            if due:
                await flush_together(due)
                self.kick(*(spool for spool, _ in due))

    def _flush_us(self, spool: ShardSpool, stream: Stream) -> int:
        """The usual interval, or so long that the URLs outlast the site's absence."""
        usual_us = int(self._flush_s * 1e6)
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
            tick_s = URLS_TICK_MIN_S if self._behind else self._tick_s
            await asyncio.sleep(tick_s if all(well) else URLS_RETRY_S)

    async def stored(self, spool: ShardSpool) -> None:
        """Wait until nothing of this attempt is left to store."""
        moved = self._lanes[_key(spool, spool.events)].moved
        while not spool.stored:
            moved.clear()
            await moved.wait()

    async def _ask(self, *, leftover: bool) -> bool:
        """Whether all that was wished for came, or nothing had to be."""
        wishes = await self._wishes(leftover=leftover)
        if not wishes:
            return True
        try:
            answer = await self._site.urls(wishes)
        except SiteError as error:
            self._trouble(f"no upload URLs: {error}")
            return False
        self._hold(answer)
        return bool(answer)

    async def _wishes(self, *, leftover: bool) -> list[UrlWish]:
        """Those with the fewest URLs first, as many as one request may ask for."""
        short: list[tuple[int, Lane]] = []
        for number, lane in enumerate(list(self._lanes.values()), 1):
            if number % LANES_A_TURN == 0:
                await asyncio.sleep(0)
            done = lane.spool.sealed and lane.spool.stored
            held = len(lane.urls)
            if not done and lane.leftover is leftover and held < self._ahead // 2:
                short.append((held, lane))
        short.sort(key=lambda one: one[0])
        fit = URLS_AT_ONCE // self._ahead
        self._behind = self._behind or len(short) > fit
        return [self._wish(lane) for _, lane in short[:fit]]

    def _wish(self, lane: Lane) -> UrlWish:
        first_seq = lane.first_seq
        while first_seq in lane.urls:
            first_seq += 1
        return UrlWish(
            shard=lane.spool.lease.shard,
            attempt=lane.spool.lease.attempt,
            kind=lane.stream.kind,
            first_seq=first_seq,
            count=self._ahead - len(lane.urls),
        )

    def _hold(self, urls: Iterable[UploadUrl]) -> None:
        lanes = {}
        for one in urls:
            key = (one.shard, one.attempt, one.kind)
            lane = self._lanes.get(key)
            if lane is not None and one.seq >= lane.first_seq:
                lane.urls[one.seq] = one.url
                lanes[key] = lane
        self._begin(lanes.values())

    async def _drain(self, lane: Lane) -> None:
        """Store what waits, oldest first; the same bytes again until taken."""
        try:
            while lane.stream.waiting:
                async with self._turn:
                    await asyncio.sleep(0)
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
                    continue  # by now there may be another
                lane.urls.pop(segment.report.seq, None)
                lane.stream.stored(segment)
                lane.moved.set()
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
