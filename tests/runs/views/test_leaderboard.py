from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from runs.models import Run, State
from tests.runs.factories import make_run

pytestmark = pytest.mark.django_db


def ranked(**changes: Any) -> Run:
    run = make_run(ranked=True, hold_s=60, probe_interval_s=5, witness=True)
    summary = {
        "outcomes": {"success": 30, "unobserved": 0, "not_attempted": 0},
        "held": {"proven": 30, "from_us": 0, "to_us": 1},
        "verdict": {"level": "VALID", "reasons": []},
        "latency": {"tti": {"p99_us": 500_000}},
        "labels": [],
        **changes,
    }
    Run.objects.filter(pk=run.pk).update(
        state=State.SEALED, launched_at=timezone.now(), summary=summary, ranked=True
    )
    return run


def test_an_empty_board_says_what_a_ranked_run_is(client: Client) -> None:
    assert (
        "No ranked Run in the last 30 days"
        in client.get("/leaderboard").content.decode()
    )


def test_every_ranked_launch_is_listed_and_says_whether_it_counts(
    client: Client,
) -> None:
    good = ranked()
    suspect = ranked(verdict={"level": "SUSPECT", "reasons": []})
    page = client.get("/leaderboard").content.decode()
    assert good.code in page
    assert suspect.code in page
    assert "1 / 2" in page
    assert "few runs" in page
    assert page.count("does not count") == 1
