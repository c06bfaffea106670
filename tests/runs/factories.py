"""The standing cast in the database: Run alpha with Shards 0, 1, 2 on two hosts."""

from __future__ import annotations

from typing import Any

from runs.clock import RunClock
from runs.models import Attempt, Host, Run, State
from runs.plan import freeze, parse_plan


def make_run(
    *, code: str = "alpha-1", plan: dict[str, Any] | None = None, **fields: Any
) -> Run:
    """A Run that is arming, on a clock that began now."""
    asked = {"provider": "sim", "sandbox_count": 6, "sandboxes_per_shard": 2}
    parsed = parse_plan({**asked, **(plan or {})}, sandbox_count_max=1_000)
    frozen = freeze(parsed, code=code, now_us=1_750_000_000_000_000, software={})
    clock = RunClock.start()
    defaults = {
        "provider": frozen.provider,
        "plan": frozen.model_dump(mode="json"),
        "credential": code,
        "state": State.ARMING,
        "state_at_us": clock.now_us(),
        "clock_id": clock.clock_id,
        "clock_base_wall_us": clock.base_wall_us,
        "clock_base_mono_ns": clock.base_mono_ns,
        "clock_boot_id": clock.boot_id,
    }
    return Run.objects.create(code=code, **{**defaults, **fields})


def make_host(
    run: Run, index: int = 0, *, shards: tuple[int, ...] = (0,), **fields: Any
) -> Host:
    host = Host.objects.create(run=run, index=index, **fields)
    for shard in shards:
        Attempt.objects.create(run=run, shard=shard, host=host)
    return host
