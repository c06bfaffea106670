"""One simulated sandbox: when it lived, slept and was reached. No I/O, no clock."""

from __future__ import annotations

from hashlib import sha256

import orjson

from runs.simworld.fates import Fate

TICK_US = 250_000


class Life:
    """A sandbox that exists; all times in µs of the Run's clock."""

    __slots__ = (
        "asked_us",
        "asleep",
        "asleep_since_witness",
        "awake_until_us",
        "create",
        "create_us",
        "created_us",
        "ended",
        "fate",
        "index",
        "interactive",
        "labels",
        "nonce",
        "probes",
        "provider_id",
        "ready_at_us",
        "ready_us",
        "ttl_at_us",
        "witness_us",
    )

    def __init__(
        self, index: int, fate: Fate, labels: dict[str, str], asked_us: int
    ) -> None:
        self.index = index
        self.fate = fate
        self.labels = labels
        self.asked_us = asked_us
        self.provider_id = ""
        self.create = "ok"
        self.create_us: int | None = None
        self.created_us = 0
        self.ready_at_us = 0
        self.ready_us: int | None = None
        self.ttl_at_us = 0
        self.interactive = False
        self.ended = False
        self.nonce: str | None = None
        self.witness_us = 0
        self.asleep_since_witness = 0
        self.asleep: list[tuple[int, int]] | None = None
        self.awake_until_us = 0  # falls asleep then, unless reached; 0: never sleeps
        self.probes = 0

    def wake(self, now: int) -> bool:
        """Ends a sleep, if it sleeps; says whether it did."""
        since = self.awake_until_us
        if not since or now <= since:
            return False
        if self.asleep is None:
            self.asleep = []
        self.asleep.append((since, now))
        if self.nonce is not None:
            self.asleep_since_witness += now - max(since, self.witness_us)
        self.awake_until_us = 0
        return True

    def start_witness(self, nonce: str, now: int) -> None:
        self.nonce = nonce
        self.witness_us = now
        self.asleep_since_witness = 0

    def ticks(self, now: int) -> int:
        """Ticks of the witness: one each 250 ms it was awake."""
        awake_us = now - self.witness_us - self.asleep_since_witness
        return awake_us // TICK_US if awake_us > 0 else 0

    def digest(self, challenge: str) -> str:
        assert self.nonce is not None
        return sha256((self.nonce + challenge).encode()).hexdigest()

    def line(self, ended_us: int, end: str) -> bytes:
        """Its line of truth."""
        self.wake(ended_us)
        return truth_line(
            sandbox=self.index,
            provider_id=self.provider_id,
            create=self.create,
            asked_us=self.asked_us,
            alive_from_us=self.created_us,
            alive_to_us=ended_us,
            interactive=self.interactive,
            asleep=self.asleep or [],
            end=end,
            create_us=self.create_us,
            ready_us=self.ready_us,
        )


def refused_line(
    index: int, create: str, asked_us: int, create_us: int | None
) -> bytes:
    """The line of a sandbox that never came to be."""
    return truth_line(
        sandbox=index,
        provider_id=None,
        create=create,
        asked_us=asked_us,
        alive_from_us=None,
        alive_to_us=None,
        interactive=False,
        asleep=[],
        end=None,
        create_us=create_us,
        ready_us=None,
    )


def truth_line(**fields: object) -> bytes:
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
