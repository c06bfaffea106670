from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shardagent.dues import Dues

DUE_US = st.none() | st.integers(0, 2**52)
BOXES = st.lists(st.tuples(DUE_US, st.integers(0, 1_999_999)))


def boxes(pairs: list[tuple[int | None, int]]) -> list[Any]:
    return [SimpleNamespace(due_us=due, index=index) for due, index in pairs]


@given(BOXES, BOXES, st.integers(0, 2**52))
def test_what_is_due_is_taken_in_order_and_the_rest_stays(
    first: list[tuple[int | None, int]],
    then: list[tuple[int | None, int]],
    now: int,
) -> None:
    dues = Dues(boxes(first))
    for box in boxes(then):
        dues.add(box)
    waiting = sorted((due, index) for due, index in first + then if due is not None)
    for pair in [pair for pair in waiting if pair[0] <= now]:
        assert dues.first_us == pair[0]
        assert dues.take(now) == pair
    assert dues.take(now) is None
    assert dues.first_us == next((due for due, _ in waiting if due > now), None)
