"""The agent and all it needs as wheels, in one archive that the site makes once.

A machine that gets it needs Python and no registry: pip is one of the wheels.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings

from runs import objects
from runs.errors import FleetError
from runs.fleets.base import Wheelhouse
from shardagent import __version__

BUILD_LIMIT_S = 300
URL_LIFETIME_S = 24 * 3600
_SOURCES = ("pyproject.toml", "README.md", "constraints.txt")


def wheelhouse(folder: Path) -> Wheelhouse:
    """Build it unless it is there, store it unless it is, and presign it."""
    path = Path(settings.AGENT_WHEELHOUSE) if settings.AGENT_WHEELHOUSE else None
    if path is None:
        path = folder / f"agent-{__version__}-{_fingerprint()}.tar.gz"
        if not path.exists():
            build(path)
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise FleetError(f"no wheelhouse: {error}", retryable=False) from error
    key = f"software/{sha256}.tar.gz"
    if objects.size(key) != path.stat().st_size:
        objects.put(key, path.read_bytes())
    return Wheelhouse(path, sha256, objects.get_url(key, URL_LIFETIME_S))


def build(path: Path) -> None:
    """Wheels of this checkout's agent, of its dependencies, and of pip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        wheels, sources = Path(scratch) / "wheels", Path(scratch) / "sources"
        _copy_sources(sources)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        limits = ["-c", str(sources / "constraints.txt"), "-w", str(wheels)]
        _run([*pip, "wheel", *limits, str(sources), "pip"])
        made = Path(scratch) / "made.tar.gz"
        with tarfile.open(made, "w:gz", compresslevel=1) as archive:
            for wheel in sorted(wheels.glob("*.whl")):
                archive.add(wheel, wheel.name, filter=_anonymous)
        made.rename(path)


def _fingerprint() -> str:
    """Of what the wheel is built of, and of whom for: Python and machine."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {os.uname().machine}".encode())
    for source in _agent_files():
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _agent_files() -> Iterable[Path]:
    for name in _SOURCES:
        yield settings.BASE_DIR / name
    agent = settings.BASE_DIR / "shardagent"
    yield from sorted(p for p in agent.rglob("*") if p.suffix in (".py", ".json"))


def _copy_sources(folder: Path) -> None:
    """Apart: a build leaves its traces where it is made."""
    for source in (*_agent_files(), settings.BASE_DIR / "shardagent" / "py.typed"):
        target = folder / source.relative_to(settings.BASE_DIR)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o644
    return entry


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError(f"cannot build the agent's wheels: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no word"]
        raise FleetError(f"cannot build the agent's wheels: {said[0][:300]}")
