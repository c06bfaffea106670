"""The file a world is started with."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from runs.simworld.parameters import World

# Lines per segment that a site must reckon with when it presigns URLs: a line is
# about 230 bytes, more where a sandbox slept often; see truth.SEGMENT_BYTES_MAX.
LINES_PER_URL = 2_000
URLS_SPARE = 8


def truth_urls_needed(sandbox_count: int) -> int:
    """How many presigned URLs a world of this size should be given."""
    return -(-sandbox_count // LINES_PER_URL) + URLS_SPARE


class RunClock(BaseModel):
    """wall = base_wall_us + (CLOCK_MONOTONIC_RAW − base_mono_raw_ns) / 1000."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    base_wall_us: int = Field(ge=0)
    base_mono_raw_ns: int = Field(ge=0)


class WorldConfig(BaseModel):
    """Everything a world process needs to know.

    `vendor` makes it speak that vendor's API (runs.simcloud) instead of its own wire;
    `secret` is then the account's key.
    `listen` is "127.0.0.1:PORT" (0: any) or "unix:/path". `truth_dir` replaces the
    URLs where there is no object store (calibration, tests).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str = Field(min_length=1, max_length=40)
    seed: int = Field(ge=0)
    sandbox_count: int = Field(ge=1, le=2_000_000)
    shard_count: int = Field(0, ge=0, le=20_000)
    create_timeout_s: float = Field(120, gt=0, le=3_600)
    world: World = World()
    vendor: str = Field("", max_length=40)
    listen: str = "127.0.0.1:0"
    secret: str = Field(min_length=8, max_length=200)
    clock: RunClock
    truth_urls: list[str] = []
    truth_dir: str | None = None
    linger_s: float = Field(0, ge=0, le=3_600)
    lifetime_s: float = Field(14_400, gt=0, le=604_800)
    pid_file: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.world.check(self.sandbox_count, self.shard_count)
        if not self.truth_urls and self.truth_dir is None:
            raise ValueError("neither truth_urls nor truth_dir: no place for the truth")
        return self
