"""Load shapes, wrong clocks and sleepers, as real Runs against their known truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.embedded import Site, quick_plan, running

pytestmark = [pytest.mark.e2e, pytest.mark.conformance]

DRIFT_PPM = 50


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Every second host is 5 s early, every other 5 s late; all drift."""
    clocks = {
        "HOLDFAST_TEST_CLOCK_OFFSET_US": "5000000,-5000000",
        "HOLDFAST_TEST_CLOCK_DRIFT_PPM": f"{DRIFT_PPM},-{DRIFT_PPM},0",
    }
    with running(tmp_path_factory.mktemp("shapes"), **clocks) as found:
        yield found


def sealed(site: Site, **changes: Any) -> Any:
    code = site.launch(quick_plan(**{"witness": True, **changes}))
    run = site.until_state(code, "sealed", timeout_s=120)
    certificate = run["certificate"]
    assert certificate["clean"], certificate
    assert sum(v for k, v in run["outcomes"].items() if k != "total") == 80
    return run


def skew_and_bound(run: Any) -> tuple[float, float]:
    """Start skew P99 in ms, and the Run's clock bound in µs."""
    values = {found["check"]: found["value"] for found in run["verdict"]["findings"]}
    return values["start_skew_p99_ms"], run["peak"]["clock_bound_us"]


def test_wrong_clocks_stay_within_their_stated_bound_and_a_staircase_is_held(
    site: Site,
) -> None:
    run = sealed(
        site,
        load={"shape": "staircase", "steps": 4, "step_s": 2},
        world={"profile": "isorun", "create_errors": 15},
    )
    skew_ms, bound_us = skew_and_bound(run)
    # 10 s lie between the hosts' clocks; the creates went out together all the same.
    assert skew_ms < 200
    assert 0 < bound_us < 50_000
    steps = run["steps"]
    assert [step["target"] for step in steps] == [20, 40, 60, 80]
    helds = [step["held"] for step in steps]
    assert helds == sorted(helds)
    assert helds[-1] == run["held"]["proven"] == 65
    full = [step["step"] for step in steps if step["held"] >= 0.99 * step["target"]]
    assert run["highest_step_held"] in (None, *full)


def test_a_burst_with_sleepers_finds_them_all(site: Site) -> None:
    """Each sleeps 0.3 s after it was reached, and wakes for the next probe."""
    run = sealed(
        site,
        probe_interval_s=2,
        hold_s=6,
        world={"profile": "isorun", "hibernate_after_s": 0.3, "wake_ms": 20},
    )
    assert run["outcomes"]["success"] == 80  # an answer is an answer
    assert run["certificate"]["sleepers"] == 80
    assert run["certificate"]["sleepers_missed"] == 0
    assert run["held"]["proven"] == 0
    rows = site.get(f"/runs/{run['code']}/sandboxes?limit=100")["items"]
    assert sum(bool(row["suspended"]) for row in rows) == 80


def test_a_staggered_load_is_spread_as_planned(site: Site) -> None:
    run = sealed(
        site,
        load={"shape": "staggered", "stagger_us": 40_000},
        world={"profile": "isorun"},
    )
    assert run["held"]["proven"] == 80
    assert run["last_create_sent_ms"] >= 79 * 40
    assert skew_and_bound(run)[0] < 200


def test_a_sequential_load_claims_no_held(site: Site) -> None:
    run = sealed(
        site,
        load={"shape": "sequential"},
        sandboxes_per_shard=80,
        fleet={"shards_per_host": 1},
        world={"profile": "isorun", "exec_ms": 5, "destroy_ms": 5},
    )
    assert run["held"] is None
    assert run["outcomes"]["success"] == 80
    assert run["peak"]["proven"] <= 1
    assert "sequential: no Held" in run["labels"]
