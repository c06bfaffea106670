"""Places in the load shapes, and deadlines."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shardagent import schedule
from shardagent.wire import Load, Plan, Shape


def make_plan(**overrides: Any) -> Plan:
    return Plan(**({"provider": "sim", "sandbox_count": 10} | overrides))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    shape = st.sampled_from([Shape.BURST, Shape.STAGGERED, Shape.STAIRCASE])
    return make_plan(
        sandbox_count=draw(st.integers(1, 200)),
        sandboxes_per_shard=draw(st.integers(1, 30)),
        load=Load(
            shape=draw(shape),
            stagger_us=draw(st.integers(0, 1_000)),
            steps=draw(st.integers(1, 9)),
            step_s=draw(st.integers(0, 9)),
        ),
    )


@given(plans())
def test_the_last_place_is_the_largest(plan: Plan) -> None:
    everyone = range(plan.sandbox_count)
    largest = max(schedule.place_us(plan, one) for one in everyone)
    assert schedule.last_place_us(plan) == largest


@given(plans())
def test_shards_share_out_every_sandbox_once(plan: Plan) -> None:
    fired = [
        sandbox
        for shard in range(schedule.shard_count(plan))
        for _, sandbox in schedule.places(plan, shard)
    ]
    assert sorted(fired) == list(range(plan.sandbox_count))


@given(plans())
def test_final_probes_are_spread_evenly(plan: Plan) -> None:
    places = [schedule.final_place_us(plan, one) for one in range(plan.sandbox_count)]
    assert places[0] == 0
    assert places == sorted(places)
    assert places[-1] < plan.final_spread_s * 1e6


def test_staggered_ranks_interleave_the_shards() -> None:
    plan = make_plan(
        sandboxes_per_shard=4, load=Load(shape=Shape.STAGGERED, stagger_us=10)
    )
    assert [schedule.place_us(plan, one) for one in range(10)] == [
        *(0, 30, 60, 90),
        *(10, 40, 70, 100),
        *(20, 50),
    ]


def test_the_teardown_takes_what_the_contract_says() -> None:
    plan = make_plan(final_spread_s=5, probe_failures_max=3, probe_timeout_s=10)
    assert schedule.teardown_us(plan) == 35_000_000


def test_the_hold_deadline_is_a_minute_after_the_longest_hold() -> None:
    plan = make_plan(create_timeout_s=120, ready_timeout_s=90, hold_s=30)
    assert schedule.hold_deadline_us(plan, 1_000) == 1_000 + 300_000_000
