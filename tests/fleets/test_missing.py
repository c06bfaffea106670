"""Machines that never come, and machines that die while the others arm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedded import running
from tests.fleets.bed import until
from tests.fleets.cloud import Cloud, cloud
from tests.fleets.pages import pages
from tests.fleets.processes import agents
from tests.fleets.test_ec2_machines import make_plan, make_site

pytestmark = [pytest.mark.fleets, pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def there() -> Iterator[Cloud]:
    with cloud() as made:
        yield made


def test_a_run_goes_on_without_the_two_per_cent_that_never_boot(
    tmp_path: Path, there: Cloud, wheels: Path
) -> None:
    plan = make_plan(sandbox_count=50, sandboxes_per_shard=1, arm_timeout_s=60)
    with running(make_site(tmp_path, there, AGENT_WHEELHOUSE=str(wheels))) as site:
        code = site.launch(plan)
        site.until_state(code, "arming", timeout_s=60)
        rows = there.machines(code)
        assert len(rows) == 50
        with agents(site, there, code, tmp_path) as machines:
            for row in rows[1:]:
                machines.boot(row)
            said = "Waiting for 1 of 50 Shards; releases when all are armed, or with 49"
            page = pages(site)
            until(lambda: said in page(f"/runs/{code}"), said, 60)
            assert "50 asked · 50 granted · 49 booted" in page(f"/runs/{code}")
            shown = site.run(code)["fleet"]
            assert (shown["asked"], shown["granted"], shown["booted"]) == (50, 50, 49)
            site.until_state(code, "tearing_down", timeout_s=120)
            machines.until_over(60)
        run = site.until_state(code, "sealed", timeout_s=90)
        assert run["outcomes"]["success"] == 49
        assert run["outcomes"]["not_attempted"] == 1
        values = {
            r["check"]: (r["level"], r["value"]) for r in run["verdict"]["reasons"]
        }
        assert values["shards_lost_pct"] == ("SUSPECT", 2)
        assert run["end_reason"] == "completed"
        assert there.machines(code) == []


def test_a_spare_takes_over_from_a_machine_that_died_before_the_release(
    tmp_path: Path, there: Cloud, wheels: Path
) -> None:
    fleet = {"over_provision_pct": 33}
    plan = make_plan(sandbox_count=60, fleet=fleet)
    with running(make_site(tmp_path, there, AGENT_WHEELHOUSE=str(wheels))) as site:
        code = site.launch(plan)
        site.until_state(code, "arming", timeout_s=60)
        first, second, third, spare = there.machines(code)
        with agents(site, there, code, tmp_path) as machines:
            for row in (first, second):
                machines.boot(row)
            until(lambda: site.run(code)["progress"]["armed"] == 2, "two to arm", 60)
            machines.kill(first["InstanceId"])
            del machines.processes[first["InstanceId"]]
            for row in (third, spare):
                machines.boot(row)
            site.until_state(code, "tearing_down", timeout_s=120)
            machines.until_over(60)
        run = site.until_state(code, "sealed", timeout_s=90)
        assert run["outcomes"]["success"] == 60
        assert run["verdict"]["level"] != "INVALID"
        shards = site.get(f"/runs/{code}/shards")["items"]
        assert sorted(row["attempts"] for row in shards) == [1, 1, 2]
        assert there.machines(code) == []
