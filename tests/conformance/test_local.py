"""A real process that is stopped between its probes answers all of them, too late."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shardagent.providers import local_processes
from tests.embedded import quick_plan, running

pytestmark = [pytest.mark.e2e, pytest.mark.sandboxes, pytest.mark.conformance]

COUNT = 10
STOPPED_S = 2.2


def test_a_stopped_sandbox_is_found_out_though_it_answers(tmp_path: Path) -> None:
    plan = quick_plan(
        provider="local",
        sandbox_count=COUNT,
        sandboxes_per_shard=5,
        hold_s=9,
        probe_interval_s=3,
        probe_timeout_s=4,
        create_timeout_s=30,
        ready_timeout_s=20,
    )
    with running(tmp_path) as site:
        code = site.launch(plan)
        held = site.until_state(code, "holding")
        victim, pids = _sandbox(code)
        # Not before the hold has begun, a heartbeat or two after the state says so.
        time.sleep(max(0, held["instants"]["t_hold_us"] / 1e6 - time.time()) + 1)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(STOPPED_S)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        run = site.until_state(code, "sealed", timeout_s=120)
        rows = site.get(f"/runs/{code}/sandboxes?limit=100")["items"]
    assert run["outcomes"]["success"] == COUNT, "an answer is an answer"
    suspended = [row["sandbox"] for row in rows if row["suspended"]]
    assert suspended == [victim]
    # The gap left the proven set: not all were held, though all answered to the end.
    assert run["held"]["proven"] == COUNT - 1
    assert run["peak"]["proven"] == COUNT


def test_a_sandbox_of_an_earlier_run_that_lives_at_t0_is_found(tmp_path: Path) -> None:
    """It was destroyed with its Run, and one more came late, as late creates do."""
    plan = quick_plan(
        provider="local",
        sandbox_count=COUNT,
        sandboxes_per_shard=5,
        create_timeout_s=30,
        ready_timeout_s=20,
    )
    with running(tmp_path) as site:
        earlier = site.launch(plan)
        first = site.until_state(earlier, "sealed", timeout_s=120)
        said = {row["check"]: row for row in first["verdict"]["findings"]}
        assert said["leftovers_pct"]["value"] == 0
        label = local_processes.mark({"run": earlier, "sandbox": "3"})
        late = [sys.executable, "-c", "import time; time.sleep(300)", label]
        with subprocess.Popen(late) as process:
            try:
                code = site.launch(plan)
                run = site.until_state(code, "sealed", timeout_s=120)
            finally:
                process.kill()
    reasons = {row["check"]: row for row in run["verdict"]["reasons"]}
    assert reasons["leftovers_pct"]["value"] == 100 / COUNT
    assert reasons["leftovers_pct"]["level"] == "INVALID"


def _sandbox(code: str) -> tuple[int, list[int]]:
    """One Sandbox of the Run, its outermost process and everything below that."""
    found = {
        int(process.labels["sandbox"]): process.pid
        for process in local_processes.labelled()
        if process.labels["run"] == code
    }
    victim = sorted(found)[3]
    pids = [found[victim]]
    for pid in pids:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        pids += [int(child) for child in children.read_text().split()]
    return victim, pids
