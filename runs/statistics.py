"""Confidence intervals that respect who measured: a bootstrap over hosts.

Sandboxes of one host share a machine and a network path, so they are not independent;
resampling single Sandboxes gives intervals that are far too narrow (measurement.md §8).
Pure: arrays in, numbers out, repeatable by seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RESAMPLES = 1_000
HOSTS_FOR_INTERVAL_MIN = 20
HOSTS_FOR_WIDE_MIN = 200
# Share of simulated Runs whose nominal 95 % interval of P99 held the truth.
_COVERAGE = ((10, 25.0), (100, 86.0), (1_000, 95.0))

Array = npt.NDArray[np.int64]


def rank(quantile: float, count: int) -> int:
    """0-based place of an exact order statistic: min(n-1, floor(q·n))."""
    assert count > 0
    return min(count - 1, math.floor(quantile * count))


def intervals(
    values: Array,
    clusters: Array,
    quantiles: Sequence[float],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> list[tuple[int, int]]:
    """95 % intervals (2.5 and 97.5 % of the resamples), one per quantile.

    values and clusters have one entry a row; clusters says which host it came from.
    """
    assert values.shape == clusters.shape
    assert values.size
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    names, member = np.unique(clusters[order], return_inverse=True)
    draw = np.random.default_rng(seed)
    found = np.empty((resamples, len(quantiles)), dtype=np.int64)
    uniform = np.full(len(names), 1 / len(names))
    for row in range(resamples):
        weights = draw.multinomial(len(names), uniform)
        upto = np.cumsum(weights[member])
        total = int(upto[-1])
        for column, quantile in enumerate(quantiles):
            place = np.searchsorted(upto, rank(quantile, total), side="right")
            found[row, column] = ordered[place]
    found.sort(axis=0)
    low, high = rank(0.025, resamples), rank(0.975, resamples)
    return [
        (int(found[low, column]), int(found[high, column]))
        for column in range(len(quantiles))
    ]


def numbered(names: Sequence[str]) -> list[int]:
    """Names as numbers from 0 on, in the order in which they first occur."""
    places: dict[str, int] = {}
    return [places.setdefault(name, len(places)) for name in names]


def coverage_label(hosts: int) -> str | None:
    """What to print beside an interval over so few hosts; None above 200."""
    if hosts >= HOSTS_FOR_WIDE_MIN:
        return None
    if hosts < HOSTS_FOR_INTERVAL_MIN:
        return f"no interval: {hosts} hosts are fewer than {HOSTS_FOR_INTERVAL_MIN}"
    expected = np.interp(
        math.log(hosts),
        [math.log(count) for count, _ in _COVERAGE],
        [share for _, share in _COVERAGE],
    )
    return f"narrow: over {hosts} hosts it covers the truth in about {expected:.0f} %"
