from __future__ import annotations

import pytest

from runs import claims, lifecycle
from runs.models import Run, State
from tests.runs.factories import make_run_in

pytestmark = pytest.mark.django_db
HOUR_US = 3_600_000_000


def test_one_has_the_work_until_it_gives_it_back() -> None:
    run = make_run_in(State.ARMING)
    assert claims.take(run.pk, "tick", 10)
    assert not claims.take(run.pk, "tick", 10)
    assert claims.take(run.pk, "seal", 10)
    claims.give_back(run.pk, "tick")
    assert claims.take(run.pk, "tick", 10)


def test_a_claim_of_somebody_who_died_ends() -> None:
    run = make_run_in(State.ARMING)
    Run.objects.filter(pk=run.pk).update(tick_until_us=lifecycle.now_us(run) - 1)
    assert claims.take(run.pk, "tick", 10)


def test_a_claim_is_on_the_clock_of_the_run() -> None:
    run = make_run_in(
        State.ARMING, clock_base_wall_us=1_000
    )  # as if the wall had stepped by years
    assert claims.take(run.pk, "ingest", 10)
    run.refresh_from_db()
    assert run.ingest_until_us < HOUR_US
    assert not claims.take(run.pk, "ingest", 10)


def test_a_claim_that_nobody_can_have_made_is_free() -> None:
    run = make_run_in(State.ARMING)
    ahead = lifecycle.now_us(run) + 2 * HOUR_US
    Run.objects.filter(pk=run.pk).update(seal_until_us=ahead)
    assert claims.take(run.pk, "seal", 10)


def test_there_is_no_claim_on_a_run_that_is_not_there() -> None:
    assert not claims.take(4_711, "tick", 10)
