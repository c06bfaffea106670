"""What cannot start says so in one line that tells how to mend it."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tests.embedded import ROOT, Site, quick_plan, running

pytestmark = pytest.mark.e2e


def test_a_second_copy_and_a_taken_port_are_one_line_each(tmp_path: Path) -> None:
    with running(tmp_path / "a") as first:
        twin = Site(tmp_path / "a")
        said = twin.manage("up", check=False)
        assert said.returncode == 1
        assert said.stderr.count("\n") == 1
        assert "in use by another copy" in said.stderr
        assert "DATA=" in said.stderr
        other = Site(tmp_path / "b")
        other.port = first.port
        said = other.manage("up", check=False)
        assert said.returncode == 1
        assert said.stderr.count("\n") == 1
        assert f"port {first.port} cannot be used" in said.stderr
        assert "PORT=" in said.stderr
        side_by_side = Site(tmp_path / "c")
        side_by_side.start(bare=True)
        assert side_by_side.get("/runs")["items"] == []
        assert side_by_side.stop() < 10


def test_a_child_that_dies_at_start_is_named_with_its_last_words(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, S3_ACCESS_KEY_ID="with,comma")
    said = site.manage("up", check=False)
    assert said.returncode == 1
    assert said.stderr.count("\n") == 1
    assert "the object store (rclone) did not start" in said.stderr
    assert "rclone.log" in said.stderr


def test_ctrl_c_in_a_run_stops_every_child_in_time(tmp_path: Path) -> None:
    with running(tmp_path) as site:
        code = site.launch(quick_plan(hold_s=60))
        site.until_state(code, "holding")
        assert _own_processes(tmp_path)
        assert site.stop() < 10
        site.until(lambda: not _own_processes(tmp_path), 2, "the last child to end")


@pytest.mark.parametrize(
    ("plan", "fields"),
    [
        ({"provider": "sim", "sandbox_count": 0}, ["sandbox_count"]),
        ({"provider": "nope", "sandbox_count": 10**9}, ["provider", "sandbox_count"]),
        (
            {"provider": "sim", "sandbox_count": 5, "hold_s": -1, "x": 1},
            ["hold_s", "x"],
        ),
        (
            {"provider": "sim", "sandbox_count": 5, "world": {"deaths": 99}},
            ["world"],
        ),
    ],
)
def test_an_impossible_plan_is_exit_2_with_a_line_a_field(
    tmp_path: Path, plan: object, fields: list[str]
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    with pytest.raises(CommandError) as caught:
        call_command("launch_run", str(path))
    assert caught.value.returncode == 2
    for field in fields:
        assert f"  {field}: " in str(caught.value)


def test_an_impossible_plan_at_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"provider": "nope", "sandbox_count": 0}))
    said = Site(tmp_path / "data").manage("launch_run", str(path), check=False)
    assert said.returncode == 2
    assert "  provider: " in said.stderr
    assert "  sandbox_count: " in said.stderr
    assert "Traceback" not in said.stderr


def test_launch_run_without_a_site_runs_a_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(quick_plan(sandbox_count=20, hold_s=1)))
    site = Site(tmp_path / "data")
    refused = site.manage("launch_run", str(path), check=False)
    assert refused.returncode == 1
    assert "--wait" in refused.stderr
    with socket.socket() as taken:  # a temporary site takes any port
        taken.bind(("127.0.0.1", site.port))
        said = site.manage("launch_run", str(path), "--wait", "--json")
    assert json.loads(said.stdout)["outcomes"]["success"] == 20
    assert _own_processes(tmp_path / "data") == []


def _own_processes(data: Path) -> list[str]:
    listed = subprocess.run(
        ["ps", "-ewwo", "args"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    return [
        line
        for line in listed.splitlines()
        if str(data) in line and "-m pytest" not in line
    ]
