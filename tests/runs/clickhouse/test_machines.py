"""What carried a Run, from the lines of its journal."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from runs.clickhouse import ingest
from runs.clickhouse.client import ObjectStore
from runs.clickhouse.machines import carriers, describe
from shardagent.wire import Plan


def machine(host: int, shards: int = 1, **facts: Any) -> dict[str, Any]:
    attempts = [[host * 10 + n, 0] for n in range(shards)]
    return {"kind": "machine", "host": host, "attempts": attempts, **facts}


def state(to: str, at_s: float) -> dict[str, Any]:
    return {"kind": "state", "to": to, "at_us": round(at_s * 1e6)}


def test_shards_that_share_an_address_or_a_machine_are_counted() -> None:
    found = describe(
        [
            machine(0, 2, egress="a", node="n0", type="t3.small"),
            machine(1, 1, egress="a", node="n1", type="t3.small"),
            machine(2, 1, egress="b", node="n2", type="c5.large"),
        ]
    )
    assert (found.shared_egress, found.shared_machine) == (3, 2)
    assert (found.egress_addresses, found.machines, found.hosts) == (2, 3, 3)
    assert found.types == {"c5.large": 1, "t3.small": 2}


def test_where_nobody_said_nothing_is_claimed() -> None:
    found = describe([machine(0)])
    assert (found.shared_egress, found.shared_machine) == (None, None)
    assert describe([]).launch_to_armed_s is None


def test_what_orchestration_cost_is_from_the_turn_to_the_release() -> None:
    lines = [state("provisioning", 10), state("arming", 40.5), state("bursting", 72)]
    found = describe([*lines, state("collecting", 99)])
    assert (found.provision_s, found.arm_s) == (30.5, 31.5)
    assert found.launch_to_armed_s == 62


def test_neither_names_nor_addresses_are_in_it() -> None:
    facts = {"id": "i-0abc", "node": "rack-7", "egress": "203.0.113.9", "zone": "a"}
    shown = str(describe([machine(0, **facts, hostname="rack-7.example")]))
    for secret in ("i-0abc", "rack-7", "203.0.113.9"):
        assert secret not in shown


@pytest.mark.usefixtures("engine")
def test_the_journal_says_what_carried_each_attempt_of_a_shard(
    object_store: ObjectStore, put: Callable[[str, bytes], None]
) -> None:
    code = "carried"
    plan = Plan(code=code, provider="sim", sandbox_count=3, sandboxes_per_shard=1)
    lines = [
        machine(0, 2, type="t3.small"),
        {**machine(1), "attempts": [[2, 0]]},
        {**machine(7, type="c5.large"), "attempts": [[0, 1], [2, 1]]},
        state("arming", 1),
    ]
    key = f"runs/{code}/journal-000000.ndjson"
    put(key, "".join(json.dumps(line) + "\n" for line in lines).encode())
    ingest.ingest_segments(object_store, plan, [key])
    found = {shard: [x["host"] for x in carriers(code, shard)] for shard in range(4)}
    assert found == {0: [0, 7], 1: [0], 2: [1, 7], 3: []}
    assert carriers(code, 0)[1]["type"] == "c5.large"
