"""What a driver needs to know of the operator's account: FLEETS_FILE, by driver.

None of it goes into a Plan: a Plan is part of the record, and may be published. Secrets
are named there by path, or left to the engine's own places (boto3's chain, kubeconfig).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runs.errors import FleetError

BYTES_MAX = 1 << 20
AccountT = TypeVar("AccountT", bound="Account")


class Account(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SshHost(Account):
    """One machine of the operator's own."""

    name: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,60}$")
    address: str
    port: int = Field(22, ge=1, le=65_535)
    user: str = "root"
    capacity: int = Field(1, ge=1, le=1_000)  # agents at once
    folder: str = Field(".holdfast", pattern=r"^[a-zA-Z0-9._/-]{1,200}$")  # of $HOME
    type: str = "ssh"
    region: str = ""
    zone: str = ""


class SshAccount(Account):
    hosts: list[SshHost] = Field(min_length=1, max_length=2_000)
    key: Path | None = None  # private key; none: the agent, or the user's own keys
    known_hosts: Path | None = None  # none: the user's own file
    python: str = "python3"


class Ec2Region(Account):
    """Where machines may be started in one region."""

    image: str  # AMI with Python and systemd
    subnets: list[str] = Field([], max_length=50)  # none: the default VPC's
    security_groups: list[str] = Field([], max_length=10)
    machine_types: list[str] = Field(["t3.small"], min_length=1, max_length=20)


class Ec2Account(Account):
    regions: dict[str, Ec2Region] = Field(min_length=1, max_length=20)
    profile: str = ""  # of the AWS configuration; none: boto3's own chain
    endpoint_url: str = ""  # of a stand-in
    instance_profile: str = ""  # machines need none
    key_name: str = ""
    python: str = "python3"
    usd_per_h: dict[str, float] = {}  # list price by machine type, on demand
    spot_share: float = Field(0.4, gt=0, le=1)  # of the list price, for the forecast


class KubernetesAccount(Account):
    kubeconfig: Path | None = None  # none: the usual place, or the pod's own account
    context: str = ""
    namespace: str = "default"
    image: str  # with Python, or with the agent
    has_agent: bool = False  # the image holds the agent: no wheels are fetched
    cpu: str = "1"
    memory: str = "2Gi"
    node_selector: dict[str, str] = {}
    machine_type: str = ""  # of the nodes that it selects
    region: str = ""
    python: str = "python3"
    usd_per_h: float | None = None  # of one pod's share


def account(driver: str, kind: type[AccountT]) -> AccountT:
    """The driver's part of FLEETS_FILE, checked. Raises FleetError in one line."""
    path = settings.FLEETS_FILE
    if not path:
        raise _wrong(f"fleet driver {driver} is not set up; name its file: FLEETS_FILE")
    try:
        file = Path(path)
        if file.stat().st_size > BYTES_MAX:
            raise _wrong(f"{path} is larger than {BYTES_MAX} bytes")
        said: Any = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise _wrong(f"cannot read {path}: {error}") from error
    if not isinstance(said, dict) or driver not in said:
        raise _wrong(f"{path} says nothing of {driver}")
    try:
        return kind.model_validate(said[driver])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in (driver, *first["loc"]))
        raise _wrong(f"{path}: {place}: {first['msg']}") from None


def _wrong(message: str) -> FleetError:
    return FleetError(message, retryable=False)
