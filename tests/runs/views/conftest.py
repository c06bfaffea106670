"""Runs in every state a page can meet, over a made-up record."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from runs.demo import demo_plan
from runs.launch import checked_plan, create_run
from runs.models import Attempt, Host, Run
from runs.verdict import CHECKS
from runs.views import (
    compare,
    run,
    run_chart,
    sandboxes,
    shard,
    shard_health,
    shard_log,
    shards,
)

# A live Run ends now: its T0 must lie as far back as the story it tells is long.
T0 = time.time_ns() // 1_000 - 48_000_000
INSTANTS = {
    "t0_us": T0,
    "t_hold_us": T0 + 20_060_000,
    "t_end_us": T0 + 40_060_000,
    "t_destroy_us": T0 + 49_060_000,
}


@pytest.fixture(autouse=True)
def record(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The views' one question-and-answer partner, without ClickHouse."""
    path = Path(__file__).with_name("fake_results.py")
    spec = importlib.util.spec_from_file_location("fake_results", path)
    assert spec is not None
    assert spec.loader is not None
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    views = (compare, run, run_chart, sandboxes)
    for view in (*views, shard, shard_health, shard_log, shards):
        monkeypatch.setattr(view, "results", fake)
    return fake


@pytest.fixture(autouse=True)
def plain_static(settings: Any) -> None:
    """No manifest of static files exists in a test."""
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    storage = "django.contrib.staticfiles.storage.StaticFilesStorage"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": storage}}


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create(username="anna"))
    return client


@pytest.fixture
def make_run(db: None) -> Callable[..., Run]:
    def make(code: str = "alpha-1", *, state: str = "sealed", **changes: Any) -> Run:
        level = changes.pop("level", "VALID")
        found = create_run(checked_plan(demo_plan() | changes.pop("plan", {})), None)
        fields: dict[str, Any] = {"code": code, "state": state, **INSTANTS}
        fields["launched_at"] = timezone.now()
        if state == "sealed":
            fields |= {"summary": summary(level), "end_reason": "completed"}
        Run.objects.filter(pk=found.pk).update(**(fields | changes))
        host = Host.objects.create(run=found, index=0, facts={"hostname": "vm"})
        for index in range(found.plan["shard_count"]):
            Attempt.objects.create(run=found, shard=index, host=host, sent=100)
        found.refresh_from_db()
        return found

    return make


def summary(level: str) -> dict[str, Any]:
    """What sealing would have left: 990 of 1,000 held."""
    findings = [
        {
            "check": check.name,
            "means": check.means,
            "of": check.of,
            "unit": check.unit,
            "value": 0.0,
            "suspect": check.suspect,
            "invalid": check.invalid,
            "threshold": check.suspect,
            "level": "VALID",
            "shards": [],
        }
        for check in CHECKS
    ]
    if level != "VALID":
        findings[0] |= {"value": 1_400.0, "level": level, "shards": [3, 7]}
    outcomes = {"success": 993, "partial": 3, "readiness_failed": 1, "failed": 2}
    outcomes |= {"unobserved": 1, "not_attempted": 0, "total": 1_000}
    return {
        "outcomes": outcomes,
        "held": {"proven": 990, "from_us": T0, "to_us": T0},
        "peak": {"proven": 993, "possible": 996, "elapsed_ms": 6_710},
        "time_to_ms": {"50": 1_210, "90": 3_404, "99": 4_120, "100": None},
        "implied_peak": 997,
        "clock_bound_us": 5_300,
        "defects": 0,
        "labels": ["simulated"],
        "verdict": {
            "level": level,
            "reasons": [row for row in findings if row["level"] != "VALID"],
            "findings": findings,
        },
    }
