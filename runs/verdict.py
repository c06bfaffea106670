"""Can the rig be ruled out? (measurement.md §7)

Pure: figures in, findings out. A finding of a Shard judges that Shard and reaches the
Run only through the share rule. A check whose figure is missing says so and is not
counted as passed silently: it is reported with a null value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    VALID = 0
    SUSPECT = 1
    INVALID = 2

    @property
    def word(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Check:
    """value > suspect is SUSPECT, value > invalid is INVALID; None: no such level."""

    name: str
    of: str  # "shard" or "run"
    unit: str
    suspect: float | None
    invalid: float | None
    means: str


CHECKS: tuple[Check, ...] = (
    Check(
        "loop_lag_ms",
        "shard",
        "ms",
        100,
        1_000,
        "event-loop lag, max from T0 to the last final probe",
    ),
    Check(
        "loop_cpu_pct",
        "shard",
        "%",
        80,
        None,
        "CPU of the agent's loop thread over any 5 s, of one core",
    ),
    Check("steal_pct", "shard", "%", 5, None, "CPU steal over any 5 s"),
    Check(
        "harness_delay_p99_ms",
        "shard",
        "ms",
        20,
        1_000,
        "harness delay sent−intended, P99",
    ),
    Check("harness_delay_max_ms", "shard", "ms", 1_000, None, "harness delay, max"),
    Check(
        "final_probe_late_ms",
        "shard",
        "ms",
        1_000,
        None,
        "final probes sent later than planned, max",
    ),
    Check(
        "cold_connections_pct", "shard", "%", 0.1, 5, "creates on a fresh connection"
    ),
    Check("clock_bound_ms", "shard", "ms", 50, 1_000, "clock bound"),
    Check(
        "clock_defects", "shard", "", None, 0, "disagreeing or missing clock samples"
    ),
    Check("shards_suspect_pct", "run", "%", 2, 20, "share of Shards SUSPECT or worse"),
    Check("shards_invalid_pct", "run", "%", 0, 2, "share of Shards INVALID"),
    Check("start_skew_p99_ms", "run", "ms", 50, 5_000, "start skew, P99 − P0"),
    Check(
        "start_skew_max_ms",
        "run",
        "ms",
        1_000,
        None,
        "start skew, max − P0 (INVALID above 10 % of time to 100 %)",
    ),
    Check(
        "harness_share_pct",
        "run",
        "%",
        None,
        10,
        "P99 harness delay against P50 TTI",
    ),
    Check("shards_lost_pct", "run", "%", 0.5, 2, "Shards never started or lost"),
    Check("unobserved_pct", "run", "%", 0, 0.5, "`unobserved` of all planned"),
    Check(
        "raw_record",
        "run",
        "",
        None,
        0,
        "segments absent or altered, gaps in numbering of finished Attempts",
    ),
    Check("resends", "run", "", None, 0, "re-sends that are not recorded as events"),
    Check(
        "leftovers_pct",
        "run",
        "% of target",
        0,
        1,
        "our own sandboxes of earlier Runs alive at T0",
    ),
    Check(
        "egress_demand_pct",
        "run",
        "%",
        50,
        100,
        "demand against the Provider's published limit per egress address",
    ),
)
BY_NAME: Mapping[str, Check] = {check.name: check for check in CHECKS}


@dataclass(frozen=True, slots=True)
class Reason:
    """One finding. shard is None for a finding of the Run."""

    check: str
    level: Level
    value: float | None
    threshold: float | None
    shard: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    level: Level
    reasons: Sequence[Reason]  # of the Run, worst first
    shards: Mapping[int, Sequence[Reason]]  # findings of each Shard that tripped


def threshold_errors(thresholds: Mapping[str, float]) -> dict[str, str]:
    """What is wrong with a Plan's thresholds: unknown names, or looser values.

    `<check>` tightens the SUSPECT threshold, `<check>.invalid` the INVALID one.
    """
    errors = {}
    for key, value in thresholds.items():
        name, _, level = key.partition(".")
        check = BY_NAME.get(name)
        if check is None or level not in {"", "invalid"}:
            errors[f"thresholds.{key}"] = (
                f"is not a check; the checks are {', '.join(BY_NAME)}"
            )
            continue
        ceiling = check.invalid if level else check.suspect
        if ceiling is None:
            errors[f"thresholds.{key}"] = "this check has no such level"
        elif not 0 <= value <= ceiling:
            errors[f"thresholds.{key}"] = (
                f"may tighten the threshold of {ceiling:g} {check.unit}, "
                f"from 0 up to it; {value:g} would loosen it"
            )
    return errors


def thresholds_of(
    check: Check, overrides: Mapping[str, float]
) -> tuple[float | None, float | None]:
    suspect = overrides.get(check.name, check.suspect)
    invalid = overrides.get(f"{check.name}.invalid", check.invalid)
    return suspect, invalid


def find(
    check: Check,
    value: float | None,
    suspect: float | None,
    invalid: float | None,
    shard: int | None = None,
) -> Reason | None:
    """The finding of one figure, or None where it is within both thresholds."""
    if value is None:
        return None
    if invalid is not None and value > invalid:
        return Reason(check.name, Level.INVALID, value, invalid, shard)
    if suspect is not None and value > suspect:
        return Reason(check.name, Level.SUSPECT, value, suspect, shard)
    return None


def worst(reasons: Iterable[Reason]) -> Level:
    return max((reason.level for reason in reasons), default=Level.VALID)
