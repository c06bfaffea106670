from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def plain_static(settings: Any) -> None:
    """No manifest of static files exists in a test."""
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    storage = "django.contrib.staticfiles.storage.StaticFilesStorage"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": storage}}
