"""Where the facts and log lines of a Shard go."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from shardagent.wire import Kind


class Record(Protocol):
    """What keeps them."""

    def note(
        self, kind: Kind, at: int, sandbox: int | None, fields: dict[str, object]
    ) -> None:
        """Write one event; the fields are the record's from then on."""

    def log(self, at: int, level: str, text: str) -> None:
        """Write one log line."""


class TalliedRecord:
    """Counts events by kind on their way."""

    def __init__(self, record: Record) -> None:
        self.tally: Counter[Kind] = Counter()
        self.log = record.log
        self._note = record.note

    def note(
        self, kind: Kind, at: int, sandbox: int | None, fields: dict[str, object]
    ) -> None:
        """Write one event."""
        self.tally[kind] += 1
        self._note(kind, at, sandbox, fields)

    def event(
        self, kind: Kind, at: int, sandbox: int | None = None, **fields: object
    ) -> None:
        """The same, where it happens seldom enough to read well."""
        self.note(kind, at, sandbox, fields)
