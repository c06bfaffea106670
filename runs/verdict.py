"""Can the rig be ruled out? (measurement.md §7)

Pure: figures in, findings out. A finding of a Shard judges that Shard and reaches the
Run only through the share rule. A check whose figure is missing is reported with a
null value, so that nobody takes it for passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    # For information: no level of their own.
    Check("shared_egress", "run", "Shards", None, None, "share an egress address"),
    Check("shared_machine", "run", "Shards", None, None, "share a machine"),
    Check("machine_types", "run", "types", None, None, "of machines in the fleet"),
)
BY_NAME: Mapping[str, Check] = {check.name: check for check in CHECKS}


@dataclass(frozen=True, slots=True)
class ShardFigures:
    """What is known of one Shard's rig; None where it recorded nothing."""

    shard: int
    loop_lag_ms: float | None = None
    loop_cpu_pct: float | None = None
    steal_pct: float | None = None
    harness_delay_p99_ms: float | None = None
    harness_delay_max_ms: float | None = None
    final_probe_late_ms: float | None = None
    cold_connections_pct: float | None = None
    clock_bound_ms: float | None = None
    clock_defects: float | None = None


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What is known of the rig as a whole, and what its thresholds refer to."""

    planned: int
    target: int
    shard_count: int
    shards_lost: int  # never started or lost
    unobserved: int
    record_defects: int  # absent or altered segments, gaps of finished Attempts
    resends: int | None  # None: only a simulated world can tell
    leftovers: int | None
    create_p50_ms: float | None = None
    tti_p50_ms: float | None = None
    harness_p99_ms: float | None = None
    start_skew_p99_ms: float | None = None
    start_skew_max_ms: float | None = None
    time_to_100_ms: float | None = None
    egress_demand_pct: float | None = None
    shared_egress: int | None = None  # Shards
    shared_machine: int | None = None  # Shards
    machine_types: int | None = None  # more than one: a mixed fleet


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of the Run: its value beside its thresholds, tripped or not."""

    check: Check
    value: float | None
    suspect: float | None
    invalid: float | None
    level: Level
    shards: Sequence[int] = ()  # that tripped it, of a check of Shards

    @property
    def threshold(self) -> float | None:
        """The threshold it crossed, or the first one it did not."""
        if self.level is Level.INVALID or self.suspect is None:
            return self.invalid
        return self.suspect


@dataclass(frozen=True, slots=True)
class Verdict:
    level: Level
    findings: Sequence[Finding]  # every check, in the order of the contract
    shards: Mapping[int, Level]  # of each Shard that is not VALID

    @property
    def reasons(self) -> list[Finding]:
        """What tripped, worst first: the Run's own checks, then the Shards'."""
        tripped = [f for f in self.findings if f.level is not Level.VALID]
        return sorted(tripped, key=lambda f: (f.check.of != "run", -f.level))


def judge(
    run: RunFigures,
    shards: Sequence[ShardFigures],
    thresholds: Mapping[str, float],
) -> Verdict:
    """The verdict on the rig of one Run."""
    findings: list[Finding] = []
    levels: dict[int, Level] = {}
    for check in CHECKS:
        if check.of == "shard":
            suspect, invalid = thresholds_of(check, thresholds)
            if check.name == "harness_delay_p99_ms" and suspect == check.suspect:
                suspect = max(suspect or 0, 0.05 * (run.create_p50_ms or 0))
            findings.append(_of_shards(check, shards, suspect, invalid, levels))
    figures = _run_figures(run, levels)
    for check in CHECKS:
        if check.of == "run":
            suspect, invalid = thresholds_of(check, thresholds)
            if check.name == "start_skew_max_ms" and run.time_to_100_ms is not None:
                invalid = 0.1 * run.time_to_100_ms
            value = figures[check.name]
            level = level_of(value, suspect, invalid)
            findings.append(Finding(check, value, suspect, invalid, level))
    order = {check.name: place for place, check in enumerate(CHECKS)}
    findings.sort(key=lambda finding: order[finding.check.name])
    own = [f.level for f in findings if f.check.of == "run"]
    return Verdict(max(own, default=Level.VALID), findings, levels)


def _of_shards(
    check: Check,
    shards: Sequence[ShardFigures],
    suspect: float | None,
    invalid: float | None,
    levels: dict[int, Level],
) -> Finding:
    worst_value: float | None = None
    worst = Level.VALID
    tripped = []
    for figures in shards:
        value = getattr(figures, check.name)
        level = level_of(value, suspect, invalid)
        if value is not None and (worst_value is None or value > worst_value):
            worst_value = value
        if level is not Level.VALID:
            tripped.append(figures.shard)
            levels[figures.shard] = max(level, levels.get(figures.shard, level))
            worst = max(worst, level)
    return Finding(check, worst_value, suspect, invalid, worst, tripped)


def _run_figures(
    run: RunFigures, levels: Mapping[int, Level]
) -> dict[str, float | None]:
    def share(part: int | None, whole: int) -> float | None:
        return None if part is None else 100 * part / max(whole, 1)

    invalid = sum(level is Level.INVALID for level in levels.values())
    harness_share = None
    if run.harness_p99_ms is not None and run.tti_p50_ms:
        harness_share = 100 * run.harness_p99_ms / run.tti_p50_ms
    return {
        "shards_suspect_pct": share(len(levels), run.shard_count),
        "shards_invalid_pct": share(invalid, run.shard_count),
        "start_skew_p99_ms": run.start_skew_p99_ms,
        "start_skew_max_ms": run.start_skew_max_ms,
        "harness_share_pct": harness_share,
        "shards_lost_pct": share(run.shards_lost, run.shard_count),
        "unobserved_pct": share(run.unobserved, run.planned),
        "raw_record": run.record_defects,
        "resends": run.resends,
        "leftovers_pct": share(run.leftovers, run.target),
        "egress_demand_pct": run.egress_demand_pct,
        "shared_egress": run.shared_egress,
        "shared_machine": run.shared_machine,
        "machine_types": run.machine_types,
    }


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


def resolved(thresholds: Mapping[str, float]) -> dict[str, float]:
    """Every threshold by its name, the Plan's own where it is tighter.

    So a Plan is frozen: a default that changes later changes no old Run.
    """
    found: dict[str, float] = {}
    for check in CHECKS:
        suspect, invalid = thresholds_of(check, thresholds)
        if suspect is not None:
            found[check.name] = suspect
        if invalid is not None:
            found[f"{check.name}.invalid"] = invalid
    return found


def thresholds_of(
    check: Check, overrides: Mapping[str, float]
) -> tuple[float | None, float | None]:
    """(SUSPECT, INVALID): a record from elsewhere cannot loosen them either."""
    return (
        _tighter(check.suspect, overrides.get(check.name)),
        _tighter(check.invalid, overrides.get(f"{check.name}.invalid")),
    )


def _tighter(own: float | None, asked: float | None) -> float | None:
    return own if own is None or asked is None else min(own, asked)


def level_of(
    value: float | None, suspect: float | None, invalid: float | None
) -> Level:
    """A figure that is missing trips nothing; the page shows that it is missing."""
    if value is None:
        return Level.VALID
    if invalid is not None and value > invalid:
        return Level.INVALID
    if suspect is not None and value > suspect:
        return Level.SUSPECT
    return Level.VALID
