from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest

from runs.objects import StoreClock

SKEWED = {"Error": {"Code": "RequestTimeTooSkewed"}}


def answer(date: str | None, said: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    headers = {} if date is None else {"Date": date}
    return SimpleNamespace(headers=headers), said


def test_requests_are_signed_by_the_time_of_the_store() -> None:
    clock = StoreClock()
    theirs = datetime.now(UTC) + timedelta(hours=1)
    refusal = answer(format_datetime(theirs, usegmt=True), SKEWED)
    assert clock.corrected(refusal, attempts=1) is not None
    assert abs(clock.now(remove_tzinfo=False) - theirs) < timedelta(seconds=5)
    assert clock.now().tzinfo is None


@pytest.mark.parametrize(
    "response",
    [
        None,
        answer("Mon, 23 Jun 2025 10:00:00 GMT", {}),
        answer("Mon, 23 Jun 2025 10:00:00 GMT", {"Error": {"Code": "NoSuchKey"}}),
        answer(None, SKEWED),
        answer("yesterday", SKEWED),
    ],
    ids=["nothing", "fine", "other", "no-date", "no-time"],
)
def test_other_answers_change_nothing(response: Any) -> None:
    clock = StoreClock()
    assert clock.corrected(response, attempts=1) is None
    assert abs(clock.now(remove_tzinfo=False) - datetime.now(UTC)) < timedelta(
        seconds=5
    )
