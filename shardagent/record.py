"""Where the facts and log lines of a Shard go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from shardagent.errors import MESSAGE_LENGTH_MAX
from shardagent.wire import CauseCount, Kind

ENDS = frozenset({Kind.CREATE_FAILED, Kind.READINESS_FAILED, Kind.DEAD})


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

    @property
    def causes(self) -> list[CauseCount]:
        """Why Sandboxes ended too early, for the heartbeat."""
        return list(self._causes.values())

    def event(
        self, kind: Kind, at: int, sandbox: int | None = None, **fields: object
    ) -> None:
        """The same, where it happens seldom enough to read well."""
        if kind in ENDS and sandbox is not None:
            self._count(kind, sandbox, fields)
        self.note(kind, at, sandbox, fields)

    def _count(self, kind: Kind, sandbox: int, fields: Mapping[str, object]) -> None:
        cause, origin = str(fields["cause"]), str(fields["origin"])
        known = self._causes.get((kind, cause, origin))
        if known is None:
            said = str(fields.get("message") or "")[:MESSAGE_LENGTH_MAX]
            known = CauseCount(
                kind=kind.value,
                cause=cause,
                origin=origin,
                count=0,
                sandbox=sandbox,
                message=said,
            )
        one_more = {"count": known.count + 1}
        self._causes[kind, cause, origin] = known.model_copy(update=one_more)
