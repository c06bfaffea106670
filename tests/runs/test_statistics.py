import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.statistics import coverage_label, intervals, rank


@given(n=st.integers(1, 10_000), q=st.floats(0, 1))
def test_rank_is_a_place_in_the_rows(n: int, q: float) -> None:
    assert 0 <= rank(q, n) < n


def test_an_interval_repeats_with_its_seed_and_holds_the_point() -> None:
    draw = np.random.default_rng(1)
    values = draw.lognormal(10, 0.5, 20_000).astype(np.int64)
    shards = np.repeat(np.arange(200), 100)
    quantiles = (0.5, 0.95, 0.99)
    first = intervals(values, shards, quantiles, seed=7)
    assert first == intervals(values, shards, quantiles, seed=7)
    ordered = np.sort(values)
    for (low, high), q in zip(first, quantiles, strict=True):
        assert low <= ordered[rank(q, values.size)] <= high


def test_slow_shards_widen_the_interval_that_single_rows_would_hide() -> None:
    draw = np.random.default_rng(2)
    slow = np.zeros(100, dtype=bool)
    slow[:3] = True
    values = draw.lognormal(10, 0.3, (100, 100))
    values[slow] *= 4
    rows = values.astype(np.int64).ravel()
    shards = np.repeat(np.arange(100), 100)
    by_shard = intervals(rows, shards, (0.97,), seed=3, resamples=300)[0]
    by_row = intervals(rows, np.arange(rows.size), (0.97,), seed=3, resamples=300)[0]
    assert by_shard[1] - by_shard[0] > 2 * (by_row[1] - by_row[0])


@pytest.mark.parametrize(
    ("hosts", "says"), [(5, "no interval"), (100, "86 %"), (200, None)]
)
def test_few_hosts_are_labelled(hosts: int, says: str | None) -> None:
    label = coverage_label(hosts)
    assert (label is None) == (says is None)
    if says is not None:
        assert label is not None
        assert says in label
