"""Every check of the verdict, tripped for real in one Run whose agents misbehave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardagent import zstd
from tests.embedded import Site, running

pytestmark = [pytest.mark.e2e, pytest.mark.conformance]

# By host, and so by Shard: one a host. What each must trip is below.
FAULTS = (
    "block=1.2@0,block=0.3@1,burn=7@2,cold@3,slow_beats=0.3@4,stall=12@5,"
    "resend@6,block_end=1.6@7,die=4@8,step=400000@9"
)
PLAN = {
    "provider": "sim",
    "sandbox_count": 60,
    "sandboxes_per_shard": 5,
    "fleet": {"shards_per_host": 1},
    "hold_s": 10,
    "probe_interval_s": 1,
    "probe_timeout_s": 2,
    "probe_failures_max": 2,
    "create_timeout_s": 6,
    "ready_timeout_s": 4,
    "final_spread_s": 1,
    "heartbeat_interval_s": 0.5,
    "flush_interval_s": 0.5,
    "destroy_timeout_s": 10,
    "egress_limit_per_s": 50,
    # Tightened, as a Plan may: two cores are shared with whatever else runs here.
    "thresholds": {"loop_cpu_pct": 30},
    "world": {"profile": "isorun", "exec_ms": 5},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("verdict")
    with running(data, HOLDFAST_TEST_FAULT=FAULTS, RUN_LEASE_S="6") as found:
        yield found


@pytest.fixture(scope="module")
def run(site: Site) -> Any:
    code = site.launch(PLAN)
    return site.until_state(code, "sealed", timeout_s=120)


def findings(run: Any) -> dict[str, Any]:
    return {reason["check"]: reason for reason in run["verdict"]["reasons"]}


@pytest.mark.parametrize(
    ("check", "shard", "level"),
    [
        ("loop_lag_ms", 0, "INVALID"),
        ("loop_lag_ms", 1, "INVALID"),
        ("loop_cpu_pct", 2, "SUSPECT"),
        ("harness_delay_p99_ms", 0, "INVALID"),
        ("harness_delay_max_ms", 0, "SUSPECT"),
        ("cold_connections_pct", 3, "INVALID"),
        ("clock_bound_ms", 4, "SUSPECT"),
        ("clock_defects", 9, "INVALID"),
        ("final_probe_late_ms", 7, "SUSPECT"),
    ],
)
def test_a_fault_of_one_host_is_found_at_its_shard(
    run: Any, check: str, shard: int, level: str
) -> None:
    """The level is the worst of all Shards that tripped the check."""
    found = findings(run)[check]
    assert shard in found["shards"]
    assert found["level"] == level


@pytest.mark.parametrize(
    ("check", "level"),
    [
        ("shards_suspect_pct", "INVALID"),
        ("shards_invalid_pct", "INVALID"),
        ("start_skew_p99_ms", "SUSPECT"),
        ("start_skew_max_ms", None),  # how bad depends on when all were alive
        ("harness_share_pct", "INVALID"),
        ("shards_lost_pct", "INVALID"),
        ("unobserved_pct", "INVALID"),
        ("resends", "INVALID"),
        ("egress_demand_pct", None),  # 60 creates in a second or two, 50 allowed
    ],
)
def test_faults_reach_the_run(run: Any, check: str, level: str | None) -> None:
    found = findings(run)[check]["level"]
    assert found == level if level else found != "VALID"


def test_lost_and_fenced_shards_are_unobserved_and_the_sum_closes(run: Any) -> None:
    outcomes = run["outcomes"]
    assert outcomes["unobserved"] >= 10  # Shards 5 and 8
    assert sum(v for k, v in outcomes.items() if k != "total") == 60


def test_an_invalid_run_cannot_be_published(site: Site, run: Any) -> None:
    assert run["verdict"]["level"] == "INVALID"
    assert site.status("POST", f"/runs/{run['code']}/publish") == 409
    assert not site.get("/leaderboard")["items"]


@pytest.fixture(scope="module")
def harmed(site: Site, run: Any) -> Any:
    """The same record with a segment lost, steal and leftovers told, judged anew."""
    site.stop()
    folder = site.data / "objects" / "raw" / "runs" / run["code"]
    (folder / "shards/00001/00/events-000001.ndjson.zst").unlink()
    _append(
        folder / "shards/00011/00",
        {"kind": "health", "steal_pct": 12.5, "loop_lag_us": 0, "cpu_pct": 1},
    )
    line = {"kind": "leftovers", "at_us": 1, "count": 30}
    journal = sorted(folder.glob("journal-*.ndjson"))[-1]
    number = int(journal.stem.removeprefix("journal-")) + 1
    (folder / f"journal-{number:06d}.ndjson").write_text(json.dumps(line) + "\n")
    (folder / "manifest.json").unlink()  # what is not in it would count as late
    site.manage("rebuild_run", run["code"], "--wait", "--json")
    site.start()
    return site.run(run["code"])


def _append(folder: Path, event: dict[str, Any]) -> None:
    segments = sorted(folder.glob("events-*.ndjson.zst"))
    body = zstd.decompress(segments[-1].read_bytes())
    last = json.loads(body.splitlines()[-1])
    event = {"v": 1, "n": last["n"] + 1, "at": last["at"] + 1, **event}
    name = f"events-{len(segments):06d}.ndjson"
    (folder / name).write_text(json.dumps(event) + "\n")


@pytest.mark.parametrize(
    ("check", "level"),
    [("raw_record", "INVALID"), ("leftovers_pct", "INVALID"), ("steal_pct", "SUSPECT")],
)
def test_harm_to_the_record_is_found_when_it_is_judged_anew(
    harmed: Any, check: str, level: str
) -> None:
    assert findings(harmed)[check]["level"] == level
