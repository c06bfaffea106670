"""The witness's two scripts in real shells."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardagent.providers import witness
from shardagent.providers.base import Answer

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
NONCE, CHALLENGE = "n0nce", "c0ffee"
RIGHT = hashlib.sha256((NONCE + CHALLENGE).encode()).hexdigest()


def run(shell: str, command: list[str]) -> Answer:
    done = subprocess.run(
        [shell, *command[1:]], capture_output=True, text=True, timeout=20, check=False
    )
    return Answer(done.returncode, done.stdout)


def group_of(folder: str) -> int:
    """The witness's own process group, once setsid has given it one: never ours."""
    pid = int((Path(folder) / "p").read_text())
    limit = time.monotonic() + 5
    while os.getpgid(pid) != pid:
        assert time.monotonic() < limit
    return pid


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "w")
    if (tmp_path / "w" / "p").exists():
        os.killpg(group_of(str(tmp_path / "w")), signal.SIGKILL)


def ask(shell: str, folder: str, *command: str) -> Answer:
    asked = witness.probe_command(command or ["true"], CHALLENGE, folder)
    return witness.read_answer(run(shell, asked))


@pytest.mark.parametrize("shell", SHELLS)
def test_it_answers_with_its_nonce_and_its_ticks(shell: str, folder: str) -> None:
    assert run(shell, witness.start_command(NONCE, folder)).exit_code == 0
    began = time.monotonic()
    answer = ask(shell, folder, "echo", "hello there")
    while (answer.ticks or 0) < 3 and time.monotonic() - began < 10:
        answer = ask(shell, folder, "echo", "hello there")
    assert answer.output == "hello there\n"
    assert answer.digest == RIGHT
    assert 3 <= (answer.ticks or 0) <= (time.monotonic() - began) / 0.25 + 1


def test_a_failing_command_keeps_its_status_and_the_witness_its_word(
    folder: str,
) -> None:
    run("sh", witness.start_command(NONCE, folder))
    answer = ask("sh", folder, "false")
    assert answer.exit_code == 1
    assert answer.digest == RIGHT


def test_a_stopped_witness_ticks_no_more(folder: str) -> None:
    run("sh", witness.start_command(NONCE, folder))
    group = group_of(folder)
    os.killpg(group, signal.SIGSTOP)
    before = (Path(folder) / "t").read_text()
    waited = time.monotonic() + 0.8
    while time.monotonic() < waited:
        assert (Path(folder) / "t").read_text() == before
    os.killpg(group, signal.SIGCONT)
    assert ask("sh", folder).digest == RIGHT


def test_without_a_witness_the_command_still_answers(folder: str) -> None:
    answer = ask("sh", folder, "echo", "alone")
    assert answer == Answer(0, "alone\n")


def test_a_witness_that_died_says_nothing_and_nobody_waits_for_it(
    folder: str,
) -> None:
    run("sh", witness.start_command(NONCE, folder))
    os.killpg(group_of(folder), signal.SIGKILL)
    (Path(folder) / "p").write_text("4194305\n")  # no process has this number
    assert ask("sh", folder).digest is None
    (Path(folder) / "p").unlink()
