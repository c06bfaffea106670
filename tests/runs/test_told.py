from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import orjson
import pytest

from runs import provision, told
from runs.api.shapes import outcomes_of
from runs.models import Attempt, Host, Run
from shardagent.wire import Finish, ShardPhase
from tests.runs.factories import make_arming_run, phases

pytestmark = pytest.mark.django_db


def tell(run: Run, shard: int, *ends: tuple[Any, ...], **fields: Any) -> None:
    names = ("kind", "cause", "origin", "count", "sandbox", "message")
    causes = [dict(zip(names, end, strict=True)) for end in ends]
    Attempt.objects.filter(run=run, shard=shard).update(
        causes=orjson.dumps(causes).decode(), **fields
    )


def test_shards_that_end_alike_are_counted_together() -> None:
    run = make_arming_run()
    tell(run, 0, ("create_failed", "quota", "provider", 2, 7, "later"))
    tell(
        run,
        1,
        ("create_failed", "quota", "provider", 3, 4, "first"),
        ("dead", "not_found", "provider", 1, 12, "gone"),
        ("dead", "timeout", "harness", 6, 13, ""),
        final_ok=5,
    )
    causes = told.causes(run)
    assert [(row["outcome"], row["cause"], row["count"]) for row in causes] == [
        ("unobserved", "timeout", 6),
        ("failed", "quota", 5),
        ("partial", "not_found", 1),
    ]
    assert {row: causes[1][row] for row in ("sandbox", "shard", "message")} == {
        "sandbox": 4,
        "shard": 1,
        "message": "first",
    }
    assert outcomes_of(run) == {
        "success": 5,
        "partial": 1,
        "readiness_failed": 0,
        "failed": 5,
        "unobserved": 6,
        "not_attempted": 0,
        "pending": 13,
        "total": 30,
    }


def test_before_anything_is_told_all_is_open() -> None:
    run = make_arming_run()
    assert told.causes(run) == []
    assert outcomes_of(run)["pending"] == 30
    assert told.health([]) is None


def test_the_fleet_is_as_bad_as_its_worst_process() -> None:
    quiet = told.last_beats(make_arming_run())[0]
    names = ("loop_lag_us", "cpu_pct", "in_flight", "queued_events")
    given = ((9_000, 41.0, 3, 1), (2_000, 10.0, 4, 0), (1_000, 12.0, 0, 6))
    rows = [quiet._replace(**dict(zip(names, row, strict=True))) for row in given]
    assert told.health(rows) == {
        "loop_lag_us": 9_000,
        "cpu_pct": 41.0,
        "cpu_p50_pct": 12.0,
        "in_flight": 7,
        "queued_events": 7,
    }


def test_how_far_a_run_is_costs_one_question_a_table(
    django_assert_num_queries: Callable[[int], AbstractContextManager[object]],
) -> None:
    run = make_arming_run()
    phases(run, ShardPhase.BURSTING, sent=10, alive=7)
    Attempt.objects.filter(run=run, shard=0).update(
        phase=ShardPhase.FINISHED, finished=Finish.DONE
    )
    Attempt.objects.filter(run=run, shard=1).update(phase=ShardPhase.STARTING)
    first = Attempt.objects.get(run=run, shard=0)
    Attempt.objects.create(  # an earlier one, that counts no more
        run=run, shard=0, number=1, host=first.host, sent=99, fenced_at_us=1
    )
    Host.objects.filter(run=run, index=2).update(registered_at_us=1)
    with django_assert_num_queries(2):
        found = told.gauges(run, told.last_beats(run))
    sums = {"sent": 30, "alive": 21, "created": 0, "ready": 0, "failed": 0}
    sums |= {"dead": 0, "destroyed": 0}
    counts = {"hosts": 3, "registered": 1, "armed": 2, "settled": 1, "finished": 1}
    assert found.progress == sums | counts
    with django_assert_num_queries(0):
        machines = provision.shown(run, found)
    assert (machines["hosts"], machines["armed"], machines["booted"]) == (3, 2, 3)
