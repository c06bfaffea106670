from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from runs import calibration, charts
from runs.calibration import Row, largest_valid
from runs.launch import checked_plan

ROW = Row(
    size=10,
    code="sim-calibrate",
    level="VALID",
    harness_delay_p99_ms=1.5,
    harness_delay_max_ms=2.0,
    loop_lag_ms=3.0,
    loop_cpu_pct=5.0,
    held=10,
)
SUMMARY = {
    "held": {"proven": 300},
    "verdict": {
        "level": "INVALID",  # of a Run of one Shard: its shares are 0 or 100 %
        "shards": {"0": "SUSPECT"},
        "findings": [
            {"check": "harness_delay_p99_ms", "value": 25.5},
            {"check": "harness_delay_max_ms", "value": 27.0},
            {"check": "loop_lag_ms", "value": 30.0},
            {"check": "loop_cpu_pct", "value": 12.0},
        ],
    },
}


def test_every_size_is_a_plan_of_one_shard() -> None:
    for size in calibration.SIZES:
        plan = checked_plan(calibration.calibrating_plan(size))
        assert plan.shard_count == 1
        assert plan.sandbox_count == size


def test_a_row_judges_the_shard_and_not_the_run() -> None:
    row = calibration.row_of(300, "sim-abc", SUMMARY)
    assert row.level == "SUSPECT"
    assert row.harness_delay_p99_ms == 25.5
    assert row.cpu_per_sandbox_pct == pytest.approx(0.04)
    clean = {**SUMMARY["verdict"], "shards": {}}  # type: ignore[dict-item]
    assert calibration.row_of(300, "a", {**SUMMARY, "verdict": clean}).level == "VALID"


def test_the_largest_valid_size_has_only_valid_ones_below_it() -> None:
    rows = [replace(ROW, size=size) for size in (10, 100, 300, 1_000)]
    assert largest_valid(rows) == 1_000
    rows[2] = replace(rows[2], level="SUSPECT")
    assert largest_valid(rows) == 100
    assert largest_valid([replace(ROW, level="INVALID")]) is None


def test_what_is_stored_is_read_back(tmp_path: Path) -> None:
    assert calibration.stored(tmp_path) is None
    found = calibration.as_json([ROW], at="2026-01-01T00:00:00+00:00", version="1")
    calibration.store(tmp_path, found)
    assert calibration.stored(tmp_path) == found
    (tmp_path / calibration.FILE).write_text("{")
    assert calibration.stored(tmp_path) is None


def test_the_page_shows_the_table_or_says_why_not(
    client: Client, settings: Any, tmp_path: Path
) -> None:
    settings.DATA = tmp_path
    storage = "django.contrib.staticfiles.storage.StaticFilesStorage"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": storage}}
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    assert b"not calibrated yet" in client.get("/calibration").content
    assert "why" in client.get("/calibration/chart").json()
    found = calibration.as_json([ROW], at="2026-01-01T00:00:00+00:00", version="1")
    calibration.store(tmp_path, found)
    page = client.get("/calibration")
    assert b"sim-calibrate" in page.content
    figure = client.get("/calibration/chart").json()
    assert figure == charts.sizes_figure(found["rows"])
    assert figure["data"][0]["y"] == [1.5]
