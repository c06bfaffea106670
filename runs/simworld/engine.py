"""What the world does with each request: admission, lives, deaths.

It knows no sockets: a request brings `reply`, which is called once, later, or never.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Protocol

from runs.simworld.config import WorldConfig
from runs.simworld.fates import CreateFate, Dealer, Draws, Fate, Unready
from runs.simworld.life import Life, refused_line
from runs.simworld.parameters import ZERO, World
from runs.simworld.timers import Clock, Timers

LIST_PAGE = 5_000
LATE_MARGIN_US = 1_000_000  # how much too late a late create comes
TTL_SWEEP_US = 1_000_000
NOT_READY_US = 500_000  # how long a sandbox that is never ready takes to say so
READY_OUTPUT = "v22.0.0-sim\n"


class Reply(Protocol):
    """Where an answer goes."""

    def ok(self, *values: Any) -> None: ...

    def error(self, cause: str, status: int, message: str) -> None: ...


class Engine:
    """The state of the world."""

    def __init__(
        self,
        config: WorldConfig,
        clock: Clock,
        timers: Timers,
        tell: Callable[[bytes], None],
    ) -> None:
        world = config.world
        self._config = config
        self._world = world
        self._now = clock.now_us
        self._at = timers.at
        self._tell = tell
        self._dealer = Dealer(
            world, config.seed, config.sandbox_count, config.shard_count
        )
        zero = world.profile == ZERO
        self._refusal_us = 0 if zero else int(world.refusal_ms * 1_000)
        self._exec_us = 0 if zero else int(world.exec_ms * 1_000)
        self._destroy_us = 0 if zero else int(world.destroy_ms * 1_000)
        self._wake_us = 0 if zero else int(world.wake_ms * 1_000)
        self._tick_us = max(1, int(world.tick_ms * 1_000))
        self._idle_us = int((world.hibernate_after_s or 0) * 1_000_000)
        self._timeout_us = int(config.create_timeout_s * 1_000_000)
        self._tokens = float(world.rate_burst)
        self._tokens_at = 0
        self._living: dict[str, Life] = {}
        self._coming = 0
        self._asks = 0
        self._open: dict[int, tuple[int, int]] = {}  # creates not yet answered
        self._serial = 0
        self._requests = 0
        self._draw = Draws(config.seed, 6)
        self._first_asked = False
        self._expiring: dict[int, list[Life]] = {}
        self._ended = False
        self.counts: dict[str, int] = {}

    def create(
        self, reply: Reply, index: int, labels: dict[str, str], ttl_s: float
    ) -> None:
        now = self._now()
        if not 0 <= index < self._config.sandbox_count or ttl_s <= 0 or self._ended:
            reply.error("invalid_request", 400, "no such sandbox, ttl or world")
            return
        if not self._first_asked:
            self._first_asked = True
            if self._dealer.rack:
                rack_us = int(self._world.rack_at_s * 1_000_000)
                self._at(now + rack_us, self._rack_fails)
        self._asks += 1
        ask = self._asks
        refusal = self._refusal(now)
        self._open[ask] = (index, now)
        if refusal is not None:
            due = now + self._refusal_us
            self._later(now, due, self._refuse, reply, ask, refusal)
            return
        shard = labels.get("shard", "")
        fate = self._dealer.deal(index, int(shard) if shard.isdecimal() else None)
        match fate.create:
            case CreateFate.HANG:
                self._never_answered(ask)
            case CreateFate.ERROR:
                due = now + fate.create_us
                failure = ("error", "provider_error", 500, "internal error")
                self._later(now, due, self._refuse, reply, ask, failure)
            case CreateFate.OK | CreateFate.LATE:
                due = now + fate.create_us
                if fate.create is CreateFate.LATE:
                    due = now + self._timeout_us + LATE_MARGIN_US
                self._coming += 1
                life = Life(index, fate, labels, now)
                self._later(now, due, self._created, reply, ask, life, ttl_s)

    def _refusal(self, now: int) -> tuple[str, str, int, str] | None:
        world = self._world
        if world.rate_per_s is not None:
            gained = (now - self._tokens_at) * world.rate_per_s / 1_000_000
            self._tokens = min(float(world.rate_burst), self._tokens + gained)
            self._tokens_at = now
            if self._tokens < 1:
                return "rate_limited", "rate_limited", 429, "too many requests"
            self._tokens -= 1
        there = len(self._living) + self._coming
        if world.quota is not None and there >= world.quota:
            return "quota", "quota", 403, "concurrency quota exceeded"
        if world.capacity is not None and there >= world.capacity:
            return "capacity", "capacity", 503, "no capacity left"
        return None

    def _never_answered(self, ask: int) -> None:
        index, asked = self._open.pop(ask)
        self._count("timeout")
        self._tell(refused_line(index, "timeout", asked, None))

    def _refuse(self, reply: Reply, ask: int, why: tuple[str, str, int, str]) -> None:
        if ask not in self._open:
            return  # the world has ended meanwhile
        index, asked = self._open.pop(ask)
        create, cause, status, message = why
        self._count(create)
        self._tell(refused_line(index, create, asked, self._now() - asked))
        reply.error(cause, status, message)

    def _created(self, reply: Reply, ask: int, life: Life, ttl_s: float) -> None:
        if ask not in self._open:
            return  # the world has ended meanwhile
        del self._open[ask]
        self._coming -= 1
        now = self._now()
        self._serial += 1
        life.provider_id = f"sim-{self._config.run}-{life.index}-{self._serial:x}"
        life.created_us = now
        life.create_us = now - life.asked_us
        if life.create_us > self._timeout_us:
            life.create = "timeout"
        life.ready_at_us = now + life.fate.ready_us
        ttl_max = self._world.ttl_max_s
        ttl_us = int(min(ttl_s, ttl_s if ttl_max is None else ttl_max) * 1_000_000)
        life.ttl_at_us = now + ttl_us
        self._reached(life, now)
        self._count(life.create)
        self._living[life.provider_id] = life
        second = life.ttl_at_us // TTL_SWEEP_US + 1
        bucket = self._expiring.get(second)
        if bucket is None:
            bucket = self._expiring[second] = []
            self._at(second * TTL_SWEEP_US, self._expire, second)
        bucket.append(life)
        dies = life.fate.dies_after_us
        if dies is not None and dies < ttl_us:
            self._at(now + dies, self._end, life, "died", now + dies)
        reply.ok(life.provider_id)

    def execute(
        self, reply: Reply, provider_id: str, argv: Sequence[str], timeout_s: float
    ) -> None:
        now = self._now()
        life = self._reach(reply, provider_id, now)
        if life is None:
            return
        awake = now + (self._wake_us if life.wake(now) else 0)
        fate = life.fate
        if fate.unready is not None:
            self._reached(life, awake)
            self._answer_unready(reply, life, awake)
            return
        if not life.interactive and now < life.ready_at_us:
            if self._world.before_ready == "refuse":
                reply.error("provider_error", 503, "the sandbox is starting")
                return
            due = life.ready_at_us
        else:
            due = awake + self._exec_latency(fate)
        self._reached(life, due)
        self._later(now, due, self._executed, reply, life, argv, now, timeout_s)

    def _executed(
        self,
        reply: Reply,
        life: Life,
        argv: Sequence[str],
        asked: int,
        timeout_s: float,
    ) -> None:
        now = self._now()
        if self._gone(reply, life, now):
            return
        in_time = now - asked <= timeout_s * 1_000_000
        if not life.interactive and in_time:
            life.interactive = True
            # Who asks late waits longer; that is not the world's doing.
            late = max(0, asked - life.ready_at_us)
            life.ready_us = now - life.created_us - late
        reply.ok(*_run(argv, self._world))

    def _answer_unready(self, reply: Reply, life: Life, now: int) -> None:
        match life.fate.unready:
            case Unready.REFUSES:
                due = now + NOT_READY_US
                error = ("provider_error", 503, "the sandbox is not ready")
                self._at(due, self._error, reply, error)
            case Unready.WRONG:
                self._at(now + NOT_READY_US, reply.ok, 127, "command not found\n")
            case Unready.HANGS | None:
                pass  # never answers

    def witness(self, reply: Reply, provider_id: str, nonce: str) -> None:
        now = self._now()
        life = self._reach(reply, provider_id, now)
        if life is None:
            return
        due = now
        if life.awake_until_us and life.wake(now):
            due += self._wake_us
        due += self._exec_latency(life.fate)
        if self._idle_us:
            self._reached(life, due)
        self._later(now, due, self._witness_started, reply, life, nonce)

    def _witness_started(self, reply: Reply, life: Life, nonce: str) -> None:
        now = self._now()
        if not self._gone(reply, life, now):
            life.start_witness(nonce, now)
            reply.ok()

    def probe(
        self, reply: Reply, provider_id: str, argv: Sequence[str], challenge: str | None
    ) -> None:
        now = self._now()
        life = self._reach(reply, provider_id, now)
        if life is None:
            return
        due = now
        if life.awake_until_us and life.wake(now):
            due += self._wake_us
        due += self._exec_latency(life.fate)
        if self._idle_us:
            self._reached(life, due)
        if life.fate.unready is not None:
            self._answer_unready(reply, life, due)
            return
        life.probes += 1
        if life.probes == life.fate.flaky_probe:
            error = ("provider_error", 502, "bad gateway")
            self._later(now, due, self._error, reply, error)
            return
        self._later(now, due, self._probed, reply, life, argv, challenge)

    def _probed(
        self, reply: Reply, life: Life, argv: Sequence[str], challenge: str | None
    ) -> None:
        now = self._now()
        if self._gone(reply, life, now):
            return
        code, output = _run(argv, self._world)
        if challenge is None or life.nonce is None:
            reply.ok(code, output, None, None)
        else:
            ticks = life.ticks(now)
            reply.ok(code, output, ticks, life.digest(challenge))

    def destroy(self, reply: Reply, provider_id: str) -> None:
        life = self._living.get(provider_id)
        if life is None:
            reply.ok()
            return
        now = self._now()
        self._later(now, now + self._destroy_us, self._destroyed, reply, life)

    def _destroyed(self, reply: Reply, life: Life) -> None:
        self._end(life, "destroyed", self._now())
        reply.ok()

    def kill(self, reply: Reply, provider_id: str) -> None:
        """Drill: the sandbox dies at once."""
        now = self._now()
        life = self._reach(reply, provider_id, now)
        if life is not None:
            self._end(life, "died", now)
            reply.ok()

    def hibernate(self, reply: Reply, provider_id: str) -> None:
        """Drill: the sandbox sleeps until it is reached."""
        now = self._now()
        life = self._reach(reply, provider_id, now)
        if life is not None:
            life.wake(now)
            life.awake_until_us = now
            reply.ok()

    def list(self, reply: Reply, labels: dict[str, str], offset: int) -> None:
        """A page of the living with all these labels, and how many were looked at."""
        wanted = labels.items()
        page = list(islice(self._living.values(), offset, offset + LIST_PAGE))
        found = [
            (life.provider_id, life.labels)
            for life in page
            if wanted <= life.labels.items()
        ]
        reply.ok(found, offset + len(page) if len(page) == LIST_PAGE else None)

    def living(self) -> int:
        return len(self._living)

    def is_living(self, provider_id: str) -> bool:
        life = self._living.get(provider_id)
        return life is not None and self._now() < life.ttl_at_us

    def is_interactive(self, provider_id: str) -> bool:
        """Whether a command has run in it yet."""
        life = self._living.get(provider_id)
        return life is not None and life.interactive

    def end(self) -> None:
        """The world ends: whoever lives is closed, what was asked stays unanswered."""
        self._ended = True
        now = self._now()
        for life in list(self._living.values()):
            self._end(life, "world_end", now)
        for ask in list(self._open):
            self._never_answered(ask)

    def _later(self, now: int, due: int, call: Callable[..., None], *args: Any) -> None:
        """An answer, at the first tick from then on; what happens has no tick."""
        if due <= now:
            call(*args)
        else:
            self._at(-(-due // self._tick_us) * self._tick_us, call, *args)

    def _reach(self, reply: Reply, provider_id: str, now: int) -> Life | None:
        life = self._living.get(provider_id)
        if life is not None and now >= life.ttl_at_us:
            self._end(life, "ttl", life.ttl_at_us)
            life = None
        if life is None:
            self._error(reply, ("not_found", 404, "no such sandbox"))
        return life

    def _gone(self, reply: Reply, life: Life, now: int) -> bool:
        if not life.ended and now >= life.ttl_at_us:
            self._end(life, "ttl", life.ttl_at_us)
        if life.ended:
            self._error(reply, ("not_found", 404, "no such sandbox"))
        return life.ended

    def _reached(self, life: Life, until: int) -> None:
        if self._idle_us:
            life.awake_until_us = until + self._idle_us

    def _exec_latency(self, fate: Fate) -> int:
        self._requests += 1
        # Uniform around the mean, with one in a hundred five times slower.
        draw = self._draw.of(self._requests)
        tail = 5 if draw < 0.01 else 1
        return int(self._exec_us * (0.5 + draw) * tail * fate.factor)

    def _error(self, reply: Reply, error: tuple[str, int, str]) -> None:
        reply.error(*error)

    def _end(self, life: Life, end: str, at: int) -> None:
        if life.ended:
            return
        life.ended = True
        if at > life.ttl_at_us and end != "ttl":
            end, at = "ttl", life.ttl_at_us
        del self._living[life.provider_id]
        self._count(end)
        self._tell(life.line(at, end))

    def _expire(self, second: int) -> None:
        for life in self._expiring.pop(second, []):
            self._end(life, "ttl", life.ttl_at_us)

    def _rack_fails(self) -> None:
        now, rack = self._now(), self._dealer.rack
        for life in [life for life in self._living.values() if life.index in rack]:
            self._end(life, "rack", now)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def _run(argv: Sequence[str], world: World) -> tuple[int, str]:
    """What a command gives: just enough of a shell for probes and readiness."""
    if argv == ["true"]:
        return 0, ""  # by far the most
    match list(argv):
        case ["true"] | []:
            return 0, ""
        case ["false"]:
            return 1, ""
        case ["echo", *words]:
            return 0, " ".join(words) + "\n"
        case ["sh", "-c", script] if script.startswith("echo "):
            return 0, script.removeprefix("echo ") + "\n"
        case ["sh", "-c", script] if script.startswith("nproc"):
            total = f"{world.memory_mb * 1_024} kB"
            return 0, f"{world.cpus}\nmax 100000\n{total}\nmax\n"
        case _:
            return 0, READY_OUTPUT
