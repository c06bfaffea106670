"""A whole Run on the embedded stack: real agents, object store, broker, ClickHouse."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.embedded import EXPECTED, WORLD, Site, quick_plan, running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def sealed(site: Site) -> Any:
    code = site.launch(quick_plan(world=WORLD, seed=7))
    told = site.until_state(code, "collecting")
    return site.until_state(code, "sealed") | {"told": told["outcomes"]}


def test_what_agents_told_is_what_the_record_proves(sealed: Any) -> None:
    assert sealed["told"] == EXPECTED | {"pending": 0}


def test_every_planned_sandbox_has_the_outcome_that_the_world_gave_it(
    sealed: Any,
) -> None:
    assert sealed["outcomes"] == EXPECTED
    assert sealed["end_reason"] == "completed"
    assert sealed["defects"] == 0
    assert sealed["held"]["proven"] == EXPECTED["success"]
    assert sealed["peak"]["proven"] >= EXPECTED["success"]
    assert sealed["implied_peak"] == 80 - EXPECTED["failed"]
    assert sealed["verdict"]["level"] in {"VALID", "SUSPECT", "INVALID"}


def test_the_curve_is_between_its_bounds_at_every_instant(
    site: Site, sealed: Any
) -> None:
    curve = site.get(f"/runs/{sealed['code']}/curve?step_ms=100")
    points = curve["points"]
    assert max(p["proven"] for p in points) <= sealed["peak"]["proven"]
    assert all(p["proven"] <= p["possible"] for p in points)
    implied = [p["implied"] for p in points]
    assert implied == sorted(implied)
    held = [
        p["proven"]
        for p in points
        if sealed["held"]["from_us"]
        <= curve["t0_us"] + p["elapsed_ms"] * 1_000
        <= sealed["held"]["to_us"]
    ]
    assert held
    assert min(held) >= sealed["held"]["proven"]


def test_causes_latencies_shards_and_rows_tell_one_story(
    site: Site, sealed: Any
) -> None:
    code = sealed["code"]
    causes = site.get(f"/runs/{code}/causes")["items"]
    by_outcome: dict[str, int] = {}
    for row in causes:
        by_outcome[row["outcome"]] = by_outcome.get(row["outcome"], 0) + row["count"]
        assert row["cause"]
        assert row["origin"] == "provider"
    assert by_outcome == {
        k: EXPECTED[k] for k in ("partial", "readiness_failed", "failed")
    }
    latency = site.get(f"/runs/{code}/latency")
    assert latency["create"]["count"] == 77
    assert (
        latency["tti"]["all_observed"]["p99_us"] is None
    )  # among those that never came
    shards = site.get(f"/runs/{code}/shards")["items"]
    assert [row["index"] for row in shards] == [0, 1, 2, 3]
    assert sum(row["outcomes"].get("success", 0) for row in shards) == 70
    rows = site.get(f"/runs/{code}/sandboxes?outcome=partial&limit=3")
    assert [row["outcome"] for row in rows["items"]] == ["partial"] * 3
    rest = site.get(f"/runs/{code}/sandboxes?outcome=partial&after={rows['next']}")
    assert len(rest["items"]) == 1
    csv = site.get(f"/runs/{code}/sandboxes.csv").decode().splitlines()
    assert len(csv) == 81


def test_a_death_is_bracketed_by_two_probes(site: Site, sealed: Any) -> None:
    rows = site.get(f"/runs/{sealed['code']}/sandboxes?outcome=partial")["items"]
    for row in rows:
        assert row["last_ok_us"] < row["first_failed_us"] <= row["dead_us"]


def test_the_log_comes_from_the_bucket_in_stable_lines(site: Site, sealed: Any) -> None:
    path = f"/runs/{sealed['code']}/shards/0/log"
    whole = site.get(path)["lines"]
    assert [line["number"] for line in whole] == list(range(len(whole)))
    first = site.get(f"{path}?limit=2")
    then = site.get(f"{path}?limit=500&after={first['next']}")["lines"]
    assert first["lines"] + then == whole
    found = site.get(f"{path}?q=armed")["lines"]
    assert found
    assert all("armed" in line["text"] for line in found)
    assert whole[-1]["text"].startswith("over: done")


def test_what_the_run_left_can_be_verified_and_a_flipped_byte_is_found(
    site: Site, sealed: Any, tmp_path: Path
) -> None:
    code = sealed["code"]
    clean = site.manage("verify_run", code, "--json")
    assert json.loads(clean.stdout)["differences"] == []
    folder = site.data / "objects" / "raw" / "runs" / code
    victim = folder / "shards" / "00001" / "00" / "log-000000.txt.zst"
    before = victim.read_bytes()
    victim.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        found = site.manage("verify_run", code, "--json", check=False)
    finally:
        victim.write_bytes(before)
    assert found.returncode == 1
    assert any("log-000000" in line for line in json.loads(found.stdout)["differences"])


def test_it_comes_back_the_same_from_the_bucket_alone(
    site: Site, sealed: Any, tmp_path: Path
) -> None:
    code = sealed["code"]
    site.post(f"/runs/{code}/publish") if sealed["verdict"]["level"] != "INVALID" else 0
    before = site.run(code)
    curve = site.get(f"/runs/{code}/curve?step_ms=50")
    shutil.copytree(site.data / "objects", tmp_path / "objects")
    with running(tmp_path) as fresh:
        assert fresh.get("/runs")["items"] == []
        answer = fresh.manage("rebuild_run", "--all", "--json")
        assert [row["rebuilt"] for row in json.loads(answer.stdout)] == [True]
        after = fresh.run(code)
        assert fresh.get(f"/runs/{code}/curve?step_ms=50") == curve
    assert {**after, "url": ""} == {**before, "url": ""}


def test_agents_held_no_storage_credentials_and_secrets_are_private(
    site: Site, sealed: Any
) -> None:
    secrets = site.data / "secrets.json"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    kept = json.loads(secrets.read_text())
    for path in (site.data / "agents").rglob("*"):
        if path.is_file():
            assert kept["s3_secret_access_key"].encode() not in path.read_bytes()


def test_embedded_services_listen_on_loopback_only(site: Site) -> None:
    own = {
        str(site.port),
        str(json.loads((site.data / "secrets.json").read_text())["s3_port"]),
    }
    listening = {
        (int(words[1].split(":")[0], 16), str(int(words[1].split(":")[1], 16)))
        for words in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        if words[3] == "0A"
    }
    loopback = int.from_bytes(bytes([1, 0, 0, 127]))
    assert {port for address, port in listening if address == loopback} >= own
    assert not {port for address, port in listening if address != loopback} & own


def test_an_anonymous_visitor_sees_published_runs_only(site: Site) -> None:
    draft = site.post("/runs", quick_plan())
    listed = {row["code"] for row in site.get("/runs", anonymous=True)["items"]}
    assert draft["code"] not in listed
    everything = {row["code"] for row in site.get("/runs")["items"]}
    assert listed <= everything
    assert draft["code"] in everything


def test_what_the_sandboxes_are_was_observed_and_not_only_asked_for(
    site: Site, sealed: Any
) -> None:
    seen = sealed["observed"]
    assert seen["shards"] == 4
    assert (seen["cpus"], seen["memory_bytes"]) == (1, 512 << 20)
    assert 0 < seen["connect_us"] < 1_000_000
    assert seen["since_previous_s"] is None  # the first Run there
