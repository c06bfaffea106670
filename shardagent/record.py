"""Where the facts and log lines of a Shard go."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from shardagent.errors import ProviderError
from shardagent.wire import CAUSE_MESSAGE_MAX, CauseCount, Kind


class Record(Protocol):
    """What keeps them."""

    def note(
        self, kind: Kind, at: int, sandbox: int | None, fields: dict[str, object]
    ) -> None:
        """Write one event; the fields are the record's from then on."""

    def log(self, at: int, level: str, text: str) -> None:
        """Write one log line."""


class TalliedRecord:
    """Counts events by kind on their way, and what ended Sandboxes by its cause."""

    def __init__(self, record: Record) -> None:
        self.tally: Counter[Kind] = Counter()
        self.final_ok = 0  # Sandboxes proven alive at the coordinated teardown
        self._causes: dict[tuple[str, str, str], CauseCount] = {}
        self.log = record.log
        self._note = record.note

    def note(
        self, kind: Kind, at: int, sandbox: int | None, fields: dict[str, object]
    ) -> None:
        """Write one event."""
        self.tally[kind] += 1
        self._note(kind, at, sandbox, fields)

    def count_cause(self, kind: Kind, sandbox: int, failure: ProviderError) -> None:
        """One more Sandbox ended by this kind of event; the first is the example."""
        key = (kind.value, failure.cause.value, failure.origin.value)
        known = self._causes.get(key) or CauseCount(
            kind=kind.value,
            cause=failure.cause.value,
            origin=failure.origin.value,
            count=0,
            sandbox=sandbox,
            message=failure.message[:CAUSE_MESSAGE_MAX],
        )
        more = {"count": known.count + 1}
        self._causes[key] = known.model_copy(update=more)

    @property
    def causes(self) -> list[CauseCount]:
        """Why Sandboxes ended too early, for the heartbeat."""
        return list(self._causes.values())

    def event(
        self, kind: Kind, at: int, sandbox: int | None = None, **fields: object
    ) -> None:
        """The same, where it happens seldom enough to read well."""
        self.note(kind, at, sandbox, fields)
