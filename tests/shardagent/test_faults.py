"""Faults that tests give an agent: named, of one host or all, by default none."""

from __future__ import annotations

import pytest

from shardagent.clock import TEST_DRIFT, TEST_OFFSET, Clock
from shardagent.errors import ConfigError
from shardagent.faults import VARIABLE, Faults


def faults(text: str, host: int) -> Faults:
    return Faults.from_environment(host, Clock(), {VARIABLE: text})


def test_an_agent_has_no_faults_unless_told() -> None:
    assert not Faults.from_environment(0, Clock(), {})


def test_a_fault_is_of_one_host_or_of_all() -> None:
    assert faults("block=0.5@1,cold", 0)._values == {"cold": 0.0}
    assert faults("block=0.5@1,cold", 1)._values == {"block": 0.5, "cold": 0.0}


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ConfigError, match="'blok' is not a fault"):
        faults("blok=1", 0)


def test_clocks_may_differ_by_host() -> None:
    environ = {TEST_OFFSET: "5000000,-5000000", TEST_DRIFT: "50"}
    true = Clock().now_us()
    for host, offset in ((0, 5_000_000), (1, -5_000_000), (2, 5_000_000)):
        wrong = Clock.from_environment(environ, host=host)
        assert abs(wrong.now_us() - true - offset) < 1_000_000


def test_a_step_moves_the_clock_at_once() -> None:
    clock = Clock()
    before = clock.now_us()
    clock.step(-2_000_000)
    assert clock.now_us() < before - 1_000_000


async def test_a_stalled_heartbeat_waits_out_its_time() -> None:
    stalled = faults("stall=0.2", 0)
    await stalled._do("stall", 0.2, lambda: None)
    clock = Clock()
    before = clock.now_us()
    await stalled.before_beat()
    assert 150_000 < clock.now_us() - before < 2_000_000
