"""The leaderboard (measurement.md §8): who holds, over all ranked Runs, not the best.

Pure. A Provider's place in a class is the median share held over its VALID ranked Runs
of the last 30 days; Providers whose intervals overlap share a rank.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

WINDOW_DAYS = 30
RUNS_MIN = 3  # on as many days, else "few runs"
HARNESS_SHARE_MAX = 0.02  # of the target; above it the Run leaves its class
RESAMPLES = 1_000
_CLASS_KEYS = (
    "sandbox_count",
    "target",
    "load",
    "hold_s",
    "probe_interval_s",
    "probe_timeout_s",
    "probe_failures_max",
    "create_timeout_s",
    "ready_timeout_s",
    "destroy_timeout_s",
    "final_spread_s",
    "ready_command",
    "ready_expect",
    "probe_command",
    "spec",
    "image_state",
    "transport",
    "fill_memory_pct",
)


@dataclass(frozen=True, slots=True)
class Launch:
    """One ranked launch, whatever became of it. day is days since the epoch."""

    code: str
    provider: str
    class_id: str
    day: int
    state: str
    verdict: str | None
    target: int
    held: int | None
    harness: int  # unobserved and not_attempted
    tti_p99_us: int | None
    barred: tuple[str, ...] = ()  # why it may not count: quota-bound, no witness …
    by_shard: tuple[tuple[int, int], ...] = ()  # held in a Shard, so many Shards

    @property
    def used(self) -> bool:
        """Counts for its Provider's place."""
        return (
            self.verdict == "VALID"
            and self.held is not None
            and not self.barred
            and self.harness <= HARNESS_SHARE_MAX * self.target
        )

    @property
    def share_held(self) -> float:
        assert self.held is not None
        return self.held / self.denominator

    @property
    def denominator(self) -> int:
        """The target, less what our own harness lost."""
        return max(self.target - self.harness, 1)


@dataclass(frozen=True, slots=True)
class Place:
    """A Provider's line in one class. low and high bound the median share (95 %)."""

    provider: str
    share_held: float | None
    low: float | None
    high: float | None
    tti_p99_us: int | None
    used: Sequence[Launch]
    launched: Sequence[Launch]
    label: str | None
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Board:
    class_id: str
    places: Sequence[Place] = field(default_factory=list)


def class_of(plan: Mapping[str, Any]) -> str:
    """What must be equal for two Runs to be compared, as a short stable name."""
    chosen = {key: plan.get(key) for key in _CLASS_KEYS}
    text = json.dumps(chosen, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:12]


def boards(launches: Iterable[Launch], today: int) -> list[Board]:
    """One Board a class, the largest target first; Places in order of rank."""
    recent = [x for x in launches if today - WINDOW_DAYS < x.day <= today]
    by_class: dict[str, dict[str, list[Launch]]] = {}
    for launch in recent:
        provider = by_class.setdefault(launch.class_id, {})
        provider.setdefault(launch.provider, []).append(launch)
    found = [
        Board(class_id, _ranked([_place(p, rows) for p, rows in providers.items()]))
        for class_id, providers in by_class.items()
    ]
    return sorted(found, key=lambda b: (-_target(b), b.class_id))


def _place(provider: str, launched: list[Launch]) -> Place:
    launched = sorted(launched, key=lambda x: (x.day, x.code))
    used = [launch for launch in launched if launch.used]
    if not used:
        return Place(provider, None, None, None, None, (), launched, "no VALID Run")
    shares = [launch.share_held for launch in used]
    low, high = _interval(used)
    ttis = [x.tti_p99_us for x in used if x.tti_p99_us is not None]
    few = len(used) < RUNS_MIN or len({x.day for x in used}) < RUNS_MIN
    return Place(
        provider=provider,
        share_held=median(shares),
        low=low,
        high=high,
        tti_p99_us=int(median(ttis)) if ttis else None,
        used=used,
        launched=launched,
        label="few runs" if few else None,
    )


def _interval(used: Sequence[Launch]) -> tuple[float, float]:
    """95 % of the median share: a bootstrap over Runs, then over each one's hosts."""
    draw = np.random.default_rng(len(used))
    shares = np.array([_by_hosts(launch, draw) for launch in used])
    rows = draw.integers(0, len(used), (RESAMPLES, len(used)))
    medians = np.median(shares[rows, np.arange(RESAMPLES)[:, None]], axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(low), float(high)


def _by_hosts(launch: Launch, draw: np.random.Generator) -> npt.NDArray[np.float64]:
    """Its share held, RESAMPLES times, had other hosts of its kind carried it."""
    shards = sum(count for _, count in launch.by_shard)
    if not shards:
        return np.full(RESAMPLES, launch.share_held)
    held = np.array([value for value, _ in launch.by_shard], dtype=np.float64)
    weights = np.array([count for _, count in launch.by_shard]) / shards
    sums = draw.multinomial(shards, weights, size=RESAMPLES) @ held
    found: npt.NDArray[np.float64] = np.minimum(1.0, sums / launch.denominator)
    return found


def _ranked(places: list[Place]) -> list[Place]:
    """Rank = 1 + the number of Providers that are wholly better."""
    ranked = []
    for place in places:
        rank = None
        if place.label is None:
            better = [
                other
                for other in places
                if other.label is None
                and other.low is not None
                and place.high is not None
                and other.low > place.high
            ]
            rank = 1 + len(better)
        ranked.append(replace(place, rank=rank))
    return sorted(ranked, key=_order)


def _order(place: Place) -> tuple[int, float, int, str]:
    unranked = 10**9
    return (
        place.rank if place.rank is not None else unranked,
        -(place.share_held if place.share_held is not None else -1),
        place.tti_p99_us if place.tti_p99_us is not None else unranked * 1_000,
        place.provider,
    )


def _target(board: Board) -> int:
    return max(x.target for place in board.places for x in place.launched)
