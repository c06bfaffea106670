"""Commands work beside a running site, and start a temporary one where none runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from django.conf import settings
from django.core.management.base import CommandError

from benchsite.embedded import Installation, is_up
from runs import operations
from runs.api.ops import ops_token
from runs.errors import ServiceError

Mind = Callable[[], None]
OPERATION_TIMEOUT_S = 4 * 3600


def operate(name: str, code: str) -> Any:
    """Carry an operation out here, or let the site that owns this DATA do it."""
    if not is_foreign(settings.DATA):
        return operations.BY_NAME[name](code)
    port = (settings.DATA / "up.port").read_text()
    request = Request(
        f"http://127.0.0.1:{port}/ops/v1/{name}/{code}",
        method="POST",
        headers={"Authorization": f"Bearer {ops_token()}"},
    )
    try:
        with urlopen(request, timeout=OPERATION_TIMEOUT_S) as answer:
            return json.loads(answer.read())
    except HTTPError as error:
        said = json.loads(error.read() or b"{}").get("error", str(error))
        raise CommandError(said) from None
    except OSError as error:
        raise CommandError(f"the running site does not answer: {error}") from None


def is_foreign(data: Path) -> bool:
    """Another process has this DATA; ours, if any, is marked by its pid."""
    if not is_up(data):
        return False
    try:
        return int((data / "up.pid").read_text()) != os.getpid()
    except (OSError, ValueError):
        return True


@contextmanager
def site_for_commands(*, may_start: bool) -> Iterator[Mind]:
    """Yields what to call every second or so while waiting."""
    if is_up(settings.DATA):
        yield lambda: None
        return
    if not may_start:
        raise ServiceError(
            f"no site runs on DATA {settings.DATA}; start one with `make up`, "
            "or add --wait to run a temporary one"
        )
    installation = Installation(settings.PORT, any_port=True)
    installation.start()
    try:
        yield installation.mind
    finally:
        installation.stop()
