from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs import filters
from runs.clickhouse.sandboxes import OUTCOMES
from runs.filters import SandboxFilter
from shardagent.errors import Cause

numbers = st.integers(0, 10**9).map(lambda n: n / 1_000)
chosen_filters = st.builds(
    SandboxFilter,
    outcome=st.sampled_from(["", *filters.OUTCOMES]),
    cause=st.sampled_from(["", *filters.CAUSES]),
    origin=st.sampled_from(["", *filters.ORIGINS]),
    shard=st.none() | st.integers(0, 20_000),
    of=st.sampled_from(list(filters.MEASURES)),
    least_ms=st.none() | numbers,
    most_ms=st.none() | numbers,
    died_ms=st.none() | st.tuples(numbers, numbers),
    rank=st.none() | st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
    suspended=st.booleans(),
    q=st.text(max_size=20).map(str.strip),
    sort=st.sampled_from(["", "-tti", "sent"]),
)


@given(chosen_filters)
def test_the_query_string_is_the_whole_state(chosen: SandboxFilter) -> None:
    assert filters.parse(dict(parse_qsl(chosen.query()))) == chosen


def test_words_are_those_of_the_record() -> None:
    assert filters.OUTCOMES[:-1] == tuple(OUTCOMES)
    assert set(filters.CAUSES) == set(Cause)


@pytest.mark.parametrize(
    "given_",
    [
        {"outcome": "great"},
        {"cause": "fate"},
        {"shard": "-1"},
        {"shard": "٣"},
        {"least_ms": "5"},
        {"of": "tti", "least_ms": "nan"},
        {"alive": "proven"},
        {"at_ms": "5"},
        {"died_ms": "5"},
        {"rank": "1-"},
        {"sort": "beauty"},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_words(given_: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\w+ .*\w"):
        filters.parse(given_)


def test_the_filter_is_a_sentence() -> None:
    said = filters.sentence(
        SandboxFilter(
            outcome="failed",
            cause="rate_limited",
            shard=1_007,
            q="429",
            of="create",
            least_ms=1_260.0,
        )  # fmt: skip
    )
    assert said == (
        "whose create failed, by cause rate limited, of Shard 1,007, "
        "with create at least 1,260 ms, with “429” in message or id"
    )


def test_each_condition_can_be_taken_away() -> None:
    chosen = SandboxFilter(outcome="failed", of="tti", least_ms=1.0, sort="-tti")
    without = dict(filters.conditions(chosen))
    assert without["whose create failed"] == chosen.but(outcome="")
    assert without["with TTI at least 1 ms"] == chosen.but(of="", least_ms=None)
