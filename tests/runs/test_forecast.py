from __future__ import annotations

from typing import Any

import pytest

from runs import forecast
from runs.plan import parse_plan
from shardagent.wire import Plan


def plan(**changes: Any) -> Plan:
    asked = {"provider": "e2b", "sandbox_count": 10_000, "hold_s": 300, **changes}
    return parse_plan(asked, sandbox_count_max=1_000_000)


def line(name: str, **changes: Any) -> forecast.Line:
    return next(row for row in forecast.lines(plan(**changes)) if row.name == name)


def test_every_figure_has_its_formula() -> None:
    shards = line("Shards")
    assert (shards.value, shards.formula) == ("100", "⌈10,000 / 100⌉")
    assert all(row.formula for row in forecast.lines(plan()))


def test_the_peak_rate_is_that_of_the_busiest_second() -> None:
    assert line("Peak rate").value == "10,000 a second"  # all at T0
    slow = {"shape": "staggered", "stagger_us": 10_000}
    peak = line("Peak rate", load=slow, final_spread_s=5)
    assert peak.value == "2,000 a second"  # then the final probes are busier
    assert peak.formula.startswith("final probes")
    steps = {"shape": "staircase", "steps": 5, "step_s": 30}
    assert line("Peak rate", load=steps, final_spread_s=60).value == "2,000 a second"


def test_a_cost_without_a_price_is_missing_and_not_zero() -> None:
    assert line("Cost").value.startswith("about $")
    assert "list price of 2026" in line("Cost").formula
    assert line("Cost", provider="local", sandbox_count=10).value == "nothing"


def test_machines_cost_what_they_cost_an_hour_for_as_long_as_it_takes() -> None:
    fleet = {"driver": "ec2", "over_provision_pct": 5}
    found = forecast.lines(plan(fleet=fleet), machines_usd_per_h=2.1)
    (hosts,) = [row for row in found if row.name == "Hosts"]
    assert hosts.value == "100"  # a machine a Shard
    assert hosts.formula.endswith("fleet ec2, and 5 spare")
    (machines,) = [row for row in found if row.name == "Machines"]
    took_s = 120 + 5 + 300 + 5 + 3 * 10 + 10 + 0.5
    assert machines.value == f"about ${2.1 * took_s / 3_600:.2f}"
    assert "$2.10 an hour" in machines.formula
    assert all(row.name != "Machines" for row in forecast.lines(plan()))


def test_the_cost_is_that_of_the_lives() -> None:
    found = forecast.estimate_usd(plan(final_spread_s=5, probe_timeout_s=10))
    lived_s = 5 + 300 + 5 + 3 * 10
    assert found == pytest.approx(10_000 * lived_s * (0.000014 + 0.5 * 0.0000045))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_cost": 1}, "over the budget of $1.00"),
        ({"max_duration_s": 60}, "over the budget of 60.0 s"),
        ({"sandboxes_per_shard": 500}, "more than the 140 that stayed VALID"),
    ],
)
def test_what_exceeds_a_budget_is_said(changes: dict[str, Any], said: str) -> None:
    assert forecast.warnings(plan(), 140) == []
    (found,) = forecast.warnings(plan(**changes), 140)
    assert said in found


@pytest.mark.parametrize(
    "load",
    [
        {"shape": "burst"},
        {"shape": "staggered", "stagger_us": 1_000},
        {"shape": "staircase", "steps": 5, "step_s": 30},
    ],
    ids=lambda load: load["shape"],
)
def test_the_preview_rises_to_the_target_holds_and_falls(load: dict[str, Any]) -> None:
    found = forecast.preview(plan(load=load))
    points = [tuple(map(float, p.split(","))) for p in found.points.split()]
    heights = [forecast.HEIGHT - y for _, y in points]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert heights[:-1] == sorted(heights[:-1])
    assert heights[0] == heights[-1] == 0
    assert max(heights) == pytest.approx(forecast.HEIGHT - found.target_y, abs=0.2)
    assert [phase.name for phase in found.phases] == ["burst", "hold", "teardown"]
    assert points[-2][0] == pytest.approx(found.phases[2].left, abs=0.2)
