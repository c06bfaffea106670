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
OBSERVED_TOLERANCE = 0.10  # of CPUs and of memory, within one class
CONNECT_SPREAD_MAX_US = 10_000  # beyond it latencies are not compared
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
    # (held on a host, observed there, number of such hosts)
    by_host: tuple[tuple[int, int, int], ...] = ()
    cpus: float | None = None  # observed in its sandboxes; None where none said so
    memory_bytes: int | None = None
    connect_us: int | None = None  # one round trip to the Provider

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
    def observed(self) -> bool:
        """Its sandboxes said what they are."""
        return self.cpus is not None and self.memory_bytes is not None

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
    """A Provider's line in one class. low and high bound the median share (95 %).

    connect_us is the median over its used Runs; None where a Run does not know it.
    """

    provider: str
    share_held: float | None
    low: float | None
    high: float | None
    tti_p99_us: int | None
    connect_us: int | None
    used: Sequence[Launch]
    launched: Sequence[Launch]
    label: str | None
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """One class; where latency_compared is False its Runs are too far apart for it."""

    class_id: str
    places: Sequence[Place] = field(default_factory=list)
    cpus: float | None = None  # observed in the first Run of the class
    memory_bytes: int | None = None
    latency_compared: bool = True


def class_of(plan: Mapping[str, Any]) -> str:
    """What must be equal for two Runs to be compared, as a short stable name."""
    chosen = {key: plan.get(key) for key in _CLASS_KEYS}
    text = json.dumps(chosen, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:12]


def boards(launches: Iterable[Launch], today: int) -> list[Board]:
    """One Board a class, the largest target first; Places in order of rank."""
    recent = [x for x in launches if today - WINDOW_DAYS < x.day <= today]
    by_class: dict[str, list[Launch]] = {}
    for launch in sorted(recent, key=lambda x: (x.day, x.code)):
        by_class.setdefault(launch.class_id, []).append(launch)
    found = [
        _board(class_id, group)
        for class_id, rows in by_class.items()
        for group in _alike(rows)
    ]
    return sorted(found, key=lambda b: (-_target(b), b.class_id))


def _alike(launches: list[Launch]) -> list[list[Launch]]:
    """Split a class by what was observed: each group is alike to its first Run.

    A Run that observed nothing, as it never held, is listed with its Provider's others.
    """
    groups: list[list[Launch]] = []
    for launch in (x for x in launches if x.observed):
        home = next((g for g in groups if _same_machine(g[0], launch)), None)
        if home is None:
            groups.append([launch])
        else:
            home.append(launch)
    unseen = [x for x in launches if not x.observed and x.used]
    if unseen:  # of a record that does not say: alike to none that does
        groups.append(unseen)
    for launch in (x for x in launches if not x.observed and not x.used):
        own = (g for g in groups if any(x.provider == launch.provider for x in g))
        home = next(own, None) or next(iter(groups), None)
        if home is None:
            groups.append([launch])
        else:
            home.append(launch)
    return groups


def _same_machine(one: Launch, other: Launch) -> bool:
    pairs = ((one.cpus, other.cpus), (one.memory_bytes, other.memory_bytes))
    return all(
        a is not None and b is not None and abs(a - b) <= OBSERVED_TOLERANCE * a
        for a, b in pairs
    )


def _board(class_id: str, launches: list[Launch]) -> Board:
    by_provider: dict[str, list[Launch]] = {}
    for launch in launches:
        by_provider.setdefault(launch.provider, []).append(launch)
    places = [_place(p, rows) for p, rows in by_provider.items()]
    first = launches[0]
    if first.cpus is not None and first.memory_bytes is not None:
        class_id += f"-{first.cpus:g}c{first.memory_bytes >> 20}m"
    compared = _comparable(places)
    return Board(
        class_id,
        _ranked(places, by_latency=compared),
        first.cpus,
        first.memory_bytes,
        compared,
    )


def _comparable(places: Sequence[Place]) -> bool:
    """Whether the round trips of all that have a latency lie near one another."""
    trips = [p.connect_us for p in places if p.tti_p99_us is not None]
    known = [trip for trip in trips if trip is not None]
    return not known or max(known) - min(known) <= CONNECT_SPREAD_MAX_US


def _place(provider: str, launched: list[Launch]) -> Place:
    launched = sorted(launched, key=lambda x: (x.day, x.code))
    used = [launch for launch in launched if launch.used]
    if not used:
        return Place(
            provider, None, None, None, None, None, (), launched, "no VALID Run"
        )
    shares = [launch.share_held for launch in used]
    low, high = _interval(used)
    ttis = [x.tti_p99_us for x in used if x.tti_p99_us is not None]
    trips = [x.connect_us for x in used if x.connect_us is not None]
    few = len(used) < RUNS_MIN or len({x.day for x in used}) < RUNS_MIN
    return Place(
        provider=provider,
        share_held=median(shares),
        low=low,
        high=high,
        tti_p99_us=int(median(ttis)) if ttis else None,
        connect_us=int(median(trips)) if len(trips) == len(used) else None,
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
    if not any(observed for _, observed, _ in launch.by_host):
        return np.full(RESAMPLES, launch.share_held)
    shares = resampled(launch.by_host, draw, RESAMPLES)
    whole = sum(observed * hosts for _, observed, hosts in launch.by_host)
    found: npt.NDArray[np.float64] = np.minimum(
        1.0, shares * whole / launch.denominator
    )
    return found


def resampled(
    by_host: Sequence[tuple[int, int, int]], draw: np.random.Generator, size: int
) -> npt.NDArray[np.float64]:
    """Share held of what was observed, on as many hosts drawn from these."""
    held, observed, hosts = np.array(by_host, dtype=np.int64).T
    count = int(hosts.sum())
    drawn = draw.multinomial(count, hosts / count, size=size)
    found: npt.NDArray[np.float64] = (drawn @ held) / np.maximum(1, drawn @ observed)
    return found


def _ranked(places: list[Place], *, by_latency: bool) -> list[Place]:
    """Rank = 1 + the number of Providers that are wholly better.

    Among equals the quicker comes first, where that may be said.
    """
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
    return sorted(ranked, key=lambda place: _order(place, by_latency))


def _order(place: Place, by_latency: bool) -> tuple[int, float, int, str]:
    unranked = 10**9
    tti_us = place.tti_p99_us if by_latency else None
    return (
        place.rank if place.rank is not None else unranked,
        -(place.share_held if place.share_held is not None else -1),
        tti_us if tti_us is not None else unranked * 1_000,
        place.provider,
    )


def _target(board: Board) -> int:
    return max(x.target for place in board.places for x in place.launched)
