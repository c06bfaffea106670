"""What needs the vendors' own packages is left out unless its marker is asked for."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    if "vendors" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("vendors")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
