"""The site that bench/pages.py looks at: a sealed Run and one that is held for ever.

    python -m bench.pages_site DATA SANDBOXES LINES

Prints one JSON line when its pages can be read, and leaves when its stdin closes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from bench.ingest_memory import report
from bench.records import T0_US, Written, plan_of, write
from bench.site_process import settle, site_at_rest
from shardagent import zstd
from shardagent.wire import Plan, segment_key

SEALED, LIVE = "bench-sealed", "bench-live"
SEGMENTS_PER_SHARD = 1
SHARDS_PER_HOST = 100
SEGMENT_LINES = 10_000
NEEDLE = "the needle"
HELD_FOR_US = 30_000_000  # of the live Run's hold, when it is looked at first


def main() -> None:
    data, sandboxes, lines = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    bucket = data / "objects" / "raw"
    written = write(bucket, plan_of(SEALED, sandboxes), SEGMENTS_PER_SHARD)
    _copy(bucket, plan_of(LIVE, sandboxes))
    _log(bucket, lines)
    with site_at_rest(data):
        from django.conf import settings

        from runs.operators import operator, sign_in_path
        from runs.rebuild import rebuild

        rebuild(SEALED)
        _hold(plan_of(LIVE, sandboxes), written)
        settle()
        found = {
            "url": settings.SITE_URL,
            "sign_in": f"{settings.SITE_URL}{sign_in_path(operator('bench'))}",
            "pid": os.getpid(),
            "lines": lines,
        }
        print(json.dumps(found), flush=True)
        sys.stdin.read()


def _copy(bucket: Path, plan: Plan) -> None:
    """The same record under the other code: a key is all that holds it."""
    folder = bucket / "runs" / plan.code
    shutil.copytree(bucket / "runs" / SEALED, folder, copy_function=os.link)
    (folder / "run.json").unlink()
    (folder / "run.json").write_text(plan.model_dump_json())


def _log(bucket: Path, lines: int) -> None:
    """The log of Shard 0, with one line that is sought."""
    said = [
        f"{T0_US + 600 * n} {'ERROR' if n % 500 == 3 else 'INFO'} "
        + (NEEDLE if n == lines // 2 else f"probe of sandbox {n % 100} answered")
        for n in range(lines)
    ]
    for seq, first in enumerate(range(0, lines, SEGMENT_LINES)):
        part = said[first : first + SEGMENT_LINES]
        text = "\n".join([f"#first_line {first}", *part]) + "\n"
        path = bucket / segment_key(SEALED, 0, 0, "log", seq)
        path.write_bytes(zstd.compress(text.encode(), 1))


def _hold(plan: Plan, written: list[Written]) -> None:
    """A Run in its hold, all ingested, whose agents are heard for ever."""
    from runs import ingest
    from runs.clock import RunClock
    from runs.models import Attempt, Host, Run, State

    clock = RunClock.start()
    far_us = T0_US + 10**13
    run = Run.objects.create(
        code=plan.code,
        provider="sim",
        plan=plan.model_dump(mode="json"),
        state=State.HOLDING,
        clock_id="bench",
        clock_base_wall_us=T0_US + HELD_FOR_US,
        clock_base_mono_ns=clock.base_mono_ns,
        clock_boot_id=clock.boot_id,
        t0_us=T0_US,
        t_hold_us=T0_US + 5_000_000,
    )
    hosts = Host.objects.bulk_create(
        Host(run=run, index=index, registered_at_us=T0_US)
        for index in range(-(-plan.shard_count // SHARDS_PER_HOST))
    )
    size = plan.sandboxes_per_shard
    Attempt.objects.bulk_create(
        Attempt(
            run=run,
            shard=shard,
            host=hosts[shard // SHARDS_PER_HOST],
            phase="holding",
            heard_at_us=far_us,
            sent=size,
            created=size,
            ready=size,
            alive=size,
        )
        for shard in range(plan.shard_count)
    )
    report(run, written)
    while ingest.ingest(run.pk):
        pass


if __name__ == "__main__":
    main()
