"""Pods of a Kubernetes cluster: one Indexed Job a Run, one pod a node."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from runs.errors import FleetError
from runs.fleets.accounts import KubernetesAccount, account
from runs.fleets.base import Launched, Machine, MachineState, Order, useful
from runs.fleets.kubernetes_manifests import LABEL, job, name_of, secret

log = logging.getLogger(__name__)

CALL_LIMIT_S = 20
PAGE = 500  # pods of a listing
PAGES_MAX = 250
PODS_MAX = 100_000  # of one Indexed Job: Kubernetes' own limit
WHY_MAX = 200  # characters
# 409: somebody changed it meanwhile; 410: a page of a listing that is too old.
_PASSING = (409, 410, 429, 500, 502, 503, 504)
_USUAL = ("ContainerCreating", "PodInitializing")  # of a container that is starting


def open_fleet() -> KubernetesFleet:
    found = account("kubernetes", KubernetesAccount)
    try:
        if found.kubeconfig is None and not found.context:
            load: Any = config.load_config
            load()  # the usual place, or the pod's own account
            return KubernetesFleet(found, client.ApiClient())
        connect: Any = config.new_client_from_config
        api = connect(
            config_file=str(found.kubeconfig) if found.kubeconfig else None,
            context=found.context or None,
        )
    except (ConfigException, OSError) as error:
        raise FleetError(f"no way to Kubernetes: {error}", retryable=False) from error
    return KubernetesFleet(found, api)


class KubernetesFleet:
    look_interval_s = 3.0

    def __init__(self, found: KubernetesAccount, api: Any) -> None:
        self._account = found
        self._jobs: Any = client.BatchV1Api(api)
        self._core: Any = client.CoreV1Api(api)
        self._namespace = found.namespace

    def launch(self, order: Order) -> Launched:
        """Make the Job, or let it have more indices where some are over for good.

        A pod that was given up is ended, and the Job itself starts another. One whose
        agent left of itself has completed its index: before the release that is a loss.
        """
        present = self._job(order.run)
        wanted = min(order.machines + _indices_over(present), PODS_MAX)
        started = 0
        if present is None:
            with _translated("make a Job", known=409):
                body = secret(order, self._namespace)
                self._core.create_namespaced_secret(self._namespace, body, **_LIMIT)
            with _translated("make a Job", known=409):
                body = job(order, self._account, wanted)
                self._jobs.create_namespaced_job(self._namespace, body, **_LIMIT)
            started = wanted
        elif present.spec.parallelism < wanted:
            started = wanted - present.spec.parallelism
            more = {"spec": {"parallelism": wanted, "completions": wanted}}
            with _translated("enlarge a Job"):
                self._jobs.patch_namespaced_job(
                    name_of(order.run), self._namespace, more, **_LIMIT
                )
        machines = self.list(order.run)
        short = order.machines - len(useful(machines, order.written_off))
        refused = {"pods that are not there yet": short} if short > 0 else {}
        return Launched(machines, started, refused)

    def list(self, run: str) -> list[Machine]:
        found = (_machine(pod, self._account) for pod in self._pods(run))
        return [machine for machine in found if machine is not None]

    def kill(
        self, run: str, ids: Collection[str] | None = None, *, hard: bool = False
    ) -> int:
        pods = [m.id for m in self.list(run) if ids is None or m.id in ids]
        grace = {"grace_period_seconds": 0} if hard else {}
        if ids is not None:
            for pod in pods:
                with _translated("end a pod", known=404):
                    self._core.delete_namespaced_pod(
                        pod, self._namespace, **grace, **_LIMIT
                    )
            return len(pods)
        with _translated("delete a Job", known=404):
            self._jobs.delete_namespaced_job(
                name_of(run), self._namespace, propagation_policy="Background", **_LIMIT
            )
        if hard:
            for pod in pods:
                with _translated("end a pod", known=404):
                    self._core.delete_namespaced_pod(
                        pod, self._namespace, **grace, **_LIMIT
                    )
            with _translated("delete a secret", known=404):
                self._core.delete_namespaced_secret(
                    name_of(run), self._namespace, **_LIMIT
                )
        return len(pods)

    def runs(self) -> set[str]:
        with _translated("list Jobs"):
            found = self._jobs.list_namespaced_job(
                self._namespace, label_selector=LABEL, **_LIMIT
            )
        return {one.metadata.labels[LABEL] for one in found.items}

    def usd_per_h(self, machines: Iterable[Machine]) -> float | None:
        price = self._account.usd_per_h
        return None if price is None else round(price * len([*machines]), 4)

    def _job(self, run: str) -> Any:
        with _translated("read a Job", known=404):
            return self._jobs.read_namespaced_job(
                name_of(run), self._namespace, **_LIMIT
            )
        return None

    def _pods(self, run: str) -> Iterator[Any]:
        more = ""
        for _ in range(PAGES_MAX):
            with _translated("list pods"):
                page = self._core.list_namespaced_pod(
                    self._namespace,
                    label_selector=f"{LABEL}={run}",
                    limit=PAGE,
                    **({"_continue": more} if more else {}),
                    **_LIMIT,
                )
            yield from page.items
            more = page.metadata._continue or ""
            if not more:
                return


_LIMIT: dict[str, Any] = {"_request_timeout": CALL_LIMIT_S}


def _machine(pod: Any, found: KubernetesAccount) -> Machine | None:
    """None for a pod that is over."""
    phase, why = pod.status.phase, ""
    if phase in ("Succeeded", "Failed"):
        return None
    if pod.metadata.deletion_timestamp is not None:
        state = MachineState.ENDING
    elif phase == "Running":
        state = MachineState.RUNNING
    elif phase == "Unknown":
        state, why = MachineState.UNREACHABLE, f"node {pod.spec.node_name} is away"
    elif pod.spec.node_name:
        state = MachineState.STARTING
    else:
        state = MachineState.WAITING
        said = [c for c in pod.status.conditions or () if c.type == "PodScheduled"]
        why = (said[0].message if said else "") or "awaits a node"
    stuck = _stuck(pod)
    if state is MachineState.STARTING and stuck:
        state, why = MachineState.WAITING, stuck
    return Machine(
        pod.metadata.name,
        state,
        found.machine_type,
        found.region,
        why=why[:WHY_MAX],
    )


def _stuck(pod: Any) -> str:
    """Why a pod that has its node does not start, in Kubernetes' one word.

    Reasons may be published, and its message names the image and its registry.
    """
    for one in pod.status.container_statuses or ():
        waiting = one.state and one.state.waiting
        if waiting and waiting.reason and waiting.reason not in _USUAL:
            log.warning("pod %s: %s", pod.metadata.name, waiting.message)
            return f"a pod does not start: {waiting.reason}"
    return ""


def _indices_over(job: Any) -> int:
    """How many of a Job's have failed or completed."""
    status = job.status if job is not None else None
    if status is None:
        return 0
    return sum(map(_count, (status.failed_indexes, status.completed_indexes)))


def _count(indices: str | None) -> int:
    """Of Kubernetes' own notation: 1,3-5,7."""
    count = 0
    for part in filter(None, (indices or "").split(",")):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


@contextmanager
def _translated(doing: str, known: int = 0) -> Iterator[None]:
    """known: a status that says it is so already."""
    try:
        yield
    except ApiException as error:
        if error.status == known:
            return
        said = f"{error.status} {error.reason}: {str(error.body or '')[:WHY_MAX]}"
        raise FleetError(
            f"Kubernetes: cannot {doing}: {said}", retryable=error.status in _PASSING
        ) from error
    except HTTPError as error:
        raise FleetError(f"Kubernetes: cannot {doing}: {error}") from error
