"""Rebuilding a Run of 100,000 Sandboxes and 1.3 million events from its bucket.

    python bench/rebuild.py [--sandboxes N]

Prints JSON: seconds (aim: at most 60), the memory it took, and how many events a
second reach the final tables where nothing is judged.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.records import plan_of, write
from bench.site_process import Memory, settle, site_at_rest
from shardagent.wire import Plan

AIM_S = 60
SEGMENTS_PER_SHARD = 5
CODE = "bench-rebuild"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sandboxes", type=int, default=100_000)
    sandboxes = parser.parse_args().sandboxes
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as scratch:
        data = Path(scratch)
        plan = plan_of(CODE, sandboxes)
        written = write(data / "objects" / "raw", plan, SEGMENTS_PER_SHARD)
        with site_at_rest(data):
            from runs.rebuild import rebuild

            settle()
            began = time.monotonic()
            with Memory() as memory:
                run = rebuild(CODE)
            took = time.monotonic() - began
            insert_s = inserted(data, plan)
    assert run.summary is not None
    found = {
        "sandboxes": sandboxes,
        "events": sum(one.events for one in written),
        "segments": len(written),
        "seconds": round(took, 1),
        "insert_events_per_s": round(sum(one.events for one in written) / insert_s),
        "aim_s": AIM_S,
        "met": took <= AIM_S,
        "rise_mb": round(memory.peak_mb - memory.idle_mb),
        "success": run.summary["outcomes"]["success"],
        "held": run.summary["held"]["proven"],
    }
    print(json.dumps(found))


def inserted(data: Path, plan: Plan) -> float:
    """Seconds to read all objects into the final tables once more, and no more."""
    from runs.clickhouse.ingest import replace_run
    from runs.storage import object_store

    bucket = data / "objects" / "raw"
    paths = (bucket / "runs" / CODE / "shards").rglob("events-*")
    keys = sorted(str(path.relative_to(bucket)) for path in paths)
    began = time.monotonic()
    assert not replace_run(object_store(), plan, keys)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
