"""All of a Run but its sandboxes: what `manage.py rehearse` finds and leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardagent import zstd
from tests.embedded import quick_plan, running
from tests.fleets.pages import pages

pytestmark = [pytest.mark.fleets, pytest.mark.e2e, pytest.mark.timeout(300)]


def test_a_rehearsal_arms_and_fires_and_creates_no_sandbox(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(quick_plan(ranked=True, hold_s=60)))
    with running(tmp_path / "site") as site:
        said = site.manage("rehearse", str(plan), "--json").stdout
        found = json.loads(said.splitlines()[-1])
        assert found["end_reason"] == "completed"
        assert found["shard_count"] == found["rehearsed"]["shards"] == 4
        assert 0 <= found["rehearsed"]["skew_p99_ms"] < 1_000
        assert 0 < found["rehearsed"]["clock_bound_ms"] < 100
        assert found["launch_to_armed_s"] == pytest.approx(
            found["provision_s"] + found["arm_s"], abs=0.01
        )
        assert (found["provisioned"]["asked"], found["hosts"]) == (2, 2)
        code = found["code"]
        run = site.run(code)
        assert run["outcomes"]["not_attempted"] == run["outcomes"]["total"] == 80
        assert run["held"] is None
        assert "rehearsal" in run["labels"]
        assert (run["ranked"], run["reaped"]["listed"]) == (False, 0)
        assert _created(site.bucket(), code) == 0
        said = "A rehearsal: 4 of 4 Shards fired within"
        assert said in pages(site)(f"/runs/{code}")


def test_a_rehearsal_that_cannot_start_says_why_and_fails(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(quick_plan(fleet={"driver": "ec2"})))
    with running(tmp_path / "site") as site:
        done = site.manage("rehearse", str(plan), check=False)
        assert done.returncode == 1
        assert "failed: fleet driver ec2 is not set up" in done.stdout
        plan.write_text(json.dumps(quick_plan(sandbox_count="many")))
        done = site.manage("rehearse", str(plan), check=False)
        assert (done.returncode, "sandbox_count" in done.stderr) == (2, True)


def _created(bucket: object, code: str) -> int:
    """What the simulated world itself knows of: its truth is in the bucket."""
    lines: list[bytes] = []
    for item in bucket.objects.filter(Prefix=f"runs/{code}/truth-"):  # type: ignore[attr-defined]
        body = item.get()["Body"].read()
        lines += zstd.decompress(body).splitlines()
    return sum(b'"sandbox"' in line for line in lines)
