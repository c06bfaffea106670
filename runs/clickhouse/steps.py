"""The staircase: Held of each step, by the same sweep as the headline."""

from __future__ import annotations

import math
from dataclasses import dataclass

from runs.clickhouse import client, curves
from runs.clickhouse.facts import RunFacts
from shardagent.wire import Plan, Shape

STEPS_MAX = 100
SETTLE_SHARE = 0.5  # of a step: creates and readiness get it, then the step must hold
HELD_SHARE = 0.99  # of a step's target, rounded up: so many must be held


@dataclass(frozen=True, slots=True)
class Step:
    """`held` at least through [from_us, to_us]; null where that could not be said."""

    step: int  # 1-based
    target: int  # Sandboxes planned up to and with this step
    from_us: int | None
    to_us: int | None
    held: int | None

    @property
    def was_held(self) -> bool:
        return self.held is not None and self.held >= math.ceil(
            HELD_SHARE * self.target
        )


def place_sql(plan: Plan) -> str:
    """A Sandbox's place in the load shape, µs after T0, as SQL over its `rank`."""
    load = plan.load
    if load.shape is Shape.STAGGERED:
        return f"rank * {int(load.stagger_us)}"
    if load.shape is Shape.STAIRCASE:
        return f"({step_sql(plan)}) * {round(load.step_s * 1e6)}"
    return "0"


def step_sql(plan: Plan) -> str:
    """A Sandbox's 0-based step of the staircase, as SQL over its `rank`."""
    steps = int(plan.load.steps)
    # The last Shard may be short, so that ranks run past the count.
    return f"least(intDiv(rank * {steps}, {int(plan.sandbox_count)}), {steps - 1})"


def steps(run: RunFacts, plan: Plan) -> list[Step]:
    """Every step of a staircase in order; empty for other shapes.

    A step's window is the second half of it, [T0 + (k + ½)·step_s, T0 + (k + 1)·step_s
    − 2·(clock bound)]; the last step's is the hold itself.
    """
    if plan.load.shape is not Shape.STAIRCASE:
        return []
    last = plan.load.steps - 1
    targets = _targets(run, plan)
    least = _least(run, plan) if run.t0_us is not None else {}
    found = []
    for step in range(last):
        window = _window(run, plan, step)
        begins, ends = window if window and step in least else (None, None)
        found.append(Step(step + 1, targets[step], begins, ends, least.get(step)))
    held = curves.held(run)
    found.append(
        Step(last + 1, targets[last], None, None, None)
        if held is None
        else Step(last + 1, targets[last], held.from_us, held.to_us, held.proven)
    )
    return found


def highest_held(found: list[Step]) -> int | None:
    """The highest step that was held with all those below it; None where none was."""
    highest = None
    for step in found:
        if not step.was_held:
            break
        highest = step.step
    return highest


def _window(run: RunFacts, plan: Plan, step: int) -> tuple[int, int] | None:
    assert run.t0_us is not None
    step_us = round(plan.load.step_s * 1e6)
    begins = run.t0_us + step * step_us + math.ceil(SETTLE_SHARE * step_us)
    ends = run.t0_us + (step + 1) * step_us - 2 * (curves.clock_bound(run) or 0)
    if run.t_end_us is not None:  # it may have been torn down midway
        ends = min(ends, run.t_end_us)
    return (begins, ends) if begins <= ends else None


_TARGETS = """
SELECT toInt64(step) AS step, toInt64(count()) AS sandboxes FROM (
    SELECT (number % {per_shard:UInt64}) * {shard_count:UInt64}
        + intDiv(number, {per_shard:UInt64}) AS rank, <step> AS step
    FROM numbers({sandbox_count:UInt64})
)
GROUP BY step ORDER BY step LIMIT {limit:UInt32}
"""


def _targets(run: RunFacts, plan: Plan) -> list[int]:
    rows = client.query_rows(
        _TARGETS.replace("<step>", step_sql(plan)),
        {
            "per_shard": run.sandboxes_per_shard,
            "shard_count": run.shard_count,
            "sandbox_count": run.sandbox_count,
            "limit": STEPS_MAX,
        },
        name="steps",
    )
    counts = {row["step"]: row["sandboxes"] for row in rows}
    sums, total = [], 0
    for step in range(plan.load.steps):
        total += counts.get(step, 0)
        sums.append(total)
    return sums


# As held: the value at the window's begin, and after every change within it.
_LEAST = """
WITH
windows AS (
    SELECT one.1 AS step, one.2 AS begins, one.3 AS until
    FROM (SELECT arrayJoin({windows:Array(Tuple(Int64, Int64, Int64))}) AS one)
),
ends AS (
    SELECT i.1 AS at, toInt64(1) AS change FROM proven ARRAY JOIN intervals AS i
    UNION ALL SELECT i.2, -1 FROM proven ARRAY JOIN intervals AS i
    UNION ALL SELECT begins, 0 FROM windows
),
proven AS (
    SELECT proven AS intervals FROM sandboxes FINAL WHERE run = {run:String}
),
swept AS (
    SELECT at, sum(sum(change)) OVER (ORDER BY at ROWS UNBOUNDED PRECEDING) AS value
    FROM ends GROUP BY at
)
SELECT step, toInt64(min(value)) AS least
FROM swept CROSS JOIN windows WHERE at >= begins AND at <= until
GROUP BY step ORDER BY step LIMIT {limit:UInt32}
"""


def _least(run: RunFacts, plan: Plan) -> dict[int, int]:
    windows = []
    for step in range(plan.load.steps - 1):
        window = _window(run, plan, step)
        if window is not None:
            windows.append((step, *window))
    if not windows:
        return {}
    rows = client.query_rows(
        _LEAST,
        {"run": run.code, "windows": windows, "limit": STEPS_MAX},
        name="steps",
    )
    return {row["step"]: row["least"] for row in rows}
