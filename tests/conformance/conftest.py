"""Long Runs are for `make conformance`: left out unless their marker is asked for."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    if "conformance" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("conformance")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
