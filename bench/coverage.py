"""How often do our 95 % intervals of P99 hold the truth? And how fast are they?

Simulated Runs of 1,000 Shards of which 3 % are slow: the true P99 lies among the slow
ones, which is the worst case for an interval over hosts. Prints one JSON object.

    python -m bench.coverage [--runs 300] [--shards 1000] [--per-shard 20]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time

import numpy as np
import numpy.typing as npt

from runs.statistics import intervals

SLOW_SHARE = 0.03
SLOW_FACTOR = 3.0
MEDIAN_US = 500_000
SPREAD = 0.35  # sigma of the logarithm within a Shard
SHARD_SPREAD = 0.05  # sigma of the logarithm between Shards
QUANTILE = 0.99
COVERAGE_MIN = 0.93
SPEED_ROWS = 100_000
SPEED_S_MAX = 2.0

Ints = npt.NDArray[np.int64]


def one_run(
    chance: np.random.Generator, shards: int, per_shard: int
) -> tuple[Ints, Ints]:
    """Latencies and their Shards, as one Run would measure them."""
    slow = chance.random(shards) < SLOW_SHARE
    level = math.log(MEDIAN_US) + chance.normal(0, SHARD_SPREAD, shards)
    level = level + np.where(slow, math.log(SLOW_FACTOR), 0)
    logs = chance.normal(np.repeat(level, per_shard), SPREAD)
    clusters = np.repeat(np.arange(shards), per_shard)
    return np.exp(logs).astype(np.int64), clusters


def true_quantile() -> float:
    """Of the mixture that Runs are drawn from, by bisection."""
    sigma = math.hypot(SPREAD, SHARD_SPREAD)

    def share_below(logarithm: float) -> float:
        def below(mean: float) -> float:
            return 0.5 * math.erfc((mean - logarithm) / (sigma * math.sqrt(2)))

        fast = math.log(MEDIAN_US)
        slow = fast + math.log(SLOW_FACTOR)
        return (1 - SLOW_SHARE) * below(fast) + SLOW_SHARE * below(slow)

    low, high = math.log(MEDIAN_US) - 5, math.log(MEDIAN_US) + 10
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if share_below(middle) > QUANTILE else (middle, high)
    return math.exp(low)


def coverage(runs: int, shards: int, per_shard: int) -> float:
    """The share of simulated Runs whose interval holds the truth."""
    truth, chance = true_quantile(), np.random.default_rng(20260701)
    held = 0
    for run in range(runs):
        values, clusters = one_run(chance, shards, per_shard)
        ((low, high),) = intervals(values, clusters, [QUANTILE], seed=run)
        held += low <= truth <= high
    return held / runs


def bootstrap_s(rows: int, shards: int) -> float:
    """Seconds for the three quantiles of one phase of one Run."""
    chance = np.random.default_rng(1)
    values, clusters = one_run(chance, shards, rows // shards)
    began = time.perf_counter()
    intervals(values, clusters, [0.5, 0.95, 0.99], seed=1)
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.coverage")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--shards", type=int, default=1_000)
    parser.add_argument("--per-shard", type=int, default=20)
    asked = parser.parse_args()
    share = coverage(asked.runs, asked.shards, asked.per_shard)
    took_s = bootstrap_s(SPEED_ROWS, 1_000)
    found = {
        "bench": "coverage",
        "shards": asked.shards,
        "slow_share": SLOW_SHARE,
        "runs": asked.runs,
        "p99_coverage": round(share, 4),
        "p99_coverage_min": COVERAGE_MIN,
        "bootstrap_rows": SPEED_ROWS,
        "bootstrap_s": round(took_s, 3),
        "bootstrap_s_max": SPEED_S_MAX,
    }
    print(json.dumps(found))
    return 0 if share >= COVERAGE_MIN and took_s <= SPEED_S_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
