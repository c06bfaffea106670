"""The agent's wheel in an empty venv drives a Run of the real site."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.embedded import ROOT, quick_plan, running

pytestmark = pytest.mark.e2e

DISTRIBUTIONS_MAX = 20
FORBIDDEN = {"django", "boto3", "clickhouse-connect", "chdb"}


def test_the_agent_installs_alone_and_drives_a_run(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    built = tmp_path / "wheels"
    _run(*pip, "wheel", "--no-deps", "-w", built, _sources(tmp_path / "sources"))
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False)  # the agent needs none
    python = tmp_path / "venv" / "bin" / "python"
    _run(*pip, "--python", python, "install", wheel)
    listed = _run(*pip, "--python", python, "list", "--format=freeze")
    names = {line.partition("==")[0] for line in listed.lower().split()}
    assert len(names) <= DISTRIBUTIONS_MAX
    assert not names & FORBIDDEN
    with running(tmp_path / "site", AGENT_PYTHON=str(python)) as site:
        code = site.launch(quick_plan(sandbox_count=40, hold_s=2))
        run = site.until_state(code, "sealed")
    assert run["outcomes"]["success"] == 40
    assert run["held"]["proven"] == 40


def _sources(folder: Path) -> Path:
    """What the wheel is built of, apart: a build leaves its traces where it is made."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "shardagent", folder / "shardagent", ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    return folder


def _run(*command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout
