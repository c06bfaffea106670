"""The simulated world of a sim Run: one process, apart from agents and site."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from runs import credentials, lifecycle, objects
from runs.clock import RunClock
from runs.errors import FleetError
from runs.models import Run
from runs.plan import SIMCLOUD, burst_s, has_world
from runs.simworld.config import truth_urls_needed
from runs.simworld.parameters import World
from shardagent import providers
from shardagent.providers.base import ENDPOINT
from shardagent.wire import Plan, Shape

START_TIMEOUT_S = 15
LIFETIME_MARGIN_S = 3_600
TRUTH_URLS_SPARE = 48
URL_LIFETIME_S = 48 * 3600
_MODES = {
    Shape.BURST: "burst",
    Shape.STAGGERED: "staggered",
    Shape.SEQUENTIAL: "sequential",
    Shape.STAIRCASE: "burst",
}
_worlds: list[subprocess.Popen[bytes]] = []


def provider_config(run: Run) -> dict[str, str]:
    """What an adapter needs to reach the Provider; never part of the record."""
    plan = lifecycle.plan_of(run)
    if not has_world(plan):
        return credentials.config_of(run.credential, plan)
    return _config_of_world(plan, run.world["address"], run.world["secret"])


def _config_of_world(plan: Plan, address: str, secret: str) -> dict[str, str]:
    """Of sim, or of a stand-in, whose account has one secret for all its keys."""
    if plan.provider == "sim":
        return {"address": address, "secret": secret}
    entries = providers.about(plan.provider).entries
    values = {e.name: secret if e.secret else "standin" for e in entries if e.required}
    return {**values, ENDPOINT: f"http://{address}"}


def reachable(run: Run) -> bool:
    """A Provider that is a process of ours may be gone, and its sandboxes with it."""
    return not has_world(lifecycle.plan_of(run)) or alive(run)


def start(run: Run, plan: Plan) -> None:
    """Start the Run's world unless it lives already; its address goes into the row."""
    if not has_world(plan) or alive(run):
        return
    if run.world:  # a second one would overwrite the truth of the first
        raise FleetError("the simulated world died", retryable=False)
    _end_unknown(run)
    folder = settings.DATA / "worlds" / run.code
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = secrets.token_urlsafe(24)
    config = folder / "config.json"
    clock = lifecycle.clock_of(run)
    truth = {"truth_urls": _truth_urls(run, plan)}
    _write_private(config, {**_config(plan, secret, clock), **truth})
    child = _spawn(config)
    address = _ready_address(child)
    _worlds.append(child)
    run.world = {"address": address, "secret": secret, "pid": child.pid}
    Run.objects.filter(pk=run.pk).update(world=run.world)


@contextlib.contextmanager
def brief(plan: Plan) -> Iterator[dict[str, str]]:
    """A world for one preflight: its truth is thrown away, it ends with the block."""
    secret = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="holdfast-world-") as folder:
        path = Path(folder) / "config.json"
        config = _config(plan, secret, RunClock.start())
        _write_private(path, {**config, "truth_dir": folder})
        child = _spawn(path)
        try:
            yield _config_of_world(plan, _ready_address(child), secret)
        finally:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(START_TIMEOUT_S)
            child.kill()
            child.wait()


def world_of(plan: Plan) -> World:
    """The world's parameters; its latencies follow the load shape unless told.

    Raises pydantic.ValidationError or ValueError where they do not fit the Plan.
    """
    mode = _MODES[plan.load.shape]
    world = World.model_validate({"mode": mode, **plan.world})
    world.check(plan.sandbox_count, plan.shard_count)
    return world


def alive(run: Run) -> bool:
    _reap()
    pid = run.world.get("pid")
    return bool(pid) and _is_world(Path(f"/proc/{pid}"), run)


def finish(run: Run) -> None:
    """Tell the world to close its truth and leave; it may take some seconds."""
    if run.world and alive(run):
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.world["pid"], signal.SIGTERM)


def _is_world(entry: Path, run: Run) -> bool:
    config = str(settings.DATA / "worlds" / run.code / "config.json").encode()
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"runs.simworld" in words and config in words


def _end_unknown(run: Run) -> None:
    """A site that was killed before it wrote a world down left it running."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _is_world(entry, run):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)


def _spawn(config: Path) -> subprocess.Popen[bytes]:
    with (config.parent / "world.out").open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "runs.simworld", "--config", str(config)],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )


def _truth_urls(run: Run, plan: Plan) -> list[str]:
    count = truth_urls_needed(plan.sandbox_count) + TRUTH_URLS_SPARE
    keys = (f"runs/{run.code}/truth-{seq:06d}.ndjson.zst" for seq in range(count))
    return [objects.put_url(key, URL_LIFETIME_S) for key in keys]


def _config(plan: Plan, secret: str, clock: RunClock) -> dict[str, object]:
    longest_s = burst_s(plan) + plan.create_timeout_s + plan.ready_timeout_s
    return {
        "run": plan.code or "preflight",
        "seed": plan.seed,
        "sandbox_count": plan.sandbox_count,
        "shard_count": plan.shard_count,
        "create_timeout_s": plan.create_timeout_s,
        "lifetime_s": longest_s + plan.hold_s + LIFETIME_MARGIN_S,
        "world": world_of(plan).model_dump(mode="json"),
        "listen": f"{settings.WORLD_LISTEN}:0",
        "vendor": plan.provider if plan.endpoint == SIMCLOUD else "",
        "secret": secret,
        "clock": {
            "base_wall_us": clock.base_wall_us,
            "base_mono_raw_ns": clock.base_mono_ns,
        },
    }


def _ready_address(child: subprocess.Popen[bytes]) -> str:
    assert child.stdout is not None
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and child.poll() is None:
        ready, _, _ = select.select([child.stdout], [], [], 0.2)
        if ready:
            words = child.stdout.readline().decode().split()
            if words[:1] == ["ready"]:
                return words[1]
            break
    child.kill()
    raise FleetError("the simulated world did not start; see its world.out")


def _write_private(path: Path, value: object) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(value, file)


def _reap() -> None:
    _worlds[:] = [child for child in _worlds if child.poll() is None]
