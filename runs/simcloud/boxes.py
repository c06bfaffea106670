"""Sandboxes of vendors whose create answers before the sandbox is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runs.simcloud.cloud import Cloud, Refused

ACCEPT_S = 0.05  # a create that is not through by then is answered "not yet"
BOXES_MAX = 2_000_000  # asked for over the life of one stand-in


@dataclass(slots=True, eq=False)
class Box:
    """One sandbox asked for: the vendor's id, and the world's once it is there."""

    id: str
    name: str
    labels: Mapping[str, str]
    asked: Mapping[str, Any]
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    inside: str = ""  # the world's id
    refused: Refused | None = None
    doomed: bool = False

    @property
    def coming(self) -> bool:
        """Neither there nor refused yet."""
        return not self.settled.is_set()


class Boxes:
    """Keeps a vendor's ids apart from the world's, and what has not come yet."""

    def __init__(
        self,
        cloud: Cloud,
        prefix: str,
        changed: Callable[[str, Box], None] | None = None,
    ) -> None:
        """changed: told of each box that is ADDED, MODIFIED (settled) or DELETED."""
        self._cloud = cloud
        self._prefix = prefix
        self._changed = changed or (lambda _kind, _box: None)
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.all: dict[str, Box] = {}

    async def ask(
        self,
        labels: Mapping[str, str],
        ttl_s: float,
        asked: Mapping[str, Any],
        *,
        name: str = "",
        key: str = "",
    ) -> Box:
        """A sandbox that is there, or coming; Refused where the world said no at once.

        key: the vendor's handle, if it is not an id that the vendor makes.
        """
        self._count += 1
        if self._count > BOXES_MAX:
            raise Refused("capacity", 503, "this stand-in has made its last sandbox")
        box = Box(key or f"{self._prefix}{self._count:08x}", name, labels, asked)
        if box.id in self.all:
            raise Refused("conflict", 409, f"{box.id} already exists")
        self.all[box.id] = box
        self._changed("ADDED", box)
        task = asyncio.create_task(self._make(box, ttl_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self.wait(box, ACCEPT_S)
        if box.refused is not None:
            del self.all[box.id]
            raise box.refused
        return box

    async def wait(self, box: Box, limit_s: float) -> bool:
        """Whether it is settled within limit_s."""
        try:
            await asyncio.wait_for(box.settled.wait(), limit_s)
        except TimeoutError:
            return False
        return True

    async def find(self, box_id: str) -> Box | None:
        """None where it never was, was destroyed, or has died."""
        box = self.all.get(box_id)
        if box is None or (box.inside and not self._cloud.is_alive(box.inside)):
            return None
        return box

    async def destroy(self, box_id: str) -> bool:
        """Whether it was there, or coming."""
        box = await self.find(box_id)
        self.all.pop(box_id, None)
        if box is None:
            return False
        box.doomed = True
        self._changed("DELETED", box)
        if box.inside:
            await self._cloud.destroy(box.inside)
        return True

    async def living(self) -> list[Box]:
        """Those that are there or coming, in the order in which they were asked for."""
        return [
            box
            for box in self.all.values()
            if box.refused is None
            and (not box.inside or self._cloud.is_alive(box.inside))
        ]

    async def _make(self, box: Box, ttl_s: float) -> None:
        try:
            made = await self._cloud.create(box.labels, ttl_s, name=box.name)
        except Refused as refused:
            box.refused = refused
        else:
            box.inside = made
            if box.doomed:
                await self._cloud.destroy(made)
        box.settled.set()
        if not box.doomed:
            self._changed("MODIFIED", box)
