"""The policy allows what the driver calls, and nothing that is not its own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runs.fleets.ec2_requests import TAG, fleet_request
from tests.runs.fleets.orders import make_order

ROOT = Path(__file__).resolve().parents[3]
POLICY = json.loads((ROOT / "docs" / "ec2-policy.json").read_text())
CALLS = (
    "create_fleet",
    "create_launch_template",
    "delete_launch_template",
    "describe_instances",
    "describe_launch_templates",
    "terminate_instances",
)


def actions() -> set[str]:
    found: set[str] = set()
    for statement in POLICY["Statement"]:
        said = statement["Action"]
        found |= {said} if isinstance(said, str) else set(said)
    return found


def test_every_call_of_the_driver_is_allowed_and_no_other() -> None:
    code = (ROOT / "runs" / "fleets" / "ec2.py").read_text()
    called = set(
        re.findall(r"\b((?:create|delete|describe|terminate)_[a-z_]+)\b", code)
    )
    called &= set(dir(boto3.client("ec2", region_name="eu-west-1")))
    assert called == set(CALLS)
    asked = {"ec2:" + "".join(w.title() for w in call.split("_")) for call in called}
    # An instant fleet starts its machines, and tags them, in the caller's name.
    assert actions() == asked | {"ec2:RunInstances", "ec2:CreateTags"}


def test_a_machine_is_started_only_with_our_tag() -> None:
    """And what is started by the requests that we make carries it."""
    for statement in POLICY["Statement"]:
        said = statement["Resource"]
        kinds = {
            r.rpartition(":")[2] for r in ([said] if isinstance(said, str) else said)
        }
        if "ec2:RunInstances" in statement["Action"] and "instance/*" in kinds:
            assert statement["Condition"]["StringLike"] == {
                "aws:RequestTag/holdfast-run": "*"
            }
            assert kinds == {"fleet/*", "instance/*"}
    request = fleet_request(make_order(1), [("t3.small", "")], 1)
    tagged = {s["ResourceType"]: s["Tags"] for s in request["TagSpecifications"]}
    for kind in ("fleet", "instance"):
        assert {"Key": TAG, "Value": "sim-0001"} in tagged[kind]


def test_what_ends_something_is_bound_to_our_tag() -> None:
    for statement in POLICY["Statement"]:
        said = statement["Action"]
        names = [said] if isinstance(said, str) else said
        ends = [a for a in names if "Terminate" in a or "Delete" in a]
        if ends:
            bound = statement["Condition"]["StringLike"]
            assert bound == {"aws:ResourceTag/holdfast-run": "*"}


@mock_aws
@pytest.mark.parametrize(
    ("method", "allowed"), [("describe_instances", True), ("describe_vpcs", False)]
)
def test_moto_takes_the_policy_and_refuses_what_it_does_not_name(
    monkeypatch: pytest.MonkeyPatch, method: str, *, allowed: bool
) -> None:
    from botocore.exceptions import ClientError
    from moto.core import set_initial_no_auth_action_count

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    iam: Any = boto3.client("iam", region_name="us-east-1")
    iam.create_user(UserName="holdfast")
    document = json.dumps(POLICY)
    iam.put_user_policy(UserName="holdfast", PolicyName="p", PolicyDocument=document)
    key = iam.create_access_key(UserName="holdfast")["AccessKey"]
    ec2: Any = boto3.client(
        "ec2",
        region_name="eu-west-1",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )

    @set_initial_no_auth_action_count(0)
    def ask() -> None:
        getattr(ec2, method)()

    if allowed:
        ask()
    else:
        with pytest.raises(ClientError, match="not authorized"):
            ask()
