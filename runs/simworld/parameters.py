"""The parameters of a simulated world, as a Plan's `world` carries them. Pure."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from runs.simworld.latency import DAYS_MAX, PROFILES, days_of

ZERO = "zero"
SECONDS_MAX = 172_800.0


def _rate(value: int | float | str) -> int | float:
    """An integer is an exact count, a fraction a probability, "3 %" as well."""
    if isinstance(value, str):
        text = value.strip()
        if text.endswith("%"):
            try:
                value = float(text[:-1]) / 100
            except ValueError:
                raise ValueError(f"{text!r} is not a percentage") from None
        else:
            raise ValueError(f'{text!r} is neither a number nor like "3 %"')
    if value < 0:
        raise ValueError("must not be negative")
    if isinstance(value, float) and value > 1:
        if value.is_integer():
            return int(value)
        raise ValueError("a fraction is a probability and must not be above 1")
    return value


def _profile(name: str) -> str:
    if name != ZERO and name not in PROFILES:
        known = ", ".join([*PROFILES, ZERO])
        raise ValueError(f"unknown profile {name!r}; known: {known}")
    return name


# 7 is exactly seven sandboxes, 0.007 (or "0.7 %") each one with that probability.
Rate = Annotated[int | float | str, AfterValidator(_rate)]
Seconds = Annotated[float, Field(ge=0, le=SECONDS_MAX)]
Milliseconds = Annotated[float, Field(ge=0, le=600_000)]


class World(BaseModel):
    """What a simulated Provider does; everything is drawn from the Run's seed.

    Counts are exact as to who is chosen: one of them whose create is refused by
    admission never gets to show it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Latency: TTI by the measured quantiles of a vendor, split in create and readiness.
    profile: Annotated[str, AfterValidator(_profile)] = "e2b"
    mode: Literal["burst", "staggered", "sequential"] = "burst"
    day: int | None = Field(None, ge=0, lt=DAYS_MAX)
    latency_scale: float = Field(1.0, ge=0, le=1_000)
    ready_share: float = Field(0.2, ge=0, le=1)
    exec_ms: Milliseconds = 15.0
    destroy_ms: Milliseconds = 30.0
    refusal_ms: Milliseconds = 5.0
    # Answers leave at multiples of so much, many in one write: for Runs whose world
    # shares two cores with the agents. The truth says when they really left.
    tick_ms: Milliseconds = 0.0
    before_ready: Literal["wait", "refuse"] = "wait"
    slow_shards: Rate = 0
    slow_factor: float = Field(3.0, ge=1, le=1_000)
    cpus: int = Field(1, ge=1, le=1_024)  # what a sandbox says it has
    memory_mb: int = Field(512, ge=16, le=4_194_304)

    # Admission.
    rate_per_s: float | None = Field(None, gt=0, le=1_000_000)
    rate_burst: int = Field(100, ge=1, le=2_000_000)
    quota: int | None = Field(None, ge=0, le=2_000_000)
    capacity: int | None = Field(None, ge=0, le=2_000_000)

    # Creates and readiness that fail.
    create_errors: Rate = 0
    create_hangs: Rate = 0
    late_creates: Rate = 0
    never_ready: Rate = 0

    # Lives that end early.
    deaths: Rate = 0
    death_window_s: tuple[Seconds, Seconds] = (3.0, 20.0)
    death_rate_per_s: float = Field(0.0, ge=0, le=10)
    rack_size: int = Field(0, ge=0, le=2_000_000)
    rack_at_s: Seconds = 15.0
    ttl_max_s: Seconds | None = None

    # Lives that pause, and probes that fail without a death.
    hibernate_after_s: Seconds | None = None
    wake_ms: Milliseconds = 300.0
    flaky_probes: Rate = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.death_window_s[0] > self.death_window_s[1]:
            raise ValueError("death_window_s must be [earliest, latest]")
        if self.day is not None and self.profile != ZERO:
            days = days_of(self.profile, self.mode)
            if self.day >= days:
                raise ValueError(f"{self.profile} was measured on {days} days only")
        return self

    def check(self, sandbox_count: int, shard_count: int) -> None:
        """Raises ValueError where exact counts do not fit the Run."""
        chosen = self.rack_size
        for name in CHOSEN:
            value = getattr(self, name)
            chosen += value if isinstance(value, int) else 0
        if chosen > sandbox_count:
            raise ValueError(
                f"{chosen} sandboxes are to misbehave, but only {sandbox_count} exist"
            )
        if isinstance(self.slow_shards, int) and self.slow_shards > shard_count:
            raise ValueError(
                f"{self.slow_shards} Shards are to be slow, only {shard_count} exist"
            )


# The classes that exclude one another: a sandbox is at most one of them.
CHOSEN = (
    "create_errors",
    "create_hangs",
    "late_creates",
    "never_ready",
    "deaths",
    "flaky_probes",
)
