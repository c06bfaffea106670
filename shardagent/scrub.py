"""Keeps secrets out of the record: the Provider's words may repeat our own key."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterable
from urllib.parse import quote

SECRET_LENGTH_MIN = 8  # shorter values are words, not secrets
HIDDEN = "[removed]"

_BEARER = r"(?i:bearer)\s+[^\s\"']+"


class Scrubber:
    """Removes given values, also quoted or in base64, and what follows `Bearer`."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        given = {secret for secret in secrets if len(secret) >= SECRET_LENGTH_MIN}
        forms = {form for secret in given for form in _forms(secret)}
        longest_first = sorted(forms, key=len, reverse=True)
        known = [re.escape(secret) for secret in longest_first]
        self._pattern = re.compile("|".join([*known, _BEARER]))

    def clean(self, text: str) -> str:
        """The text without secrets."""
        return self._pattern.sub(HIDDEN, text)


def _forms(secret: str) -> Iterable[str]:
    """As it may be repeated to us: itself, in a URL, in a header of Basic."""
    packed = base64.b64encode(secret.encode()).decode()
    return secret, quote(secret, safe=""), packed.rstrip("=")


def scrub_logging(scrubber: Scrubber) -> None:
    """From now on this process's own log lines, tracebacks too, are cleaned."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Cleaning(handler.formatter, scrubber))


class _Cleaning(logging.Formatter):
    def __init__(self, inner: logging.Formatter | None, scrubber: Scrubber) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()
        self._scrubber = scrubber

    def format(self, record: logging.LogRecord) -> str:
        return self._scrubber.clean(self._inner.format(record))
