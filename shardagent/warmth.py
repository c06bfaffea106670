"""When the connections of a Shard are warmed: at once, and again shortly before T0."""

from __future__ import annotations

from typing import cast

from shardagent.calls import Call, Result, Verb, Warmed

WARM_CONNECTIONS_MAX = 256
WARM_TRIES_MAX = 3
WARM_TIMEOUT_S = 30.0
WARM_RETRY_US = 1_000_000
REWARM_BEFORE_US = 5_000_000  # connections are warmed again this long before T0
REWARM_AGE_MAX_US = 10_000_000  # older than this at T0 is not warm


class Warmth:
    """Sans I/O, as all of the machine: `call` when due, `finished` after it."""

    def __init__(self, sandboxes: int, now: int) -> None:
        self.connections = 0
        self.connect_us: int | None = None
        self.due_us: int | None = now
        self._wanted = min(sandboxes, WARM_CONNECTIONS_MAX)
        self._tries = 0
        self._warmed_us: int | None = None
        self._again = False

    @property
    def ready(self) -> bool:
        """Warm, or tried often enough."""
        return self._warmed_us is not None

    def call(self, now: int) -> Call | None:
        """The call that is due."""
        if self.due_us is None or now < self.due_us:
            return None
        self.due_us = None
        self._tries += 1
        return Call(Verb.WARM, WARM_TIMEOUT_S, connections=self._wanted)

    def finished(self, result: Result) -> str:
        """A call ended; how, in words."""
        now = result.done_us
        if result.error is None:
            warmed = cast(Warmed, result.value)
            self.connections = warmed.connections
            self.connect_us = warmed.connect_us
            self._warmed_us = now
            count = self.connections
            return f"{count} connection{'' if count == 1 else 's'} warm"
        if not self.ready and self._tries < WARM_TRIES_MAX:
            self.due_us = now + WARM_RETRY_US
        else:
            # The Provider may be down; its creates will say so, as facts.
            self._warmed_us = self._warmed_us or now
        return f"warming failed: {result.error}"

    def before(self, t0_us: int, now: int) -> None:
        """T0 is known: connections are to be at most 10 s old by then."""
        if self._again:
            return
        self._again = True
        if now <= t0_us - REWARM_BEFORE_US:
            self.due_us = t0_us - REWARM_BEFORE_US
        elif (self._warmed_us or 0) < t0_us - REWARM_AGE_MAX_US:
            self.due_us = now
