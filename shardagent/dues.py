"""Which Sandboxes of a Shard are due, in order."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from shardagent.sandbox import Sandbox

INDEX_BITS = 21  # of a global index: 2,000,000 Sandboxes


class Dues:
    """A heap of whole numbers: time above, index below; pairs compare far slower."""

    __slots__ = ("_heap",)

    def __init__(self, sandboxes: Iterable[Sandbox] = ()) -> None:
        self._heap = [
            box.due_us << INDEX_BITS | box.index
            for box in sandboxes
            if box.due_us is not None
        ]
        heapq.heapify(self._heap)

    @property
    def first_us(self) -> int | None:
        """When the next one is due."""
        return self._heap[0] >> INDEX_BITS if self._heap else None

    def add(self, sandbox: Sandbox) -> None:
        """It is due anew, if it is; what was added of it before stays."""
        due_us = sandbox.due_us
        if due_us is not None:
            heapq.heappush(self._heap, due_us << INDEX_BITS | sandbox.index)

    def take(self, now: int) -> tuple[int, int] | None:
        """(due, index) of the first one; None where none is due yet."""
        if not self._heap or self._heap[0] >> INDEX_BITS > now:
            return None
        return divmod(heapq.heappop(self._heap), 1 << INDEX_BITS)
