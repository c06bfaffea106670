"""Commands work beside a running site, and start a temporary one where none runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.conf import settings

from benchsite.embedded import Installation, is_up
from runs.errors import ServiceError

Mind = Callable[[], None]


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
