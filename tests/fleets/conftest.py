from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runs.fleets import wheelhouse
from tests.fleets.bed import Bed, bed


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """The long ones are left out unless their marker is asked for."""
    if "fleets" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("fleets")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent's wheelhouse, built as the site builds it, once."""
    given = os.environ.get("AGENT_WHEELHOUSE")
    if given:
        return Path(given)
    path = tmp_path_factory.mktemp("wheelhouse") / "agent.tar.gz"
    wheelhouse.build(path)
    return path


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Bed]:
    # A socket's path is short, and so are the folders of what listens on one.
    with bed(tmp_path / "bed") as made:
        yield made
