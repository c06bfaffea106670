"""The Plan, as the Sandboxes of one Shard need it."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from shardagent.record import TalliedRecord
from shardagent.schedule import microseconds
from shardagent.wire import Lease, Plan, Shape


@dataclass(frozen=True, slots=True)
class Rules:
    """What all Sandboxes of a Shard share."""

    record: TalliedRecord
    chance: random.Random
    ready_expect: re.Pattern[str]
    probe_interval_us: int
    probe_failures_max: int
    ready_timeout_us: int
    destroy_timeout_us: int
    create_timeout_s: float
    probe_timeout_s: float
    witness: bool
    sequential: bool


def rules_of(
    plan: Plan, lease: Lease, record: TalliedRecord, *, supports_witness: bool
) -> Rules:
    """The rules of one Shard; its random phases repeat with the Plan's seed."""
    return Rules(
        record=record,
        chance=random.Random(f"{plan.seed}/{lease.shard}"),
        ready_expect=re.compile(plan.ready_expect),
        probe_interval_us=microseconds(plan.probe_interval_s),
        probe_failures_max=plan.probe_failures_max,
        ready_timeout_us=microseconds(plan.ready_timeout_s),
        destroy_timeout_us=microseconds(plan.destroy_timeout_s),
        create_timeout_s=plan.create_timeout_s,
        probe_timeout_s=plan.probe_timeout_s,
        witness=plan.witness and supports_witness,
        sequential=plan.load.shape is Shape.SEQUENTIAL,
    )
