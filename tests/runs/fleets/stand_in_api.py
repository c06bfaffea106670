"""A Kubernetes API server small enough to read: Jobs, pods, secrets, one namespace.

It refuses what the API's own schema does not allow and what the role that we ship
(deploy/kubernetes/rbac.yaml) does not name, and does at once what the Job controller
and the scheduler do in time: pods by index, one a node where they must be apart, a
reason where no node is left.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

VERSION = "1.37"
DEPLOY = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes"
_VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
_PATH = re.compile(
    r"^/(?:api/v1|apis/batch/v1)/namespaces/fleet/(jobs|pods|secrets)(?:/([^/]+))?$"
)


def role() -> dict[str, set[str]]:
    """Kind → verbs, of the role that the site is given."""
    return {
        kind: set(rule["verbs"])
        for body in yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text())
        for rule in body.get("rules", ())
        for kind in rule["resources"]
    }


class Cluster:
    def __init__(self, nodes: int = 1_000, page_max: int = 500) -> None:
        self.nodes = nodes
        self.page_max = page_max  # a server may answer fewer than were asked for
        self.bound = 0  # pods ever made
        self.stuck = ""  # why no container starts
        self.allowed = role()
        self.objects: dict[str, dict[str, Any]] = {
            "jobs": {},
            "pods": {},
            "secrets": {},
        }
        self.fails: dict[tuple[str, str], int] = {}  # (verb, kind) → status
        self.lock = threading.RLock()

    def create(self, kind: str, body: dict[str, Any]) -> tuple[int, Any]:
        try:
            kubernetes_validate.validate(body, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            return 422, {"message": str(error.message)}
        name = body["metadata"]["name"]
        if name in self.objects[kind]:
            return 409, {"reason": "AlreadyExists"}
        self.objects[kind][name] = body
        if kind == "jobs":
            self._pods_of(body)
        return 201, body

    def patch(self, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        job = self.objects["jobs"].get(name)
        if job is None:
            return 404, {}
        spec = body["spec"]
        if spec.get("completions") != spec.get("parallelism"):
            return 422, {"message": "completions of an Indexed Job follow parallelism"}
        changed = {**job, "spec": {**job["spec"], **spec}}
        try:
            kubernetes_validate.validate(changed, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            return 422, {"message": str(error.message)}
        job["spec"] |= spec
        self._pods_of(job)
        return 200, job

    def delete(self, kind: str, name: str) -> tuple[int, Any]:
        gone = self.objects[kind].pop(name, None)
        if gone is None:
            return 404, {}
        if kind == "jobs":
            for pod, row in list(self.objects["pods"].items()):
                if row["metadata"]["ownerReferences"][0]["name"] == name:
                    del self.objects["pods"][pod]
        elif kind == "pods":
            for job in self.objects["jobs"].values():
                self._pods_of(job)
            return 200, gone
        return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _pods_of(self, job: dict[str, Any]) -> None:
        name, template = job["metadata"]["name"], job["spec"]["template"]
        apart = "affinity" in template["spec"]
        pods = self.objects["pods"]
        known = {
            p["metadata"]["annotations"]["index"]
            for p in pods.values()
            if p["metadata"]["ownerReferences"][0]["name"] == name
        }
        used = {p["spec"].get("nodeName") for p in pods.values()}
        every = [f"node-{n}" for n in range(self.nodes)]
        free = [node for node in every if not apart or node not in used]
        for index in range(job["spec"]["parallelism"]):
            if str(index) not in known:
                node = free[0] if free else ""
                self._bind(job, template, index, node)
                free = free[1:] if apart else free

    def _bind(
        self, job: dict[str, Any], template: dict[str, Any], index: int, node: str
    ) -> None:
        pods = self.objects["pods"]
        self.bound += 1
        name = f"{job['metadata']['name']}-{index}-{self.bound:05x}"
        why = f"0/{self.nodes} nodes are available: anti-affinity rules"
        lacks = {"type": "PodScheduled", "status": "False", "message": why}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "uid": "u"}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": template["metadata"]["labels"],
                "annotations": {"index": str(index)},
                "ownerReferences": [{**owner, "name": job["metadata"]["name"]}],
            },
            "spec": {**template["spec"], **({"nodeName": node} if node else {})},
            "status": {
                "phase": "Running" if node and not self.stuck else "Pending",
                "conditions": [] if node else [lacks],
            },
        }
        if self.stuck:
            waits = {"reason": self.stuck, "message": "registry.example/x: no"}
            status = {"name": "agent", "image": "x", "imageID": "", "ready": False}
            status |= {"restartCount": 0, "state": {"waiting": waits}}
            pod["status"]["containerStatuses"] = [status]
        if self.bound == 1:  # they are alike
            kubernetes_validate.validate(pod, VERSION, strict=True)
        pods[name] = pod

    def page(self, kind: str, query: dict[str, str]) -> tuple[int, Any]:
        key, _, value = query.get("labelSelector", "").partition("=")
        rows = [
            row
            for row in self.objects[kind].values()
            if not key
            or (key in row["metadata"]["labels"])
            and value in ("", row["metadata"]["labels"][key])
        ]
        first, limit = int(query.get("continue", 0)), int(query.get("limit", 0))
        last = first + min(limit, self.page_max) if limit else len(rows)
        more = {"continue": str(last)} if last < len(rows) else {}
        return 200, {"metadata": more, "items": rows[first:last]}


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Api(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            parts = urlsplit(self.path)
            query = {k: v[0] for k, v in parse_qs(parts.query).items()}
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            found = _PATH.match(parts.path)
            status, answer = 404, {}
            if found:
                kind, name = found.groups()
                with cluster.lock:
                    status, answer = self._answer(kind, name, body, query)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _answer(
            self, kind: str, name: str | None, body: Any, query: dict[str, str]
        ) -> tuple[int, Any]:
            verb = _VERBS.get(self.command) or ("get" if name else "list")
            if verb not in cluster.allowed.get(kind, ()):
                return 403, {"message": f"holdfast cannot {verb} {kind}"}
            failing = cluster.fails.get((self.command, kind))
            if failing:
                return failing, {"message": "as told"}
            if self.command == "POST":
                return cluster.create(kind, body)
            if self.command == "PATCH":
                return cluster.patch(str(name), body)
            if self.command == "DELETE":
                return cluster.delete(kind, str(name))
            if name is None:
                return cluster.page(kind, query)
            row = cluster.objects[kind].get(name)
            return (200, row) if row else (404, {})

        do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    return Api


@contextmanager
def serving(cluster: Cluster) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cluster))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
