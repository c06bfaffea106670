from __future__ import annotations

import pytest
from django.core.cache import cache


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    """Sealed Runs of one code are one Run to the cache, but not to tests."""
    cache.clear()
