"""A whole Run of very many simulated sandboxes on this machine, as `make demo` does it.

    python -m bench.run [--sandboxes N] [--shape burst] [--keep DIR]

Prints JSON: seconds from launch to sealed, Held against what the world's truth says was
alive throughout the hold, the verdict and its reasons, how late creates left by the
seconds since T0, the largest memory of the agents together, the world and the site, and
how many cores each of them took, by the seconds since the launch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bench.site_process import free_port
from shardagent import zstd

ROOT = Path(__file__).resolve().parents[1]
RUN_S_MAX = 3_000
LOOK_S = 1.0
OBJECTS_EVERY = 10  # of the record
SLOT_S = 10
SLOT_US = SLOT_S * 1_000_000
ENDED = frozenset({"created", "ready", "witness_started", "probe_ok", "destroyed"})
KINDS = {
    "shardagent": "agents",
    "runs.simworld": "world",
    "manage.py": "site",
    "rclone": "store",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sandboxes", type=int, default=100_000)
    parser.add_argument("--shape", choices=("staggered", "burst"), default="staggered")
    parser.add_argument("--keep", type=Path, help="where the site's data is to stay")
    options = parser.parse_args()
    if options.keep:
        print(json.dumps(measured(options.keep, options.sandboxes, options.shape)))
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as scratch:
        print(json.dumps(measured(Path(scratch), options.sandboxes, options.shape)))


def measured(data: Path, sandboxes: int, shape: str) -> dict[str, Any]:
    own = {"DATA": str(data), "PORT": str(free_port()), "SCALE": str(sandboxes)}
    data.mkdir(parents=True, exist_ok=True)
    with (data / "demo.log").open("wb") as told:
        site = subprocess.Popen(
            [sys.executable, "manage.py", "demo", "--exit"],
            cwd=ROOT,
            env={**os.environ, **own, "SHAPE": shape},
            stdout=subprocess.PIPE,
            stderr=told,
        )
        with Use(data, site.pid) as use:
            out, _ = site.communicate(timeout=RUN_S_MAX)
    lines = out.decode().strip().splitlines()
    if not lines:
        raise SystemExit((data / "demo.log").read_text()[-2_000:])
    run = json.loads(lines[-1])
    took = [line for line in (data / "demo.log").read_text().split() if line.isdigit()]
    held, times = run["held"], run["instants"]
    lived = alive_throughout(data, run["code"], times["t_hold_us"], times["t_end_us"])
    findings = {one["check"]: one["value"] for one in run["verdict"]["findings"]}
    by_time, cpu_pct = told_by_agents(data, run["code"], times["t0_us"])
    return {
        "sandboxes": sandboxes,
        "shape": shape,
        "launch_to_sealed_s": int(took[0]) if took else None,
        "held": held and held["proven"],
        "alive_throughout": lived,
        "held_share": round(held["proven"] / lived, 5) if held and lived else None,
        "outcomes": run["outcomes"],
        "certificate_clean": (run["certificate"] or {}).get("clean"),
        "verdict": run["verdict"]["level"],
        "reasons": {
            one["check"]: [one["level"], one["value"], one["threshold"]]
            for one in run["verdict"]["reasons"]
        },
        "harness_delay_p99_ms": findings.get("harness_delay_p99_ms"),
        "start_skew_p99_ms": findings.get("start_skew_p99_ms"),
        "loop_lag_ms": findings.get("loop_lag_ms"),
        "by_time": by_time,
        "agent_cpu_pct": cpu_pct,
        "cores": use.cores,
        **{f"{kind}_mb": round(size) for kind, size in use.most_mb.items()},
    }


def alive_throughout(data: Path, code: str, from_us: int, to_us: int) -> int:
    """Of the world's own truth: alive and awake at every instant of the hold."""
    return sum(
        1
        for life in _truth(data, code)
        if life.get("alive_from_us") is not None
        and life.get("interactive")
        and life["alive_from_us"] <= from_us
        and (life.get("alive_to_us") is None or life["alive_to_us"] > to_us)
        and not any(a < to_us and b > from_us for a, b in life.get("asleep") or [])
    )


def told_by_agents(
    data: Path, code: str, t0_us: int
) -> tuple[dict[int, dict[str, float]], float]:
    """Of every OBJECTS_EVERY-th object, by seconds since T0: how late creates left and
    how many calls ended a second, times OBJECTS_EVERY; and the most CPU of an agent."""
    late: dict[int, list[float]] = {}
    calls: Counter[int] = Counter()
    cpu_pct = 0.0
    folder = data / "objects" / "raw" / "runs" / code
    for path in sorted(folder.rglob("events-*"))[::OBJECTS_EVERY]:
        for line in zstd.decompress(path.read_bytes()).splitlines():
            event = orjson.loads(line)
            slot = (event["at"] - t0_us) // SLOT_US * SLOT_S
            if event["kind"] == "create_sent":
                late_ms = (event["at"] - event["intended_us"]) / 1e3
                late.setdefault(slot, []).append(late_ms)
            elif event["kind"] == "health" and slot >= 0:
                cpu_pct = max(cpu_pct, event["cpu_pct"])
            calls[slot] += event["kind"] in ENDED
    by_time = {
        slot: {
            "late_p50_ms": round(float(np.quantile(found, 0.5)), 1),
            "late_p99_ms": round(float(np.quantile(found, 0.99)), 1),
            "calls_per_s": round(calls[slot] * OBJECTS_EVERY / SLOT_S),
        }
        for slot, found in sorted(late.items())
    }
    return by_time, cpu_pct


def _truth(data: Path, code: str) -> Iterator[dict[str, Any]]:
    for path in sorted((data / "objects" / "raw" / "runs" / code).glob("truth-*")):
        for line in zstd.decompress(path.read_bytes()).splitlines():
            yield orjson.loads(line)


class Use:
    """What each kind of process takes together, while watched."""

    def __init__(self, data: Path, site: int) -> None:
        self.most_mb = dict.fromkeys([*KINDS.values(), "all"], 0.0)
        self.cores: dict[int, dict[str, float]] = {}  # by s, of SLOT_S each
        self._cpu_s: dict[str, float] = {}  # by process
        self._data = str(data).encode()
        self._site = site
        self._over = threading.Event()

    def __enter__(self) -> Use:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        began_s = slot_s = time.monotonic()
        taken: defaultdict[str, float] = defaultdict(float)
        while not self._over.wait(LOOK_S):
            now = dict.fromkeys(KINDS.values(), 0.0)
            for process, kind, size, cpu_s in self._processes():
                now[kind] += size
                taken[kind] += cpu_s - self._cpu_s.get(process, cpu_s)
                self._cpu_s[process] = cpu_s
            now["all"] = sum(now.values())
            self.most_mb = {k: max(v, now[k]) for k, v in self.most_mb.items()}
            if (took_s := time.monotonic() - slot_s) >= SLOT_S:
                cores = {kind: round(s / took_s, 2) for kind, s in taken.items()}
                self.cores[round(slot_s - began_s)] = cores
                slot_s += took_s
                taken.clear()

    def _processes(self) -> Iterator[tuple[str, str, float, float]]:
        """Number, kind, MB and CPU seconds of each that is the Run's."""
        page_mb = os.sysconf("SC_PAGE_SIZE") / 1e6
        ticks = os.sysconf("SC_CLK_TCK")
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                line = (entry / "cmdline").read_bytes()
                pages = int((entry / "statm").read_text().split()[1])
                times = (entry / "stat").read_text().rpartition(")")[2].split()[11:13]
            except (OSError, IndexError):
                continue
            own = self._data in line or entry.name == str(self._site)
            for word, kind in KINDS.items():
                if own and word.encode() in line:
                    cpu_s = sum(map(int, times)) / ticks
                    yield entry.name, kind, pages * page_mb, cpu_s
                    break


if __name__ == "__main__":
    main()
