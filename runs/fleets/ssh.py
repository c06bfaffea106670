"""The operator's own hosts, over SSH: the agent is copied there, run, and cleaned up.

A host needs sshd, a POSIX shell, coreutils and Python of the site's version; no
registry and no root. Everything of a Run lies in one folder, and each agent runs under
a timer of its own, so that a host that is cut off ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import threading
from collections import Counter
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Sequence,
)
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from runs.errors import FleetError
from runs.fleets.accounts import SshAccount, SshHost, account
from runs.fleets.base import (
    Launched,
    Machine,
    MachineState,
    Order,
    Wheelhouse,
    useful,
)

log = logging.getLogger(__name__)

CONNECT_LIMIT_S = 5.0
COMMAND_LIMIT_S = 8.0
COPY_LIMIT_S = 90.0  # the archive
INSTALL_LIMIT_S = 90.0
CALL_LIMIT_S = 140.0  # one launch, list or kill over all hosts
HOSTS_AT_ONCE = 64
KEEPALIVE_S = 10
OUTPUT_SHOWN_MAX = 300  # characters
_SCRIPTS = Path(__file__).with_name("scripts")
_AWAY = (OSError, asyncssh.Error, TimeoutError)
T = TypeVar("T")


def open_fleet() -> SshFleet:
    return SshFleet(account("ssh", SshAccount))


@dataclass(frozen=True, slots=True)
class _Seen:
    """One host as it was found: slots in use, by Run."""

    host: SshHost
    slots: Collection[tuple[str, str]] = ()  # (run, slot) whose agents run
    folders: Collection[str] = ()  # Runs that have left something there
    why: str = ""  # it could not be reached


class SshFleet:
    look_interval_s = 3.0

    def __init__(self, hosts: SshAccount) -> None:
        self._account = hosts
        self._scripts = "\n".join(
            (_SCRIPTS / name).read_text() for name in ("agent.sh", "host.sh")
        )
        self._connections: dict[str, asyncssh.SSHClientConnection] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    # What a driver does.

    def launch(self, order: Order) -> Launched:
        seen = self._each(self._look)
        there = _machines(seen, order.run)
        short = order.machines - len(useful(there, order.written_off))
        chosen = _choose(seen, order, max(short, 0))
        if not chosen:
            return Launched(there, refused=_refused(seen, max(short, 0)))
        wheels = order.wheelhouse()

        async def start(host: SshHost) -> str:
            slots = chosen.get(host.name, ())
            return await self._start(host, order, wheels, slots) if slots else ""

        failures = {host.name: why for host, why in self._each_of(start) if why}
        started = 0
        refused: dict[str, int] = {}
        for name, slots in chosen.items():
            why = failures.get(name)
            if why:
                refused[why] = refused.get(why, 0) + len(slots)
                continue
            started += len(slots)
            there += [_machine(self._host(name), slot) for slot in slots]
        missing = max(short, 0) - sum(len(slots) for slots in chosen.values())
        return Launched(there, started, {**_refused(seen, missing), **refused})

    def list(self, run: str) -> list[Machine]:
        return _machines(self._each(self._look), run)

    def kill(
        self, run: str, ids: Collection[str] | None = None, *, hard: bool = False
    ) -> int:
        async def end(host: SshHost) -> int:
            slots = [i.rpartition(".")[2] for i in ids or () if _is_of(i, host)]
            if ids is not None and not slots:
                return 0
            words = [
                f'"$HF_ROOT/{run}"',
                "KILL" if hard else "TERM",
                shlex.quote(" ".join(slots)),
            ]
            try:
                said = await self._run(host, f"hf_kill {' '.join(words)}")
            except (*_AWAY, FleetError):
                return 0  # its own timer ends it
            return said.count("told ")

        return sum(told for _, told in self._each_of(end))

    def runs(self) -> set[str]:
        return {run for seen in self._each(self._look) for run in seen.folders}

    def usd_per_h(self, machines: Iterable[Machine]) -> float | None:
        return None

    # On one host.

    async def _look(self, host: SshHost) -> _Seen:
        try:
            said = await self._run(host, 'hf_list "$HF_ROOT"')
        except (*_AWAY, FleetError) as error:
            return _Seen(host, why=_told(host, error))
        rows = [line.split() for line in said.splitlines() if len(line.split()) == 3]
        return _Seen(
            host,
            slots={(run, slot) for run, slot, state in rows if state == "running"},
            folders={run for run, _, _ in rows},
        )

    async def _start(
        self, host: SshHost, order: Order, wheels: Wheelhouse, slots: Iterable[str]
    ) -> str:
        """Empty, or why the host carries nothing."""
        folder = f"{host.folder}/{order.run}"
        settings = {
            "HF_SITE": order.site_url,
            "HF_RUN": order.run,
            "HF_NAME": host.name,
            "HF_LIFETIME_S": str(order.lifetime_s),
            "HOLDFAST_AGENT_TOKEN": order.token,
            "HOLDFAST_MACHINE_NODE": host.name,
            "HOLDFAST_MACHINE_TYPE": host.type,
            "HOLDFAST_MACHINE_REGION": host.region,
            "HOLDFAST_MACHINE_ZONE": host.zone,
        }
        lines = [f"export {k}={shlex.quote(v)}" for k, v in settings.items()]
        run = f'"$HF_ROOT/{order.run}"'
        archive = f"{run}/agent.tar.gz"
        lines += [f"hf_install {archive} {wheels.sha256} {run}/agent"]
        lines += [f"hf_start {run} {shlex.quote(slot)}" for slot in slots]
        try:
            await self._copy(host, wheels, folder)
            await self._run(host, "\n".join(lines), limit_s=INSTALL_LIMIT_S)
        except (*_AWAY, FleetError) as error:
            return _told(host, error)
        return ""

    async def _copy(self, host: SshHost, wheels: Wheelhouse, folder: str) -> None:
        connection = await self._connection(host)
        async with asyncio.timeout(COPY_LIMIT_S):
            async with connection.start_sftp_client() as sftp:
                await sftp.makedirs(folder, exist_ok=True)
                await sftp.chmod(folder, 0o700)
                target = f"{folder}/agent.tar.gz"
                if await sftp.exists(target):
                    return
                await sftp.put(str(wheels.path), f"{target}.part")
                await sftp.posix_rename(f"{target}.part", target)

    async def _run(
        self, host: SshHost, command: str, *, limit_s: float = COMMAND_LIMIT_S
    ) -> str:
        """Its output; secrets go in by stdin, a command line is for all to read."""
        connection = await self._connection(host)
        head = (
            f"HF_PYTHON={shlex.quote(self._account.python)}\nHF_ROOT={host.folder}\n"
            'case "$HF_ROOT" in /*) ;; *) HF_ROOT="$HOME/$HF_ROOT" ;; esac\n'
        )
        text = f"{head}{self._scripts}\n{command}\n"
        try:
            async with asyncio.timeout(limit_s):
                done = await connection.run("sh -s", input=text, check=False)
        except _AWAY:
            self._connections.pop(host.name, None)
            connection.abort()
            raise
        if done.exit_status != 0:
            said = str(done.stderr or "").strip().splitlines()[-1:] or ["no word"]
            raise FleetError(f"status {done.exit_status}: {said[0][:OUTPUT_SHOWN_MAX]}")
        return str(done.stdout or "")

    async def _connection(self, host: SshHost) -> asyncssh.SSHClientConnection:
        known = self._connections.get(host.name)
        if known is not None and not known.is_closed():
            return known
        own: dict[str, Any] = {}
        if self._account.key is not None:
            own["client_keys"] = [str(self._account.key)]
        if self._account.known_hosts is not None:
            own["known_hosts"] = str(self._account.known_hosts)
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                made = await asyncssh.connect(
                    host.address,
                    host.port,
                    username=host.user,
                    keepalive_interval=KEEPALIVE_S,
                    config=None,
                    **own,
                )
        except ValueError as error:  # its key errors are of no other kind
            raise FleetError(f"the key cannot be used: {error}") from error
        self._connections[host.name] = made
        return made

    # Many hosts at once, on one loop that outlives the call.

    def _each(self, ask: Callable[[SshHost], Awaitable[T]]) -> Sequence[T]:
        return [value for _, value in self._each_of(ask)]

    def _each_of(
        self, ask: Callable[[SshHost], Awaitable[T]]
    ) -> Sequence[tuple[SshHost, T]]:
        async def together() -> Sequence[T]:
            room = asyncio.Semaphore(HOSTS_AT_ONCE)

            async def one(host: SshHost) -> T:
                async with room:
                    return await ask(host)

            return await asyncio.gather(*(one(host) for host in self._account.hosts))

        found = self._wait(together())
        return [*zip(self._account.hosts, found, strict=True)]

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                run = self._loop.run_forever
                threading.Thread(target=run, name="ssh fleet", daemon=True).start()
        waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waiting.result(CALL_LIMIT_S)
        except FutureTimeout:
            waiting.cancel()
            raise FleetError(
                f"the hosts did not answer in {CALL_LIMIT_S:g} s"
            ) from None

    def _host(self, name: str) -> SshHost:
        return next(host for host in self._account.hosts if host.name == name)


def _choose(seen: Iterable[_Seen], order: Order, short: int) -> dict[str, list[str]]:
    """host → slots to start: the emptiest host first, none beyond its capacity."""
    chosen: dict[str, list[str]] = {}
    rooms: dict[str, list[str]] = {}
    for found in seen:
        if found.why:
            continue
        taken = {slot for _, slot in found.slots}
        gone = {i for i in order.written_off if _is_of(i, found.host)}
        names = [str(n) for n in range(found.host.capacity + len(gone))]
        free = [
            name
            for name in names
            if name not in taken and f"{found.host.name}.{name}" not in gone
        ]
        rooms[found.host.name] = free[: max(0, found.host.capacity - len(taken))]
    for _ in range(short):
        name = max(rooms, key=lambda n: len(rooms[n]), default=None)
        if name is None or not rooms[name]:
            break
        chosen.setdefault(name, []).append(rooms[name].pop(0))
    return chosen


def _refused(seen: Iterable[_Seen], missing: int) -> dict[str, int]:
    if missing <= 0:
        return {}
    away = Counter(found.why for found in seen if found.why)
    full = "no host has room for one more agent"
    return {why: min(n, missing) for why, n in away.items()} or {full: missing}


def _machines(seen: Iterable[_Seen], run: str) -> list[Machine]:
    machines = []
    for found in seen:
        host = found.host
        if found.why:
            away = _machine(host, "?", MachineState.UNREACHABLE, found.why)
            machines.append(away)
        machines += [_machine(host, slot) for of, slot in found.slots if of == run]
    return machines


def _machine(
    host: SshHost,
    slot: str,
    state: MachineState = MachineState.RUNNING,
    why: str = "",
) -> Machine:
    return Machine(
        f"{host.name}.{slot}", state, host.type, host.region, host.zone, why=why
    )


def _is_of(machine: str, host: SshHost) -> bool:
    return machine.rpartition(".")[0] == host.name


def _told(host: SshHost, error: BaseException) -> str:
    """Why a host carries nothing. Reasons may be published: no name, no address."""
    log.warning("host %s (%s): %r", host.name, host.address, error)
    if isinstance(error, FleetError):
        return f"a host: {error}"[:OUTPUT_SHOWN_MAX]
    number = getattr(error, "errno", None)
    said = os.strerror(number) if number else type(error).__name__
    return f"a host is out of reach ({said})"
