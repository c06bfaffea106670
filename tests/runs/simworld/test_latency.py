from __future__ import annotations

import json
from random import Random

import pytest

from runs.simworld.latency import PROFILES, TABLE, Latencies

RAW = json.loads(TABLE.read_text())
MODES = ("burst", "staggered", "sequential")


def test_the_table_names_its_source_and_licence() -> None:
    assert "ComputeSDK" in RAW["source"]
    assert RAW["licence"] == "MIT"
    assert RAW["copyright"] == "Copyright (c) 2026 ComputeSDK"
    assert "Permission is hereby granted" in RAW["licence_text"][2]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("mode", MODES)
def test_measured_quantiles_are_met_exactly(profile: str, mode: str) -> None:
    latencies = Latencies(profile, mode, None, 1.0)
    measured = RAW["providers"][profile][mode]["quantiles_ms"]
    for percent, ms in zip(RAW["percentiles"], measured, strict=True):
        assert latencies.tti_us(percent / 100) == pytest.approx(ms * 1_000, abs=2)


def test_the_inverse_is_monotone() -> None:
    latencies = Latencies("daytona", "burst", None, 1.0)
    drawn = [latencies.tti_us(step / 5_000) for step in range(5_001)]
    assert drawn == sorted(drawn)


def test_drawn_latencies_have_the_measured_quantiles() -> None:
    latencies, draw = Latencies("e2b", "burst", None, 1.0), Random(1)
    drawn = sorted(latencies.tti_us(draw.random()) for _ in range(40_000))
    measured = RAW["providers"]["e2b"]["burst"]["quantiles_ms"]
    for percent, ms in zip(RAW["percentiles"][1:-2], measured[1:-2], strict=True):
        found = drawn[int(percent / 100 * len(drawn))] / 1_000
        assert found == pytest.approx(ms, rel=0.03)


def test_a_day_scales_by_its_own_median() -> None:
    pooled = Latencies("e2b", "burst", None, 1.0).tti_us(0.5)
    slow_day = Latencies("e2b", "burst", 7, 1.0).tti_us(0.5)
    assert slow_day / pooled == pytest.approx(1050 / 475, rel=0.001)
    assert Latencies("e2b", "burst", None, 0.0).tti_us(0.5) == 0
