"""What is asked of EC2, as values: the launch template, a fleet request, the first
script of a machine.
"""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from runs.errors import FleetError
from runs.fleets.accounts import Ec2Account, Ec2Region
from runs.fleets.base import Order

TAG = "holdfast-run"
USER_DATA_BYTES_MAX = 16 * 1024  # EC2's own limit, before base64
BUCKET = 1_000  # machines that may be asked for at once: EC2's own limit …
BUCKET_REFILL_PER_S = 2.0  # … and how it fills again
_SCRIPTS = Path(__file__).with_name("scripts")
Pool = tuple[str, str]  # machine type, subnet ("" for the default)


def template_name(run: str) -> str:
    return f"holdfast-{run}"


def filtered(name: str, *values: str) -> dict[str, Any]:
    return {"Name": name, "Values": list(values)}


def tagged(kind: str, run: str) -> dict[str, Any]:
    tags = [{"Key": TAG, "Value": run}, {"Key": "Name", "Value": template_name(run)}]
    return {"ResourceType": kind, "Tags": tags}


def user_data(order: Order, python: str) -> str:
    """The machine's first script. Raises FleetError where EC2 would not take it."""
    wheels = order.wheelhouse()
    settings = {
        "HF_SITE": order.site_url,
        "HF_RUN": order.run,
        "HF_LIFETIME_S": str(order.lifetime_s),
        "HF_PYTHON": python,
        "HF_URL": wheels.url,
        "HF_SHA256": wheels.sha256,
        "HOLDFAST_AGENT_TOKEN": order.token,
    }
    exports = "\n".join(f"export {k}={shlex.quote(v)}" for k, v in settings.items())
    parts = [(_SCRIPTS / name).read_text() for name in ("agent.sh", "ec2.sh")]
    text = "\n".join(["#!/bin/sh", exports, *parts])
    size = len(text.encode())
    if size > USER_DATA_BYTES_MAX:
        raise FleetError(
            f"user data of {size} bytes, EC2 takes {USER_DATA_BYTES_MAX}",
            retryable=False,
        )
    return text


def template(account: Ec2Account, there: Ec2Region, order: Order) -> dict[str, Any]:
    """LaunchTemplateData: a machine that ends for good when it is shut down."""
    script = user_data(order, account.python)
    data: dict[str, Any] = {
        "ImageId": there.image,
        "UserData": base64.b64encode(script.encode()).decode(),
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
        "TagSpecifications": [tagged(k, order.run) for k in ("instance", "volume")],
    }
    if there.security_groups:
        data["SecurityGroupIds"] = there.security_groups
    if account.instance_profile:
        data["IamInstanceProfile"] = {"Name": account.instance_profile}
    if account.key_name:
        data["KeyName"] = account.key_name
    return data


def fleet_request(order: Order, pools: Collection[Pool], count: int) -> dict[str, Any]:
    """An instant fleet of `count` machines: whatever of them there is, at once."""
    kind = "spot" if order.spec.spot else "on-demand"
    overrides = [
        {
            "InstanceType": machine_type,
            "Priority": float(place),
            **({"SubnetId": subnet} if subnet else {}),
        }
        for place, (machine_type, subnet) in enumerate(pools)
    ]
    specification = {
        "LaunchTemplateName": template_name(order.run),
        "Version": "$Latest",
    }
    return {
        "Type": "instant",
        "LaunchTemplateConfigs": [
            {"LaunchTemplateSpecification": specification, "Overrides": overrides}
        ],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": count,
            "OnDemandTargetCapacity": 0 if order.spec.spot else count,
            "SpotTargetCapacity": count if order.spec.spot else 0,
            "DefaultTargetCapacityType": kind,
        },
        "OnDemandOptions": {"AllocationStrategy": "prioritized"},
        "SpotOptions": {
            "AllocationStrategy": "capacity-optimized-prioritized",
            "InstanceInterruptionBehavior": "terminate",
        },
        "TagSpecifications": [
            tagged("fleet", order.run),
            tagged("instance", order.run),
        ],
    }


def room(launched_s: Sequence[float], now_s: float) -> int:
    """Machines that EC2's bucket still has, by when the ones there were launched."""
    since_s = now_s - BUCKET / BUCKET_REFILL_PER_S
    recent = [at for at in launched_s if at > since_s]
    if not recent:
        return BUCKET
    refilled = math.floor((now_s - min(recent)) * BUCKET_REFILL_PER_S)
    return max(0, min(BUCKET, BUCKET - len(recent) + refilled))


def shares(count: int, parts: int) -> list[int]:
    """count in `parts` nearly equal shares; they sum to it."""
    return [count // parts + (place < count % parts) for place in range(parts)]


def at_most(reasons: Mapping[str, int], total: int) -> dict[str, int]:
    """The commonest reasons first, together no more than `total`."""
    kept: dict[str, int] = {}
    for why, count in reasons.items():
        if total > 0:
            kept[why] = min(count, total)
            total -= kept[why]
    return kept
