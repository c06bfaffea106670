"""The fast subset of the fault drills; `make faults` holds them all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardagent import zstd
from tests.embedded import Site, running
from tests.faults.__main__ import document
from tests.faults.drills import BY_NAME, DRILLS
from tests.faults.ground import ENVIRONMENT, STATES
from tests.faults.record import Loss, Record
from tests.faults.suite import Result, hold_at


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("site"), **ENVIRONMENT) as site:
        yield site


@pytest.mark.e2e
@pytest.mark.parametrize(("name", "phase"), [("kill_agent", "bursting")])
def test_a_fault_costs_no_more_than_it_must(site: Site, name: str, phase: str) -> None:
    result = hold_at(BY_NAME[name], phase, site)
    assert result.wrong == ()
    assert result.seconds_lost < 3


def test_every_drill_strikes_in_phases_that_exist() -> None:
    for drill in DRILLS:
        assert set(drill.phases) <= {*STATES, "whole Run"}


def write(folder: Path, attempt: str, *events: dict[str, Any]) -> None:
    path = folder / "runs" / "alpha-1" / "shards" / attempt / "events-000000.ndjson.zst"
    path.parent.mkdir(parents=True)
    lines = [json.dumps({"kind": "x", **event}) for event in events]
    path.write_bytes(zstd.compress("\n".join(lines).encode()))


def test_loss_is_what_the_record_does_not_know(tmp_path: Path) -> None:
    done = {"kind": "agent_finished"}
    at = 1_000_000
    others = [{"n": n, "at": n * at} for n in range(9)]
    write(
        tmp_path, "00000/00", *others, {"n": 10, "at": 9 * at, **done}
    )  # 9 is missing
    write(tmp_path, "00001/00", {"n": 0, "at": 0}, {"n": 1, "at": 3 * at})
    found = Record(tmp_path, "alpha-1").loss(fault_us=7_500_000)
    assert found == Loss(seconds=4.5, events=1 + 4)


def test_the_document_has_a_row_for_each_result() -> None:
    rows = [
        Result("a", "kill it", "holding", 1.5, 20, "80 success", 3, 0, "VALID"),
        Result("b", "fill it", "arming", skipped="needs root"),
        Result("c", "turn it", "arming", wrong=("2 sandboxes created twice",)),
    ]
    text = document(rows, "2026-01-01")
    assert "1 of 2 are well." in text
    assert (
        "| kill it | holding | well | 1.5 | 20 | 80 success | 3 | 0 | VALID |" in text
    )
    assert "skipped: needs root" in text
    assert "| turn it | arming | 2 sandboxes created twice |" in text
