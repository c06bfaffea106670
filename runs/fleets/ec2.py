"""Machines of EC2: instant fleets from one launch template a Run and region.

A machine is found again by its tag and nothing else. It ends itself when its agent
leaves, and at its deadline whatever became of the site: a shutdown terminates it.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from runs.errors import FleetError
from runs.fleets.accounts import Ec2Account, account
from runs.fleets.base import Launched, Machine, MachineState, Order, useful
from runs.fleets.ec2_requests import (
    TAG,
    Pool,
    at_most,
    filtered,
    fleet_request,
    room,
    shares,
    tagged,
    template,
    template_name,
)

BATCH = 250  # machines a request
TERMINATE_BATCH = 500
PAGE = 500  # of a listing
PAGES_MAX = 200
ATTEMPTS_MAX = 8  # of one request that is throttled: some 20 s by botocore's backoff
ROUND_S = 60  # the same request again within it starts nothing more
WHY_MAX = 160  # characters
_ENDS = "shutting-down"
_STATES = {
    "pending": MachineState.STARTING,
    "running": MachineState.RUNNING,
    _ENDS: MachineState.ENDING,
    "stopping": MachineState.ENDING,
    "stopped": MachineState.ENDING,
}
_NO_CAPACITY = {
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "UnfulfillableCapacity",
    "SpotMaxPriceTooLow",
    "Unsupported",  # no such type in that zone
    "InsufficientFreeAddressesInSubnet",
}
_QUOTA = {
    "VcpuLimitExceeded",
    "InstanceLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "MaxSpotFleetRequestCountExceeded",
}
_THROTTLED = {"RequestLimitExceeded", "Throttling", "ThrottlingException"}
_NOT_SEEN_YET = {  # what was made a moment ago, on a part of EC2 that lags behind
    "InvalidLaunchTemplateName.NotFoundException",
    "InvalidLaunchTemplateId.NotFound",
}
_PASSING = {
    *_THROTTLED,
    *_NOT_SEEN_YET,
    "InternalError",
    "Unavailable",
    "ServiceUnavailable",
}
ClientFor = Callable[[str], Any]  # region → an EC2 client


def open_fleet() -> Ec2Fleet:
    found = account("ec2", Ec2Account)
    session = boto3.Session(profile_name=found.profile or None)
    config = Config(
        retries={"total_max_attempts": ATTEMPTS_MAX, "mode": "standard"},
        connect_timeout=5,
        read_timeout=60,
    )

    def client_for(region: str) -> Any:
        endpoint = {"endpoint_url": found.endpoint_url} if found.endpoint_url else {}
        made: Any = session.client  # its stubs know no endpoint of ours
        return made("ec2", region_name=region, config=config, **endpoint)

    return Ec2Fleet(found, client_for)


@dataclass(slots=True)
class _Asking:
    """One launch in one region, as far as it came."""

    region: str
    closed: set[Pool] = field(default_factory=set)
    got: list[Machine] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    over: bool = False


class Ec2Fleet:
    look_interval_s = 5.0

    def __init__(self, found: Ec2Account, client_for: ClientFor) -> None:
        self._account = found
        self._client_for = client_for
        self._clients: dict[str, Any] = {}

    # What a driver does.

    def launch(self, order: Order) -> Launched:
        rows = {region: [*self._rows(region, order.run)] for region in self._regions()}
        there = [m for found in rows.values() for m in _machines(found)]
        left = order.machines - len(useful(there, order.written_off))
        got: list[Machine] = []
        refused: Counter[str] = Counter()
        regions = [r for r in order.spec.regions or rows if r in rows]
        if left > 0 and not regions:
            known = ", ".join(rows)
            raise FleetError(
                f"of the Plan's regions none is in {known}", retryable=False
            )
        while left > 0 and regions:
            # What one region cannot give is asked of the others.
            split = shares(left, len(regions))
            asked = [
                self._ask(region, order, share, rows[region])
                for region, share in zip(regions, split, strict=True)
            ]
            for asking in asked:
                got += asking.got
                refused.update(asking.refused)
                left -= len(asking.got)
            regions = [asking.region for asking in asked if not asking.over]
        short = dict(refused.most_common()) if left > 0 else {}
        return Launched([*there, *got], len(got), at_most(short, left))

    def list(self, run: str) -> list[Machine]:
        return [m for r in self._regions() for m in _machines(self._rows(r, run))]

    def kill(
        self, run: str, ids: Collection[str] | None = None, *, hard: bool = False
    ) -> int:
        told = 0
        for region in self._regions():
            found = [
                row["InstanceId"]
                for row in self._rows(region, run)
                if row["State"]["Name"] != _ENDS  # it needs to be told no more
            ]
            chosen = [i for i in found if ids is None or i in ids]
            for first in range(0, len(chosen), TERMINATE_BATCH):
                batch = chosen[first : first + TERMINATE_BATCH]
                with _translated(region, "terminate machines"):
                    self._client(region).terminate_instances(InstanceIds=batch)
                told += len(batch)
            if hard and ids is None:
                self._forget_template(region, run)
        return told

    def runs(self) -> set[str]:
        filters = [filtered("tag-key", TAG), filtered("instance-state-name", *_STATES)]
        return {
            tag["Value"]
            for region in self._regions()
            for row in self._describe(region, filters)
            for tag in row.get("Tags", ())
            if tag["Key"] == TAG
        }

    def usd_per_h(self, machines: Iterable[Machine]) -> float | None:
        total = 0.0
        first = next(iter(self._account.regions.values())).machine_types[0]
        for machine in machines:
            price = self._account.usd_per_h.get(machine.type or first)
            if price is None:
                return None
            total += price * (self._account.spot_share if machine.spot else 1)
        return round(total, 4)

    # Launching.

    def _ask(
        self, region: str, order: Order, wanted: int, rows: Collection[Any]
    ) -> _Asking:
        """Batch after batch, each of the pools that have not refused."""
        asking = _Asking(region)
        free = room([row["LaunchTime"].timestamp() for row in rows], time.time())
        limit = min(wanted, free)
        if limit:
            self._template(region, order)
        pools = self._pools(region, order)
        # A request that does not bring all it asks for closes a pool, or ends it.
        for number in range(math.ceil(limit / BATCH) + len(pools)):
            open_pools = [pool for pool in pools if pool not in asking.closed]
            count = min(BATCH, limit - len(asking.got))
            if not count or not open_pools or asking.over:
                break
            self._batch(asking, order, open_pools, count, len(rows) + number)
        if wanted > limit:
            waits = f"{region}: awaits the request rate of EC2"
            asking.refused[waits] += wanted - limit
        asking.over |= len(asking.got) < wanted
        return asking

    def _batch(
        self,
        asking: _Asking,
        order: Order,
        pools: Collection[Pool],
        count: int,
        number: int,
    ) -> None:
        before = len(asking.got)
        round_number = int(time.time() // ROUND_S)
        # A token that comes again with another request would be refused.
        said = (order.run, asking.region, number, count, round_number, sorted(pools))
        token = hashlib.sha256(repr(said).encode()).hexdigest()
        try:
            answer = self._client(asking.region).create_fleet(
                **fleet_request(order, pools, count), ClientToken=token
            )
        except ClientError as error:
            self._refused(asking, [error.response["Error"]], count, pools)
            return
        except BotoCoreError as error:
            raise FleetError(f"EC2 in {asking.region}: {error}") from error
        for group in answer.get("Instances", ()):
            spot = group.get("Lifecycle") == "spot"
            of_type = group.get("InstanceType", "")
            asking.got += [
                Machine(i, MachineState.STARTING, of_type, asking.region, spot=spot)
                for i in group["InstanceIds"]
            ]
        missing = count - (len(asking.got) - before)
        if missing > 0:
            self._refused(asking, answer.get("Errors", ()), missing, pools)

    def _refused(
        self,
        asking: _Asking,
        errors: Sequence[Mapping[str, Any]],
        missing: int,
        pools: Collection[Pool],
    ) -> None:
        """Close the pools that have no more; a quota closes the region."""
        if not errors:
            asking.refused[f"{asking.region}: fewer came than asked for"] += missing
            asking.over = True
        for error in errors:
            code = str(error.get("ErrorCode") or error.get("Code") or "")
            text = str(error.get("ErrorMessage") or error.get("Message") or "")
            said = (error.get("LaunchTemplateAndOverrides") or {}).get(
                "Overrides"
            ) or {}
            kind, subnet = said.get("InstanceType", ""), said.get("SubnetId", "")
            where = " ".join(filter(None, (asking.region, kind)))
            if code in _NO_CAPACITY:
                asking.refused[f"{where}: no capacity ({code})"] += missing
                of_type = [p for p in pools if p[0] == kind]
                here = {p for p in of_type if not subnet or p[1] in ("", subnet)}
                asking.closed |= here or set(pools)
            elif code in _QUOTA:
                why = f"{asking.region}: the account's quota is reached ({code})"
                asking.refused[f"{why}; ask AWS to raise it"] += missing
                asking.over = True
            elif code in _PASSING:
                asking.refused[f"{asking.region}: {code}, tried again"] += missing
                asking.over = True
            else:
                raise FleetError(
                    f"EC2 in {asking.region} refuses: {code}: {text[:WHY_MAX]}",
                    retryable=False,
                )

    def _pools(self, region: str, order: Order) -> Sequence[Pool]:
        there = self._account.regions[region]
        types = order.spec.machine_types or there.machine_types
        return [(kind, subnet) for kind in types for subnet in there.subnets or [""]]

    # The launch template.

    def _template(self, region: str, order: Order) -> None:
        there = self._account.regions[region]
        try:
            self._client(region).create_launch_template(
                LaunchTemplateName=template_name(order.run),
                LaunchTemplateData=template(self._account, there, order),
                TagSpecifications=[tagged("launch-template", order.run)],
            )
        except ClientError as error:
            if not error.response["Error"]["Code"].endswith("AlreadyExistsException"):
                raise _refusal(region, "make a launch template", error) from error
        except BotoCoreError as error:
            raise FleetError(f"EC2 in {region}: {error}") from error

    def _forget_template(self, region: str, run: str) -> None:
        client = self._client(region)
        named = filtered("launch-template-name", template_name(run))
        with _translated(region, "delete a launch template"):
            found = client.describe_launch_templates(Filters=[named])
            for one in found["LaunchTemplates"]:
                made = one["LaunchTemplateId"]
                client.delete_launch_template(LaunchTemplateId=made)

    # Looking.

    def _rows(self, region: str, run: str) -> Iterator[Mapping[str, Any]]:
        mine = filtered(f"tag:{TAG}", run)
        return self._describe(region, [mine, filtered("instance-state-name", *_STATES)])

    def _describe(
        self, region: str, filters: Collection[Mapping[str, Any]]
    ) -> Iterator[Mapping[str, Any]]:
        with _translated(region, "list machines"):
            pages = self._client(region).get_paginator("describe_instances")
            limits = {"PageSize": PAGE, "MaxItems": PAGE * PAGES_MAX}
            found = pages.paginate(Filters=[*filters], PaginationConfig=limits)
            for page in found:
                for reservation in page["Reservations"]:
                    yield from reservation["Instances"]

    def _regions(self) -> Collection[str]:
        return self._account.regions

    def _client(self, region: str) -> Any:
        if region not in self._clients:
            self._clients[region] = self._client_for(region)
        return self._clients[region]


def _machines(rows: Iterable[Mapping[str, Any]]) -> list[Machine]:
    return [
        Machine(
            row["InstanceId"],
            _STATES.get(row["State"]["Name"], MachineState.ENDING),
            row.get("InstanceType", ""),
            (row.get("Placement") or {}).get("AvailabilityZone", "")[:-1],
            (row.get("Placement") or {}).get("AvailabilityZone", ""),
            spot=row.get("InstanceLifecycle") == "spot",
            why=(row.get("StateReason") or {}).get("Message", ""),
        )
        for row in rows
    ]


@contextmanager
def _translated(region: str, doing: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise _refusal(region, doing, error) from error
    except BotoCoreError as error:
        raise FleetError(f"EC2 in {region}: cannot {doing}: {error}") from error


def _refusal(region: str, doing: str, error: ClientError) -> FleetError:
    said = error.response["Error"]
    code = said.get("Code", "")
    text = (
        f"EC2 in {region}: cannot {doing}: {code}: {said.get('Message', '')[:WHY_MAX]}"
    )
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return FleetError(text, retryable=code in _PASSING or status >= 500)
