from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.runs.simworld.worlds import LivingWorld, StartWorld, launch


@pytest.fixture
async def start_world(tmp_path: Path) -> AsyncIterator[StartWorld]:
    """Starts worlds; zero latency unless the parameters say otherwise."""
    living: list[LivingWorld] = []

    async def start(
        world: dict[str, Any], *, sandbox_count: int = 100, **changes: Any
    ) -> LivingWorld:
        directory = tmp_path / f"world-{len(living)}"
        directory.mkdir()
        found = await launch(directory, world, sandbox_count, changes)
        living.append(found)
        return found

    yield start
    for world in living:
        await world.stop()
    await asyncio.sleep(0)  # transports close in the loop's next turn
