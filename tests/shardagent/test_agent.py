"""A whole agent against a real site and store on loopback."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shardagent.agent import Agent, Options
from shardagent.clock import Clock
from shardagent.post import Post
from shardagent.scrub import Scrubber
from shardagent.spool import ShardSpool
from shardagent.wire import CauseCount, Lease, Plan
from tests.shardagent.fake_provider import World
from tests.shardagent.stand_in_site import StandInSite, now_us

Event = dict[str, Any]


def make_plan(**overrides: Any) -> Plan:
    fields: dict[str, Any] = {
        "code": "alpha-1",
        "provider": "fake",
        "sandbox_count": 8,
        "shard_count": 2,
        "sandboxes_per_shard": 4,
        "hold_s": 0.6,
        "probe_interval_s": 0.2,
        "probe_timeout_s": 0.15,
        "probe_failures_max": 2,
        "create_timeout_s": 0.3,
        "ready_timeout_s": 0.3,
        "destroy_timeout_s": 1,
        "final_spread_s": 0.2,
        "flush_interval_s": 0.2,
        "heartbeat_interval_s": 0.2,
        "witness": True,
    }
    return Plan(**(fields | overrides))


def make_site(plan: Plan, **overrides: Any) -> StandInSite:
    leases = [Lease(shard=shard, attempt=0) for shard in range(plan.shard_count)]
    return StandInSite(plan=plan, leases=leases, **overrides)


def make_agent(
    site: StandInSite, world: World, spool: Path, clock: Clock | None = None
) -> Agent:
    options = Options(
        site=site.url, run=site.plan.code, host=0, spool=spool, token="the-agent-token"
    )
    return Agent(options, open_provider=world.open, clock=clock)


def kinds(events: list[Event], sandbox: int) -> list[str]:
    return [event["kind"] for event in events if event.get("sandbox") == sandbox]


def check_numbers(site: StandInSite, shard: int) -> list[Event]:
    """What is true of every record that was brought home."""
    events: list[Event] = site.events(shard)
    assert [event["n"] for event in events] == list(range(len(events)))
    assert events[-1]["kind"] == "agent_finished"
    assert set(site.reported) == set(site.objects)
    return events


def check_record(site: StandInSite, shard: int) -> list[Event]:
    """What is true of every complete record."""
    events = check_numbers(site, shard)
    by_sandbox: dict[int, list[str]] = defaultdict(list)
    for event in events:
        if "sandbox" in event:
            by_sandbox[event["sandbox"]].append(event["kind"])
    for index, seen in by_sandbox.items():
        assert seen.count("create_sent") == 1, index
        made = "created" in seen
        closed = {"destroyed", "orphaned"} & set(seen)
        assert not made or closed, (index, seen)
    return events


def of_kind(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event["kind"] == kind]


async def test_a_whole_run_is_recorded(tmp_path: Path) -> None:
    world = World(
        refused=frozenset({1}),
        hanging=frozenset({2}),
        lost=frozenset({3}),
        mute=frozenset({4}),
        short_lived=frozenset({5}),
    )
    plan = make_plan()
    async with make_site(plan) as site:
        assert await make_agent(site, world, tmp_path).run() == 0
        first, second = check_record(site, 0), check_record(site, 1)
    assert first[-1]["reason"] == second[-1]["reason"] == "done"
    good = kinds(first, 0)
    assert good[:4] == ["create_sent", "created", "ready", "witness_started"]
    assert good[-3:] == ["probe_ok", "destroy_sent", "destroyed"]
    assert kinds(first, 1) == ["create_sent", "create_failed"]
    assert kinds(first, 2) == ["create_sent", "create_failed", "orphaned"]
    assert kinds(first, 3) == [
        "create_sent",
        "create_failed",
        "destroy_sent",
        "destroyed",
    ]
    assert first[-1]["orphans"] == 1
    assert "readiness_failed" in kinds(second, 4)
    assert kinds(second, 5)[-4:] == [
        "probe_failed",
        "dead",
        "destroy_sent",
        "destroyed",
    ]
    for events in (first, second):
        seen = [event["kind"] for event in events]
        order = ["agent_started", "armed", "released", "settled", "holding", "teardown"]
        assert sorted(order, key=seen.index) == order
    check_teardown(site, first + second, plan)
    check_probes(first + second)
    check_causes(site)
    assert not any("top-secret" in str(event) for event in first)
    assert not any("abcdef0123" in line for line in site.log(0))
    assert files_in(tmp_path) == []


def check_causes(site: StandInSite) -> None:
    """Each was told, once, without secrets; how many lived to the end as well."""
    told = [
        (one.sandbox, one.kind, one.cause, one.count)
        for shard in (0, 1)
        for one in site.causes[shard, 0]
    ]
    assert sorted(told) == [
        (1, "create_failed", "rate_limited", 1),
        (2, "create_failed", "timeout", 1),
        (3, "create_failed", "provider_error", 1),
        (4, "readiness_failed", "command_failed", 1),
        (5, "dead", "not_found", 1),
    ]
    messages = "".join(one.message for one in site.causes[0, 0])
    assert "slow down" in messages
    assert "top-secret" not in messages
    assert "abcdef0123" not in messages
    assert site.causes_told < 8  # not with every beat
    assert sum(beat.counts.final_ok for beat in site.beats.values()) == 3


def test_a_secret_is_cleaned_before_a_message_is_cut() -> None:
    post = Post(cast(ShardSpool, SimpleNamespace(clean=Scrubber(["k" * 40]).clean)))
    counted = CauseCount(
        kind="dead",
        cause="network",
        origin="network",
        count=1,
        sandbox=0,
        message="x" * 100 + "k" * 40,
    )
    (told,) = post._causes([counted]) or []
    assert told.message == "x" * 100 + "[removed]"
    longer = counted.model_copy(update={"message": "x" * 119 + " Bearer y"})
    (told,) = post._causes([longer]) or []
    assert len(told.message) == 120


def files_in(spool: Path) -> list[Path]:
    return [path for path in spool.rglob("*") if path.is_file()]


def check_teardown(site: StandInSite, events: list[Event], plan: Plan) -> None:
    instants = site.instants
    assert instants.t_end_us is not None
    assert instants.t_destroy_us is not None
    finals = [event for event in events if event.get("final")]
    assert {event["sandbox"] for event in finals} == {0, 6, 7}
    for event in finals:
        place_us = event["sandbox"] * plan.final_spread_s * 1e6 / plan.sandbox_count
        late_us = event["sent_us"] - instants.t_end_us - place_us
        assert -2_000 < late_us < 100_000
    for event in of_kind(events, "destroy_sent"):
        assert event["at"] > instants.t_destroy_us - 2_000


def check_probes(events: list[Event]) -> None:
    good = of_kind(events, "probe_ok")
    assert len(good) >= 9
    assert all(event["witness_ok"] for event in good)
    assert all(event["ticks"] >= 0 for event in good)
    for event in of_kind(events, "ready"):
        assert event["tti_us"] > event["latency_us"] > 0
        assert event["tries"] == 1
    for event in of_kind(events, "create_sent"):
        assert 0 <= event["at"] - event["intended_us"] < 200_000


async def test_the_site_may_go_away_in_the_middle(tmp_path: Path) -> None:
    plan = make_plan(hold_s=0.8)
    async with make_site(plan) as site:
        running = asyncio.create_task(make_agent(site, World(), tmp_path).run())
        await site.until(lambda: site.instants.t_hold_us is not None)
        site.away = True
        await asyncio.sleep(0.7)
        assert site.objects  # URLs held ahead: uploads need no site
        site.away = False
        assert await running == 0
        events = check_record(site, 0)
        assert any("does not answer" in line for line in site.log(0))
    assert events[-1]["reason"] == "done"


async def test_what_one_request_is_told_all_shards_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardagent.agent.BEATS_A_REQUEST", 1)
    gone: list[StandInSite] = []

    def leave_once(site: StandInSite) -> None:
        if site.instants.t0_us is not None and not gone:
            gone.append(site)
            site.away = True
            loop.call_later(site.t0_ahead_us / 1e6 + 2, setattr, site, "away", False)

    loop = asyncio.get_running_loop()
    plan = make_plan()
    async with make_site(plan) as site:
        site.on_beat = leave_once
        assert await make_agent(site, World(), tmp_path).run() == 0
        records = [check_record(site, shard) for shard in (0, 1)]
    assert gone
    for events in records:
        assert len(of_kind(events, "create_sent")) == plan.sandboxes_per_shard
        assert events[-1]["reason"] == "done"


async def test_the_store_may_go_away_in_the_middle(tmp_path: Path) -> None:
    async with make_site(make_plan()) as site:
        running = asyncio.create_task(make_agent(site, World(), tmp_path).run())
        await site.until(lambda: site.instants.t0_us is not None)
        site.store_away = True
        await site.until(lambda: site.instants.t_end_us is not None)
        assert any(path.name.startswith("events-") for path in files_in(tmp_path))
        site.store_away = False
        assert await running == 0
        check_record(site, 0)
        assert any("upload of events-" in line for line in site.log(0))


async def test_a_refused_url_is_replaced_by_a_new_one(tmp_path: Path) -> None:
    async with make_site(make_plan(hold_s=0.2), puts_refused=3) as site:
        assert await make_agent(site, World(), tmp_path).run() == 0
        check_record(site, 0)
        logs = site.log(0) + site.log(1)
        assert sum("upload URL refused" in line for line in logs) >= 1


async def test_a_fenced_attempt_destroys_and_leaves(tmp_path: Path) -> None:
    world = World()
    async with make_site(make_plan(hold_s=5)) as site:
        running = asyncio.create_task(make_agent(site, world, tmp_path).run())
        await site.until(lambda: site.instants.t_hold_us is not None)
        site.fenced = [Lease(shard=1, attempt=0)]
        await site.until(lambda: site.beats[1, 0].finished is not None)
        assert site.beats[0, 0].finished is None
        site.leave = "enough"
        site.withhold_end = True
        now = site.instants.t_hold_us
        update = {"t_end_us": now, "t_destroy_us": now + 1}
        site.instants = site.instants.model_copy(update=update)
        assert await running == 0
        assert check_record(site, 1)[-1]["reason"] == "fenced"
        assert check_record(site, 0)[-1]["reason"] == "aborted"
    assert all(box.destroyed_s for box in world.boxes.values())


async def test_refused_by_the_site_it_stores_what_it_has(tmp_path: Path) -> None:
    world = World()
    async with make_site(make_plan(hold_s=5)) as site:
        running = asyncio.create_task(make_agent(site, world, tmp_path).run())
        await site.until(lambda: site.instants.t_hold_us is not None)
        site.refuse = True
        assert await running == 1  # nobody heard that it finished
        assert site.events(0)[-1]["reason"] == "fenced"
    assert all(box.destroyed_s for box in world.boxes.values())


async def test_a_late_joiner_creates_nothing(tmp_path: Path) -> None:
    world = World()
    async with make_site(make_plan()) as site:
        t0_us = now_us() - 5_000_000
        site.instants = site.instants.model_copy(update={"t0_us": t0_us})
        assert await make_agent(site, world, tmp_path).run() == 0
        assert check_record(site, 0)[-1]["reason"] == "aborted"
        assert any("too late" in line for line in site.log(0))
    assert world.boxes == {}


@pytest.mark.parametrize("offset_us", [5_000_000, -5_000_000])
async def test_a_skewed_clock_fires_at_the_same_instant(
    tmp_path: Path, offset_us: int
) -> None:
    plan = make_plan(hold_s=0.3)
    async with make_site(plan) as site:
        clock = Clock(offset_us=offset_us, drift_ppm=50)
        assert await make_agent(site, World(), tmp_path, clock).run() == 0
        events = check_record(site, 0)
        t0_us = site.instants.t0_us
    for event in of_kind(events, "clock"):
        drifted_us = 1_000  # 50 ppm since the start
        assert abs(event["offset_us"] + offset_us) <= event["half_rtt_us"] + drifted_us
    doubt_us = min(event["half_rtt_us"] for event in of_kind(events, "clock"))
    for event in of_kind(events, "create_sent"):
        after_us = event["at"] - offset_us - t0_us
        assert -doubt_us - 1_000 <= after_us < 1_000_000  # never before T0


async def test_our_own_bug_is_recorded_and_the_record_saved(tmp_path: Path) -> None:
    world = World()

    def break_down(site: StandInSite) -> None:
        if site.instants.t_hold_us is not None:
            world.boxes["box-0"].labels = {}  # KeyError inside the adapter

    plan = make_plan(hold_s=0.3)
    async with make_site(plan, on_beat=break_down) as site:
        assert await make_agent(site, world, tmp_path).run() == 0
        failed = of_kind(check_record(site, 0), "probe_failed")
    assert {(one["cause"], one["origin"]) for one in failed} == {("harness", "harness")}


async def test_an_unknown_provider_is_said_in_the_record(tmp_path: Path) -> None:
    async with make_site(make_plan(provider="nobody")) as site:
        options = Options(site.url, "alpha-1", 0, tmp_path, "the-agent-token")
        assert await Agent(options).run() == 1
        assert site.events(0)[-1]["reason"] == "error"
        assert any("no provider 'nobody'; known are" in line for line in site.log(0))
        assert site.beats[0, 0].finished == "error"


async def test_a_failure_of_the_agent_ends_all_records(tmp_path: Path) -> None:
    opened = []

    def open_provider(*arguments: Any) -> Any:
        opened.append(arguments)
        if len(opened) == 2:
            raise RuntimeError("a bug")
        return World().open(*arguments)

    async with make_site(make_plan()) as site:
        options = Options(site.url, "alpha-1", 0, tmp_path, "the-agent-token")
        assert await Agent(options, open_provider=open_provider).run() == 1
        for shard in (0, 1):
            assert check_numbers(site, shard)[-1]["reason"] == "error"
            assert any("a bug" in line for line in site.log(shard))


async def start(site: StandInSite, spool: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.shardagent.fake_agent",
        *("--site", site.url, "--run", "alpha-1", "--host", "0"),
        *("--spool", str(spool)),
        cwd=Path(__file__).parents[2],
        env=os.environ | {"HOLDFAST_AGENT_TOKEN": "the-agent-token"},
        stderr=asyncio.subprocess.DEVNULL,
    )


async def test_told_to_terminate_it_destroys_stores_and_leaves(tmp_path: Path) -> None:
    async with make_site(make_plan(hold_s=60)) as site:
        process = await start(site, tmp_path)
        await site.until(lambda: site.instants.t_hold_us is not None)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 8) == 0
        events = check_record(site, 0)
    assert events[-1]["reason"] == "aborted"
    assert len(of_kind(events, "destroyed")) == 4


async def test_after_a_kill_the_record_is_finished_not_repeated(
    tmp_path: Path,
) -> None:
    async with make_site(make_plan(hold_s=60)) as site:
        process = await start(site, tmp_path)
        await site.until(lambda: site.instants.t_hold_us is not None)
        process.kill()
        await process.wait()
        world = World()
        assert await make_agent(site, world, tmp_path).run() == 0
        events = check_numbers(site, 0)
    assert events[-1]["reason"] == "error"
    assert len(of_kind(events, "create_sent")) <= 4
    assert world.boxes == {}
    assert site.registered == 2
