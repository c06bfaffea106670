"""What a Run left in its bucket folder, read without any of the site's code."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardagent import zstd


@dataclass(frozen=True, slots=True)
class Loss:
    """What a fault cost the record, by the record itself."""

    seconds: float  # longest time before the fault of which nothing is known
    events: int  # estimated where an agent died, counted where numbers are missing


class Record:
    """The objects of one Run."""

    def __init__(self, bucket: Path, code: str) -> None:
        self.folder = bucket / "runs" / code

    def events(self) -> dict[tuple[int, int], list[dict[str, Any]]]:
        """By (shard, attempt), in order of n; what cannot be read is left out."""
        found: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for path in sorted(self.folder.glob("shards/*/*/events-*")):
            key = int(path.parts[-3]), int(path.parts[-2])
            found.setdefault(key, []).extend(_lines(path))
        for events in found.values():
            events.sort(key=lambda event: event["n"])
        return found

    def journal(self) -> list[dict[str, Any]]:
        paths = sorted(self.folder.glob("journal-*"))
        return [json.loads(line) for p in paths for line in p.read_text().splitlines()]

    def truth(self) -> list[dict[str, Any]]:
        """The world's own account of every sandbox."""
        return [e for path in sorted(self.folder.glob("truth-*")) for e in _lines(path)]

    def alive_after_reaping(self) -> int:
        """Sandboxes that lived until their world ended: nobody had destroyed them."""
        return sum(line["end"] == "world_end" for line in self.truth())

    def created_twice(self) -> int:
        """Sandboxes that the world was asked for more than once."""
        asked = [line["sandbox"] for line in self.truth()]
        return len(asked) - len(set(asked))

    def loss(self, fault_us: int) -> Loss:
        """fault_us: when the fault struck, on this host's clock."""
        by_attempt = self.events()
        well = {
            key: events
            for key, events in by_attempt.items()
            if events and events[-1]["kind"] == "agent_finished"
        }
        missing = sum(
            events[-1]["n"] + 1 - len(events) for events in well.values() if events
        )
        seconds, estimate = 0.0, 0.0
        for key in by_attempt.keys() - well.keys():
            known = [e["at"] for e in by_attempt[key] if e["at"] <= fault_us]
            if not known:
                continue
            seconds = max(seconds, (fault_us - known[-1]) / 1e6)
            others = [
                sum(known[-1] < event["at"] <= fault_us for event in events)
                for events in well.values()
            ]
            estimate += sum(others) / len(others) if others else 0.0
        return Loss(round(seconds, 1), missing + round(estimate))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = zstd.decompress(path.read_bytes())
    except zstd.ZstdError:
        return
    for line in text.splitlines():
        with contextlib.suppress(ValueError):  # a flipped byte
            yield json.loads(line)
