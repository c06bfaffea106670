"""From Runs' rows to launches: what bars one from counting."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from runs.judge import labels
from runs.launch import checked_plan
from runs.leaderboard import shown_boards
from runs.models import Run, State

ASKED = {
    "provider": "sim",
    "sandbox_count": 1_000,
    "ranked": True,
    "hold_s": 60,
    "probe_interval_s": 5,
}


def ranked(code: str, *, said: list[str], **changes: Any) -> Run:
    plan = checked_plan({**ASKED, "quota_granted_on": "2026-01-01", **changes})
    return Run.objects.create(
        code=code,
        provider="sim",
        state=State.SEALED,
        ranked=True,
        launched_at=timezone.now(),
        plan=plan.model_dump(mode="json"),
        summary={
            "labels": said,
            "verdict": {"level": "VALID"},
            "held": {"proven": 990, "by_host": [[90, 100, 1], [100, 100, 9]]},
            "outcomes": {"unobserved": 0, "not_attempted": 0},
            "latency": {"tti": {"p99_us": 1}},
        },
    )


@pytest.mark.django_db
def test_only_runs_that_keep_the_rules_count() -> None:
    ranked("run-good", said=["simulated"])
    ranked("run-quota", said=["simulated", "quota-bound"])
    ranked("run-asleep", said=["answers on demand"])
    short = ranked("run-short", said=[])
    short.plan["hold_s"] = 5  # as a bucket from elsewhere may claim
    short.save(update_fields=["plan"])
    cut = ranked("run-aborted", said=[])
    instants = {"t_hold_us": 5_000_000, "t_end_us": 45_000_000}  # of 60 s
    cut.summary = {**(cut.summary or {}), "instants": instants}
    cut.save(update_fields=["summary"])
    boards = shown_boards(timezone.now(), public=False)
    runs = [x for board in boards for place in board["items"] for x in place["runs"]]
    used = {run["code"] for run in runs if run["used"]}
    launched = {run["code"] for run in runs}
    assert used == {"run-good"}
    assert launched == {
        "run-good",
        "run-quota",
        "run-asleep",
        "run-short",
        "run-aborted",
    }


def test_a_run_above_its_granted_quota_is_labelled() -> None:
    plan = checked_plan(
        {**ASKED, "quota_granted": 1_000, "quota_granted_on": "2026-01-01"}
    )
    assert "quota-bound" not in labels(plan)
    assert "quota-bound" in labels(plan.model_copy(update={"quota_granted": 999}))


def test_labels_say_what_the_number_cannot() -> None:
    plan = checked_plan({"provider": "sim", "sandbox_count": 5, "witness": False})
    assert labels(plan) == ["simulated", "answers on demand"]
