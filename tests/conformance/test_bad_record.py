"""A record full of rubbish, rebuilt: what is wrong is listed, the rest is right."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from shardagent import zstd
from tests.embedded import Site, running

pytestmark = [pytest.mark.e2e, pytest.mark.conformance]
T0 = 1_750_000_000_000_000
CODE = "acme-rubbish"


def line(n: int, ms: float, kind: str, /, **fields: Any) -> bytes:
    event = {"v": 1, "n": n, "at": T0 + round(ms * 1_000), "kind": kind, **fields}
    return json.dumps(event).encode()


def life(shard: int) -> list[bytes]:
    """One Shard of two Sandboxes that live from 300 ms to the final probe at 5 s."""
    first = 2 * shard
    told: list[tuple[float, str, dict[str, Any]]] = [
        (0, "agent_started", {"host": f"h{shard}"}),
        (0, "clock", {"offset_us": 0, "half_rtt_us": 100}),
        (0, "released", {"t0_us": T0}),
    ]
    for box in (first, first + 1):
        told += [
            (1, "create_sent", {"sandbox": box, "intended_us": T0}),
            (200, "created", {"sandbox": box, "latency_us": 199_000}),
            (300, "ready", {"sandbox": box, "latency_us": 100_000}),
            (2_500, "probe_ok", {"sandbox": box, "latency_us": 9_000, "final": False,
                                 "sent_us": T0 + 2_491_000}),
            (5_010, "probe_ok", {"sandbox": box, "latency_us": 9_000, "final": True,
                                 "sent_us": T0 + 5_001_000}),
            (6_001, "destroy_sent", {"sandbox": box}),
            (6_030, "destroyed", {"sandbox": box, "latency_us": 29_000}),
        ]  # fmt: skip
    told += [
        (1_000, "holding", {"t_hold_us": T0 + 1_000_000}),
        (4_900, "teardown", {"t_end_us": T0 + 5_000_000, "autonomous": False,
                             "t_destroy_us": T0 + 6_000_000}),
        (6_100, "agent_finished", {"reason": "done", "orphans": 0}),
    ]  # fmt: skip
    told.sort(key=lambda event: event[0])
    return [line(n, ms, kind, **f) for n, (ms, kind, f) in enumerate(told)]


PROBE = {"sandbox": 1, "latency_us": 1, "sent_us": T0, "final": False}
# Each as one line of its own, and why it must be set aside.
RUBBISH: list[tuple[bytes, str]] = [
    (b"", "not_json"),
    (b"\x00\x00\x00", "not_json"),
    (b"\xff\xfe{}", "not_json"),
    (b'{"v":1,"n":900,"at":1,"kind":"dead\xff"}', "not_json"),
    (line(900, 1, "settled") + b"\x00", "not_json"),
    (line(900, 1, "settled") + line(901, 1, "settled"), "not_json"),
    (b"[" * 5_000 + b"]" * 5_000, "not_json"),
    (b'{"v":1,"n":900,"at":NaN,"kind":"settled"}', "not_json"),
    (b'["v",1]', "not_json"),
    (line(900, 1, "settled", v=2), "field:v"),
    (line(900, 1, "settled", v="1"), "field:v"),
    (line(900, 1, "settled", n=-1), "field:n"),
    (line(900, 1, "settled", n=1.5), "field:n"),
    (line(900, 1, "settled", n=True), "field:n"),
    (line(900, 1, "settled", at=2**63), "field:at"),
    (line(900, 1, "settled", at=9e18), "field:at"),
    (line(900, 1, "settled", at=str(T0)), "field:at"),
    (line(900, 1, "settled", at=None), "field:at"),
    (line(900, 1, ""), "field:kind"),
    (line(900, 1, 7), "field:kind"),  # type: ignore[arg-type]
    (line(900, 1, "dead", sandbox=-1, cause="timeout", origin="provider"),
     "field:sandbox"),
    (line(900, 1, "dead", cause="timeout", origin="provider"), "field:sandbox"),
    (line(900, 1, "dead", sandbox=2**63, cause="timeout", origin="provider"),
     "field:sandbox"),
    (line(900, 1, "dead", sandbox=1, cause=5, origin="provider"), "field:cause"),
    (line(900, 1, "dead", sandbox=1, cause="timeout"), "field:origin"),
    (line(900, 1, "probe_ok", **{**PROBE, "final": "no"}), "field:final"),
    (line(900, 1, "probe_ok", **{**PROBE, "sent_us": 2**63}), "field:sent_us"),
    (line(900, 1, "probe_ok", **{**PROBE, "latency_us": 0.5}), "field:latency_us"),
    (line(20, 1, "dead", sandbox=2, cause="timeout", origin="provider"), "foreign"),
    (line(21, 1, "dead", sandbox=99, cause="timeout", origin="provider"), "foreign"),
]  # fmt: skip
# Odd, but what a reader must live with; n goes on from the life's and the foreign ones.
LIVED_WITH = [
    line(22, 1, "never_heard_of", sandbox="x", huge="y" * 2_000_000),
    line(23, 0, "clock", t1_us=2**63 - 1, t2_us=-(2**63), t3_us=0),
    line(24, 0, "clock", offset_us=2**63 - 1, half_rtt_us=-(2**63)),
    line(25, 0, "clock", offset_us="12", half_rtt_us=1.5, clock_id=7),
    line(26, 1, "health", cpu_pct="much", loop_lag_us=[1], rss_bytes=2**64 - 1),
]


def write(folder: Path) -> str:
    """Shard 0 with all rubbish, Shard 1 in pieces and out of order; its rubbish key."""
    run = {"format": 1, "provider": "acme", "sandbox_count": 4, "shard_count": 2,
           "created_at_us": 10**18, "hold_s": 4, "its_own_key": [1]}  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run))
    place = folder / "shards/00000/00"
    place.mkdir(parents=True)
    events = life(0)
    assert len(events) == 20
    (place / "events-000000.ndjson").write_bytes(b"\n".join(events) + b"\n")
    rubbish = b"\n".join(bad for bad, _ in RUBBISH) + b"\n"
    (place / "events-000001.ndjson.gz").write_bytes(gzip.compress(rubbish))
    cut = b"\n".join([*LIVED_WITH, b'{"v":1,"n":27,"at":1,"ki'])
    (place / "events-000002.ndjson.zst").write_bytes(zstd.compress(cut, 1))
    (place / "log-000000.txt").write_bytes(b"\xff\x00 no format\n12 INFO fine\n")
    place = folder / "shards/00001/00"
    place.mkdir(parents=True)
    events = life(1)
    late, early = events[10:], events[:10]
    (place / "events-000000.ndjson").write_bytes(b"\n".join(reversed(late)) + b"\n")
    again = [*early, events[4], events[5].replace(b"199000", b"199001")]
    (place / "events-000001.ndjson").write_bytes(b"\n".join(again) + b"\n")
    (folder / "journal-000000.ndjson").write_bytes(
        b'nonsense\n{"kind": "state", "to": "queued", "at_us": 9000000000000000000}\n'
        b'{"kind": "released", "t0_us": 18446744073709551615}\n'
        b'{"kind": "holding", "t_hold_us": "soon"}\n'
    )
    return f"runs/{CODE}/shards/00000/00/events-000001.ndjson.gz"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("rubbish")
    write(data / "objects/raw/runs" / CODE)
    with running(data) as found:
        row = json.loads(found.manage("rebuild_run", CODE, "--json").stdout)
        assert row["rebuilt"], row
        yield found


def test_what_is_right_counts(site: Site) -> None:
    run = site.run(CODE)
    assert run["outcomes"]["success"] == run["outcomes"]["total"] == 4
    assert run["held"]["proven"] == 4
    assert run["instants"]["t0_us"] == T0
    assert run["time_to_ms"]["100"] == 301  # ready at 300 ms, and the bound
    assert run["clock_bound_us"] < 1_000
    assert site.get(f"/runs/{CODE}/curve?step_ms=1000")["points"][3]["proven"] == 4


def test_every_line_that_is_wrong_is_listed_with_key_and_line(site: Site) -> None:
    found = site.get(f"/runs/{CODE}/defects?limit=10000")["items"]
    key = f"runs/{CODE}/shards/00000/00/events-000001.ndjson.gz"
    listed = {row["line"]: row["reason"] for row in found if row["key"] == key}
    assert listed == {place: why for place, (_, why) in enumerate(RUBBISH, 1)}
    elsewhere = {(row["reason"], row["line"]) for row in found if row["key"] != key}
    assert ("truncated", len(LIVED_WITH) + 1) in elsewhere
    assert ("conflict", 0) in elsewhere
    assert ("not_json", 1) in elsewhere  # of the journal
    assert site.run(CODE)["defects"] == len(found)


@pytest.fixture(scope="module")
def page(site: Site) -> Callable[[str], str]:
    opener = build_opener(HTTPCookieProcessor(CookieJar()))
    link = site.manage("sign_in_link").stdout.strip()
    form = opener.open(link, timeout=30).read().decode()
    token = form.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    opener.open(link, urlencode({"csrfmiddlewaretoken": token}).encode(), timeout=30)

    def fetch(path: str) -> str:
        with opener.open(f"{site.url}{path}", timeout=60) as answer:
            return str(answer.read().decode())

    return fetch


@pytest.mark.parametrize(
    "path",
    ["", "?clock=raw", "/shards", "/shards/0", "/shards/1", "/shards/0/log.txt",
     "/sandboxes", "/chart", "/chart?of=deaths", "/chart?of=start", "/summary.md"],
)  # fmt: skip
def test_every_page_stands(page: Callable[[str], str], path: str) -> None:
    assert page(f"/runs/{CODE}{path}")


def test_the_page_lists_the_defects(page: Callable[[str], str]) -> None:
    said = page(f"/runs/{CODE}")
    assert 'id="defects"' in said
    assert "shards/00000/00/events-000001.ndjson.gz</code>" in said
    assert "4</a> of 4 sandboxes" in said or "Until the rig is" in said


def test_it_verifies_against_its_own_rebuild(site: Site) -> None:
    before = {**site.run(CODE), "url": ""}
    site.manage("rebuild_run", CODE)
    assert {**site.run(CODE), "url": ""} == before
