"""Pods from a Job to its end: the command of the manifest is executed, as its user."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.embedded import Site, quick_plan, running
from tests.fleets.bed import Bed, Box, site_settings, store, until
from tests.runs.fleets.stand_in_api import Cluster, serving

pytestmark = [pytest.mark.fleets, pytest.mark.e2e, pytest.mark.timeout(600)]
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
# An emptyDir of the pod's group, as its securityContext asks for; then its user.
_BOOT = """
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/holdfast
chown 0:{group} /var/lib/holdfast
chmod 2775 /var/lib/holdfast
cd /
exec setpriv --reuid {user} --regid {user} --groups {group} --no-new-privs \\
  --bounding-set=-all --inh-caps=-all env -i PATH="$PATH" {environment} {command}
"""


def test_pods_carry_their_indices_from_wheels_to_a_sealed_run(
    network: Bed, wheels: Path
) -> None:
    python = _python_of_everybody()
    cluster = Cluster(nodes=3)
    boxes = [network.box() for _ in range(2)]
    account = {"namespace": "fleet", "image": "python:3.12-slim", "python": python}
    account |= {"machine_type": "e2-standard-2", "region": "bed"}
    account |= {"kubeconfig": str(network.folder / "kubeconfig"), "usd_per_h": 0.05}
    with store(network) as keys, serving(cluster) as url:
        (network.folder / "kubeconfig").write_text(json.dumps(_kubeconfig(url)))
        file = network.folder / "fleets.json"
        file.write_text(json.dumps({"kubernetes": account}))
        site = Site(network.folder / "site", **keys, **site_settings(network))
        site.environment_add(
            FLEETS_FILE=str(file),
            AGENT_WHEELHOUSE=str(wheels),
            AGENT_SITE_URL=f"http://{network.address}:{site.port}",
        )
        plan = quick_plan(sandbox_count=40, fleet={"driver": "kubernetes"})
        with running(site):
            code = site.launch(plan)
            site.until_state(code, "arming", timeout_s=60)
            pods = list(cluster.objects["pods"].values())
            assert len(pods) == 2
            for pod, box in zip(pods, boxes, strict=True):
                _start(pod, cluster, box)
            for pod, box in zip(pods, boxes, strict=True):
                until(lambda box=box: not box.runs(), f"{box.name} to end", 150)
                pod["status"]["phase"] = "Succeeded"
            run = site.until_state(code, "sealed", timeout_s=90)
            consoles = [box.console() for box in boxes]
            assert run["outcomes"]["success"] == 40, consoles
            assert run["fleet"]["types"] == {"e2-standard-2": 2}
            assert run["fleet"]["egress_addresses"] == 2
            assert run["fleet"]["shared_machine"] == 0
            assert [kind for kind, found in cluster.objects.items() if found] == []


def _start(pod: dict[str, Any], cluster: Cluster, box: Box) -> None:
    """As a kubelet would, the image left out: it has Python and nothing of ours."""
    spec = pod["spec"]
    (container,) = spec["containers"]
    values = {"JOB_COMPLETION_INDEX": pod["metadata"]["annotations"]["index"]}
    for entry in container["env"]:
        values[entry["name"]] = entry.get("value") or _value(entry, pod, cluster)
    user, group = (spec["securityContext"][k] for k in ("runAsUser", "fsGroup"))
    words = {
        "user": user,
        "group": group,
        "environment": " ".join(shlex.quote(f"{k}={v}") for k, v in values.items()),
        "command": shlex.join(container["command"]),
    }
    box.start(_BOOT.format(**words))


def _value(entry: dict[str, Any], pod: dict[str, Any], cluster: Cluster) -> str:
    source = entry.get("valueFrom", {})
    if "secretKeyRef" in source:
        named = source["secretKeyRef"]
        secret = cluster.objects["secrets"][named["name"]]
        return str(secret["stringData"][named["key"]])
    if "fieldRef" in source:
        part, name = source["fieldRef"]["fieldPath"].split(".")
        return str(pod[part][name])
    return ""


def _kubeconfig(url: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bed",
        "clusters": [{"name": "bed", "cluster": {"server": url}}],
        "users": [{"name": "bed", "user": {"token": "t"}}],
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed"}}],
    }


def _python_of_everybody() -> str:
    """An interpreter of the wheels' version that a user without rights may run."""
    for folder in (Path(sys.base_prefix) / "bin", Path("/usr/bin")):
        path = folder / PYTHON
        if path.exists() and all(os.stat(p).st_mode & 0o001 for p in path.parents):
            return str(path)
    pytest.skip(f"no {PYTHON} is open to everybody")
