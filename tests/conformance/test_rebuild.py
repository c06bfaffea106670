"""Rebuilding and verifying from the bucket alone: real Runs, and records by hand."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shardagent import zstd
from tests.embedded import Site, quick_plan, running
from tests.faults.ground import Ground

pytestmark = [pytest.mark.e2e, pytest.mark.conformance]
T0 = 1_750_000_000_000_000
PLAN = quick_plan(sandbox_count=40, sandboxes_per_shard=10, hold_s=3)


@dataclass
class Runs:
    """A whole Run that is published, one that was aborted, one that lost an agent."""

    site: Site
    whole: str
    aborted: str
    maimed: str

    @property
    def codes(self) -> tuple[str, ...]:
        return self.whole, self.aborted, self.maimed

    def folder(self, code: str) -> Path:
        return self.site.data / "objects" / "raw" / "runs" / code


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with running(tmp_path_factory.mktemp("site"), RUN_LEASE_S="5") as site:
        codes = [site.launch(PLAN | {"seed": seed}) for seed in (1, 2, 3)]
        site.until_state(codes[0], "sealed")
        verdict = site.run(codes[0])["verdict"]["level"]
        if verdict != "INVALID":
            site.post(f"/runs/{codes[0]}/publish")
        site.until_state(codes[1], "bursting", "holding")
        site.post(f"/runs/{codes[1]}/abort")
        site.until_state(codes[2], "holding")
        Ground(site, PLAN, codes[2]).signal(1, signal.SIGKILL)
        for code in codes[1:]:
            site.until_state(code, "sealed")
        yield Runs(site, *codes)


def shown(site: Site, code: str) -> tuple[Any, ...]:
    return (
        {**site.run(code), "url": ""},
        site.get(f"/runs/{code}/curve?step_ms=20"),
        site.get(f"/runs/{code}/latency"),
        site.get(f"/runs/{code}/causes"),
        site.get(f"/runs/{code}/sandboxes?limit=40"),
    )


def test_every_run_comes_back_the_same_on_an_empty_installation(
    runs: Runs, tmp_path: Path
) -> None:
    before = {code: shown(runs.site, code) for code in runs.codes}
    assert before[runs.aborted][0]["end_reason"] == "aborted"
    assert before[runs.maimed][0]["outcomes"]["unobserved"] == 20
    assert before[runs.maimed][0]["reaped"]["listed"] > 0
    listed = runs.site.get("/runs", anonymous=True)["items"]
    shutil.copytree(runs.site.data / "objects", tmp_path / "objects")
    with running(tmp_path) as fresh:
        answer = json.loads(fresh.manage("rebuild_run", "--all", "--json").stdout)
        assert {row["code"] for row in answer if row["rebuilt"]} == set(runs.codes)
        for code in runs.codes:
            assert shown(fresh, code) == before[code]
        public = fresh.get("/runs", anonymous=True)["items"]
        assert [row["code"] for row in public] == [row["code"] for row in listed]


def verified(runs: Runs, code: str) -> list[str]:
    done = runs.site.manage("verify_run", code, "--json", check=False)
    assert done.returncode in (0, 1), done.stderr
    found: list[str] = json.loads(done.stdout)["differences"]
    assert bool(found) == bool(done.returncode)
    return found


def test_nothing_is_wrong_with_a_run_that_lost_an_agent(runs: Runs) -> None:
    assert verified(runs, runs.maimed) == []


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("shards/00002/00/events-000000.ndjson.zst", flip, "altered"),
        ("shards/00000/00/log-000000.txt.zst", flip, "altered"),
        ("journal-000002.ndjson", flip, "altered"),
        ("shards/00003/00/events-000000.ndjson.zst", Path.unlink, "missing"),
        ("run.json", Path.unlink, "run.json is missing"),
        ("manifest.json", Path.unlink, "never sealed"),
    ],
)
def test_harm_is_found(
    runs: Runs, name: str, harm: Callable[[Path], None], said: str
) -> None:
    path = runs.folder(runs.whole) / name
    before = path.read_bytes()
    harm(path)
    try:
        assert any(said in line for line in verified(runs, runs.whole))
    finally:
        path.write_bytes(before)


def test_a_number_changed_in_the_manifest_is_found(runs: Runs) -> None:
    path = runs.folder(runs.whole) / "manifest.json"
    before = path.read_bytes()
    manifest = json.loads(before)
    manifest["peak"]["proven"] += 1
    path.write_text(json.dumps(manifest))
    try:
        assert [line[:5] for line in verified(runs, runs.whole)] == ["peak:"]
    finally:
        path.write_bytes(before)


def test_a_segment_that_was_rewritten_makes_a_rebuilt_run_invalid(runs: Runs) -> None:
    """Readable, whole in its numbering, and not what was sealed."""
    path = runs.folder(runs.whole) / "shards/00002/00/events-000000.ndjson.zst"
    before, body = shown(runs.site, runs.whole), path.read_bytes()
    events = zstd.decompress(body)
    assert b'"armed"' in events
    path.write_bytes(zstd.compress(events.replace(b'"armed"', b'"ARMED"'), 1))
    try:
        runs.site.manage("rebuild_run", runs.whole)
        run = runs.site.run(runs.whole)
        reasons = {row["check"]: row for row in run["verdict"]["reasons"]}
        assert reasons["raw_record"]["level"] == "INVALID"
        assert not run["published"]
        listed = runs.site.get(f"/runs/{runs.whole}/defects")["items"]
        key = f"runs/{runs.whole}/shards/00002/00/events-000000.ndjson.zst"
        assert (key, "altered") in {(row["key"], row["reason"]) for row in listed}
        codes = [x["code"] for x in runs.site.get("/runs", anonymous=True)["items"]]
        assert runs.whole not in codes
    finally:
        path.write_bytes(body)
        runs.site.manage("rebuild_run", runs.whole)
    assert shown(runs.site, runs.whole) == before


def test_what_comes_after_sealing_is_listed_as_late_and_changes_nothing(
    runs: Runs,
) -> None:
    code = runs.aborted
    folder = runs.folder(code) / "shards" / "00001" / "00"
    extra = folder / "events-000099.ndjson"
    key = f"runs/{code}/shards/00001/00/events-000099.ndjson"
    before = shown(runs.site, code)
    extra.write_bytes(_events([{"kind": "created", "sandbox": 10, "at": T0}]))
    try:
        (line,) = verified(runs, code)
        assert line.startswith(f"{key}: in the bucket, not in the manifest")
        assert runs.site.get(f"/runs/{code}/late") == {"items": [key]}
        runs.site.manage("rebuild_run", code)
        assert shown(runs.site, code) == before
    finally:
        extra.unlink()


def test_nothing_is_left_to_reap(runs: Runs) -> None:
    answer = runs.site.manage("reap", "--all", "--json")
    rows = json.loads(answer.stdout)
    assert {row["code"] for row in rows} == set(runs.codes)
    assert not any(row["listed"] or row["left"] for row in rows)
    missing = runs.site.manage("reap", "nobody-1", check=False)
    assert missing.returncode == 1
    assert missing.stderr.strip().endswith("no Run has the code nobody-1")


def test_a_change_of_clickhouses_schema_rebuilds_every_run_in_the_background(
    runs: Runs,
) -> None:
    site = runs.site
    before = {code: shown(site, code) for code in runs.codes}
    site.stop()
    forget = (
        "from runs.clickhouse import client;"
        "client.command('TRUNCATE TABLE schema_version', name='test')"
    )
    site.manage("shell", "-c", forget)
    site.start()
    for code in runs.codes:
        assert {**site.run(code), "url": ""} == before[code][0]  # the stored summary
    for code in runs.codes:
        site.until(lambda code=code: shown(site, code) == before[code], 60, code)


def _events(events: list[dict[str, Any]], first: int = 0) -> bytes:
    lines = [{"v": 1, "n": n, **event} for n, event in enumerate(events, first)]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _life(sandbox: int) -> list[dict[str, Any]]:
    def at(ms: int) -> int:
        return T0 + ms * 1_000

    return [
        {"at": at(1), "kind": "create_sent", "sandbox": sandbox, "intended_us": T0},
        {"at": at(200), "kind": "created", "sandbox": sandbox, "latency_us": 199_000},
        {"at": at(300), "kind": "ready", "sandbox": sandbox, "latency_us": 100_000,
         "sent_us": at(201), "tti_us": 299_000},
        {"at": at(5_000), "kind": "probe_ok", "sandbox": sandbox, "latency_us": 9_000,
         "sent_us": at(4_991), "final": True},
    ]  # fmt: skip


def _write_by_hand(folder: Path, *, journal: bool) -> None:
    """Two Shards of one Sandbox each, by a writer that knows the format only."""
    folder.mkdir(parents=True)
    run = {"format": 1, "code": folder.name, "provider": "acme", "sandbox_count": 2,
           "sandboxes_per_shard": 1, "created_at_us": T0, "hold_s": 2,
           "its_own_key": True}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    for shard in (0, 1):
        place = folder / "shards" / f"{shard:05d}" / "00"
        place.mkdir(parents=True)
        clock = {"at": T0, "kind": "clock", "offset_us": 0, "half_rtt_us": 100}
        start = [clock, {"at": T0, "kind": "released", "t0_us": T0}]
        hold = [{"at": T0 + 1_000_000, "kind": "holding", "t_hold_us": T0 + 1_000_000}]
        end: list[dict[str, Any]] = [
            {
                "at": T0 + 4_000_000,
                "kind": "teardown",
                "t_end_us": T0 + 4_000_000,
                "t_destroy_us": T0 + 6_000_000,
                "autonomous": False,
            },
            {"at": T0 + 6_000_000, "kind": "agent_finished", "reason": "done"},
        ]
        events = start + _life(shard)[:3] + hold + _life(shard)[3:] + end
        plain = _events(events[:4])
        (place / "events-000000.ndjson").write_bytes(plain)
        rest = gzip.compress(_events(events[4:], 4))
        (place / "events-000001.ndjson.gz").write_bytes(rest)
        (place / "log-000000.txt").write_text(f"{T0} INFO hello\n")
    if journal:
        lines = [{"kind": "released", "t0_us": T0, "at_us": T0}]
        (folder / "journal-000000.ndjson").write_bytes(_events(lines))


def test_records_of_other_writers_are_rebuilt_without_a_running_site(
    tmp_path: Path,
) -> None:
    bucket = tmp_path / "objects" / "raw" / "runs"
    _write_by_hand(bucket / "acme-plain", journal=False)
    _write_by_hand(bucket / "acme-journal", journal=True)
    (bucket / "acme-broken").mkdir()
    (bucket / "acme-broken" / "run.json").write_text("{}")
    site = Site(tmp_path)
    done = site.manage("rebuild_run", "--all", "--json", check=False)
    rows = {row["code"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 1
    assert not rows["acme-broken"]["rebuilt"]
    assert "is no Plan" in rows["acme-broken"]["error"]
    for code in ("acme-plain", "acme-journal"):
        assert rows[code]["outcomes"]["success"] == 2
        assert rows[code]["held"]["proven"] == 2
