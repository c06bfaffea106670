"""One agent process: registers, carries 1 to SHARDS_PER_HOST_MAX Shards, leaves.

Everything lives in one TaskGroup: the heartbeat, the flushes, the uploads, the calls
of every Shard, and one task per Shard that sees its record home.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import tenacity

from shardagent import __version__, providers
from shardagent.clock import Clock, Samples
from shardagent.errors import FencedError, SiteError
from shardagent.faults import Faults
from shardagent.health import Health
from shardagent.machine import told
from shardagent.post import Post
from shardagent.providers.base import Provider
from shardagent.runner import Runner, Turns
from shardagent.scrub import Scrubber, scrub_logging
from shardagent.shard import CLOCK_SAMPLES_MIN, Shard
from shardagent.site import Exchange, Site
from shardagent.spool import GOLDEN_RATIO, Spool
from shardagent.timeline import Timeline
from shardagent.uploads import Uploads
from shardagent.wire import (
    Beat,
    Finish,
    HeartbeatAnswer,
    Instants,
    Kind,
    Machine,
    Plan,
    RegisterAnswer,
    ShardPhase,
)

REGISTER_LIMIT_S = 120.0
QUICK_BEAT_S = 0.1  # between heartbeats until the first clock samples are there
BEAT_MIN_S = 0.05
BEAT_RETRY_MAX_S = 5.0  # between heartbeats while the site does not answer
# Timers of many Shards on one grid: fewer wakings, at a delay that is measured as ours.
GRID_US = 5_000
GRID_SHARDS_MIN = 50
GRID_COLLECT = (5_000, 10_000, 1_000)  # the collector's thresholds in such a process
BEATS_A_REQUEST = 500
BEAT_PAUSE_MAX_S = 0.5
BEATS_AT_ONCE = 50  # Shards looked at before the loop goes on to their calls
HEALTH_INTERVAL_S = 5.0
HEALTH_INTERVAL_MAX_S = 60.0
HEALTH_SHARDS = 50  # so many are told in an interval: of more, each less often
HEALTH_LOOK_S = 0.02
HEALTH_BEFORE_US, HEALTH_TOLD_US = 50_000, 200  # of all, and for each Shard
CLOSE_LIMIT_S = 5.0  # for the Provider's connections
STORE_LIMIT_S = 600.0  # at the end, for what is not stored yet
LEFTOVER_LIMIT_S = 60.0  # the same for what an earlier process left
FINAL_BEAT_LIMIT_S = 60.0  # at the end, for the site to hear that we finished
REFUSED_LIMIT_S = 20.0  # for storing, once the site refuses us or we failed
STOP_LIMIT_S = 8.0  # from SIGTERM to the end of the process …
STOP_DESTROY_S = 5.0  # … of which for destroying what is held

OpenProvider = Callable[[str, Mapping[str, str], Plan], Provider]
logger = logging.getLogger("shardagent")


@dataclass(frozen=True, slots=True)
class Options:
    """What an agent is started with."""

    site: str
    run: str
    host: int
    spool: Path
    token: str
    machine: Machine = Machine()


class Agent:
    """The process. run() returns its exit status."""

    def __init__(
        self,
        options: Options,
        *,
        clock: Clock | None = None,
        open_provider: OpenProvider = providers.open_provider,
    ) -> None:
        self._options = options
        self._clock = clock or Clock.from_environment(host=options.host)
        self._faults = Faults.from_environment(options.host, self._clock)
        self._open_provider = open_provider
        self._samples = Samples()
        self._health = Health()
        self._posts: list[Post] = []
        self._turns = Turns(self._clock)
        self._clock_id = ""
        self._beat_s = QUICK_BEAT_S
        self._beat_soon = asyncio.Event()
        self._away = False
        self._frozen = False
        self._news: tuple[Instants, str | None] = (Instants(), None)
        self._stopping = asyncio.Event()
        self._give_up = asyncio.Event()  # what is not stored now stays in the spool
        self._dropping: list[asyncio.Future[None]] = []
        self._unheard = asyncio.Event()  # no beat of ours will be taken any more

    def stop(self) -> None:
        """SIGTERM: destroy what is held, store the record, within STOP_LIMIT_S."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._give_up_in(STOP_LIMIT_S)
        self._terminate_shards()

    async def run(self) -> int:
        """Register, carry the Shards to their end; 0 where the site knows it all."""
        options = self._options
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=75)
        async with aiohttp.ClientSession(connector=connector) as session:
            site = Site(
                session,
                options.site,
                options.token,
                run=options.run,
                host=options.host,
                clock=self._clock,
                machine=options.machine,
            )
            if self._faults:
                site.before_beat = self._faults.before_beat
            registered = await self._register(site)
            if registered is None:
                return 1
            self._clock_id = registered.clock_id
            self._open_posts(registered)
            try:
                await self._carry(site, session, registered)
            except Exception as error:  # the one at the top: record it, save the rest
                logger.exception("the agent failed")
                self._fail(error)
                await self._carry(site, session, registered)
                return 1
        return 0 if all(post.acknowledged.is_set() for post in self._posts) else 1

    async def _register(self, site: Site) -> RegisterAnswer | None:
        retrying = tenacity.AsyncRetrying(
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
            stop=tenacity.stop_after_delay(REGISTER_LIMIT_S),
            retry=tenacity.retry_if_exception(
                lambda error: (
                    isinstance(error, SiteError) and not isinstance(error, FencedError)
                )
            ),
            before_sleep=tenacity.before_sleep_log(logger, logging.WARNING),
            reraise=True,
        )

        async def ask() -> RegisterAnswer:
            return await retrying(site.register)

        asking = asyncio.ensure_future(ask())
        if await self._bounded(asking, REGISTER_LIMIT_S + 60, self._stopping):
            return asking.result()
        return None

    def _open_posts(self, registered: RegisterAnswer) -> None:
        """Every attempt that was leased, and every one the spool has something of."""
        options = self._options
        spool = Spool(options.spool, options.run)
        slug, config = registered.plan.provider, registered.provider_config
        secrets = providers.secrets_of(slug, config)
        scrubber = Scrubber([*secrets, options.token])
        scrub_logging(scrubber)
        older = [lease for lease in spool.leases() if lease not in registered.shards]
        if len(older) + len(registered.shards) >= GRID_SHARDS_MIN:
            self._turns.grid_us = GRID_US
            # Not all processes of a machine at the same instants.
            self._turns.phase_us = int(options.host * GOLDEN_RATIO % 1 * GRID_US)
            # What a burst of thousands makes stays; to look at 50,000 new objects at
            # once takes 50 ms, in which nothing is sent.
            gc.set_threshold(*GRID_COLLECT)
        for lease in [*registered.shards, *older]:
            post = Post(spool.open(lease, scrubber), leftover=lease in older)
            self._posts.append(post)
            if post.leftover or post.spool.released:
                # What it created is not known here: nothing is made or destroyed.
                text = "an earlier process of this attempt ended midway"
                now = self._clock.now_us()
                post.spool.log(now, "ERROR", text)
                post.spool.end(now)

    async def _carry(
        self, site: Site, session: aiohttp.ClientSession, registered: RegisterAnswer
    ) -> None:
        """Bring every record home; begin those Shards that have none yet."""
        async with asyncio.TaskGroup() as tasks:
            uploads = Uploads(
                site,
                session,
                self._clock,
                tasks,
                flush_interval_s=registered.plan.flush_interval_s,
            )
            for post in self._posts:
                uploads.add(post.spool, leftover=post.leftover)
            background = [
                tasks.create_task(self._beat(site)),
                tasks.create_task(uploads.flush()),
                tasks.create_task(self._watch_health()),
                tasks.create_task(uploads.run()),
            ]
            if self._faults:
                acting = self._faults.act(self._instants, self._drop_connections)
                background.append(tasks.create_task(acting))
            self._health.start()
            for post in self._posts:
                if not post.spool.sealed:
                    self._begin(post, registered, tasks)
            if self._stopping.is_set():
                self._terminate_shards()
            homes = [
                tasks.create_task(self._see_home(post, uploads))
                for post in self._posts
                if not post.left
            ]
            try:
                await asyncio.gather(*homes)
            finally:
                self._health.stop()
                for task in background:
                    task.cancel()
                uploads.close()

    def _begin(
        self, post: Post, registered: RegisterAnswer, tasks: asyncio.TaskGroup
    ) -> None:
        plan, config, lease = (
            registered.plan,
            registered.provider_config,
            post.spool.lease,
        )
        provider = self._open_provider(plan.provider, config, plan)
        provider = self._faults.provider(provider)
        now = self._clock.now_us()
        runner = Runner(
            plan,
            post.spool,
            provider,
            clock=self._clock,
            health=self._health,
            tasks=tasks,
            turns=self._turns,
        )
        facts = told(self._options.machine, registered.seen_from)
        runner.event(Kind.AGENT_STARTED, now, **facts)
        count = len(plan.sandboxes_of(lease.shard))
        runner.log(now, "INFO", f"agent {__version__}: {count} sandboxes to hold")
        if plan.witness and not provider.supports_witness:
            runner.log(now, "WARNING", "this Provider allows no witness")
        shard = Shard(
            plan,
            lease,
            runner,
            self._samples,
            clock_id=registered.clock_id,
            supports_witness=provider.supports_witness,
            now=now,
        )
        runner.drive(shard)
        post.runner = runner

    async def _see_home(self, post: Post, uploads: Uploads) -> None:
        """After the last fact: close, store all, let the site know, leave."""
        if post.runner is not None:
            await post.runner.over.wait()
            await self._bounded(post.runner.close(), CLOSE_LIMIT_S, self._give_up)
        await post.spool.flush()
        uploads.kick(post.spool)
        stored = uploads.stored(post.spool)
        limit_s = STORE_LIMIT_S if post.runner else LEFTOVER_LIMIT_S
        if await self._bounded(stored, limit_s, self._give_up):
            post.stored = True
            self._beat_soon.set()
            said = post.acknowledged.wait()
            if await self._bounded(said, FINAL_BEAT_LIMIT_S, self._unheard):
                post.spool.forget()
                return
        post.left = True
        logger.error(
            "shard %d left without a word: %s in the spool",
            post.spool.lease.shard,
            "nothing" if post.spool.stored else "segments",
        )

    async def _bounded(
        self, work: Awaitable[object], limit_s: float, until: asyncio.Event
    ) -> bool:
        """Whether `work` ended within limit_s and before `until` was set."""
        working = asyncio.ensure_future(work)
        ending = asyncio.ensure_future(until.wait())
        try:
            await asyncio.wait(
                {working, ending},
                timeout=limit_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if working.done():
                working.result()
                return True
            return False
        finally:
            working.cancel()
            ending.cancel()

    # The heartbeat.

    async def _beat(self, site: Site) -> None:
        """Speak for every Shard, over and over; at most half of the time."""
        while True:
            self._beat_soon.clear()
            began_us = self._clock.now_us()
            if not await self._beat_for_all(site):
                return
            took_s = (self._clock.now_us() - began_us) / 1e6
            await asyncio.sleep(min(took_s, BEAT_PAUSE_MAX_S))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._beat_soon.wait(), self._beat_s)

    async def _beat_for_all(self, site: Site) -> bool:
        """BEATS_A_REQUEST at a time: more take longer than a turn of the loop may.

        False: the site refuses us, and all of it is over.
        """
        speaking = [post for post in self._posts if not post.left]
        for first in range(0, max(1, len(speaking)), BEATS_A_REQUEST):
            posts = speaking[first : first + BEATS_A_REQUEST]
            beats = []
            for number, post in enumerate(posts, 1):
                beats.append(post.beat())
                await _breathe(number)
            try:
                exchange = await site.heartbeat(beats, self._health.lately())
            except FencedError as error:
                self._unheard.set()
                self._give_up_in(REFUSED_LIMIT_S)
                self._stop_shards(Finish.FENCED, f"the site refuses us: {error}")
                return False
            except SiteError as error:
                self._beat_s = min(max(self._beat_s, 0.5), BEAT_RETRY_MAX_S)
                self._tell_away(f"the site does not answer: {error}", away=True)
                for post in speaking[first:]:
                    post.unheard()
                break
            self._tell_away("the site answers again", away=False)
            await self._heard(exchange, posts, beats)
        return True

    async def _heard(
        self, exchange: Exchange, posts: Sequence[Post], beats: Sequence[Beat]
    ) -> None:
        answer, sample = exchange.answer, exchange.sample
        self._samples.add(sample)
        self._beat_s = max(answer.interval_s, BEAT_MIN_S)
        if self._samples.count(self._clock_id) < CLOCK_SAMPLES_MIN:
            self._beat_s = min(self._beat_s, QUICK_BEAT_S)
        for number, (post, beat) in enumerate(zip(posts, beats, strict=True), 1):
            await _breathe(number)
            post.heard(beat)
            post.spool.event(
                Kind.CLOCK,
                sample.t4_us,
                t1_us=sample.t1_us,
                t2_us=sample.t2_us,
                t3_us=sample.t3_us,
                clock_id=sample.clock_id,
                offset_us=sample.offset_us,
                half_rtt_us=sample.half_rtt_us,
            )
            self._tell(post, answer)
        if (news := (answer.instants, answer.leave)) != self._news:
            self._news = news  # of the whole Run: no Shard waits for its own beat
            for number, post in enumerate(self._posts, 1):
                await _breathe(number)
                self._tell(post, answer)
        self._freeze_when_armed()

    def _tell(self, post: Post, answer: HeartbeatAnswer) -> None:
        if post.runner is None or post.runner.shard.over:
            return
        before = post.runner.shard.phase
        post.runner.heard(answer, fenced=post.spool.lease in answer.fenced)
        if post.runner.shard.phase is ShardPhase.ARMED is not before:
            self._beat_soon.set()

    def _freeze_when_armed(self) -> None:
        """What is there when all is armed stays: no collection needs to look at it."""
        if self._frozen:
            return
        shards = (post.runner.shard for post in self._posts if post.runner is not None)
        if all(shard.phase is ShardPhase.ARMED for shard in shards):
            self._frozen = True
            gc.collect()
            gc.freeze()

    def _tell_away(self, text: str, *, away: bool) -> None:
        if away is self._away:
            return
        self._away = away
        now = self._clock.now_us()
        for post in self._posts:
            post.spool.log(now, "WARNING" if away else "INFO", text)

    # Background.

    async def _watch_health(self) -> None:
        """Maxima at each interval; anew just before T0 and before T_destroy.

        So the maxima from T0 to the last final probe hold nothing of arming, nor of
        the destroys.
        """
        interval_s = HEALTH_INTERVAL_S * max(1, len(self._posts) / HEALTH_SHARDS)
        interval_us = int(min(interval_s, HEALTH_INTERVAL_MAX_S) * 1e6)
        before_us = HEALTH_BEFORE_US + HEALTH_TOLD_US * len(self._posts)
        last_us = self._clock.now_us()
        while True:
            await asyncio.sleep(HEALTH_LOOK_S)
            now = self._clock.now_us()
            due_us = last_us + interval_us
            times = self._instants()
            for edge_us in (times.t0_us, times.destroy_us) if times else ():
                if edge_us is not None and last_us < edge_us - before_us:
                    due_us = min(due_us, edge_us - before_us)
            if now < due_us:
                continue
            last_us = now
            taken = self._health.take()
            for number, post in enumerate(self._posts, 1):
                await _breathe(number)
                if post.runner is not None and not post.spool.sealed:
                    post.runner.tell_health(taken)

    def _instants(self) -> Timeline | None:
        """The Run's instants, as any Shard of this process knows them."""
        runners = (post.runner for post in self._posts if post.runner is not None)
        return next((runner.shard.times for runner in runners), None)

    def _drop_connections(self) -> None:
        for post in self._posts:
            if post.runner is not None:
                self._dropping.append(asyncio.ensure_future(post.runner.close()))

    # The end.

    def _terminate_shards(self) -> None:
        text = f"told to terminate: {STOP_DESTROY_S:g} s to destroy what is held"
        limit_us = int(STOP_DESTROY_S * 1e6)
        self._stop_shards(Finish.ABORTED, text, limit_us=limit_us)

    def _stop_shards(
        self, why: Finish, text: str, *, limit_us: int | None = None
    ) -> None:
        for post in self._posts:
            if post.runner is not None and not post.runner.shard.over:
                post.runner.stop(why, text, limit_us=limit_us)

    def _give_up_in(self, limit_s: float) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(limit_s, self._give_up.set)
        loop.call_later(limit_s, self._unheard.set)

    def _fail(self, error: Exception) -> None:
        """Our own bug ended the work: say so in every record that is not complete."""
        self._give_up_in(REFUSED_LIMIT_S)
        now = self._clock.now_us()
        for post in self._posts:
            post.spool.log(now, "ERROR", f"the agent failed: {_innermost(error)!r}")
            if post.runner is not None:
                post.runner.shard.fail(now)
                post.runner = None
            post.spool.end(now)


async def _breathe(number: int) -> None:
    if number % BEATS_AT_ONCE == 0:
        await asyncio.sleep(0)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
