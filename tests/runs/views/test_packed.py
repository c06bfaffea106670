from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import pytest

from runs.errors import QueryError
from runs.views.packed import Packed, kept

ASKING = 6
LIMIT_S = 10


def test_what_many_ask_for_at_once_is_made_once() -> None:
    made: list[int] = []
    all_here, go_on = Barrier(ASKING + 1), Event()

    def make() -> tuple[Any, float]:
        assert go_on.wait(LIMIT_S)
        made.append(1)
        return {"n": len(made)}, 60.0

    def ask(_: int) -> Packed:
        all_here.wait(LIMIT_S)
        return kept("test-packed:once", make)

    with ThreadPoolExecutor(ASKING) as pool:
        asked = pool.map(ask, range(ASKING))
        all_here.wait(LIMIT_S)
        go_on.set()
        answers = list(asked)
    assert made == [1]
    assert {answer.body for answer in answers} == {b'{"n":1}'}


def test_a_failure_is_not_kept_and_lets_the_next_one_try() -> None:
    def fail() -> tuple[Any, float]:
        raise QueryError("no answer")

    with pytest.raises(QueryError):
        kept("test-packed:fails", fail)
    assert kept("test-packed:fails", lambda: (1, 60.0)).body == b"1"
