"""Sandboxes that are real process trees of this machine, isolated by the kernel.

The control plane of this Provider is this module: `sent` is called when it accepts a
request, so starting many at once, one after the other, is part of the latency.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from uuid import uuid4
from weakref import WeakKeyDictionary

from shardagent.errors import Cause, ConfigError, Origin, ProviderError
from shardagent.providers import local_processes as processes
from shardagent.providers.base import About, Answer, Created, Listed, Sent, Wanted
from shardagent.providers.local_init import MESSAGE_BYTES_MAX
from shardagent.providers.local_isolation import (
    Isolation,
    Level,
    detect_isolation,
    environment,
    init_command,
)
from shardagent.wire import Plan

__all__ = [
    "READY_COMMAND",
    "READY_EXPECT",
    "Isolation",
    "Level",
    "LocalProvider",
    "detect_isolation",
]

READY_COMMAND = ("sh", "-c", "echo ready")
READY_EXPECT = "^ready"

SLICE_S = 0.01  # starting and killing block the loop; little longer at a time
BREATH_S = 0.001  # between slices, so that timers and sockets get their turn
SANDBOX_NICENESS = 5  # what is measured must not starve what measures
ARGUMENT_BYTES_MAX = 100 * 1024
STDERR_BYTES_MAX = 500


class LocalProvider:
    """config: `isolation` (a Level) to force one; else the strongest there is."""

    slug = "local"
    about = About(
        title="Local processes on this machine",
        waits_for="the sandbox's init process to answer",
        plan={
            "ready_command": [*READY_COMMAND],
            "ready_expect": READY_EXPECT,
            "spec": {"cpu": 1, "memory_mb": 64},
        },
        maps=frozenset({"memory_mb"}),
    )
    supports_witness = True
    connect_us: int | None = None  # there is nothing to connect to

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        self._run = plan.code or "run"
        self._memory_mb = plan.spec.memory_mb
        try:
            forced = config.get("isolation")
            self._level = Level(forced) if forced else detect_isolation().level
        except ValueError:
            raise ConfigError(f"unknown isolation {forced!r}") from None
        self._sandboxes: dict[str, _Sandbox] = {}
        self._starting: set[_Sandbox] = set()
        self._closed = False

    async def warm(self, connections: int) -> int:
        """There is nothing to connect to; what is asked for is there."""
        return connections

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        if self._closed:
            raise _harness("the provider is closed")
        command = init_command(
            self._level,
            [
                processes.mark(wanted.labels),
                str(wanted.ttl_s),
                str(wanted.spec.get("memory_mb", self._memory_mb)),
            ],
        )
        sandbox = _Sandbox(own_pids=self._level is not Level.PROCESS_GROUP)
        self._starting.add(sandbox)
        sent()
        try:
            await _turns().take(lambda: sandbox.spawn(command))
            await sandbox.up()
            provider_id = sandbox.provider_id(self._run, wanted.sandbox)
        except BaseException:
            await asyncio.shield(sandbox.kill())
            raise
        finally:
            self._starting.discard(sandbox)
        self._sandboxes[provider_id] = sandbox
        sandbox.on_gone = lambda: self._sandboxes.pop(provider_id, None)
        return Created(provider_id, reused=True)

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        return await self._living(provider_id).run(command, None, sent, timeout_s)

    async def start_witness(self, provider_id: str, nonce: str, sent: Sent) -> None:
        await self._living(provider_id).start_witness(nonce, sent)

    async def probe(
        self,
        provider_id: str,
        command: Sequence[str],
        challenge: str | None,
        sent: Sent,
        timeout_s: float,
    ) -> Answer:
        sandbox = self._living(provider_id)
        return await sandbox.run(command, challenge, sent, timeout_s)

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        sent()
        sandbox = self._sandboxes.get(provider_id)
        if sandbox is not None:
            await sandbox.kill()
            return
        pid, began = _parse(provider_id)
        if processes.is_sandbox(pid, began):
            await processes.kill(pid, own_pids=self._level is not Level.PROCESS_GROUP)

    async def list(self, labels: Mapping[str, str]) -> list[Listed]:
        """All of this machine, whichever agent started them."""
        found = await asyncio.to_thread(lambda: [*processes.labelled()])
        return [
            Listed(
                _provider_id(
                    process.labels.get("run", self._run),
                    process.labels.get("sandbox", "0"),
                    process.pid,
                    process.started,
                ),
                process.labels,
            )
            for process in found
            if labels.items() <= process.labels.items()
        ]

    async def close(self) -> None:
        self._closed = True
        living = [*self._sandboxes.values(), *self._starting]
        await asyncio.gather(*(sandbox.kill() for sandbox in living))

    def _living(self, provider_id: str) -> _Sandbox:
        sandbox = self._sandboxes.get(provider_id)
        if sandbox is not None:
            return sandbox
        pid, began = _parse(provider_id)
        if processes.is_sandbox(pid, began):
            raise _harness("the sandbox answers only to the agent that started it")
        raise _gone()


class _Sandbox:
    """One sandbox of ours: its outer process and the socket to its init."""

    def __init__(self, *, own_pids: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._own_pids = own_pids
        self._token = uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._pidfd = -1
        self._stderr = -1
        self._inner: list[tuple[int, int]] = []
        self._next_id = 0
        self._calls: dict[bytes, asyncio.Future[list[bytes]]] = {}
        self._up: asyncio.Future[None] = self._loop.create_future()
        self._exited = asyncio.Event()
        self._doomed = False
        self.on_gone: Callable[[], object] = lambda: None

    def spawn(self, command: Sequence[str]) -> None:
        """Starts it; called in the loop's thread, as the death signal is tied to it."""
        if self._doomed:
            raise _gone()
        self._stderr = os.memfd_create("stderr")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                env={**environment(), processes.ENV_MARK: self._token},
                start_new_session=True,
            )
        except OSError:
            ours.close()
            os.close(self._stderr)
            raise
        finally:
            theirs.close()
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, SANDBOX_NICENESS)
        self._control = ours
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(ours, self._readable)
        self._loop.add_reader(self._pidfd, self._reap)

    async def up(self) -> None:
        """Returns when the init inside runs."""
        await self._up

    def provider_id(self, run: str, sandbox: int) -> str:
        assert self._process is not None
        began = processes.started(self._process.pid)
        if began is None:
            raise _gone()
        return _provider_id(run, str(sandbox), self._process.pid, began)

    async def run(
        self,
        command: Sequence[str],
        challenge: str | None,
        sent: Sent,
        timeout_s: float,
    ) -> Answer:
        timeout_ms = str(max(1, int(timeout_s * 1_000)))
        fields = await self._call(sent, "run", timeout_ms, challenge or "", *command)
        code, ticks, digest, output = fields
        if code == b"timeout":
            raise ProviderError(
                Cause.TIMEOUT, Origin.PROVIDER, f"not done within {timeout_s} s"
            )
        return Answer(
            int(code),
            output.decode(errors="replace"),
            ticks=int(ticks) if ticks else None,
            digest=digest.decode() or None,
        )

    async def start_witness(self, nonce: str, sent: Sent) -> None:
        code, *_ = await self._call(sent, "witness", nonce)
        if code != b"0":
            raise ProviderError(
                Cause.PROVIDER_ERROR, Origin.PROVIDER, "the witness did not start"
            )

    async def kill(self) -> None:
        """Ends the whole tree and waits until nothing of it is left."""
        self._doomed = True
        if self._process is None:
            return
        await _turns().take(self._strike)
        with suppress(TimeoutError):
            async with asyncio.timeout(processes.INNER_DEATH_S_MAX):
                await self._exited.wait()
        if not self._exited.is_set():
            self._process.kill()
            await self._exited.wait()
        if not self._own_pids:
            await asyncio.to_thread(processes.sweep, self._token)

    def _strike(self) -> None:
        assert self._process is not None
        if not self._exited.is_set():
            processes.strike(self._process.pid, own_pids=self._own_pids)

    async def _call(self, sent: Sent, verb: str, *fields: str) -> list[bytes]:
        if self._control is None:
            raise _gone()
        self._next_id += 1
        request_id = str(self._next_id).encode()
        packed = [field.encode() for field in fields]
        message = b"\0".join([verb.encode(), request_id, *packed])
        if message.count(b"\0") != len(fields) + 1 or len(message) > ARGUMENT_BYTES_MAX:
            raise ProviderError(
                Cause.INVALID_REQUEST, Origin.HARNESS, "argument with NUL or too long"
            )
        answer: asyncio.Future[list[bytes]] = self._loop.create_future()
        self._calls[request_id] = answer
        try:
            sent()
            self._send(message)
            return await answer
        except asyncio.CancelledError:
            with suppress(ProviderError):
                self._send(b"cancel\0" + request_id)
            raise
        finally:
            self._calls.pop(request_id, None)

    def _send(self, message: bytes) -> None:
        try:
            if self._control is None:
                raise _gone()
            self._control.send(message)
        except BlockingIOError:
            raise ProviderError(
                Cause.PROVIDER_ERROR, Origin.PROVIDER, "the sandbox takes no commands"
            ) from None
        except OSError as error:
            raise _gone() from error

    def _readable(self) -> None:
        assert self._control is not None
        try:
            message = self._control.recv(MESSAGE_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._lose()
        elif message == b"up":
            if not self._up.done():
                self._up.set_result(None)
            assert self._process is not None
            if self._own_pids:
                self._inner = processes.inner(self._process.pid)
        else:
            request_id, *fields = message.split(b"\0", 4)
            answer = self._calls.get(request_id)
            if answer is not None and not answer.done():
                answer.set_result(fields)

    def _lose(self) -> None:
        """The init is gone, and with it the sandbox."""
        if self._control is None:
            return
        self._loop.remove_reader(self._control)
        self._control.close()
        self._control = None
        if not self._up.done():
            self._up.set_exception(self._did_not_start())
            self._up.exception()  # may have been given up by its caller
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(_gone())

    def _reap(self) -> None:
        assert self._process is not None
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()
        self._lose()
        os.close(self._stderr)
        self._bury()

    def _bury(self) -> None:
        """Is over only when nothing is left: if somebody killed the outer process,
        the kernel ends the inner one a moment later."""
        left = [pid for pid, began in self._inner if processes.started(pid) == began]
        if left:
            for pid in left:
                processes.send_kill(pid)
            self._loop.call_later(BREATH_S, self._bury)
            return
        self._exited.set()
        self.on_gone()
        if not self._own_pids:
            self._loop.run_in_executor(None, processes.sweep, self._token)

    def _did_not_start(self) -> ProviderError:
        said = os.pread(self._stderr, STDERR_BYTES_MAX, 0).decode(errors="replace")
        return ProviderError(
            Cause.PROVIDER_ERROR, Origin.PROVIDER, said.strip() or "did not start"
        )


class _Turns:
    """Does blocking acts in slices, so that the loop breathes between them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[None], Callable[[], None]]] = deque()

    async def take(self, act: Callable[[], None]) -> None:
        done: asyncio.Future[None] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._slice)
        self._waiting.append((done, act))
        await done

    def _slice(self) -> None:
        until = time.monotonic() + SLICE_S
        while self._waiting and time.monotonic() < until:
            done, act = self._waiting.popleft()
            if done.done():  # given up while it waited
                continue
            try:
                act()
            except ProviderError as error:
                done.set_exception(error)
            except OSError as error:
                done.set_exception(_harness(f"cannot start a process: {error}"))
            else:
                done.set_result(None)
        if self._waiting:
            self._loop.call_later(BREATH_S, self._slice)


_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


def _turns() -> _Turns:
    """One per loop: several Shards of one process share its time."""
    loop = asyncio.get_running_loop()
    found = _TURNS.get(loop)
    if found is None:
        found = _TURNS[loop] = _Turns()
    return found


def _provider_id(run: str, sandbox: str, pid: int, began: int) -> str:
    return f"local-{run}-{sandbox}-{pid}-{began}"


def _parse(provider_id: str) -> tuple[int, int]:
    """Pid and start time; the latter guards against a pid used anew."""
    try:
        _, pid, began = provider_id.rsplit("-", 2)
        return int(pid), int(began)
    except ValueError:
        raise ProviderError(
            Cause.INVALID_REQUEST, Origin.HARNESS, "not a local sandbox's id"
        ) from None


def _gone() -> ProviderError:
    return ProviderError(Cause.NOT_FOUND, Origin.PROVIDER, "the sandbox is gone")


def _harness(message: str) -> ProviderError:
    return ProviderError(Cause.HARNESS, Origin.HARNESS, message)
