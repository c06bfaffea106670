"""What an embedded installation generates once and keeps under $DATA, mode 600."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import tempfile
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

_SOCKET_PATH_MAX = 100  # bytes; the kernel takes 107


@dataclass(frozen=True, slots=True)
class Kept:
    """Generated secrets and the object store's port; the same across restarts."""

    secret_key: str
    s3_access_key_id: str
    s3_secret_access_key: str
    s3_port: int


def kept(data: Path) -> Kept:
    """Read $DATA/secrets.json, or make it. Two starters at once agree on one file."""
    path = data / "secrets.json"
    if not path.exists():
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = Kept(
            secret_key=secrets.token_urlsafe(48),
            s3_access_key_id="holdfast" + secrets.token_hex(6),
            s3_secret_access_key=secrets.token_urlsafe(32),
            s3_port=free_port(),
        )
        _publish(path, fresh)
    return Kept(**json.loads(path.read_text()))


def replace_port(data: Path) -> Kept:
    """Keep another object store port: something else took the old one."""
    old = kept(data)
    fresh = Kept(**{**asdict(old), "s3_port": free_port()})
    (data / "secrets.json").unlink()
    _publish(data / "secrets.json", fresh)
    return fresh


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def socket_folder(data: Path) -> Path:
    """Where the installation's Unix sockets live; short enough for the kernel."""
    folder = data / "run"
    if len(os.fsencode(folder / "redis.sock")) <= _SOCKET_PATH_MAX:
        return folder
    digest = sha256(os.fsencode(data)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"holdfast-{os.getuid()}-{digest}"


def _publish(path: Path, value: Kept) -> None:
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(asdict(value), file)
    with contextlib.suppress(FileExistsError):  # the other starter was first
        os.link(scratch, path)
    scratch.unlink()
