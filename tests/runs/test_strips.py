from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.strips import TICKS_MAX, WIDTH, Axis, axis_of, line, strip

S = 1_000_000
AXIS = Axis(0, 100 * S)
LIFE: dict[str, Any] = {
    "outcome": "success",
    "cause": None,
    "sent_us": 0,
    "created_us": 10 * S,
    "ready_us": 20 * S,
    "last_ok_us": 80 * S,
    "first_failed_us": None,
    "dead_us": None,
    "destroyed_us": 90 * S,
}


def test_a_life_is_drawn_in_its_four_parts() -> None:
    bars = strip(LIFE, AXIS)["bars"]
    assert [(bar["name"], bar["x"], bar["width"]) for bar in bars] == [
        ("asked", 0, 100),
        ("starting", 100, 100),
        ("alive", 200, 600),
        ("perhaps", 800, 100),
    ]


def test_a_death_is_marked_and_is_uncertain_until_the_first_failed_probe() -> None:
    row = LIFE | {"last_ok_us": 50 * S, "first_failed_us": 55 * S, "dead_us": 65 * S}
    found = strip(row, AXIS)
    last = found["bars"][-1]
    assert (last["name"], last["x"], last["width"]) == ("perhaps", 500, 50)
    assert found["marks"] == [{"left": "65.00%"}]


def test_a_refused_create_has_no_life() -> None:
    none = dict.fromkeys(("created_us", "ready_us", "last_ok_us", "destroyed_us"))
    row = LIFE | none | {"outcome": "failed", "cause": "quota"}
    assert strip(row, AXIS) == {"bars": [], "marks": [{"left": "0.00%"}]}


def test_what_was_never_asked_for_is_empty() -> None:
    row = dict.fromkeys(LIFE) | {"outcome": "not_attempted"}
    assert strip(row, AXIS) == {"bars": [], "marks": []}


instants = st.none() | st.integers(-5 * S, 200 * S)


@given(st.fixed_dictionaries({n: instants for n in LIFE if n.endswith("_us")}))
def test_no_record_draws_outside_the_axis(times: dict[str, Any]) -> None:
    row = LIFE | times
    axis = axis_of([row], [], 0)
    for bar in strip(row, axis)["bars"]:
        assert 0 <= bar["x"] <= WIDTH
        assert bar["x"] + bar["width"] <= WIDTH + 1


@pytest.mark.parametrize("span_s", [1, 7, 48, 399, 86_400])
def test_ticks_are_few_and_round(span_s: int) -> None:
    ticks = Axis(0, span_s * S).ticks()
    assert 1 <= len(ticks) <= TICKS_MAX + 1
    assert ticks[0] == {"left": "0.00%", "text": "0"}


def test_a_health_line_leaves_missing_samples_out() -> None:
    samples = [
        {"elapsed_us": 0, "cpu_pct": 50.0},
        {"elapsed_us": 50 * S, "cpu_pct": None},
        {"elapsed_us": 100 * S, "cpu_pct": 100.0},
    ]
    found = line(samples, "cpu_pct", AXIS, least_top=100)
    assert found is not None
    assert found["points"] == "0,18.0 1000,0.0"
    assert line([], "cpu_pct", AXIS, least_top=100) is None


def test_what_is_behind_shares_the_scale_and_ends_with_the_axis() -> None:
    samples = [{"elapsed_us": 0, "alive": 5}]
    fleet = [{"elapsed_us": at * S, "alive": 10} for at in (0, 50, 120)]
    found = line(samples, "alive", AXIS, least_top=1, behind=fleet)
    assert found is not None
    assert found["points"] == "0,18.0"
    assert found["behind"] == "0,36 0,0.0 500,0.0 500,36"
    assert (found["max"], found["behind_max"], found["top"]) == (5, 10, 10)
    assert line([], "alive", AXIS, least_top=1, behind=fleet) is None
