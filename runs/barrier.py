"""Where all Shards wait for one release instant (measurement.md §5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum


class Decision(Enum):
    HOLD = "hold"
    RELEASE = "release"
    ABANDON = "abandon"


@dataclass(frozen=True, slots=True)
class Verdict:
    decision: Decision
    why: str


def decide(
    *, armed: int, total: int, quorum: float, waited_s: float, timeout_s: float
) -> Verdict:
    """HOLD until all are armed, or quorum is and `timeout_s` has passed; then act.

    armed and total count Shards; quorum is a share of total (0 < quorum ≤ 1).
    """
    assert 0 <= armed <= total
    assert 0 < quorum <= 1
    needed = math.ceil(quorum * total)
    if armed == total:
        return Verdict(Decision.RELEASE, f"all {total:,} Shards are armed")
    if waited_s < timeout_s:
        left = math.ceil(timeout_s - waited_s)
        return Verdict(
            Decision.HOLD,
            f"waiting for {total - armed:,} of {total:,} Shards; "
            f"releases when all are armed, or with {needed:,} in {left} s",
        )
    if armed >= needed:
        return Verdict(
            Decision.RELEASE,
            f"{armed:,} of {total:,} Shards are armed (quorum {needed:,}) "
            f"after {timeout_s:g} s",
        )
    return Verdict(
        Decision.ABANDON,
        f"only {armed:,} of {total:,} Shards armed within {timeout_s:g} s; "
        f"the quorum is {needed:,}",
    )


def instant_ahead_us(now_us: int, heartbeat_interval_s: float, least_s: float) -> int:
    """An absolute instant far enough ahead for every agent to hear of it in time."""
    return now_us + round(max(3 * heartbeat_interval_s, least_s) * 1e6)
