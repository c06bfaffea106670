"""What every fleet driver does: launch, list, kill. Thin on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Order:
    """One host to launch. token is its secret for /agent/v1."""

    run: str
    host: int
    site_url: str
    token: str


class Fleet(Protocol):
    def launch(self, order: Order) -> Mapping[str, Any]:
        """Start the host; returns what is needed to find it again (its reference)."""

    def alive(self, run: str) -> set[int]:
        """Indices of the Run's hosts that still run."""

    def kill(self, run: str, host: int | None = None) -> int:
        """End one host of the Run, or all; returns how many were told to."""
