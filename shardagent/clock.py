"""The agent's clock and how it places instants of the Run's clock on its own.

Wall time is read once; after that only CLOCK_MONOTONIC_RAW counts, so that neither a
step nor a slew of the host's clock moves an event (measurement.md §3).
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

DRIFT_DIVISOR = 10_000  # 100 ppm: one µs of doubt for each 10,000 µs of distance
SAMPLES_MAX = 256  # kept for firing; the record holds all of them
TEST_OFFSET = "HOLDFAST_TEST_CLOCK_OFFSET_US"
TEST_DRIFT = "HOLDFAST_TEST_CLOCK_DRIFT_PPM"


class Clock:
    """Wall clock of this process in µs; it neither steps nor slews."""

    __slots__ = ("_base_raw_ns", "_base_us", "_rate_ppm")

    def __init__(self, *, offset_us: int = 0, drift_ppm: int = 0) -> None:
        self._rate_ppm = 1_000_000 + drift_ppm
        self._base_us = time.time_ns() // 1_000 + offset_us
        self._base_raw_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] = os.environ, *, host: int = 0
    ) -> Clock:
        """The process's clock; two variables, for tests alone, skew it.

        Each holds one number for all hosts, or a list by host index that repeats.
        """
        offsets = environ.get(TEST_OFFSET, "0").split(",")
        drifts = environ.get(TEST_DRIFT, "0").split(",")
        return cls(
            offset_us=int(offsets[host % len(offsets)]),
            drift_ppm=int(drifts[host % len(drifts)]),
        )

    def step(self, by_us: int) -> None:
        """Jump, as no clock of ours ever should: a fault of tests (faults.py)."""
        self._base_us += by_us

    def now_us(self) -> int:
        """Agent wall clock; differences of it are the raw monotonic clock's."""
        raw_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - self._base_raw_ns
        if self._rate_ppm != 1_000_000:
            raw_ns = raw_ns * self._rate_ppm // 1_000_000
        return self._base_us + raw_ns // 1_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One four-timestamp exchange; t1 and t4 are the agent's, t2 and t3 the site's."""

    t1_us: int
    t2_us: int
    t3_us: int
    t4_us: int
    clock_id: str

    @property
    def offset_us(self) -> int:
        """What to add to agent time to have Run time; half to even."""
        quotient, odd = divmod((self.t2_us - self.t1_us) + (self.t3_us - self.t4_us), 2)
        return quotient + (quotient & odd)

    @property
    def half_rtt_us(self) -> int:
        """The doubt of the offset at t4, rounded up."""
        doubled = (self.t4_us - self.t1_us) - (self.t3_us - self.t2_us)
        return -(-doubled // 2)

    def bound_us(self, at_us: int) -> int:
        """The doubt of an instant at agent time `at_us` corrected by this sample."""
        return self.half_rtt_us + -(-abs(at_us - self.t4_us) // DRIFT_DIVISOR)


class Samples:
    """What this process knows of the Run's clock, newest SAMPLES_MAX samples."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self._counts: Counter[str] = Counter()
        # All Shards of a process ask for the same few instants after each heartbeat.
        self._placed: dict[tuple[int, str], int | None] = {}

    def add(self, sample: Sample) -> None:
        """Keep one more exchange."""
        self._samples.append(sample)
        self._counts[sample.clock_id] += 1
        self._placed.clear()

    def count(self, clock_id: str) -> int:
        """How many samples that clock ever gave."""
        return self._counts[clock_id]

    def best(self, at_us: int, clock_id: str) -> Sample | None:
        """The sample of that clock with the smallest doubt at `at_us`."""
        return min(
            (sample for sample in self._samples if sample.clock_id == clock_id),
            key=lambda sample: (sample.bound_us(at_us), sample.t4_us),
            default=None,
        )

    def to_agent(self, run_us: int, clock_id: str) -> int | None:
        """A Run-clock instant on this agent's clock; None without any sample."""
        key = (run_us, clock_id)
        if key not in self._placed:
            self._placed[key] = self._place(run_us, clock_id)
        return self._placed[key]

    def _place(self, run_us: int, clock_id: str) -> int | None:
        newest = next(
            (one for one in reversed(self._samples) if one.clock_id == clock_id), None
        )
        if newest is None:
            return None
        best = self.best(run_us - newest.offset_us, clock_id)
        assert best is not None
        return run_us - best.offset_us
