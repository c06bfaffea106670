"""How drivers are found and set up, and how hosts are chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runs import fleets
from runs.errors import FleetError, PlanError
from runs.fleets import ssh
from runs.fleets.accounts import Ec2Account, SshAccount, SshHost, account
from runs.fleets.local import LocalFleet
from runs.launch import checked_plan
from tests.runs.fleets.orders import make_order


def test_every_driver_of_ours_loads_by_its_entry_point() -> None:
    assert isinstance(fleets.fleet_for("local"), LocalFleet)
    found = fleets.drivers()
    assert {"local", "ssh", "ec2", "kubernetes"} <= set(found)
    for entry in fleets.OWN:
        assert entry.group == "holdfast.fleets"
        assert callable(entry.load())
    with pytest.raises(FleetError, match="no fleet driver is called 'balloon'"):
        fleets.fleet_for("balloon")


def test_a_driver_that_an_installed_package_offers_is_found_and_may_be_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"provider": "sim", "sandbox_count": 10, "fleet": {"driver": "balloon"}}
    with pytest.raises(PlanError, match="fleet.driver: 'balloon' is not known"):
        checked_plan(plan)
    info = tmp_path / "balloon-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: balloon\nVersion: 1.0\n"
    )
    entry = "[holdfast.fleets]\nballoon = balloon_fleet:open_fleet\n"
    (info / "entry_points.txt").write_text(entry + "local = balloon_fleet:open_fleet\n")
    (tmp_path / "balloon_fleet.py").write_text("def open_fleet():\n    return 'up'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert checked_plan(plan).fleet.driver == "balloon"
    assert fleets.fleet_for("balloon") == "up"
    assert isinstance(fleets.fleet_for("local"), LocalFleet)  # ours is not replaced
    fleets.fleet_for.cache_clear()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot read"),
        ("{}", "says nothing of ec2"),
        ('{"ec2": {"regions": {}}}', "ec2.regions"),
        ('{"ec2": {"regions": {"x": {"image": "a", "subnet": 1}}}}', "x.subnet"),
    ],
)
def test_a_wrong_account_is_one_line_that_names_the_place(
    tmp_path: Path, settings: Any, text: str, says: str
) -> None:
    settings.FLEETS_FILE = str(tmp_path / "fleets.json")
    (tmp_path / "fleets.json").write_text(text)
    with pytest.raises(FleetError, match=says) as caught:
        account("ec2", Ec2Account)
    assert not caught.value.retryable
    settings.FLEETS_FILE = ""
    with pytest.raises(FleetError, match="FLEETS_FILE"):
        account("ec2", Ec2Account)


def test_an_account_is_read(tmp_path: Path, settings: Any) -> None:
    settings.FLEETS_FILE = str(tmp_path / "fleets.json")
    hosts = [{"name": "a", "address": "192.0.2.1", "capacity": 4}]
    (tmp_path / "fleets.json").write_text(json.dumps({"ssh": {"hosts": hosts}}))
    assert account("ssh", SshAccount).hosts[0].capacity == 4


def host(name: str, capacity: int = 2) -> SshHost:
    return SshHost(name=name, address="192.0.2.1", capacity=capacity)


def test_the_emptiest_host_is_chosen_and_none_beyond_its_capacity() -> None:
    seen = [
        ssh._Seen(host("a"), slots={("other", "0")}),
        ssh._Seen(host("b")),
        ssh._Seen(host("c"), why="away"),
    ]
    assert ssh._choose(seen, make_order(), 2) == {"b": ["0"], "a": ["1"]}
    assert ssh._choose(seen, make_order(), 9) == {"b": ["0", "1"], "a": ["1"]}


def test_a_slot_that_was_given_up_is_not_used_again() -> None:
    order = make_order(written_off={"a.0"})
    assert ssh._choose([ssh._Seen(host("a"))], order, 2) == {"a": ["1", "2"]}


def test_a_host_out_of_reach_is_neither_named_nor_located() -> None:
    error = ConnectionRefusedError(111, "Connect call failed ('192.0.2.1', 22)")
    why = ssh._told(host("rack-7"), error)
    assert why == "a host is out of reach (Connection refused)"
