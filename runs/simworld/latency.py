"""Latencies as real vendors showed them: the inverse of a measured distribution."""

from __future__ import annotations

import json
from bisect import bisect_right
from functools import cache
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

TABLE = Path(__file__).with_name("july_2026.json")
DAYS_MAX = 9
FLOOR_MS = 0.1  # a logarithm needs something above 0


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def _profiles() -> tuple[str, ...]:
    return tuple(_table()["providers"])


PROFILES = _profiles()


def days_of(profile: str, mode: str) -> int:
    """On how many days the vendor was measured in this mode."""
    return len(_table()["providers"][profile][mode]["day_medians_ms"])


class Latencies:
    """Maps a uniform number in [0, 1) to a TTI.

    Between two measured quantiles the logarithm is linear: monotone, through every
    measured point, and without the long flat steps a linear tail would have. A `day`
    scales all of it by that day's median over the median of the days.
    """

    def __init__(self, profile: str, mode: str, day: int | None, scale: float) -> None:
        table = _table()
        entry = table["providers"][profile][mode]
        days = entry["day_medians_ms"]
        drift = 1.0 if day is None else days[day] / median(days)
        self._ranks = [percent / 100 for percent in table["percentiles"]]
        self._logs = [log(max(ms, FLOOR_MS)) for ms in entry["quantiles_ms"]]
        self._factor_us = 1_000 * drift * scale

    def tti_us(self, uniform: float) -> int:
        """The latency in µs of which the share `uniform` is faster."""
        ranks, logs = self._ranks, self._logs
        right = min(bisect_right(ranks, uniform), len(ranks) - 1)
        left = right - 1
        along = (uniform - ranks[left]) / (ranks[right] - ranks[left])
        return int(
            exp(logs[left] + along * (logs[right] - logs[left])) * self._factor_us
        )
