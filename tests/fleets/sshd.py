"""Real sshd processes of Debian's openssh-server, one a machine."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.fleets.bed import Bed, Box, run, until

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin") or ""
_CONFIG = """
Port 22
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxSessions 50
Subsystem sftp internal-sftp
"""


def needed() -> None:
    if not SSHD:
        pytest.skip("sshd is not installed (Debian: openssh-server)")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)


def key_of(folder: Path) -> Path:
    """A private key of the operator's."""
    path = folder / "operator_key"
    if not path.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
    return path


def start(box: Box, key: Path) -> str:
    """Boot it; its line for known_hosts."""
    folder = box.home.parent / f"{box.name}-etc"
    folder.mkdir()
    host_key = folder / "host_key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key))
    public = Path(f"{key}.pub").read_text()
    (folder / "authorized_keys").write_text(public)
    config = folder / "sshd_config"
    config.write_text(_CONFIG.format(address=box.address, folder=folder))
    box.start(f"exec {SSHD} -D -e -f {config}")

    def answers() -> bool:
        with socket.create_connection((box.address, 22), timeout=1) as talk:
            return talk.recv(4) == b"SSH-"

    until(answers, f"sshd of {box.name}")
    words = Path(f"{host_key}.pub").read_text().split()
    return f"{box.address} {words[0]} {words[1]}\n"


def account(at: Bed, boxes: list[Box], **host: Any) -> dict[str, Any]:
    """The `ssh` part of FLEETS_FILE for these machines, booted."""
    needed()
    key = key_of(at.folder)
    known = at.folder / "known_hosts"
    known.write_text("".join(start(box, key) for box in boxes))
    return {
        "key": str(key),
        "known_hosts": str(known),
        "python": _python(),
        "hosts": [
            {
                "name": f"h{n}",
                "address": box.address,
                "region": "bed",
                "folder": str(box.home / ".holdfast"),
                **host,
            }
            for n, box in enumerate(boxes, 1)
        ],
    }


def _python() -> str:
    """The interpreter itself: a shim of a version manager asks the home for it."""
    import sys

    return str(Path(sys.base_prefix) / "bin" / "python3")
