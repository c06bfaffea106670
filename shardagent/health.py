"""How this process itself is doing: what could make its measurements its own fault."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections import deque

LAG_TICK_S = 0.02
CPU_TICK_S = 1.0
GAUGES_S = 0.5  # for so long memory and open files, once read, are those of now
WINDOW_S = 5.0  # shares are the largest over any window of this length


class Health:
    """Samples loop lag, CPU of the loop thread and steal; all maxima since `take`."""

    def __init__(self) -> None:
        self._lag_max_s = 0.0
        self._cpu_max_pct = 0.0
        self._before = (0.0, 0.0)  # lag and CPU of the interval before
        self._steal_max_pct: float | None = None
        self._history: deque[tuple[float, float, tuple[int, int] | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._next_cpu_s = 0.0
        self._gauges: tuple[int, int | None] = (0, None)
        self._gauges_until_s = 0.0

    def start(self) -> None:
        """Begin sampling on the running loop."""
        loop = asyncio.get_running_loop()
        self._next_cpu_s = loop.time()
        self._tick(loop, loop.time())

    def stop(self) -> None:
        """End sampling."""
        if self._timer is not None:
            self._timer.cancel()

    def take(self) -> dict[str, object]:
        """The maxima since the last call, and the gauges of now."""
        taken = self.peek()
        self._before = (self._lag_max_s, self._cpu_max_pct)
        self._lag_max_s = 0.0
        self._cpu_max_pct = 0.0
        self._steal_max_pct = None
        return taken

    def peek(self) -> dict[str, object]:
        """The same without beginning anew: other Shards have not taken theirs."""
        now_s = time.monotonic()
        if now_s >= self._gauges_until_s:  # many Shards may ask at one instant
            self._gauges = (_rss_bytes(), _open_fds())
            self._gauges_until_s = now_s + GAUGES_S
        rss_bytes, open_fds = self._gauges
        return {
            "cpu_pct": round(self._cpu_max_pct, 1),
            "rss_bytes": rss_bytes,
            "loop_lag_us": round(self._lag_max_s * 1e6),
            "open_fds": open_fds,
            "steal_pct": self._steal_max_pct,
        }

    def lately(self) -> tuple[int, float]:
        """The largest loop lag (µs) and CPU (%) of this interval and the one before."""
        lag_s, cpu_pct = self._before
        lag_us = round(max(lag_s, self._lag_max_s) * 1e6)
        return lag_us, round(max(cpu_pct, self._cpu_max_pct), 1)

    def _tick(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        now_s = loop.time()
        self._lag_max_s = max(self._lag_max_s, now_s - due_s)
        if now_s >= self._next_cpu_s:
            self._next_cpu_s = now_s + CPU_TICK_S
            self._sample_cpu(now_s)
        next_s = now_s + LAG_TICK_S
        self._timer = loop.call_at(next_s, self._tick, loop, next_s)

    def _sample_cpu(self, now_s: float) -> None:
        busy_s = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
        steal = _steal_ticks()
        history = self._history
        history.append((now_s, busy_s, steal))
        # The newest entry that is a whole window old stays as the window's start.
        while len(history) > 2 and now_s - history[1][0] >= WINDOW_S:
            history.popleft()
        then_s, busy_then_s, steal_then = history[0]
        if now_s - then_s < LAG_TICK_S:
            return
        share = (busy_s - busy_then_s) / (now_s - then_s)
        self._cpu_max_pct = max(self._cpu_max_pct, 100 * share)
        if steal is not None and steal_then is not None and steal[1] > steal_then[1]:
            stolen = (steal[0] - steal_then[0]) / (steal[1] - steal_then[1])
            self._steal_max_pct = max(
                self._steal_max_pct or 0.0, round(100 * stolen, 2)
            )


def _rss_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024


def _open_fds() -> int | None:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return None


def _steal_ticks() -> tuple[int, int] | None:
    """(stolen, all) clock ticks of the machine since boot, where it tells."""
    try:
        with open("/proc/stat", "rb") as stat:
            ticks = [int(field) for field in stat.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else None
