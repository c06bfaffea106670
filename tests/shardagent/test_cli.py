"""The agent's process: how it stands on its machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shardagent import cli

SAYS = """
import os
from shardagent import cli
print(cli.AUTOGROUP.read_text().strip())
cli.settle_in()
print(cli.AUTOGROUP.read_text().strip())
print(os.getpriority(os.PRIO_PROCESS, 0))
"""


def said(*, own_session: bool) -> list[str]:
    """The session's share before and after (none in init's own), the nice value."""
    done = subprocess.run(
        [sys.executable, "-c", SAYS],
        start_new_session=own_session,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout.split("\n")


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path(cli.AUTOGROUP).exists(),
    reason="needs root, and a kernel that shares cores by session",
)
def test_an_agent_goes_before_all_else_but_raises_no_session_of_others() -> None:
    _, after, nice, _ = said(own_session=True)
    assert int(nice) == cli.NICE
    assert after.endswith(f" nice {cli.NICE}")
    before, after, nice, _ = said(own_session=False)
    assert int(nice) == cli.NICE
    assert after == before
