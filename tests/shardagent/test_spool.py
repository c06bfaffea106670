"""Segments, their numbering, their bound, and what a restart finds."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardagent import zstd
from shardagent.scrub import Scrubber
from shardagent.spool import SEGMENT_BYTES_MAX, ShardSpool, Spool, Stream
from shardagent.wire import Finish, Kind, Lease

LEASE = Lease(shard=2, attempt=1)


def open_spool(directory: Path, *, bytes_max: int = 1 << 24) -> ShardSpool:
    spool = Spool(directory, "alpha", bytes_max=bytes_max)
    return spool.open(LEASE, Scrubber(["a-long-secret", "short"]))


def text(path: Path) -> str:
    return zstd.decompress(path.read_bytes()).decode()


def events(stream: Stream) -> list[dict[str, object]]:
    lines = [line for one in stream.waiting for line in text(one.path).splitlines()]
    return [orjson.loads(line) for line in lines]


def store_all(stream: Stream) -> None:
    while stream.waiting:
        stream.stored(stream.waiting[0])


def test_events_are_numbered_and_written_one_a_line(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.event(Kind.ARMED, 5, connections=3)
    spool.event(Kind.CREATE_SENT, 6, 200, intended_us=4)
    spool.cut()
    assert events(spool.events) == [
        {"v": 1, "n": 0, "at": 5, "kind": "armed", "connections": 3},
        {
            "v": 1,
            "n": 1,
            "at": 6,
            "kind": "create_sent",
            "sandbox": 200,
            "intended_us": 4,
        },
    ]


def test_log_lines_keep_their_number_across_segments(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.log(1, "INFO", "one\ntwo")
    spool.cut()
    spool.log(2, "ERROR", "three")
    spool.cut()
    first, second = (text(one.path) for one in spool.lines.waiting)
    assert first == "#first_line 0\n1 INFO one two\n"
    assert second == "#first_line 1\n2 ERROR three\n"


def test_secrets_are_removed_from_messages_and_log(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    message = "no a-long-secret, Authorization: bearer abc.def, short"
    spool.event(Kind.CREATE_FAILED, 1, 0, message=message)
    spool.log(1, "ERROR", message)
    spool.cut()
    expected = "no [removed], Authorization: [removed] short"
    assert events(spool.events)[0]["message"] == expected
    assert expected in text(spool.lines.waiting[0].path)


def test_a_segment_is_never_larger_than_allowed(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for _ in range(3_000):
        spool.event(Kind.CREATE_FAILED, 1, 0, message="x" * 500)
    spool.cut()
    assert len(spool.events.waiting) == 2
    assert all(len(text(one.path)) <= SEGMENT_BYTES_MAX for one in spool.events.waiting)
    assert [event["n"] for event in events(spool.events)] == list(range(3_000))


def test_what_the_bound_costs_is_counted_and_leaves_a_gap(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, bytes_max=100)
    spool.event(Kind.ARMED, 1)
    spool.cut()
    spool.event(Kind.SETTLED, 2)
    spool.event(Kind.HOLDING, 3)
    spool.cut()
    assert spool.dropped == 2
    store_all(spool.events)
    spool.event(Kind.TEARDOWN, 4)
    spool.cut()
    assert [event["n"] for event in events(spool.events)] == [3]
    assert [one.report.seq for one in spool.events.waiting] == [1]


def test_nothing_follows_agent_finished(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.event(Kind.AGENT_FINISHED, 1, reason=Finish.DONE)
    spool.event(Kind.CLOCK, 2)
    spool.log(2, "INFO", "late")
    spool.cut()
    assert len(events(spool.events)) == 1
    assert not spool.lines.waiting


def test_a_restart_continues_the_numbering(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.event(Kind.ARMED, 1)
    spool.log(1, "INFO", "one")
    spool.cut()
    store_all(spool.events)
    spool.event(Kind.RELEASED, 2, t0_us=9)
    spool.cut()
    spool.event(Kind.CREATE_SENT, 3, 200)  # never cut: lost with the process

    again = open_spool(tmp_path)
    assert again.released
    assert not again.sealed
    assert [report.seq for report in again.events.unacknowledged] == [0]
    assert [event["n"] for event in events(again.events)] == [1]
    again.event(Kind.AGENT_FINISHED, 4, reason=Finish.ERROR)
    again.log(4, "ERROR", "not seen")
    again.cut()
    assert [event["n"] for event in events(again.events)] == [1, 2]
    assert [one.report.seq for one in again.events.waiting] == [1, 2]
    assert open_spool(tmp_path).finish is Finish.ERROR


def test_a_restart_finds_a_segment_that_the_state_does_not_name(
    tmp_path: Path,
) -> None:
    spool = open_spool(tmp_path)
    spool.event(Kind.ARMED, 1)
    spool.cut()
    spool.event(Kind.SETTLED, 2)
    spool.events.take().write()  # killed before the state was written
    again = open_spool(tmp_path)
    assert again.events.count == 2
    assert [one.report.seq for one in again.events.waiting] == [0, 1]


def test_release_is_on_disk_before_anything_is_created(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.event(Kind.RELEASED, 2, t0_us=9)
    assert open_spool(tmp_path).released


def test_a_record_that_is_home_leaves_nothing_behind(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.event(Kind.ARMED, 1)
    spool.cut()
    store_all(spool.events)
    spool.forget()
    assert Spool(tmp_path, "alpha").leases() == []


@pytest.mark.parametrize("steps", [1, 3])
def test_the_spool_knows_what_it_holds(tmp_path: Path, steps: int) -> None:
    shared = Spool(tmp_path, "alpha")
    spool = shared.open(LEASE, Scrubber())
    for _ in range(steps):
        spool.event(Kind.ARMED, 1)
        spool.cut()
    assert shared.used_bytes == sum(one.report.bytes for one in spool.events.waiting)
    store_all(spool.events)
    assert shared.used_bytes == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["event", "log", "cut", "store", "restart"])))
def test_whatever_happens_numbers_have_no_gap(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    spool = open_spool(directory)
    bucket: dict[int, list[int]] = {}
    for step in [*steps, "cut", "store"]:
        match step:
            case "event":
                spool.event(Kind.HEALTH, 1)
            case "log":
                spool.log(1, "INFO", "line")
            case "cut":
                spool.cut()
            case "store":
                for one in spool.events.waiting:
                    lines = text(one.path).splitlines()
                    bucket[one.report.seq] = [orjson.loads(line)["n"] for line in lines]
                store_all(spool.events)
            case _:
                spool = open_spool(directory)
    assert sorted(bucket) == list(range(len(bucket)))
    numbers = [n for seq in sorted(bucket) for n in bucket[seq]]
    assert numbers == list(range(len(numbers)))


def test_a_full_disk_costs_nothing_while_the_process_lives(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.event(Kind.ARMED, 1)
    spool.cut()
    folder = spool.events.path(0).parent
    folder.rename(tmp_path / "moved")  # now every write fails
    spool.event(Kind.RELEASED, 2, t0_us=5)
    spool.log(2, "INFO", "still here")
    spool.cut()
    (tmp_path / "moved").rename(folder)
    spool.event(Kind.SETTLED, 3)
    spool.cut()
    contents = [zstd.decompress(one.read()) for one in spool.events.waiting]
    numbers = [orjson.loads(line)["n"] for one in contents for line in one.splitlines()]
    assert numbers == [0, 1, 2]
    assert [one.path.exists() for one in spool.events.waiting] == [True, False, True]
    assert b"still here" in zstd.decompress(spool.lines.waiting[0].read())
    assert spool.dropped == 0
    store_all(spool.events)
    store_all(spool.lines)
    assert spool.stored
