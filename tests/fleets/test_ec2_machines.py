"""EC2 machines from order to end: the user data is executed, not only sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.embedded import Site, quick_plan, running
from tests.fleets.bed import Bed, site_settings, store, until
from tests.fleets.cloud import ENVIRONMENT, Cloud, cloud

pytestmark = [pytest.mark.fleets, pytest.mark.e2e, pytest.mark.timeout(900)]


def make_plan(**changes: Any) -> dict[str, Any]:
    fleet = {"driver": "ec2", "shards_per_host": 1, **changes.pop("fleet", {})}
    return quick_plan(fleet=fleet, **changes)


def make_site(folder: Path, there: Cloud, **environment: str) -> Site:
    file = folder / "fleets.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"ec2": there.account()}))
    site = Site(folder / "site", **ENVIRONMENT, **environment)
    limits = {"RUN_LEASE_S": "5", "RUN_COLLECT_TIMEOUT_S": "10"}
    site.environment_add(FLEETS_FILE=str(file), **limits)
    return site


def test_user_data_carries_a_machine_from_wheels_to_a_sealed_shard(
    network: Bed, wheels: Path
) -> None:
    boxes = [network.box() for _ in range(2)]
    with store(network) as keys, cloud() as there:
        settings = {**keys, **site_settings(network), "AGENT_WHEELHOUSE": str(wheels)}
        site = make_site(network.folder, there, **settings)
        site.environment_add(AGENT_SITE_URL=f"http://{network.address}:{site.port}")
        with running(site):
            code = site.launch(make_plan(sandbox_count=40, sandboxes_per_shard=20))
            site.until_state(code, "arming", timeout_s=60)
            rows = there.machines(code)
            assert len(rows) == 2
            for row, box in zip(rows, boxes, strict=True):
                there.boot(row, there.script(code), box)
            for row, box in zip(rows, boxes, strict=True):
                until(lambda box=box: not box.runs(), f"{box.name} to end", 150)
                assert (box.home / "shutdown").read_text() == "-h now\n", box.console()
                there.ended(row)
            run = site.until_state(code, "sealed", timeout_s=90)
            assert run["outcomes"]["success"] == 40, [b.console() for b in boxes]
            assert there.machines(code) == []
            until(lambda: there.templates() == [], "the template to be deleted")
            told = _machine_lines(network.folder / "objects" / "raw", code)
    assert {line["id"] for line in told} == {row["InstanceId"] for row in rows}
    assert {line["egress"] for line in told} == {box.address for box in boxes}
    assert {line["type"] for line in told} == {"t3.small"}
    assert {line["zone"] for line in told} == {"eu-west-1a"}


def test_a_machine_ends_at_its_deadline_whatever_became_of_the_site(
    network: Bed, wheels: Path
) -> None:
    box = network.box()
    with store(network) as keys, cloud() as there:
        settings = {**keys, **site_settings(network), "AGENT_WHEELHOUSE": str(wheels)}
        site = make_site(network.folder, there, **settings)
        # Nobody listens there: the agent would wait for two minutes.
        site.environment_add(AGENT_SITE_URL=f"http://{network.address}:9")
        with running(site):
            code = site.launch(make_plan(sandbox_count=20, sandboxes_per_shard=20))
            site.until_state(code, "arming", timeout_s=60)
            (row,) = there.machines(code)
            lines = there.script(code).splitlines()
            (timer,) = [n for n, line in enumerate(lines) if "HF_LIFETIME_S=" in line]
            lines[timer] = "export HF_LIFETIME_S=12"
            there.boot(row, "\n".join(lines), box)
            until(lambda: not box.runs(), "the deadline", 60)
            # Asked first of systemd, which has no say in here.
            asked = (box.home / "systemd-run").read_text()
            assert asked == "--quiet --on-active=12s shutdown -h now\n"
            assert (box.home / "shutdown").read_text() == "-h now\n", box.console()
            site.post(f"/runs/{code}/abort")
            site.until_state(code, "sealed", timeout_s=90)
            assert there.machines(code) == []


def _machine_lines(bucket: Path, code: str) -> list[dict[str, Any]]:
    texts = [p.read_text() for p in (bucket / "runs" / code).glob("journal-*.ndjson")]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    return [line for line in lines if line["kind"] == "machine"]
