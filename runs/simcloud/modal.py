"""Modal's control plane and command router over gRPC, as far as its SDK's create,
exec, terminate and list go. Needs the vendor's own package for its messages.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server
from modal_proto import (
    api_grpc,
    api_pb2,
    task_command_router_grpc,
    task_command_router_pb2,
)

from runs.simcloud.cloud import Cloud, Refused

TOKEN_S = 24 * 3_600
PAGE = 100
BUILDER = "2025.06"  # a version of the image builder that the SDK knows
EXECS_MAX = 1_000_000  # commands whose output waits to be read
_STATUSES = {
    "auth": (Status.UNAUTHENTICATED, "Token validation failed"),
    "rate_limited": (Status.RESOURCE_EXHAUSTED, "Rate limit exceeded"),
    "quota": (
        Status.RESOURCE_EXHAUSTED,
        "Workspace has reached its maximum number of concurrent containers",
    ),
    "capacity": (Status.UNAVAILABLE, "No capacity available for this Sandbox"),
    "not_found": (Status.NOT_FOUND, "Sandbox not found or already finished"),
    "provider_error": (Status.INTERNAL, "internal error"),
    "invalid_request": (Status.INVALID_ARGUMENT, "invalid request"),
}


async def serve(cloud: Cloud, host: str, port: int) -> tuple[str, Callable[[], Any]]:
    """Both services on one port, in clear text."""
    standin = Standin(cloud)
    server = Server([_whole(api_grpc.ModalClientBase, standin), _router(standin)])
    await server.start(host, port)
    listening: Any = server._server  # no other way to learn a free port
    where = listening.sockets[0].getsockname()
    cloud.url = f"http://{where[0]}:{where[1]}"

    async def close() -> None:
        server.close()

    return f"{where[0]}:{where[1]}", close


class Standin:
    """The calls; every other one answers UNIMPLEMENTED."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._made: dict[str, float] = {}
        self._execs: dict[str, tuple[int, bytes]] = {}
        self.requests: dict[str, int] = {}

    async def ClientHello(self, stream: Any) -> None:
        await _take(stream)
        self._check(stream)
        await stream.send_message(api_pb2.ClientHelloResponse())

    async def AppGetOrCreate(self, stream: Any) -> None:
        await _take(stream)
        self._check(stream)
        await stream.send_message(api_pb2.AppGetOrCreateResponse(app_id="ap-standin"))

    async def EnvironmentGetOrCreate(self, stream: Any) -> None:
        await _take(stream)
        settings = api_pb2.EnvironmentSettings(image_builder_version=BUILDER)
        await stream.send_message(
            api_pb2.EnvironmentGetOrCreateResponse(
                environment_id="en-standin",
                metadata=api_pb2.EnvironmentMetadata(name="main", settings=settings),
            )
        )

    async def ImageFromId(self, stream: Any) -> None:
        asked = await _take(stream)
        await stream.send_message(api_pb2.ImageFromIdResponse(image_id=asked.image_id))

    async def ImageGetOrCreate(self, stream: Any) -> None:
        await _take(stream)
        result = api_pb2.GenericResult(
            status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
        )
        await stream.send_message(
            api_pb2.ImageGetOrCreateResponse(image_id="im-standin", result=result)
        )

    async def AuthTokenGet(self, stream: Any) -> None:
        await _take(stream)
        await stream.send_message(api_pb2.AuthTokenGetResponse(token=_jwt()))

    async def SandboxCreateV2(self, stream: Any) -> None:
        asked = await _take(stream)
        self._check(stream)
        tags = [(tag.tag_name, tag.tag_value) for tag in asked.tags]
        ttl_s = float(asked.definition.timeout_secs or 300)
        made = await _said(self._cloud.create(dict(tags), ttl_s))
        self._made.setdefault(made, time.time())
        await stream.send_message(
            api_pb2.SandboxCreateV2Response(
                sandbox_id=f"sb-{made}",
                task_id=f"ta-{made}",
                command_router_access=self._way(),
            )
        )

    async def SandboxListV2(self, stream: Any) -> None:
        asked = await _take(stream)
        self._check(stream)
        wanted = {tag.tag_name: tag.tag_value for tag in asked.tags}
        labels = dict(await self._cloud.living(wanted))
        for name in labels:  # also one whose create nobody waited for
            self._made.setdefault(name, time.time())
        before = asked.before_timestamp or float("inf")
        found = sorted(
            (name for name in labels if self._made[name] < before),
            key=lambda name: -self._made[name],
        )
        rows = [
            api_pb2.SandboxInfo(
                id=f"sb-{name}",
                created_at=self._made[name],
                app_id=asked.app_id,
                tags=[_tag(*tag) for tag in labels[name].items()],
                task_info=api_pb2.TaskInfo(id=f"ta-{name}"),
            )
            for name in found[:PAGE]
        ]
        await stream.send_message(api_pb2.SandboxListResponse(sandboxes=rows))

    async def SandboxWaitV2(self, stream: Any) -> None:
        asked = await _take(stream)
        status = api_pb2.GenericResult.GENERIC_STATUS_UNSPECIFIED
        if not self._cloud.is_alive(_inside(asked.sandbox_id)):
            status = api_pb2.GenericResult.GENERIC_STATUS_TERMINATED
        result = api_pb2.GenericResult(status=status)
        await stream.send_message(api_pb2.SandboxWaitResponse(result=result))

    async def SandboxGetTaskIdV2(self, stream: Any) -> None:
        asked = await _take(stream)
        name = _inside(asked.sandbox_id)
        if not self._cloud.is_alive(name):
            raise _no(Refused("not_found", 404, ""))
        found = api_pb2.SandboxGetTaskIdResponse(task_id=f"ta-{name}")
        await stream.send_message(found)

    async def SandboxTagsGetV2(self, stream: Any) -> None:
        asked = await _take(stream)
        living = dict(await self._cloud.living({}))
        tags = living.get(_inside(asked.sandbox_id), {}).items()
        found = api_pb2.SandboxTagsGetResponse(tags=[_tag(*tag) for tag in tags])
        await stream.send_message(found)

    async def SandboxTerminateV2(self, stream: Any) -> None:
        asked = await _take(stream)
        self._check(stream)
        if not await _said(self._cloud.destroy(_inside(asked.sandbox_id))):
            raise _no(Refused("not_found", 404, ""))
        await stream.send_message(api_pb2.SandboxTerminateResponse())

    async def SandboxGetCommandRouterAccess(self, stream: Any) -> None:
        asked = await _take(stream)
        name = _inside(asked.sandbox_id or asked.task_id)
        if not self._cloud.is_alive(name):
            raise _no(Refused("not_found", 404, ""))
        way = self._way()
        await stream.send_message(
            api_pb2.SandboxGetCommandRouterAccessResponse(jwt=way.jwt, url=way.url)
        )

    async def TaskExecStart(self, stream: Any) -> None:
        asked = await _take(stream)
        name = _inside(asked.task_id)
        if not self._cloud.is_alive(name):
            raise _no(Refused("not_found", 404, ""))
        limit_s = float(asked.timeout_secs or 60)
        command = list(asked.command_args)
        code, output = await _said(self._cloud.execute(name, command, limit_s))
        if len(self._execs) < EXECS_MAX:
            self._execs[asked.exec_id] = code, output.encode()
        await stream.send_message(task_command_router_pb2.TaskExecStartResponse())

    async def TaskExecStdioRead(self, stream: Any) -> None:
        asked = await _take(stream)
        _, output = self._execs.get(asked.exec_id, (0, b""))
        stdout = task_command_router_pb2.TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDOUT
        if asked.file_descriptor == stdout and output[asked.offset :]:
            data = output[asked.offset :]
            await stream.send_message(
                task_command_router_pb2.TaskExecStdioReadResponse(data=data)
            )

    async def TaskExecWait(self, stream: Any) -> None:
        asked = await _take(stream)
        code, _ = self._execs.get(asked.exec_id, (0, b""))
        await stream.send_message(
            task_command_router_pb2.TaskExecWaitResponse(code=code)
        )

    TaskExecPoll = TaskExecWait

    def _check(self, stream: Any) -> None:
        if not self._cloud.knows(stream.metadata.get("x-modal-token-secret")):
            raise _no(Refused("auth", 401, ""))

    def _way(self) -> Any:
        return api_pb2.CommandRouterAccess(jwt=_jwt(), url=self._cloud.url)


def _router(standin: Standin) -> Any:
    return _whole(task_command_router_grpc.TaskCommandRouterBase, standin)


def _whole(base: Any, standin: Standin) -> Any:
    """The vendor's servicer with our calls in it, and a no for each other."""

    def handler(name: str) -> Callable[..., Awaitable[None]]:
        async def call(self: object, stream: Any) -> None:
            standin.requests[name] = standin.requests.get(name, 0) + 1
            ours = getattr(standin, name, None)
            if ours is None:
                raise GRPCError(Status.UNIMPLEMENTED, name)
            await ours(stream)

        return call

    calls = {name: handler(name) for name in base.__abstractmethods__}
    return type("Whole", (base,), calls)()


async def _take(stream: Any) -> Any:
    asked = await stream.recv_message()
    if asked is None:
        raise GRPCError(Status.CANCELLED, "nothing was asked")
    return asked


async def _said(asking: Awaitable[Any]) -> Any:
    try:
        return await asking
    except Refused as refused:
        raise _no(refused) from None
    except asyncio.CancelledError:
        raise


def _tag(key: str, value: str) -> Any:
    return api_pb2.SandboxTag(tag_name=key, tag_value=value)


def _inside(name: str) -> str:
    """The world's id out of a sandbox's or its task's."""
    return name.removeprefix("sb-").removeprefix("ta-")


def _no(refused: Refused) -> GRPCError:
    known = (Status.UNKNOWN, refused.message)
    status, text = _STATUSES.get(refused.cause, known)
    return GRPCError(status, text)


def _jwt() -> str:
    """A token that ends in a day, as its bearer reads it; nobody checks it."""
    parts = ({"alg": "none"}, {"exp": int(time.time()) + TOKEN_S})
    packed = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in parts
    ]
    return ".".join([*packed, "standin"])
