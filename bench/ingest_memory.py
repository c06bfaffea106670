"""Memory of the site's process while it ingests 10 million events of a live Run.

    python bench/ingest_memory.py [--events N]

Prints JSON: the rise over idle in MB (aim: at most 300) and events per second.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.records import EVENTS_PER_SANDBOX, T0_US, Written, plan_of, write
from bench.site_process import Memory, settle, site_at_rest
from shardagent.wire import Plan

AIM_MB = 300
SEGMENTS_PER_SHARD = 3
CODE = "bench-ingest"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=10_000_000)
    events = parser.parse_args().events
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as scratch:
        data = Path(scratch)
        plan = plan_of(CODE, events // EVENTS_PER_SANDBOX)
        written = write(data / "objects" / "raw", plan, SEGMENTS_PER_SHARD)
        with site_at_rest(data):
            print(json.dumps(measure(plan, written)))


def measure(plan: Plan, written: list[Written]) -> dict[str, object]:
    from runs import ingest
    from runs.models import Run, State

    run = Run.objects.create(
        code=CODE,
        provider="sim",
        plan=plan.model_dump(mode="json"),
        state=State.HOLDING,
        t0_us=T0_US,
    )
    report(run, written)
    settle()
    total = sum(one.events for one in written)
    began = time.monotonic()
    with Memory() as memory:
        while ingest.ingest(run.pk):
            pass
    took = time.monotonic() - began
    run.refresh_from_db()
    assert run.live is not None
    rise = memory.peak_mb - memory.idle_mb
    return {
        "events": total,
        "segments": len(written),
        "idle_mb": round(memory.idle_mb),
        "peak_mb": round(memory.peak_mb),
        "rise_mb": round(rise),
        "aim_mb": AIM_MB,
        "met": rise <= AIM_MB,
        "seconds": round(took, 1),
        "events_per_s": round(total / took),
        "outcomes": run.live["outcomes"],
    }


def report(run: Any, written: list[Written]) -> None:
    """Enter the segments into the ledger, as heartbeats of agents would."""
    from runs.models import Segment

    Segment.objects.bulk_create(
        (
            Segment(
                run=run,
                shard=one.shard,
                attempt=0,
                kind="events",
                seq=one.seq,
                sha256=one.sha256,
                bytes=one.bytes,
                events=one.events,
                reported_at_us=T0_US,
            )
            for one in sorted(written, key=lambda one: (one.seq, one.shard))
        ),
        batch_size=5_000,
    )


if __name__ == "__main__":
    main()
