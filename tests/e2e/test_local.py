"""Provider `local`: real isolated processes, one of them killed from outside."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from shardagent.providers import local_processes
from shardagent.providers.local import detect_isolation
from tests.embedded import quick_plan, running

pytestmark = [pytest.mark.e2e, pytest.mark.sandboxes]

COUNT = 20


def test_a_sandbox_killed_from_outside_is_partial_and_the_rest_succeed(
    tmp_path: Path,
) -> None:
    plan = quick_plan(
        provider="local",
        sandbox_count=COUNT,
        sandboxes_per_shard=10,
        hold_s=6,
        create_timeout_s=30,
        ready_timeout_s=20,
    )
    with running(tmp_path) as site:
        code = site.launch(plan)
        site.until_state(code, "holding")
        processes = _sandboxes(code)
        assert len(processes) == COUNT
        victim = sorted(processes)[7]
        os.kill(processes[victim], signal.SIGKILL)
        run = site.until_state(code, "sealed")
        rows = site.get(f"/runs/{code}/sandboxes?outcome=partial")["items"]
    assert run["plan"]["spec"]["isolation"] == detect_isolation().name
    assert run["outcomes"]["partial"] == 1
    assert run["outcomes"]["success"] == COUNT - 1
    assert rows[0]["sandbox"] == victim
    assert rows[0]["last_ok_us"] < rows[0]["first_failed_us"] <= rows[0]["dead_us"]
    assert _sandboxes(code) == {}


def _sandboxes(code: str) -> dict[int, int]:
    """Sandbox → its outermost process on this machine, found by its labels."""
    return {
        int(process.labels["sandbox"]): process.pid
        for process in local_processes.labelled()
        if process.labels["run"] == code
    }
