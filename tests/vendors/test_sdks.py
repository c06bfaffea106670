"""SDKs that are no transport of ours: create, run, list and kill at the stand-ins, and
what they made is what our adapter finds."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from shardagent import providers
from shardagent.providers.base import Wanted
from tests.vendors.standin import plan_of, standin

# Warnings of the vendors' own code are theirs.
pytestmark = [pytest.mark.vendors, pytest.mark.filterwarnings("default")]

LABELS = {"run": "alpha-1", "shard": "0", "attempt": "0", "sandbox": "0"}
NAME = "hf-alpha-1-0-0-0"
NODE = "v22.0.0-sim"


async def listed(vendor: str, config: dict[str, str]) -> list[str]:
    """What our adapter finds by label."""
    provider = providers.open_provider(vendor, config, plan_of(vendor))
    try:
        found = await provider.list({"run": "alpha-1"})
        return [one.provider_id for one in found]
    finally:
        await provider.close()


async def made(vendor: str, config: dict[str, str]) -> str:
    """A sandbox that our adapter makes, for the SDK to find."""
    plan = plan_of(vendor)
    provider = providers.open_provider(vendor, config, plan)
    try:
        labels = {**LABELS, "sandbox": "1"}
        wanted = Wanted(1, labels, 600, plan.spec.model_dump())
        return (await provider.create(wanted, lambda: None)).provider_id
    finally:
        await provider.close()


async def test_novita(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with standin("novita", tmp_path) as config:
        monkeypatch.setenv("NOVITA_API_URL", config["endpoint"])
        monkeypatch.setenv("NOVITA_SANDBOX_URL", config["endpoint"])
        sdk = importlib.import_module("novita_sandbox.core")
        key = config["api_key"]
        sandbox = await sdk.AsyncSandbox.create(
            template="base", timeout=60, metadata=LABELS, api_key=key
        )
        done = await sandbox.commands.run("node -v")
        assert (done.exit_code, done.stdout) == (0, f"{NODE}\n")
        assert await listed("novita", config) == [sandbox.sandbox_id]
        assert await sandbox.kill(api_key=key)
        assert await listed("novita", config) == []


async def test_blaxel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("DO_NOT_TRACK", "1"),
        ("BL_WORKSPACE", "standin"),
        ("BL_API_KEY", "standin-secret-0123456789"),
    ):
        monkeypatch.setenv(name, value)
    with standin("blaxel", tmp_path) as config:
        core = importlib.import_module("blaxel.core")
        monkeypatch.setattr(core.client, "_base_url", core.client._base_url)
        core.client.with_base_url(config["endpoint"])
        sandbox = await core.SandboxInstance.create(
            {"labels": LABELS, "memory": 2_048, "region": "us-pdx-1", "ttl": "10m"}
        )
        name = sandbox.metadata.name
        asked = {"command": "node -v", "wait_for_completion": True}
        done = await sandbox.process.exec(asked)
        assert (done.exit_code, done.stdout) == (0, f"{NODE}\n")
        ours = await made("blaxel", config)
        page = await core.SandboxInstance.list(limit=50)
        names = [one.metadata.name for one in page.data]
        assert names == [name, ours.partition(" ")[0]]
        found = await listed("blaxel", config)
        assert [one.partition(" ")[0] for one in found] == names
        for one in names:
            await core.SandboxInstance.delete(one)
        assert await listed("blaxel", config) == []


async def test_northflank(tmp_path: Path) -> None:
    with standin("northflank", tmp_path) as config:
        sdk = importlib.import_module("northflank")
        client = sdk.AsyncApiClient(
            api_token=config["api_key"], base_url=config["endpoint"]
        )
        scope = {"project_id": config["project_id"]}
        reply = await client.create.service.deployment(
            **scope,
            data={
                "name": NAME,
                "billing": {"deploymentPlan": "nf-compute-50"},
                "deployment": {
                    "instances": 1,
                    "external": {"imagePath": "node:22-slim"},
                },
                "createOptions": {"expiryTime": 600},
            },
        )
        service = {**scope, "service_id": reply.data["id"]}
        ready = await client.helpers.wait_for_service_ready(
            **service, timeout_s=20, poll_interval_s=0.1
        )
        assert ready["name"] == NAME
        done = await client.exec.arun_service_command(**service, command=["node", "-v"])
        assert (done.exit_code, done.stdout) == (0, f"{NODE}\n")
        ours = await made("northflank", config)
        every = await client.list.services(**scope)
        ids = [one["id"] for one in every.data["services"]]
        assert ids == [reply.data["id"], ours]
        assert await listed("northflank", config) == ids
        for one in ids:
            await client.delete.service(**scope, service_id=one)
        assert await listed("northflank", config) == []


def kubeconfig(config: dict[str, str], path: Path) -> Path:
    """As kubectl has it, for a cluster without TLS."""
    user = {"name": "holdfast", "user": {"token": config["api_key"]}}
    cluster = {"name": "standin", "cluster": {"server": config["endpoint"]}}
    context = {"cluster": "standin", "user": "holdfast", "namespace": "default"}
    found: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "users": [user],
        "clusters": [cluster],
        "contexts": [{"name": "standin", "context": context}],
        "current-context": "standin",
    }
    path.write_text(json.dumps(found))
    return path


async def test_agent_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with standin("agent-sandbox", tmp_path) as config:
        where = kubeconfig(config, tmp_path / "kubeconfig")
        asyncio_config = importlib.import_module(
            "kubernetes_asyncio.config.kube_config"
        )
        monkeypatch.setattr(asyncio_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(where))
        monkeypatch.setenv("KUBECONFIG", str(where))
        sdk = importlib.import_module("k8s_agent_sandbox")
        models = importlib.import_module("k8s_agent_sandbox.models")
        client = sdk.AsyncSandboxClient(
            models.SandboxDirectConnectionConfig(api_url=config["endpoint"]),
            cleanup=False,
        )
        sandbox = await client.create_sandbox(
            "holdfast", labels=LABELS, shutdown_after_seconds=600
        )
        done = await sandbox.commands.run("node -v")
        assert (done.exit_code, done.stdout) == (0, f"{NODE}\n")
        # Its claims have names of its own; ours are found by labels and prefix.
        ours = await made("agent-sandbox", config)
        names = await client.list_all_sandboxes(label_selector="run=alpha-1")
        assert sorted(names) == sorted([sandbox.claim_name, ours.partition("/")[0]])
        assert await listed("agent-sandbox", config) == [ours]
        await asyncio.gather(*(client.delete_sandbox(name) for name in names))
        assert await listed("agent-sandbox", config) == []
        assert await client.list_all_sandboxes() == []
        await client.close()
