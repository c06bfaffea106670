"""Modal's SDK on the agent's own loop, instead of a thread that it would start.

On a thread of its own its work is not seen by what judges this process (event-loop
lag, CPU of the loop's thread), and both threads wait for each other: each call crosses
over some six times, and whoever makes a system call has to wait 5 ms to go on. The SDK
has no switch for it; what is set here is what it sets itself when it starts its thread.
tests/vendors/test_modal.py sees that it works.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
from typing import Any

_SET = ("_thread", "_loop", "_owner_pid", "_stopping")


class Stay:
    """Of one adapter; the last to leave gives the loop back."""

    _guests = 0  # of all adapters of this process

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> bool:
        """Whether the SDK works on the running loop from here on.

        Only that of the main thread, where an agent has its one loop: elsewhere (a
        site's threads) loops come and go, and the SDK keeps to its thread.
        """
        if self._loop is not None:
            return True
        main = threading.main_thread()
        if threading.current_thread() is not main:
            return False
        sdk, loop = _synchronizer(), asyncio.get_running_loop()
        if not all(hasattr(sdk, name) for name in _SET):  # another version
            return False
        ours = sdk._thread is main
        if sdk._loop is not None and not ours:  # its thread has begun already
            return False
        if ours and sdk._loop is not loop and not sdk._loop.is_closed():
            return False
        if sdk._loop is not loop:
            Stay._guests = 0
            sdk._thread, sdk._loop = main, loop
            sdk._owner_pid, sdk._stopping = os.getpid(), asyncio.Event()
        Stay._guests += 1
        self._loop = loop
        return True

    def leave(self) -> None:
        """Idempotent."""
        stayed, self._loop = self._loop, None
        sdk = _synchronizer() if stayed is not None else None
        if sdk is None or sdk._loop is not stayed:  # others may be on the next one
            return
        Stay._guests -= 1
        if Stay._guests == 0:
            for name in _SET:
                setattr(sdk, name, None)


def _synchronizer() -> Any:
    return importlib.import_module("modal._utils.async_utils").synchronizer
