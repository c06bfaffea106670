"""EC2 as moto plays it, for a whole site; and its machines as boxes of the bed."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from runs.fleets.ec2_requests import template_name
from tests.fleets.bed import Box, until

REGION = "eu-west-1"
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
LIVING = ("pending", "running", "shutting-down", "stopping", "stopped")
_SHUTDOWN = """#!/bin/sh
echo "$@" >>"$HOME/shutdown"
kill -KILL -1
"""
_NO_SYSTEMD = """#!/bin/sh
echo "$@" >>"$HOME/systemd-run"
exit 1
"""
# Its own address of the metadata, and a place of its own for what it writes.
_BOOT = """
ip address add 169.254.169.254/32 dev lo
mount -t tmpfs tmpfs /var/lib
export PATH={programs}:$PATH
{python} {imds} {facts} &
sh {user_data}
"""


@dataclass(slots=True)
class Cloud:
    endpoint: str
    client: Any

    def account(self, **changes: Any) -> dict[str, Any]:
        """The `ec2` part of FLEETS_FILE."""
        region = {"image": "ami-12c6146b", "machine_types": ["t3.small"]}
        python = str(Path(sys.base_prefix) / "bin" / "python3")
        said = {
            "endpoint_url": self.endpoint,
            "regions": {REGION: region},
            "python": python,
            "usd_per_h": {"t3.small": 0.02},
        }
        return {**said, **changes}

    def machines(self, code: str, *states: str) -> list[dict[str, Any]]:
        """Rows of the Run's machines that live (or are in these states)."""
        filters = [
            {"Name": "tag:holdfast-run", "Values": [code]},
            {"Name": "instance-state-name", "Values": list(states or LIVING)},
        ]
        pages = self.client.get_paginator("describe_instances")
        return [
            row
            for page in pages.paginate(Filters=filters)
            for reservation in page["Reservations"]
            for row in reservation["Instances"]
        ]

    def templates(self) -> list[str]:
        found = self.client.describe_launch_templates()["LaunchTemplates"]
        return [one["LaunchTemplateName"] for one in found]

    def script(self, code: str) -> str:
        """The user data that a machine of the Run would be started with."""
        name = template_name(code)
        (version,) = self.client.describe_launch_template_versions(
            LaunchTemplateName=name
        )["LaunchTemplateVersions"]
        return base64.b64decode(version["LaunchTemplateData"]["UserData"]).decode()

    def boot(self, row: dict[str, Any], script: str, box: Box) -> None:
        """Start the machine as EC2 would: metadata, then its user data as root."""
        zone = row["Placement"]["AvailabilityZone"]
        facts = {
            "instance-id": row["InstanceId"],
            "instance-type": row["InstanceType"],
            "placement/region": zone[:-1],
            "placement/availability-zone": zone,
            "public-ipv4": box.address,
        }
        (box.home / "facts.json").write_text(json.dumps(facts))
        (box.home / "user_data").write_text(script)
        programs = box.home / "bin"
        programs.mkdir()
        # Never the host's own: it would be the one that is shut down.
        for name, text in (("shutdown", _SHUTDOWN), ("systemd-run", _NO_SYSTEMD)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        box.start(
            _BOOT.format(
                programs=programs,
                python=sys.executable,
                imds=Path(__file__).with_name("imds.py"),
                facts=box.home / "facts.json",
                user_data=box.home / "user_data",
            )
        )

    def ended(self, row: dict[str, Any]) -> None:
        """A machine that shut itself down is terminated."""
        self.client.terminate_instances(InstanceIds=[row["InstanceId"]])


@contextmanager
def cloud() -> Iterator[Cloud]:
    """A process of its own: what it does for a thousand machines takes a core."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    client = boto3.client("ec2", region_name=REGION, endpoint_url=endpoint, **KEYS)
    try:
        until(lambda: _answers(port), "the stand-in of EC2", 60)
        yield Cloud(endpoint, client)
    finally:
        server.kill()
        server.wait(10)


def _answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
