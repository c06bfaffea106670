"""Reading segments: formats, corruption, repetition, logs, journal."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runs.clickhouse import client, defects, facts, hashes, ingest, logs
from runs.clickhouse.client import ObjectStore
from runs.errors import QueryError
from shardagent import zstd
from shardagent.wire import Plan, segment_key

Put = Callable[[str, bytes], None]
PLAN = Plan(
    code="alpha-run",
    provider="sim",
    sandbox_count=6,
    sandboxes_per_shard=2,
    shard_count=3,
)


@pytest.fixture(params=["s3", "folder"])
def store(
    request: pytest.FixtureRequest, object_store: ObjectStore, bucket_folder: Path
) -> ObjectStore:
    """The bucket by the S3 protocol, and as the folder that it is when embedded."""
    folder = str(bucket_folder) if request.param == "folder" else ""
    return replace(object_store, folder=folder)


@pytest.fixture(autouse=True)
def _clean(engine: None) -> Iterator[None]:
    yield
    ingest.forget_run(PLAN.code)


def lines(*events: dict[str, Any], first: int = 0) -> bytes:
    return b"".join(
        json.dumps({"v": 1, "n": n, "at": 10 + n, "kind": "armed", **event}).encode()
        + b"\n"
        for n, event in enumerate(events, first)
    )


def key(shard: int, seq: int) -> str:
    return segment_key(PLAN.code, shard, 0, "events", seq)


def packed(data: bytes) -> bytes:
    return zstd.compress(data, 1)


def rows(table: str) -> list[dict[str, Any]]:
    return client.query_rows(
        f"SELECT * FROM {table} FINAL WHERE run = 'alpha-run' LIMIT 1000", name="test"
    )


def reasons() -> list[tuple[str, int]]:
    return sorted((row["reason"], row["line"]) for row in rows("defects"))


def test_mixed_formats_are_read_in_one_statement(store: ObjectStore, put: Put) -> None:
    bare = key(0, 2).removesuffix(".zst")
    put(key(0, 0), packed(lines({}, {})))
    put(bare, lines({}, first=2))
    put(bare.replace("000002", "000003") + ".gz", gzip.compress(lines({}, first=3)))
    keys = [key(0, 0), bare, bare.replace("000002", "000003") + ".gz"]
    for _ in range(2):  # the second time changes nothing
        assert ingest.ingest_segments(store, PLAN, keys) == ()
        assert len(rows("events")) == 4
        assert reasons() == []


def test_a_corrupt_segment_costs_only_itself(store: ObjectStore, put: Put) -> None:
    keys = [key(0, seq) for seq in range(7)]
    for seq, name in enumerate(keys):
        put(name, packed(lines({}, first=seq)))
    put(keys[3], b"\x28\xb5\x2f\xfdgarbage that is no frame")
    put(keys[5], packed(lines({}, first=5))[:-9])  # ends within the line
    assert ingest.ingest_segments(store, PLAN, keys) == (keys[3],)
    assert len(rows("events")) == 5
    assert {(r["key"], r["line"]) for r in rows("defects")} == {
        (keys[3], 0),
        (keys[5], 1),
    }
    known = facts.run_facts(PLAN)
    assert "gap:seq" not in {defect.reason for defect in defects.defects(known)}


def test_a_frame_cut_before_its_first_block_is_a_defect(
    store: ObjectStore, put: Put
) -> None:
    name = key(0, 50)
    put(name, packed(lines({}))[:7])  # ClickHouse reads nothing, without an error
    assert ingest.ingest_segments(store, PLAN, [name]) == (name,)
    assert reasons() == [("empty", 0)]


def test_an_absent_key_is_a_defect_only_when_sealed(
    store: ObjectStore, put: Put
) -> None:
    put(key(0, 0), packed(lines({})))
    keys = [key(0, 0), key(0, 90), "runs/other/x"]
    failed = ingest.ingest_segments(store, PLAN, keys)
    assert failed == (key(0, 90), "runs/other/x")
    assert reasons() == [("bad_key", 0)]
    ingest.replace_run(store, PLAN, keys)
    assert reasons() == [("absent", 0), ("bad_key", 0)]


def test_replace_run_leaves_nothing_of_before(store: ObjectStore, put: Put) -> None:
    put(key(0, 0), packed(lines({}, {}) + b"oops\n"))
    put(key(1, 0), packed(lines({})))
    ingest.ingest_segments(store, PLAN, [key(0, 0), key(1, 0)])
    ingest.replace_run(store, PLAN, [key(1, 0)])
    assert {row["shard"] for row in rows("events")} == {1}
    assert reasons() == []


def test_bad_lines_are_set_aside_with_their_reason(
    store: ObjectStore, put: Put
) -> None:
    probe = {"kind": "probe_ok", "sandbox": 0, "latency_us": 1, "sent_us": 1}
    body = lines(
        {"kind": "create_sent", "sandbox": 2},
        {"kind": "create_sent", "sandbox": 1},
        probe,
        {**probe, "final": False, "sent_us": "7"},
        {"kind": "dead", "sandbox": 0, "cause": "timeout"},
        {"kind": "never_heard_of", "sandbox": 99},
        {"v": 2},
    )
    put(key(0, 0), packed(body + b"\n[]\n" + b'{"v": 1, "n": 7'))
    ingest.ingest_segments(store, PLAN, [key(0, 0)])
    assert reasons() == [
        ("field:final", 3),
        ("field:origin", 5),
        ("field:sent_us", 4),
        ("field:v", 7),
        ("foreign", 1),
        ("not_json", 8),
        ("not_json", 9),
        ("truncated", 10),
    ]
    assert {r["n"]: r["judged"] for r in rows("events")} == {0: 0, 1: 1, 5: 0}


def test_one_odd_number_does_not_spoil_its_neighbours(
    store: ObjectStore, put: Put
) -> None:
    sent = {"kind": "create_sent", "sandbox": 0}
    put(
        key(0, 0),
        packed(lines({**sent, "sandbox": 0.5}, sent, {**sent, "sandbox": True})),
    )
    ingest.ingest_segments(store, PLAN, [key(0, 0)])
    assert reasons() == [("field:sandbox", 1), ("field:sandbox", 3)]


def test_log_lines_keep_their_numbers(store: ObjectStore, put: Put) -> None:
    log = [segment_key(PLAN.code, 1, 0, "log", seq) for seq in range(2)]
    put(log[0], packed(b"12 INFO began\n13 ERROR it's \\ odd\n"))
    put(log[1], packed(b"#first_line 2\nTraceback: no format\n15 WARNING back\n"))
    ingest.ingest_segments(store, PLAN, log)
    page = logs.log_lines(PLAN.code, 1)
    assert [(x.number, x.at_us, x.level, x.text) for x in page.lines] == [
        (0, 12, "INFO", "began"),
        (1, 13, "ERROR", "it's \\ odd"),
        (2, None, None, "Traceback: no format"),
        (3, 15, "WARNING", "back"),
    ]
    assert page.cursor == (0, 4)
    assert logs.log_lines(PLAN.code, 1, after=page.cursor).lines == []
    assert [x.number for x in logs.log_lines(PLAN.code, 1, q="IT'S \\").lines] == [1]
    assert [x.number for x in logs.log_lines(PLAN.code, 1, level="WARNING").lines] == [
        3
    ]
    assert logs.log_lines(PLAN.code, 1, attempt=1).lines == []


def test_instants_are_the_journals_or_the_shards(store: ObjectStore, put: Put) -> None:
    put(
        key(0, 0),
        packed(
            lines(
                {"kind": "released", "t0_us": 100},
                {"kind": "holding", "t_hold_us": 200},
            )
        ),
    )
    put(
        key(1, 0),
        packed(
            lines(
                {"kind": "released", "t0_us": 101},
                {
                    "kind": "teardown",
                    "t_end_us": 300,
                    "t_destroy_us": 400,
                    "autonomous": True,
                },
            )
        ),
    )
    ingest.ingest_segments(store, PLAN, [key(0, 0), key(1, 0)])
    found = facts.run_facts(PLAN)
    assert (found.t0_us, found.t_hold_us, found.t_end_us) == (100, 200, 300)
    assert found.clock_id is None
    assert found.defects == ("t0_us_disagrees",)
    journal = f"runs/{PLAN.code}/journal-000000.ndjson"
    put(
        journal,
        b'{"kind": "clock", "at_us": 1, "clock_id": "old"}\n'
        b'{"kind": "clock", "at_us": 2, "clock_id": "c"}\n'
        b'{"kind": "released", "at_us": 3, "t0_us": 101}\nhalf a li',
    )
    ingest.ingest_segments(store, PLAN, [journal])
    found = facts.run_facts(PLAN)
    assert (found.t0_us, found.clock_id) == (101, "c")
    assert ("truncated", 4) in reasons()


def test_hashes_are_of_the_stored_bytes(store: ObjectStore, put: Put) -> None:
    from hashlib import sha256

    body = packed(lines({}, {}))
    put(key(0, 0), body)
    put(f"runs/{PLAN.code}/run.json", b"{}")
    ingest.ingest_segments(store, PLAN, [key(0, 0)])
    keys = [f"runs/{PLAN.code}/run.json", key(0, 0)]
    found = hashes.hash_objects(store, PLAN.code, keys)
    assert hashes.with_events(PLAN.code, found) == [
        {"key": keys[0], "bytes": 2, "sha256": sha256(b"{}").hexdigest(), "events": 0},
        {
            "key": keys[1],
            "bytes": len(body),
            "sha256": sha256(body).hexdigest(),
            "events": 2,
        },
    ]


def test_a_store_that_refuses_us_is_no_defect(object_store: ObjectStore) -> None:
    wrong = ObjectStore(object_store.endpoint_url, "raw", "bench", "wrong-secret")
    with pytest.raises(QueryError):
        ingest.ingest_segments(wrong, PLAN, [key(0, 0)])
    assert reasons() == []


def test_a_store_that_is_away_is_an_error_and_no_absent_segment(
    object_store: ObjectStore, engine: None
) -> None:
    away = replace(object_store, endpoint_url="http://127.0.0.1:9")
    with pytest.raises(QueryError):
        ingest.ingest_segments(away, PLAN, [key(0, 404)])
    with pytest.raises(QueryError):
        ingest.replace_run(away, PLAN, [key(0, 404), key(1, 0)])
    assert rows("defects") == []
