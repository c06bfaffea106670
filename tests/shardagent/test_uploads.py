"""Thousands of Shards in one process: flushed in time, and a few of them in a turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from shardagent import uploads as module
from shardagent.clock import Clock
from shardagent.scrub import Scrubber
from shardagent.spool import ShardSpool, Spool, Stream
from shardagent.uploads import Uploads
from shardagent.wire import Lease, UploadUrl, UrlWish

SHARDS = 9
INTERVAL_S = 12.0  # looked at FLUSH_TICKS times, so in three turns of 0.2 s


class QuietSite:
    """Gives every URL that is wished for, and says nothing else."""

    heard_us: int | None = None

    async def urls(self, wishes: list[UrlWish]) -> list[UploadUrl]:
        return [
            UploadUrl(
                shard=wish.shard,
                attempt=wish.attempt,
                kind=wish.kind,
                seq=wish.first_seq,
                url="http://store/",
            )
            for wish in wishes
        ]


class TakesAll:
    """A session whose store takes whatever is put."""

    status = 200

    @asynccontextmanager
    async def put(self, *_: object, **__: object) -> AsyncIterator[TakesAll]:
        await asyncio.sleep(0)
        yield self

    async def read(self) -> bytes:
        return b""


def spools_in(folder: Path) -> list[ShardSpool]:
    spool = Spool(folder, "alpha-1")
    return [
        spool.open(Lease(shard=shard, attempt=0), Scrubber([]))
        for shard in range(SHARDS)
    ]


async def test_each_is_flushed_soon_and_never_all_in_one_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    spools = spools_in(tmp_path)
    turns: list[list[int]] = []
    really = module.flush_together

    async def flush_together(due: list[tuple[ShardSpool, list[Stream]]]) -> None:
        turns.append([spool.lease.shard for spool, _ in due])
        await really(due)

    monkeypatch.setattr(module, "flush_together", flush_together)
    async with asyncio.TaskGroup() as tasks:
        uploads = Uploads(
            cast(Any, QuietSite()),
            cast(Any, None),
            clock,
            tasks,
            flush_interval_s=INTERVAL_S,
        )
        for spool in spools:
            uploads.add(spool)
            spool.log(clock.now_us() - 120_000_000, "INFO", "long ago")
        flushing = tasks.create_task(uploads.flush())
        async with asyncio.timeout(5):
            while any(s.lines.oldest_us is not None for s in spools):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        flushing.cancel()
    assert sorted(sum(turns, [])) == list(range(SHARDS))
    assert [len(turn) for turn in turns] == [SHARDS // 3] * 3


async def test_who_waits_for_his_own_record_looks_at_his_own_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Woken by everybody's, thousands of Shards look at thousands of segments each."""
    clock = Clock()
    spools = spools_in(tmp_path)
    looks = Counter[int]()
    really = ShardSpool.stored.fget
    assert really is not None

    def stored(spool: ShardSpool) -> bool:
        looks[spool.lease.shard] += 1
        return bool(really(spool))

    async with asyncio.TaskGroup() as tasks:
        uploads = Uploads(
            cast(Any, QuietSite()),
            cast(Any, TakesAll()),
            clock,
            tasks,
            flush_interval_s=INTERVAL_S,
        )
        for spool in spools:
            uploads.add(spool)
            spool.log(clock.now_us(), "INFO", "to be stored")
            await spool.flush()
        monkeypatch.setattr(ShardSpool, "stored", property(stored))
        waiting = [tasks.create_task(uploads.stored(spool)) for spool in spools]
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        asking = tasks.create_task(uploads.run())
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        asking.cancel()
    assert dict(looks) == dict.fromkeys(range(SHARDS), 2)  # at first, and at the end
