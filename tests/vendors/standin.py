"""A vendor's stand-in as a process of its own, and a configuration that fits it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shardagent import providers
from shardagent.wire import Plan
from tests.embedded import ROOT

SECRET = "standin-secret-0123456789"
END_S = 20


@contextmanager
def standin(
    vendor: str, folder: Path, sandboxes: int = 1_000, **world: Any
) -> Iterator[dict[str, str]]:
    """The adapter's configuration for it; `world` as in a Plan."""
    config = {
        "run": "alpha-1",
        "seed": 7,
        "sandbox_count": sandboxes,
        "shard_count": 10,
        "world": {"profile": "e2b", "latency_scale": 0.3, "exec_ms": 2, **world},
        "vendor": vendor,
        "secret": SECRET,
        "clock": {
            "base_wall_us": time.time_ns() // 1_000,
            "base_mono_raw_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW),
        },
        "truth_dir": str(folder),
    }
    path = folder / "world.json"
    path.write_text(json.dumps(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "runs.simworld", "--config", str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        word, address = process.stdout.readline().split()
        assert word == "ready"
        entries = providers.about(vendor).entries
        account = {
            e.name: SECRET if e.secret else "standin" for e in entries if e.required
        }
        yield {**account, "endpoint": f"http://{address}"}
    finally:
        process.terminate()
        process.wait(END_S)
        process.stdout.close()


def plan_of(vendor: str, transport: str | None = None) -> Plan:
    about = providers.about(vendor)
    asked = {"provider": vendor, "sandbox_count": 1, "ready_timeout_s": 20}
    named = {} if transport is None else {"transport": transport}
    return Plan.model_validate({**asked, **about.plan, **named})
