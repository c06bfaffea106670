"""What is asked of Kubernetes, as values: one Indexed Job a Run, and its secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runs.fleets.accounts import KubernetesAccount
from runs.fleets.base import Order

LABEL = "holdfast-run"
KEPT_S = 600  # that a finished Job stays to be looked at
RESTARTS_PER_INDEX = 2
GRACE_S = 30  # an agent leaves within 8 s of SIGTERM
USER = 65_532
_SCRIPTS = Path(__file__).with_name("scripts")
_FOLDER = "/var/lib/holdfast"


def name_of(run: str) -> str:
    return f"holdfast-{run}"


def secret(order: Order, namespace: str) -> dict[str, Any]:
    """The Run's token: not for everyone who may read a Job."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(order.run, namespace),
        "type": "Opaque",
        "stringData": {"token": order.token},
    }


def job(order: Order, account: KubernetesAccount, pods: int) -> dict[str, Any]:
    """An Indexed Job of so many pods, which ends for good at the order's deadline."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(order.run, account.namespace),
        "spec": {
            "completionMode": "Indexed",
            "completions": pods,
            "parallelism": pods,
            "backoffLimitPerIndex": RESTARTS_PER_INDEX,
            "activeDeadlineSeconds": order.lifetime_s,
            "ttlSecondsAfterFinished": KEPT_S,
            "template": {
                "metadata": {"labels": {LABEL: order.run}},
                "spec": _pod(order, account),
            },
        },
    }


def _metadata(run: str, namespace: str) -> dict[str, Any]:
    return {"name": name_of(run), "namespace": namespace, "labels": {LABEL: run}}


def _pod(order: Order, account: KubernetesAccount) -> dict[str, Any]:
    amounts = {"cpu": account.cpu, "memory": account.memory}
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "agent",
                "image": account.image,
                "command": ["sh", "-c", _command(order, account)],
                "env": _environment(order, account),
                "resources": {"requests": amounts, "limits": amounts},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "work", "mountPath": _FOLDER}],
            }
        ],
        "volumes": [{"name": "work", "emptyDir": {}}],
    }
    if account.node_selector:
        pod["nodeSelector"] = account.node_selector
    if order.spec.one_per_node:  # pods of one node share its egress address
        apart = {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {
                "matchExpressions": [{"key": LABEL, "operator": "Exists"}]
            },
        }
        pod["affinity"] = {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [apart]
            }
        }
    return pod


def _environment(order: Order, account: KubernetesAccount) -> list[dict[str, Any]]:
    settings = {
        "HF_SITE": order.site_url,
        "HF_RUN": order.run,
        "HF_PYTHON": account.python,
        "HOME": _FOLDER,
        "HOLDFAST_MACHINE_TYPE": account.machine_type,
        "HOLDFAST_MACHINE_REGION": account.region,
    }
    if not account.has_agent:
        wheels = order.wheelhouse()
        settings |= {"HF_URL": wheels.url, "HF_SHA256": wheels.sha256}
    token = {"secretKeyRef": {"name": name_of(order.run), "key": "token"}}
    fields = {
        "HOLDFAST_MACHINE_ID": "metadata.name",
        "HOLDFAST_MACHINE_NODE": "spec.nodeName",
    }
    return [
        *({"name": k, "value": v} for k, v in settings.items()),
        {"name": "HOLDFAST_AGENT_TOKEN", "valueFrom": token},
        *(
            {"name": k, "valueFrom": {"fieldRef": {"fieldPath": v}}}
            for k, v in fields.items()
        ),
    ]


def _command(order: Order, account: KubernetesAccount) -> str:
    """POSIX sh; JOB_COMPLETION_INDEX is Kubernetes' own."""
    agent = (
        'export HOLDFAST_MACHINE_INDEX="$JOB_COMPLETION_INDEX"\n'
        'exec "$HF_PYTHON" -m shardagent --site "$HF_SITE" --run "$HF_RUN" '
        f"--spool {_FOLDER}/spool\n"
    )
    if account.has_agent:
        return agent
    fetch = (
        f'"$HF_PYTHON" - "$HF_URL" {_FOLDER}/agent.tar.gz <<\'PY\'\n'
        "import sys, urllib.request\n"
        "urllib.request.urlretrieve(sys.argv[1], sys.argv[2])\n"
        "PY\n"
    )
    install = f'hf_install {_FOLDER}/agent.tar.gz "$HF_SHA256" {_FOLDER}/agent\n'
    path = f"export PYTHONPATH={_FOLDER}/agent\ncd {_FOLDER}\n"
    return (_SCRIPTS / "agent.sh").read_text() + fetch + install + path + agent
