"""The Indexed Job, refused by a server that knows the API's own schema where wrong."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from django.core.management import get_commands
from kubernetes import client

from runs.errors import FleetError
from runs.fleets import MachineState
from runs.fleets.accounts import KubernetesAccount
from runs.fleets.kubernetes import KubernetesFleet
from runs.fleets.kubernetes_manifests import job, secret
from tests.runs.fleets.orders import make_order
from tests.runs.fleets.stand_in_api import DEPLOY, VERSION, Cluster, role, serving


def make_account(**changes: Any) -> KubernetesAccount:
    said = {"namespace": "fleet", "image": "python:3.12-slim", "usd_per_h": 0.05}
    return KubernetesAccount.model_validate(said | changes)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(nodes=5)


@pytest.fixture
def fleet(cluster: Cluster) -> Iterator[KubernetesFleet]:
    with serving(cluster) as url:
        settings = client.Configuration(host=url)
        settings.retries = False
        api = client.ApiClient(settings)
        yield KubernetesFleet(make_account(), api)
        api.rest_client.pool_manager.clear()


def test_one_pod_a_node_and_what_finds_none_says_why(
    fleet: KubernetesFleet, cluster: Cluster
) -> None:
    order = make_order(6)
    launched = fleet.launch(order)
    assert launched.started == 6
    states = [m.state for m in launched.machines]
    assert states.count(MachineState.RUNNING) == 5
    (waiting,) = [m for m in launched.machines if m.state is MachineState.WAITING]
    assert waiting.why == "0/5 nodes are available: anti-affinity rules"
    assert fleet.launch(order).started == 0
    assert len(cluster.objects["pods"]) == 6
    assert fleet.usd_per_h(launched.machines) == pytest.approx(0.3)


def test_pods_may_share_nodes_where_the_plan_says_so(fleet: KubernetesFleet) -> None:
    order = make_order(12, spec={"one_per_node": False})
    assert all(m.state is MachineState.RUNNING for m in fleet.launch(order).machines)


def test_a_pod_that_was_given_up_is_ended_and_one_more_comes(
    fleet: KubernetesFleet, cluster: Cluster
) -> None:
    first = next(iter(fleet.launch(make_order(3)).machines)).id
    assert fleet.kill("sim-0001", [first]) == 1
    again = fleet.launch(make_order(3, written_off={first}))
    assert len(again.machines) == 3
    assert first not in {m.id for m in again.machines}
    (body,) = cluster.objects["jobs"].values()
    body["status"] = {"failedIndexes": "0,2-3", "completedIndexes": "1"}
    more = fleet.launch(make_order(3))  # an agent that left of itself is missing too
    assert (more.started, body["spec"]["completions"]) == (4, 7)


@pytest.mark.parametrize(
    ("reason", "state", "why"),
    [
        ("ContainerCreating", MachineState.STARTING, ""),
        (
            "ImagePullBackOff",
            MachineState.WAITING,
            "a pod does not start: ImagePullBackOff",
        ),
    ],
)
def test_a_pod_that_does_not_start_says_why_and_is_not_granted(
    fleet: KubernetesFleet, cluster: Cluster, reason: str, state: MachineState, why: str
) -> None:
    cluster.stuck = reason
    launched = fleet.launch(make_order(2))
    assert {(m.state, m.why) for m in launched.machines} == {(state, why)}


def test_nothing_is_left_of_it_and_ending_it_twice_is_no_error(
    fleet: KubernetesFleet, cluster: Cluster
) -> None:
    fleet.launch(make_order(3))
    fleet.launch(make_order(2, run="sim-0002"))
    assert fleet.runs() == {"sim-0001", "sim-0002"}
    assert fleet.kill("sim-0001", hard=True) == 3
    assert fleet.kill("sim-0001", hard=True) == 0
    assert fleet.list("sim-0001") == []
    assert len(fleet.list("sim-0002")) == 2
    assert list(cluster.objects["secrets"]) == ["holdfast-sim-0002"]


def test_every_page_of_pods_is_read(fleet: KubernetesFleet, cluster: Cluster) -> None:
    cluster.page_max = 4
    fleet.launch(make_order(11, spec={"one_per_node": False}))
    assert len(fleet.list("sim-0001")) == 11


@pytest.mark.parametrize(
    ("status", "retryable"), [(403, False), (410, True), (503, True)]
)
def test_a_refusal_is_told_and_an_outage_is_waited_out(
    fleet: KubernetesFleet, cluster: Cluster, status: int, *, retryable: bool
) -> None:
    cluster.fails["POST", "jobs"] = status
    with pytest.raises(FleetError, match=f"cannot make a Job: {status}") as caught:
        fleet.launch(make_order(1))
    assert caught.value.retryable is retryable


def test_the_server_refuses_what_the_schema_does_not_know(cluster: Cluster) -> None:
    body = job(make_order(), make_account(), 3)
    body["spec"]["parallelizm"] = 3
    assert cluster.create("jobs", body)[0] == 422


@pytest.mark.parametrize("has_agent", [False, True])
def test_manifests_keep_to_the_schema_and_the_token_out_of_the_job(
    *, has_agent: bool
) -> None:
    account = make_account(has_agent=has_agent, node_selector={"pool": "bench"})
    body = job(make_order(), account, 3)
    kubernetes_validate.validate(body, VERSION, strict=True)
    kubernetes_validate.validate(secret(make_order(), "fleet"), VERSION, strict=True)
    assert "t0ken" not in str(body)
    spec = body["spec"]
    assert (spec["completionMode"], spec["backoffLimitPerIndex"]) == ("Indexed", 2)
    assert spec["activeDeadlineSeconds"] == 900
    (command,) = [c["command"] for c in spec["template"]["spec"]["containers"]]
    done = subprocess.run(["sh", "-n", "-c", command[2]], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.yaml")), ids=lambda p: p.name)
def test_what_deploys_the_site_keeps_to_the_schema(path: Path) -> None:
    found = list(yaml.safe_load_all(path.read_text()))
    assert found
    for body in found:
        kubernetes_validate.validate(body, VERSION, strict=True)


def test_the_role_allows_what_the_driver_asks_and_no_more() -> None:
    assert role() == {
        "jobs": {"create", "get", "list", "patch", "delete"},
        "pods": {"list", "delete"},
        "secrets": {"create", "delete"},
    }


def test_what_the_role_does_not_name_is_refused(
    fleet: KubernetesFleet, cluster: Cluster
) -> None:
    cluster.allowed["secrets"] = {"delete"}
    with pytest.raises(FleetError, match="cannot create secrets") as caught:
        fleet.launch(make_order(1))
    assert not caught.value.retryable


def test_what_deploys_the_site_fits_together() -> None:
    """A schema does not know whether a name that is referred to exists."""
    bodies = [
        b for p in DEPLOY.glob("*.yaml") for b in yaml.safe_load_all(p.read_text())
    ]
    named = {(b["kind"], b["metadata"]["name"]) for b in bodies}
    settings = next(b for b in bodies if b["metadata"]["name"] == "holdfast-settings")
    of_fleets = Path(settings["stringData"]["FLEETS_FILE"])
    commands = set(get_commands())
    for body in bodies:
        template = body.get("spec", {}).get("template")
        if template is None:
            continue
        pod = template["spec"]
        account = pod.get("serviceAccountName")
        assert account is None or ("ServiceAccount", account) in named
        volumes = {v["name"]: v for v in pod.get("volumes", ())}
        for volume in volumes.values():
            wanted = volume.get("secret", {}).get("secretName")
            assert wanted is None or ("Secret", wanted) in named
        for one in (*pod["containers"], *pod.get("initContainers", ())):
            assert ("Secret", one["envFrom"][0]["secretRef"]["name"]) in named
            assert {m["name"] for m in one.get("volumeMounts", ())} <= volumes.keys()
            command = one.get("command", ["python", "manage.py", "prepare"])
            assert command[:2] == ["python", "manage.py"]
            assert command[2] in commands
            if command[2] == "rundramatiq":  # it alone starts machines
                assert account == "holdfast"
                mounts = {m["mountPath"] for m in one["volumeMounts"]}
                assert str(of_fleets.parent) in mounts
    (bound,) = [b for b in bodies if b["kind"] == "RoleBinding"]
    assert ("ServiceAccount", bound["subjects"][0]["name"]) in named
    assert (bound["roleRef"]["kind"], bound["roleRef"]["name"]) in named
    (service,) = [b for b in bodies if b["kind"] == "Service"]
    web = next(b for b in bodies if b["metadata"]["name"] == "holdfast-web")
    labels = web["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
