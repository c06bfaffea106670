"""A Run at a vendor's stand-in with no account, and one through a credential."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardagent import zstd
from tests.embedded import Site, quick_plan, running
from tests.vendors.standin import SECRET, standin

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("site")) as site:
        yield site


def test_a_run_at_the_stand_in_is_simulated_and_certified(site: Site) -> None:
    plan = quick_plan(
        provider="e2b",
        endpoint="simcloud",
        sandbox_count=30,
        sandboxes_per_shard=10,
        witness=True,
        world={"deaths": 2, "death_window_s": [2, 4], "create_errors": 1},
        seed=5,
    )
    found = site.post("/preflight", plan)
    assert [step["name"] for step in found["steps"] if not step["ok"]] == []
    run = site.until_state(site.launch(plan), "sealed")
    assert run["outcomes"]["success"] == 27
    assert {"simulated", "stand-in"} <= set(run["labels"])
    assert run["certificate"]["clean"]
    assert run["certificate"]["compared"] == 30


def test_nothing_a_run_wrote_holds_the_secret_it_used(
    site: Site, tmp_path: Path
) -> None:
    with standin("e2b", tmp_path, 20, create_errors=3) as config:
        code = _through_a_credential(site, config["endpoint"])
        run = site.until_state(code, "sealed")
        assert run["outcomes"]["failed"] == 3
        assert run["outcomes"]["success"] == 17
        assert "simulated" in run["labels"]
        pages = [
            site.get(f"/runs/{code}"),
            site.get(f"/runs/{code}/shards/0/log"),
            site.get(f"/runs/{code}/causes"),
            site.get("/credentials"),
        ]
    assert SECRET not in json.dumps(pages)
    searched = 0
    for path in site.data.rglob("*"):
        if path.is_file() and not path.is_symlink():
            raw = path.read_bytes()
            if path.suffix == ".zst":
                raw = zstd.decompress(raw)
            assert SECRET.encode() not in raw, path
            searched += 1
    assert searched > 20
    # What is searched would hold it if it were there: it is, but sealed.
    with sqlite3.connect(site.data / "site.sqlite3") as database:
        (sealed,) = database.execute("SELECT sealed FROM runs_credential").fetchone()
    assert sealed.startswith("gAAAA")


def _through_a_credential(site: Site, endpoint: str) -> str:
    site.token()
    script = (
        "from django.contrib.auth.models import User; from runs import credentials; "
        "credentials.add(User.objects.get(username='tester'), 'e2b', 'test', "
        f"{{'api_key': '{SECRET}'}}, '{endpoint}')"
    )
    site.manage("shell", "-c", script)
    plan = quick_plan(
        provider="e2b", sandbox_count=20, sandboxes_per_shard=10, hold_s=2
    )
    return site.launch(plan)
