from __future__ import annotations

from runs.certify import certifying_plan
from runs.launch import checked_plan
from runs.simworld.parameters import World

ILLS = (
    "deaths",
    "rack_size",
    "hibernate_after_s",
    "rate_per_s",
    "capacity",
    "late_creates",
    "create_hangs",
    "never_ready",
    "flaky_probes",
    "slow_shards",
    "ttl_max_s",
    "quota",
    "create_errors",
    "death_rate_per_s",
)


def test_every_seed_makes_a_plan_that_can_be_carried_out() -> None:
    for seed in range(40):
        for sandboxes in (50, 1_000, 10_000):
            plan = checked_plan(certifying_plan(seed, sandboxes))
            assert plan.sandbox_count == sandboxes


def test_the_same_seed_makes_the_same_world() -> None:
    assert certifying_plan(7, 1_000) == certifying_plan(7, 1_000)
    assert certifying_plan(7, 1_000) != certifying_plan(8, 1_000)


def test_twenty_seeds_know_every_ill_and_shape_and_both_kinds_of_witness() -> None:
    plans = [certifying_plan(seed, 1_000) for seed in range(1, 21)]
    for ill in ILLS:
        usual = World.model_fields[ill].default
        assert any(plan["world"].get(ill, usual) != usual for plan in plans), ill
    shapes = {plan["load"]["shape"] for plan in plans}
    assert shapes == {"burst", "staggered", "staircase"}
    assert {plan["witness"] for plan in plans} == {True, False}
