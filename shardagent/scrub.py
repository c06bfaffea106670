"""Keeps secrets out of the record: the Provider's words may repeat our own key."""

from __future__ import annotations

import re
from collections.abc import Iterable

SECRET_LENGTH_MIN = 8  # shorter values are words, not secrets
HIDDEN = "[removed]"

_BEARER = r"(?i:bearer)\s+[^\s\"']+"


class Scrubber:
    """Removes given values, and anything that follows `Bearer`, from text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        longest_first = sorted(
            {secret for secret in secrets if len(secret) >= SECRET_LENGTH_MIN},
            key=len,
            reverse=True,
        )
        known = [re.escape(secret) for secret in longest_first]
        self._pattern = re.compile("|".join([*known, _BEARER]))

    def clean(self, text: str) -> str:
        """The text without secrets."""
        return self._pattern.sub(HIDDEN, text)
