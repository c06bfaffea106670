"""When each create is intended, and the deadlines that follow from the Plan alone."""

from __future__ import annotations

from typing import assert_never

from shardagent.wire import Plan, Shape

AUTONOMY_S = 60  # beyond burst deadline + hold_s an agent tears down by itself
TTL_MARGIN_S = 120
MICROSECONDS = 1_000_000


def microseconds(seconds: float) -> int:
    """Seconds of a Plan as integer µs."""
    return round(seconds * MICROSECONDS)


def shard_count(plan: Plan) -> int:
    """The Plan's, or what its other two counts imply."""
    return plan.shard_count or -(-plan.sandbox_count // plan.sandboxes_per_shard)


def rank(plan: Plan, sandbox: int) -> int:
    """Place in the interleaved order: all first Sandboxes, then all second ones."""
    shard, index = divmod(sandbox, plan.sandboxes_per_shard)
    return index * shard_count(plan) + shard


def place_us(plan: Plan, sandbox: int) -> int:
    """How long after T0 this Sandbox's create is intended."""
    load = plan.load
    match load.shape:
        case Shape.BURST | Shape.SEQUENTIAL:
            return 0  # sequential: the next follows the end of the previous
        case Shape.STAGGERED:
            return rank(plan, sandbox) * load.stagger_us
        case Shape.STAIRCASE:
            # The last Shard may be short, so that ranks run past the count.
            step = rank(plan, sandbox) * load.steps // plan.sandbox_count
            return min(step, load.steps - 1) * microseconds(load.step_s)
        case _:
            assert_never(load.shape)


def places(plan: Plan, shard: int) -> list[tuple[int, int]]:
    """(place, sandbox) of a Shard in the order of firing."""
    return sorted((place_us(plan, one), one) for one in plan.sandboxes_of(shard))


def life_s(plan: Plan) -> float:
    """The longest one Sandbox of a sequential Run can take."""
    probing = plan.probe_failures_max * (plan.probe_timeout_s + plan.probe_interval_s)
    return (
        plan.create_timeout_s + plan.ready_timeout_s + probing + plan.destroy_timeout_s
    )


def last_place_us(plan: Plan) -> int:
    """The largest place of the whole Run."""
    if plan.load.shape is Shape.SEQUENTIAL:
        return (plan.sandbox_count - 1) * microseconds(life_s(plan))
    last_of_full_shard = min(plan.sandboxes_per_shard, plan.sandbox_count) - 1
    shards_full = plan.sandbox_count // plan.sandboxes_per_shard
    candidates = {
        plan.sandbox_count - 1,
        max(0, shards_full - 1) * plan.sandboxes_per_shard + last_of_full_shard,
    }
    return max(place_us(plan, one) for one in candidates)


def teardown_us(plan: Plan) -> int:
    """T_destroy − T_end."""
    return microseconds(
        plan.final_spread_s + plan.probe_failures_max * plan.probe_timeout_s
    )


def hold_deadline_us(plan: Plan, t0_us: int) -> int:
    """When an agent that heard no T_end sets its own, on the clock of `t0_us`."""
    waits_s = plan.create_timeout_s + plan.ready_timeout_s + plan.hold_s + AUTONOMY_S
    return t0_us + last_place_us(plan) + microseconds(waits_s)


def ttl_s(plan: Plan, left_us: int) -> int:
    """A Sandbox's time to live; left_us: until the last instant of T_destroy."""
    if plan.load.shape is Shape.SEQUENTIAL:
        return int(life_s(plan)) + TTL_MARGIN_S
    return -(-max(0, left_us) // MICROSECONDS) + TTL_MARGIN_S


def final_place_us(plan: Plan, sandbox: int) -> int:
    """How long after T_end this Sandbox's final probe goes out."""
    return microseconds(plan.final_spread_s) * sandbox // plan.sandbox_count
