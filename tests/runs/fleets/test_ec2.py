"""EC2 as moto plays it, and what moto cannot play: refusals, quotas, throttling."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.stub import ANY, Stubber

from runs.errors import FleetError
from runs.fleets import MachineState
from runs.fleets.accounts import Ec2Account
from runs.fleets.base import usual
from runs.fleets.ec2 import BATCH, Ec2Fleet
from runs.fleets.ec2_requests import (
    BUCKET,
    TAG,
    at_most,
    room,
    shares,
    template_name,
    user_data,
)
from shardagent.wire import FleetSpec
from tests.runs.fleets.orders import make_order

KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
REGIONS = ("eu-west-1", "us-east-1")


def make_account(**changes: Any) -> Ec2Account:
    region = {"image": "ami-12c6146b", "machine_types": ["t3.small", "t3a.small"]}
    said = {
        "regions": dict.fromkeys(REGIONS, region),
        "usd_per_h": {"t3.small": 0.02, "t3a.small": 0.018},
    }
    return Ec2Account.model_validate(said | changes)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


def make_fleet(endpoint: str, **account: Any) -> Ec2Fleet:
    def client_for(region: str) -> Any:
        return boto3.client("ec2", region_name=region, endpoint_url=endpoint, **KEYS)

    return Ec2Fleet(make_account(**account), client_for)


@pytest.mark.parametrize("count", [8, pytest.param(1_000, marks=pytest.mark.fleets)])
def test_machines_come_in_batches_and_every_one_ends(endpoint: str, count: int) -> None:
    fleet = make_fleet(endpoint)
    order = make_order(count, run="sim-thousand")
    launched = fleet.launch(order)
    assert (launched.started, launched.refused) == (count, {})
    assert len({m.id for m in launched.machines}) == count
    listed = fleet.list("sim-thousand")
    assert {m.id for m in listed} == {m.id for m in launched.machines}
    assert [sum(m.region == r for m in listed) for r in REGIONS] == [count // 2] * 2
    assert fleet.launch(order).started == 0
    assert fleet.usd_per_h(listed) == pytest.approx(0.02 * count)
    other = fleet.launch(make_order(2, run="sim-other"))
    assert fleet.runs() == {"sim-thousand", "sim-other"}
    assert fleet.kill("sim-thousand", hard=True) == count
    assert fleet.list("sim-thousand") == []
    assert {m.id for m in fleet.list("sim-other")} == {m.id for m in other.machines}
    assert fleet.kill("sim-other", [next(iter(other.machines)).id]) == 1
    assert len(fleet.list("sim-other")) == 1
    fleet.kill("sim-other", hard=True)
    assert fleet.runs() == set()


def test_a_machine_is_made_to_end_and_can_be_found(endpoint: str) -> None:
    fleet = make_fleet(endpoint, regions={"eu-west-1": {"image": "ami-12c6146b"}})
    fleet.launch(make_order(1, run="sim-one"))
    client = fleet._client("eu-west-1")
    name = template_name("sim-one")
    (version,) = client.describe_launch_template_versions(LaunchTemplateName=name)[
        "LaunchTemplateVersions"
    ]
    data = version["LaunchTemplateData"]
    assert data["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    script = base64.b64decode(data["UserData"]).decode()
    assert script == user_data(make_order(1, run="sim-one"), "python3")
    (row,) = fleet._rows("eu-west-1", "sim-one")
    assert {"Key": TAG, "Value": "sim-one"} in row["Tags"]
    assert row["InstanceType"] == "t3.small"
    fleet.kill("sim-one", hard=True)
    found = client.describe_launch_templates()["LaunchTemplates"]
    assert name not in {one["LaunchTemplateName"] for one in found}
    fleet.kill("sim-one", hard=True)  # nothing is left: no error


def test_the_first_script_fits_and_is_a_script() -> None:
    script = user_data(make_order(), "python3")
    assert len(script.encode()) < 8 * 1024
    done = subprocess.run(
        ["sh", "-n"], input=script, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    quoted = """export HF_URL='https://store.example/w?sig=1&x='"'"''"""
    assert quoted in script
    with pytest.raises(FleetError, match="user data of"):
        user_data(make_order(token="x" * 16_384), "python3")


# What moto does not play.


def stubbed(**account: Any) -> tuple[Ec2Fleet, Stubber]:
    """One region, its client answered from a list; throttling is tried once more."""
    config = Config(retries={"total_max_attempts": 2, "mode": "standard"})
    client = boto3.client("ec2", region_name="eu-west-1", config=config, **KEYS)
    only = {"eu-west-1": make_account().regions["eu-west-1"].model_dump()}
    only["eu-west-1"] |= account
    fleet = Ec2Fleet(make_account(regions=only), lambda _: client)
    return fleet, Stubber(client)


def page(*ids: str, token: str | None = None, state: str = "running") -> dict[str, Any]:
    rows = [
        {
            "InstanceId": i,
            "InstanceType": "t3.small",
            "LaunchTime": datetime(2026, 1, 1, tzinfo=UTC),
            "State": {"Name": state},
            "Placement": {"AvailabilityZone": "eu-west-1a"},
        }
        for i in ids
    ]
    more = {"NextToken": token} if token else {}
    return {"Reservations": [{"Instances": rows}], **more}


def given(count: int, *errors: dict[str, Any], first: int = 0) -> dict[str, Any]:
    ids = [f"i-{n:04d}" for n in range(first, first + count)]
    group = {"InstanceIds": ids, "InstanceType": "t3.small", "Lifecycle": "on-demand"}
    return {"Instances": [group] if count else [], "Errors": list(errors)}


def error(code: str, **overrides: str) -> dict[str, Any]:
    where = {"Overrides": overrides} if overrides else {}
    return {
        "ErrorCode": code,
        "ErrorMessage": "as EC2 says",
        "LaunchTemplateAndOverrides": where,
    }


def begin(stub: Stubber) -> None:
    stub.add_response("describe_instances", page())
    stub.add_response("create_launch_template", {})


def test_what_one_pool_has_not_is_asked_of_the_others() -> None:
    fleet, stub = stubbed(subnets=["subnet-a", "subnet-b"])
    begin(stub)
    no = error(
        "InsufficientInstanceCapacity", InstanceType="t3.small", SubnetId="subnet-a"
    )
    stub.add_response("create_fleet", given(60, no))
    stub.add_response("create_fleet", given(40, first=60), _expect_pools(3))
    with stub:
        launched = fleet.launch(make_order(100))
    assert launched.started == 100
    assert launched.refused == {}
    stub.assert_no_pending_responses()


def _expect_pools(count: int) -> dict[str, Any]:
    class Pools:
        def __eq__(self, other: object) -> bool:
            assert isinstance(other, list)
            return len(other[0]["Overrides"]) == count

        __hash__ = None  # type: ignore[assignment]

    names = ("Type", "TargetCapacitySpecification", "OnDemandOptions", "SpotOptions")
    rest = dict.fromkeys((*names, "TagSpecifications", "ClientToken"), ANY)
    return {**rest, "LaunchTemplateConfigs": Pools()}


def test_where_no_pool_has_more_the_rest_is_refused_with_the_reason() -> None:
    fleet, stub = stubbed()
    begin(stub)
    for kind, count in (("t3.small", 5), ("t3a.small", 2)):
        no = error("InsufficientInstanceCapacity", InstanceType=kind)
        stub.add_response("create_fleet", given(count, no, first=count * 10))
    with stub:
        launched = fleet.launch(make_order(10))
    assert launched.started == 7
    assert sum(launched.refused.values()) == 3
    assert all("no capacity" in why for why in launched.refused)


def test_what_is_beyond_the_request_rate_waits_and_the_rest_comes() -> None:
    fleet, stub = stubbed()
    begin(stub)
    for first in range(0, BUCKET, BATCH):
        stub.add_response("create_fleet", given(BATCH, first=first))
    with stub:
        launched = fleet.launch(make_order(BUCKET + 3))
    assert launched.started == BUCKET
    assert launched.refused == {"eu-west-1: awaits the request rate of EC2": 3}
    stub.assert_no_pending_responses()


@pytest.mark.parametrize(
    "errors", [(), ("m7.huge",)], ids=["no reason", "a type nobody asked for"]
)
def test_an_answer_that_gets_nobody_further_is_not_asked_for_again(
    errors: tuple[str, ...],
) -> None:
    fleet, stub = stubbed()
    begin(stub)
    told = [error("InsufficientInstanceCapacity", InstanceType=t) for t in errors]
    stub.add_response("create_fleet", given(2, *told))
    with stub:
        launched = fleet.launch(make_order(5))
    assert launched.started == 2
    assert sum(launched.refused.values()) == 3


def test_a_subnet_that_ec2_chose_closes_the_type_that_left_it_the_choice() -> None:
    fleet, stub = stubbed()  # no subnets of ours
    begin(stub)
    no = {"InstanceType": "t3.small", "SubnetId": "subnet-of-ec2"}
    full = error("InsufficientInstanceCapacity", **no)
    stub.add_response("create_fleet", given(1, full))
    stub.add_response("create_fleet", given(2, first=1), _expect_pools(1))
    with stub:
        assert fleet.launch(make_order(3)).started == 3


def test_a_template_that_ec2_does_not_show_yet_is_waited_for() -> None:
    fleet, stub = stubbed()
    begin(stub)
    code = "InvalidLaunchTemplateName.NotFoundException"
    stub.add_client_error("create_fleet", code, "does not exist", 400)
    with stub:
        launched = fleet.launch(make_order(1))
    assert launched.refused == {f"eu-west-1: {code}, tried again": 1}


def test_a_quota_is_said_in_so_many_words_and_not_tried_again() -> None:
    fleet, stub = stubbed()
    begin(stub)
    stub.add_response("create_fleet", given(16, error("VcpuLimitExceeded")))
    with stub:
        launched = fleet.launch(make_order(50))
    assert launched.started == 16
    ((why, count),) = launched.refused.items()
    assert (count, "quota is reached (VcpuLimitExceeded)" in why) == (34, True)


def test_what_one_region_may_not_start_is_asked_of_the_others() -> None:
    clients = {r: boto3.client("ec2", region_name=r, **KEYS) for r in REGIONS}
    stubs = {region: Stubber(client) for region, client in clients.items()}
    fleet = Ec2Fleet(make_account(), clients.__getitem__)
    for stub in stubs.values():
        begin(stub)
    here, there = (stubs[region] for region in REGIONS)
    here.add_response("create_fleet", given(2, error("VcpuLimitExceeded")))
    there.add_response("create_fleet", given(10, first=100))
    there.add_response("create_launch_template", {})
    there.add_response("create_fleet", given(8, first=200))
    with here, there:
        launched = fleet.launch(make_order(20))
    assert (launched.started, launched.refused) == (20, {})
    regions = [machine.region for machine in launched.machines]
    assert (regions.count(REGIONS[0]), regions.count(REGIONS[1])) == (2, 18)
    for stub in stubs.values():
        stub.assert_no_pending_responses()


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "InvalidAMIID.NotFound"])
def test_what_no_patience_mends_ends_it_with_the_words_of_ec2(code: str) -> None:
    fleet, stub = stubbed()
    begin(stub)
    stub.add_client_error("create_fleet", code, "no such thing", 403)
    with stub, pytest.raises(FleetError, match=f"{code}: no such thing") as caught:
        fleet.launch(make_order(1))
    assert not caught.value.retryable


def test_throttling_is_waited_out_by_the_next_look() -> None:
    fleet, stub = stubbed()
    begin(stub)
    for _ in range(2):
        stub.add_client_error("create_fleet", "RequestLimitExceeded", "slow down", 503)
    with stub:
        launched = fleet.launch(make_order(5))
    assert launched.started == 0
    assert launched.refused == {"eu-west-1: RequestLimitExceeded, tried again": 5}
    fleet, stub = stubbed()
    for _ in range(2):
        stub.add_client_error("describe_instances", "RequestLimitExceeded", "", 503)
    with stub, pytest.raises(FleetError) as caught:
        fleet.list("sim-0001")
    assert caught.value.retryable


def test_the_same_batch_again_carries_the_same_token_and_no_other_does() -> None:
    """EC2 refuses a token that comes again with another request."""
    tokens, of_templates = [], []
    for count in (3, 3, 4):
        fleet, stub = stubbed()
        begin(stub)
        stub.add_response("create_fleet", given(count))
        events = fleet._client("eu-west-1").meta.events
        events.register(
            "provide-client-params.ec2.CreateFleet",
            lambda params, **_: tokens.append(params["ClientToken"]),
        )
        events.register(
            "provide-client-params.ec2.CreateLaunchTemplate",
            lambda params, **_: of_templates.append(params.get("ClientToken")),
        )
        with stub:
            fleet.launch(make_order(count))
    assert tokens[0] == tokens[1] != tokens[2]  # but for a turn of the clock's minute
    assert len(tokens[0]) == 64
    assert of_templates == [None] * 3  # its wheels' address is signed anew each time


def test_every_page_of_a_listing_is_read() -> None:
    fleet, stub = stubbed()
    stub.add_response("describe_instances", page("i-1", "i-2", token="more"))
    stub.add_response("describe_instances", page("i-3", state="shutting-down"))
    with stub:
        found = fleet.list("sim-0001")
    assert [m.id for m in found] == ["i-1", "i-2", "i-3"]
    assert found[2].state is MachineState.ENDING
    assert (found[0].region, found[0].zone) == ("eu-west-1", "eu-west-1a")


def test_spot_costs_its_share_and_an_unknown_price_is_none() -> None:
    fleet, stub = stubbed()
    begin(stub)
    one = given(2)
    one["Instances"][0]["Lifecycle"] = "spot"
    stub.add_response("create_fleet", one)
    with stub:
        launched = fleet.launch(make_order(2, spec={"spot": True}))
    assert all(m.spot for m in launched.machines)
    assert fleet.usd_per_h(launched.machines) == pytest.approx(0.016)
    assert fleet.usd_per_h([usual(FleetSpec(spot=True))]) == pytest.approx(0.008)
    unknown = Ec2Fleet(make_account(usd_per_h={}), lambda _: None)
    assert unknown.usd_per_h(launched.machines) is None


def test_the_bucket_of_ec2_is_kept() -> None:
    now = 1_000_000.0
    assert room([], now) == BUCKET
    assert room([now] * 1_000, now) == 0
    assert room([now - 100] * 1_000, now) == 200
    assert room([now - 501] * 5_000, now) == BUCKET
    assert BATCH <= BUCKET


@pytest.mark.parametrize(("count", "parts"), [(10, 3), (2, 5), (0, 1), (1_000, 7)])
def test_shares_sum_to_the_whole(count: int, parts: int) -> None:
    found = shares(count, parts)
    assert sum(found) == count
    assert max(found) - min(found) <= 1


def test_no_more_is_refused_than_is_missing() -> None:
    assert at_most({"a": 5, "b": 5}, 7) == {"a": 5, "b": 2}
    assert at_most({"a": 5}, 0) == {}
