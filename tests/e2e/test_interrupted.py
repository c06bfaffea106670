"""Runs that do not go as planned: aborted, their site killed, their record altered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardagent import zstd
from tests.embedded import EXPECTED, WORLD, Site, quick_plan, running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("site")) as site:
        yield site


def test_an_aborted_run_is_torn_down_collected_and_sealed(site: Site) -> None:
    code = site.launch(quick_plan(hold_s=60, seed=3))
    site.until_state(code, "holding")
    site.post(f"/runs/{code}/abort")
    run = site.until_state(code, "sealed")
    assert run["end_reason"] == "aborted"
    counts = run["outcomes"]
    assert sum(v for k, v in counts.items() if k != "total") == counts["total"] == 80
    assert counts["success"] == 80


def test_an_object_that_is_not_what_its_agent_reported_is_a_defect(site: Site) -> None:
    """Rewritten before sealing: readable, but its hash is not the reported one."""
    code = site.launch(quick_plan(seed=11))
    bucket = site.bucket()
    key = f"runs/{code}/shards/00000/00/log-000000.txt.zst"
    site.until_state(code, "holding")
    before = bucket.Object(key).get()["Body"].read()
    bucket.Object(key).put(Body=before + zstd.compress(b""))
    sealed = site.until_state(code, "sealed")
    assert sealed["defects"] >= 1
    found = site.get(f"/runs/{code}/defects")["items"]
    assert [row["key"] for row in found if row["reason"] == "altered"] == [key]
    raw = {row["check"]: row for row in sealed["verdict"]["reasons"]}["raw_record"]
    assert raw["level"] == "INVALID"
    assert sealed["observed"]["since_previous_s"] > 0  # there was a Run before it


def test_the_site_may_be_killed_in_the_middle(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.start()
    try:
        code = site.launch(quick_plan(world=WORLD, seed=7, hold_s=6))
        site.until(
            lambda: site.run(code).get("progress", {}).get("sent"), 60, "creates"
        )
        site.kill()
        assert not os.path.exists(f"/proc/{_child(tmp_path)}"), (
            "a child outlived the site"
        )
        site.start()
        run = site.until_state(code, "sealed")
        assert run["outcomes"] == EXPECTED
        assert site.stop() < 10
    finally:
        site.kill()


def _child(data: Path) -> str:
    """The process that listens for the object store of this DATA, or a free number."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"serve" in words and str(data / "objects").encode() in words:
                return entry.name
    return "0"
