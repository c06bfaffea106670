from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from runs import claims, objects, seal
from runs.errors import ObjectsError
from runs.models import Run, State
from tests.runs.factories import make_run_in

pytestmark = pytest.mark.django_db
REAPED = {"listed": 0, "destroyed": 0, "left": 0}


@pytest.fixture
def store_away(settings: Any) -> Iterator[None]:
    settings.S3_ENDPOINT_URL = "http://127.0.0.1:9"
    objects.forget_client()
    yield
    objects.forget_client()


def test_sealing_waits_for_a_store_that_is_away(store_away: None) -> None:
    run = make_run_in(State.COLLECTING, reaped=REAPED)
    with pytest.raises(ObjectsError):
        seal.seal(run.pk)
    run.refresh_from_db()
    assert run.state == State.COLLECTING
    assert run.summary is None
    assert not run.journal.exists()
    assert claims.take(run.pk, "seal", 10)  # the next one may try


@pytest.mark.parametrize("work", ["seal", "ingest", "tick"])
def test_sealing_waits_for_whoever_is_at_work(work: claims.Work) -> None:
    run = make_run_in(State.COLLECTING, reaped=REAPED)
    assert claims.take(run.pk, work, 10)
    assert not seal.seal(run.pk)


@pytest.mark.parametrize(
    ("state", "reaped", "due"),
    [
        (State.COLLECTING, REAPED, True),
        (State.COLLECTING, None, False),
        (State.TEARING_DOWN, REAPED, False),
        (State.SEALED, REAPED, False),
    ],
)
def test_a_run_is_sealed_once_it_was_collected_and_reaped(
    state: State, reaped: dict[str, int] | None, *, due: bool
) -> None:
    run: Run = make_run_in(state, reaped=reaped)
    assert seal.is_due(run.pk) is due
