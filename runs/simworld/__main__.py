"""python -m runs.simworld --config FILE

Prints "ready <address>" when it listens. Ends on SIGTERM, on `finish`, or when its
lifetime is over; always closes the truth first. Exit status 3: truth was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runs.simworld.config import WorldConfig
from runs.simworld.engine import Engine
from runs.simworld.server import Connection, Pending, WorldServer
from runs.simworld.timers import Clock, Timers
from runs.simworld.truth import TruthWriter

TRUTH_FLUSH_S = 15
TRUTH_RETRY_S = 120
NICE = -15  # before the agents: a Provider does not wait for its customers
EXIT_CONFIG = 2
EXIT_TRUTH_LOST = 3
VENDOR_NICENESS = 10
LISTEN_BACKLOG = 4_096

log = logging.getLogger("runs.simworld")


class Process:
    """The world's process: start, serve, end."""

    def __init__(self, config: WorldConfig) -> None:
        self._config = config
        clock = Clock(config.clock)
        self._timers = Timers(clock)
        self._truth = TruthWriter(
            config.truth_urls,
            config.truth_dir,
            sandbox_count=config.sandbox_count,
            retry_for_s=TRUTH_RETRY_S,
        )
        self._engine = Engine(config, clock, self._timers, self._truth.add)
        self._server = WorldServer(
            self._engine,
            self._timers,
            config.secret,
            stats=self._stats,
            on_finish=self._finish_asked,
        )
        self._close: Callable[[], Any] = _nothing
        self._over = asyncio.Event()
        self._waiting: list[Pending] = []

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._over.set)
        self._announce(await self._listen())
        flusher = loop.create_task(self._flush_truth())
        try:
            async with asyncio.timeout(self._config.lifetime_s):
                await self._over.wait()
        except TimeoutError:
            log.warning("lifetime of %s s is over", self._config.lifetime_s)
        flusher.cancel()
        self._engine.end()
        await self._truth.finish()
        for pending in self._waiting:
            pending.ok(self._stats())
        await asyncio.sleep(self._config.linger_s)
        await self._close()
        self._timers.close()
        return EXIT_TRUTH_LOST if self._truth.failed else 0

    def _announce(self, address: str) -> None:
        if self._config.pid_file is not None:
            Path(self._config.pid_file).write_text(f"{os.getpid()}\n")
        print(f"ready {address}", flush=True)

    async def _listen(self) -> str:
        if self._config.vendor:
            return await self._listen_as_vendor()
        listener, address = await self._listen_as_world()

        async def close() -> None:
            listener.close()
            for connection in list(self._server.connections):
                connection.close()
            await asyncio.sleep(0)  # lets the last bytes leave

        self._close = close
        return address

    async def _listen_as_vendor(self) -> str:
        from runs.simcloud.cloud import Cloud
        from runs.simcloud.web import serve

        config = self._config
        # A vendor's wire costs much more CPU than our own, and that would be the
        # agents': so it goes after them.
        os.nice(VENDOR_NICENESS)
        count = config.sandbox_count
        cloud = Cloud(self._engine, self._timers, config.secret, count)
        address, self._close = await serve(config.vendor, cloud, config.listen)
        return address

    async def _listen_as_world(self) -> tuple[asyncio.Server, str]:
        loop = asyncio.get_running_loop()
        listen = self._config.listen

        def connection() -> Connection:
            return Connection(self._server)

        if listen.startswith("unix:"):
            path = listen.removeprefix("unix:")
            server = await loop.create_unix_server(
                connection, path, backlog=LISTEN_BACKLOG
            )
            return server, listen
        host, _, port = listen.rpartition(":")
        server = await loop.create_server(
            connection, host, int(port), backlog=LISTEN_BACKLOG
        )
        host, port = server.sockets[0].getsockname()[:2]
        return server, f"{host}:{port}"

    def _finish_asked(self, pending: Pending) -> None:
        self._waiting.append(pending)
        self._over.set()

    async def _flush_truth(self) -> None:
        while True:
            await asyncio.sleep(TRUTH_FLUSH_S)
            self._truth.flush_early()

    def _stats(self) -> dict[str, Any]:
        return {
            "run": self._config.run,
            "living": self._engine.living(),
            "counts": self._engine.counts,
            "truth_lines": self._truth.lines,
            "truth_segments": self._truth.segments,
            "truth_stored": self._truth.stored,
            "truth_failed": self._truth.failed,
            "connections": len(self._server.connections),
            "cpu_s": time.process_time(),
        }


async def _nothing() -> None:
    """Nothing listens yet."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m runs.simworld")
    parser.add_argument("--config", required=True, help="a JSON file")
    path = Path(parser.parse_args().config)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    try:
        config = WorldConfig.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        print(f"cannot use {path}: {error}", file=sys.stderr)
        return EXIT_CONFIG
    with contextlib.suppress(PermissionError):  # a late answer is a wrong one
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    # Lives hold no cycles, and a collector that looks at as many stops the world.
    gc.disable()
    return asyncio.run(_serve(config))


async def _serve(config: WorldConfig) -> int:
    return await Process(config).run()


if __name__ == "__main__":
    sys.exit(main())
