"""What really was, written to the bucket as segments of compressed lines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import aiohttp
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential_jitter,
)

from runs.simworld.config import truth_urls_needed
from shardagent import zstd

SEGMENT_BYTES_MAX = 1_048_576  # before compression (raw-format.md)
UPLOAD_TIMEOUT_S = 30
RETRY_WAIT_MAX_S = 10
ZSTD_LEVEL = 3

log = logging.getLogger(__name__)


class StoreError(Exception):
    """A segment was not taken, or there is no URL left for it."""


class TruthWriter:
    """Collects lines, cuts segments, stores each once under its own key.

    Without an object store `directory` takes the segments as files.
    """

    def __init__(
        self,
        urls: Sequence[str],
        directory: str | None,
        *,
        sandbox_count: int,
        retry_for_s: float,
    ) -> None:
        self._urls = list(urls)
        self._directory = None if directory is None else Path(directory)
        self._sandbox_count = sandbox_count
        self._retry_for_s = retry_for_s
        self._lines: list[bytes] = []
        self._size = 0
        self._waiting: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.lines = 0
        self.segments = 0
        self.stored = 0
        self.failed = 0

    def add(self, line: bytes) -> None:
        """Takes one line, with its line feed."""
        if self._size + len(line) > SEGMENT_BYTES_MAX:
            self._cut()
        self._lines.append(line)
        self._size += len(line)
        self.lines += 1

    def flush_early(self) -> None:
        """Stores an unfinished segment, if URLs are plentiful enough for that."""
        still = max(0, self._sandbox_count - self.lines)
        left = len(self._urls) - self.segments
        enough = self._directory is not None or left > truth_urls_needed(still) // 2
        if self._lines and enough:
            self._cut()

    async def finish(self) -> None:
        """Stores the rest and waits until all of it is there, or is given up."""
        if self._lines:
            self._cut()
        await self._waiting.join()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _cut(self) -> None:
        body = b"".join(self._lines)
        self._lines.clear()
        self._size = 0
        self._waiting.put_nowait((self.segments, body))
        self.segments += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._store_all())

    async def _store_all(self) -> None:
        timeout = aiohttp.ClientTimeout(total=UPLOAD_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                seq, body = await self._waiting.get()
                try:
                    await self._store(session, seq, body)
                    self.stored += 1
                except (
                    StoreError,
                    aiohttp.ClientError,
                    OSError,
                    TimeoutError,
                ) as error:
                    self.failed += 1
                    log.error("truth segment %d is lost: %s", seq, error)
                finally:
                    self._waiting.task_done()

    async def _store(
        self, session: aiohttp.ClientSession, seq: int, body: bytes
    ) -> None:
        packed = await asyncio.to_thread(_compress, body)
        if self._directory is not None:
            path = self._directory / f"truth-{seq:06d}.ndjson.zst"
            await asyncio.to_thread(path.write_bytes, packed)
            return
        if seq >= len(self._urls):
            raise StoreError(f"only {len(self._urls)} URLs were given")
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(
                (StoreError, aiohttp.ClientError, OSError, TimeoutError)
            ),
            wait=wait_exponential_jitter(initial=0.2, max=RETRY_WAIT_MAX_S),
            stop=stop_after_delay(self._retry_for_s),
            reraise=True,
        ):
            with attempt:
                async with session.put(self._urls[seq], data=packed) as answer:
                    if answer.status >= 300:
                        raise StoreError(f"HTTP {answer.status}")


def _compress(body: bytes) -> bytes:
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: ZSTD_LEVEL,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    return zstd.compress(body, options=options)
