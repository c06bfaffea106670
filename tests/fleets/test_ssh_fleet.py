"""The operator's own hosts: real sshd, an address each, and the worst of fates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.embedded import Site, quick_plan, running
from tests.fleets import sshd
from tests.fleets.bed import Bed, Box, run, site_settings, store, until

pytestmark = [pytest.mark.fleets, pytest.mark.e2e, pytest.mark.timeout(900)]
PLAN = quick_plan(
    sandbox_count=60,
    hold_s=20,
    fleet={"driver": "ssh", "shards_per_host": 1},
)


def agents(box: Box) -> list[str]:
    """Command lines of the agents that run on it."""
    pids = run("ip", "netns", "pids", box.name).split()
    lines = []
    for pid in pids:
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"shardagent" in line and b"timeout" not in line.split(b"\0")[0]:
            lines.append(line.decode(errors="replace"))
    return lines


def left_behind(box: Box) -> list[str]:
    return [str(p) for p in (box.home / ".holdfast").glob("*")]


def make_site(at: Bed, wheels: Path, boxes: list[Box], keys: dict[str, str]) -> Site:
    file = at.folder / "fleets.json"
    file.write_text(json.dumps({"ssh": sshd.account(at, boxes)}))
    site = Site(at.folder / "site", **keys, **site_settings(at))
    site.environment_add(
        FLEETS_FILE=str(file),
        AGENT_WHEELHOUSE=str(wheels),
        AGENT_SITE_URL=f"http://{at.address}:{site.port}",
        RUN_LEASE_S="5",
        RUN_COLLECT_TIMEOUT_S="10",
    )
    return site


def test_a_run_on_three_hosts_of_which_one_is_cut_off_and_one_dies(
    network: Bed, wheels: Path
) -> None:
    boxes = [network.box() for _ in range(3)]
    with store(network) as keys:
        site = make_site(network, wheels, boxes, keys)
        with running(site):
            code = site.launch(PLAN)
            site.until_state(code, "holding", timeout_s=120)
            assert [len(agents(box)) for box in boxes] == [1, 1, 1]
            boxes[1].cut()
            boxes[2].kill()
            run_ = site.until_state(code, "sealed", timeout_s=180)
            outcomes = run_["outcomes"]
            assert sum(v for k, v in outcomes.items() if k != "total") == 60
            assert (outcomes["success"], outcomes["unobserved"]) == (20, 40)
            assert run_["end_reason"] == "completed"
            assert run_["verdict"]["level"] == "INVALID"
            reasons = {r["check"]: r["value"] for r in run_["verdict"]["reasons"]}
            assert reasons["shards_lost_pct"] == pytest.approx(200 / 3, abs=0.01)
            assert reasons["unobserved_pct"] == pytest.approx(200 / 3, abs=0.01)
            assert left_behind(boxes[0]) == []
            assert agents(boxes[0]) == []
            assert left_behind(boxes[1]) != []  # nobody could get there
            _differs_nowhere(site, code)
            boxes[1].mend()
            site.manage("reap", code, "--json", check=False)
            until(lambda: left_behind(boxes[1]) == [], "the host to be cleaned", 30)
            assert agents(boxes[1]) == []


def _differs_nowhere(site: Site, code: str) -> None:
    done: Any = json.loads(site.manage("verify_run", code, "--json").stdout)
    assert done["differences"] == []
