"""A budget that is reached ends the Run in good order: destroyed, collected, sealed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.embedded import Site, quick_plan, running

pytestmark = [pytest.mark.e2e, pytest.mark.conformance]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("budget")) as found:
        yield found


def ended_well(site: Site, code: str, why: str) -> Any:
    run = site.until_state(code, "sealed", timeout_s=150)
    assert run["end_reason"] == "aborted"
    assert run["end_detail"].startswith(f"budget: {why}")
    counts = run["outcomes"]
    assert sum(v for k, v in counts.items() if k != "total") == counts["total"]
    assert run["reaped"]["left"] == 0
    assert run["certificate"]["clean"]
    return run


def test_time_that_is_spent_ends_the_run(site: Site) -> None:
    code = site.launch(quick_plan(hold_s=300, max_duration_s=14))
    run = ended_well(site, code, "max_duration_s 14 s reached")
    held_s = (run["instants"]["t_end_us"] - run["instants"]["t_hold_us"]) / 1e6
    assert held_s < 60


def test_money_that_is_spent_ends_the_run(site: Site) -> None:
    """At the stand-in of a vendor whose price is known; some 0.07 cents a second."""
    plan = quick_plan(
        provider="e2b",
        endpoint="simcloud",
        sandbox_count=40,
        hold_s=300,
        max_cost=0.005,
        create_timeout_s=20,
        ready_timeout_s=10,
    )
    ended_well(site, site.launch(plan), "max_cost $0.005 reached")
