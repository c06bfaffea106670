"""Is a Shard's agent there? A verdict drawn from Heartbeats, never stored as one."""

from __future__ import annotations

from enum import Enum


class Liveness(Enum):
    LIVE = "live"
    SILENT = "silent"
    LOST = "lost"


SILENT_INTERVALS = 3


def liveness(
    *,
    last_heard_us: int | None,
    listening_since_us: int,
    now_us: int,
    interval_s: float,
    lease_s: float,
) -> Liveness:
    """Judge silence against the time that the ear was open.

    An outage of the site never declares a Shard lost: silence counts from the later
    of the last Heartbeat and the instant since which the site has listened.
    """
    heard = max(last_heard_us or 0, listening_since_us)
    silence_s = (now_us - heard) / 1e6
    if silence_s > max(lease_s, 2 * SILENT_INTERVALS * interval_s):
        return Liveness.LOST
    if silence_s > SILENT_INTERVALS * interval_s:
        return Liveness.SILENT
    return Liveness.LIVE
