"""The Run's clock: wall time read once, plus CLOCK_MONOTONIC_RAW since.

A step or slew of the host's wall clock changes nothing (measurement.md §3). The base
and the boot it belongs to are stored with the Run, so every process of this host, and
the same host after a restart of the site, continues one clock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunClock:
    base_wall_us: int
    base_mono_ns: int
    boot_id: str

    @property
    def clock_id(self) -> str:
        text = f"{self.boot_id}:{self.base_wall_us}:{self.base_mono_ns}"
        return sha256(text.encode()).hexdigest()[:16]

    def now_us(self) -> int:
        return self.at_us(raw_ns())

    def at_us(self, raw_ns: int) -> int:
        """What it read at a reading of CLOCK_MONOTONIC_RAW on this host."""
        return self.base_wall_us + (raw_ns - self.base_mono_ns) // 1_000

    @classmethod
    def start(cls) -> RunClock:
        """A new clock that begins at this host's wall time."""
        return cls(
            base_wall_us=time.time_ns() // 1_000,
            base_mono_ns=raw_ns(),
            boot_id=boot_id(),
        )


def raw_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def boot_id() -> str:
    """Which boot of which host this is; a monotonic reading means nothing elsewhere."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
