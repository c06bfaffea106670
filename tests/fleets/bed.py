"""Machines that are not there: network namespaces with addresses of their own.

A bridge stands for the network; each machine is a network, mount and process namespace
with a home of its own, so that ending it is pulling its plug.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

READY_S = 20.0


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def until(found: Callable[[], Any], what: str, limit_s: float = READY_S) -> Any:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            value = found()
            if value:
                return value
        time.sleep(0.05)
    raise AssertionError(f"waited {limit_s} s for {what}")


@dataclass(slots=True)
class Box:
    """One such machine."""

    name: str
    address: str
    link: str  # its cable, at our end
    home: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, script: str) -> subprocess.Popen[bytes]:
        """Run a shell script as its first process; the machine ends with it."""
        there = f"export HOME={self.home} && cd && "
        words = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]
        with (self.home / "console").open("ab") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *words, "sh", "-c", there + script],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def console(self) -> str:
        return (self.home / "console").read_text()

    def cut(self) -> None:
        run("ip", "link", "set", self.link, "down")

    def mend(self) -> None:
        run("ip", "link", "set", self.link, "up")

    def kill(self) -> None:
        """Power off: everything in it is gone at once."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def runs(self) -> bool:
        return any(process.poll() is None for process in self.processes)


@dataclass(slots=True)
class Bed:
    """The network, and our own address in it."""

    tag: str
    network: str  # the first three numbers of its addresses
    folder: Path
    boxes: list[Box] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{self.network}.1"

    def box(self) -> Box:
        number = len(self.boxes) + 1
        name, link = f"{self.tag}-{number}", f"{self.tag}v{number}"
        home = self.folder / name
        home.mkdir(parents=True)
        run("ip", "netns", "add", name)
        run("ip", "link", "add", link, "type", "veth", "peer", "eth0", "netns", name)
        run("ip", "link", "set", link, "master", self.tag, "up")
        address = f"{self.network}.{10 + number}"
        box = Box(name, address, link, home)
        self.boxes.append(box)
        inside = ("ip", "-n", name)
        run(*inside, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run(*inside, "link", "set", device, "up")
        return box


@contextmanager
def bed(folder: Path) -> Iterator[Bed]:
    """Skips where we may not make namespaces."""
    if os.getuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    tag = f"hf{secrets.token_hex(3)}"
    made = Bed(
        tag, f"10.{100 + secrets.randbelow(100)}.{secrets.randbelow(250)}", folder
    )
    done = subprocess.run(
        ["ip", "link", "add", tag, "type", "bridge"], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("this machine allows no network of our own")
    try:
        run("ip", "address", "add", f"{made.address}/24", "dev", tag)
        run("ip", "link", "set", tag, "up")
        yield made
    finally:
        for box in made.boxes:
            box.kill()
            run("ip", "netns", "delete", box.name)
        run("ip", "link", "delete", tag)


@contextmanager
def store(at: Bed) -> Iterator[dict[str, str]]:
    """An object store that machines reach; the site's settings for it."""
    folder = at.folder / "objects"
    (folder / "raw").mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind((at.address, 0))
        port = probe.getsockname()[1]
    key, secret = secrets.token_hex(8), secrets.token_hex(16)
    process = subprocess.Popen(
        [
            *(
                str(Path(sys.executable).parent / "rclone"),
                "serve",
                "s3",
                "--addr",
                f"{at.address}:{port}",
            ),
            *("--vfs-cache-mode", "off", "--dir-cache-time", "1s"),
            *("--config", os.devnull, str(folder)),
        ],
        env={**os.environ, "RCLONE_AUTH_KEY": f'"{key},{secret}"'},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: _answers(at.address, port), "the object store")
        yield {
            "S3_ENDPOINT_URL": f"http://{at.address}:{port}",
            "S3_ACCESS_KEY_ID": key,
            "S3_SECRET_ACCESS_KEY": secret,
            "S3_REGION": "us-east-1",
        }
    finally:
        process.kill()
        process.wait(10)


def site_settings(at: Bed) -> dict[str, str]:
    """With which a site can be reached by machines of the bed."""
    return {
        "LISTEN": "0.0.0.0",
        "ALLOWED_HOSTS": f"{at.address},127.0.0.1",
        "WORLD_LISTEN": at.address,
    }


def _answers(address: str, port: int) -> bool:
    with socket.create_connection((address, port), timeout=1):
        return True
