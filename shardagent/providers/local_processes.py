"""Sandboxes of this machine as /proc shows them, whoever started them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

MARK = "holdfast-sandbox:"
INNER_DEATH_S_MAX = 0.5  # after which the outer process is killed as well
SWEEPS_MAX = 50
ENV_MARK = "HOLDFAST_SANDBOX"


@dataclass(frozen=True, slots=True)
class Process:
    """The outermost process of a sandbox; `started` tells it from a reused pid."""

    pid: int
    started: int
    labels: Mapping[str, str]


def mark(labels: Mapping[str, str]) -> str:
    """The argument that carries the labels."""
    return MARK + urlencode(dict(labels))


def started(pid: int) -> int | None:
    """When a process began, in the kernel's ticks; None if there is none."""
    fields = _stat(pid)
    return None if fields is None or fields[0] == "Z" else int(fields[19])


def labelled() -> Iterator[Process]:
    """Every sandbox on this machine."""
    marks: dict[int, str] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            found = _mark_of(int(entry.name))
            if found is not None:
                marks[int(entry.name)] = found
    for pid, found in marks.items():
        fields = _stat(pid)
        if fields is None or fields[0] == "Z" or int(fields[1]) in marks:
            continue  # gone, or the inside of another one listed
        labels = dict(parse_qsl(found.removeprefix(MARK), keep_blank_values=True))
        yield Process(pid, int(fields[19]), labels)


def is_sandbox(pid: int, began: int) -> bool:
    return started(pid) == began and _mark_of(pid) is not None


def strike(pid: int, *, own_pids: bool) -> None:
    """Sends the signal that ends a sandbox.

    With a pid namespace to its first process: the kernel ends that only after
    everything inside has ended, and the outer process only then.
    """
    for target in (_children(pid) if own_pids else []) or [pid]:
        send_kill(target)


async def kill(pid: int, *, own_pids: bool) -> None:
    """Kills a sandbox that is not ours to wait for; returns when all of it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(pidfd, gone.set)
    try:
        strike(pid, own_pids=own_pids)
        with suppress(TimeoutError):
            async with asyncio.timeout(INNER_DEATH_S_MAX):
                await gone.wait()
        if not gone.is_set():
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            await gone.wait()
    except ProcessLookupError:
        pass
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def sweep(token: str) -> None:
    """Without namespaces: kills whatever carries this sandbox's environment."""
    needle = f"{ENV_MARK}={token}\0".encode()
    for _ in range(SWEEPS_MAX):
        found = [
            int(entry.name)
            for entry in os.scandir("/proc")
            if entry.name.isdecimal() and needle in _read(entry.path + "/environ")
        ]
        if not found:
            return
        for pid in found:
            send_kill(pid)


def inner(pid: int) -> list[tuple[int, int]]:
    """The processes right below, with their start times."""
    found = [(child, started(child)) for child in _children(pid)]
    return [(child, began) for child, began in found if began is not None]


def send_kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    listed = _read(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.split()]


def _mark_of(pid: int) -> str | None:
    if MARK.encode() not in (line := _read(f"/proc/{pid}/cmdline")):
        return None
    for argument in line.split(b"\0"):
        if argument.startswith(MARK.encode()):
            return argument.decode(errors="replace")
    return None


def _stat(pid: int) -> list[str] | None:
    """The fields after the name: [0] state, [1] parent, [19] start time."""
    line = _read(f"/proc/{pid}/stat").decode(errors="replace")
    return line.rpartition(")")[2].split() if line else None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
