"""Clock arithmetic of measurement.md §3."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardagent.clock import Clock, Sample, Samples

instants = st.integers(0, 2 * 10**15)


def sample(t1: int, t2: int, t3: int, t4: int, clock_id: str = "one") -> Sample:
    return Sample(t1, t2, t3, t4, clock_id)


@pytest.mark.parametrize(
    ("times", "offset_us", "half_rtt_us"),
    [
        ((0, 10, 10, 0), 10, 0),
        ((0, 5, 5, 3), 4, 2),  # 3.5 goes to the even 4
        ((0, 3, 3, 1), 2, 1),  # 2.5 goes to the even 2
        ((0, 0, 0, 3), -2, 2),  # -1.5 goes to the even -2
        ((0, 0, 0, 1), 0, 1),  # -0.5 goes to 0
        ((100, 60, 80, 150), -55, 15),
    ],
)
def test_offset_and_half_rtt(
    times: tuple[int, int, int, int], offset_us: int, half_rtt_us: int
) -> None:
    assert sample(*times).offset_us == offset_us
    assert sample(*times).half_rtt_us == half_rtt_us


@given(instants, instants, instants, instants)
def test_they_round_as_written(t1: int, t2: int, t3: int, t4: int) -> None:
    one = sample(t1, t2, t3, t4)
    assert one.offset_us == round(Fraction((t2 - t1) + (t3 - t4), 2))
    assert one.half_rtt_us == ceil(Fraction((t4 - t1) - (t3 - t2), 2))


@given(st.integers(-(10**9), 10**9), st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_true_offset_is_within_the_bound(true: int, out: int, back: int) -> None:
    t1 = 10**12
    one = sample(t1, t1 + out + true, t1 + out + true, t1 + out + back)
    assert abs(one.offset_us - true) <= one.half_rtt_us


def test_the_best_sample_weighs_doubt_against_age() -> None:
    samples = Samples()
    tight_old = sample(0, 10, 10, 20)
    loose_new = sample(1_000_000, 1_000_100, 1_000_100, 1_000_200)
    samples.add(tight_old)
    samples.add(loose_new)
    assert samples.best(500_000, "one") is tight_old
    assert samples.best(1_400_000, "one") is loose_new
    assert samples.best(0, "another") is None


def test_the_earlier_sample_wins_a_tie() -> None:
    samples = Samples()
    samples.add(sample(10, 20, 20, 30))
    samples.add(sample(10, 21, 21, 30))
    best = samples.best(30, "one")
    assert best is not None
    assert best.t2_us == 20


def test_an_instant_of_the_run_is_placed_on_the_agents_clock() -> None:
    samples = Samples()
    assert samples.to_agent(1_000, "one") is None
    samples.add(sample(0, 5_000, 5_000, 0))
    samples.add(sample(0, 9_000, 9_000, 0, clock_id="two"))
    assert samples.to_agent(15_000, "one") == 10_000
    assert samples.to_agent(15_000, "two") == 6_000


def test_the_test_variables_skew_the_clock() -> None:
    plain = Clock.from_environment({})
    skewed = Clock.from_environment(
        {
            "HOLDFAST_TEST_CLOCK_OFFSET_US": "-5000000",
            "HOLDFAST_TEST_CLOCK_DRIFT_PPM": "200",
        }
    )
    ahead_us = plain.now_us() - skewed.now_us()
    assert 4_900_000 < ahead_us < 5_100_000


def test_a_clock_never_goes_back() -> None:
    clock = Clock()
    readings = [clock.now_us() for _ in range(1_000)]
    assert readings == sorted(readings)
