"""What every fleet driver does: launch, list, kill. Thin on purpose.

A driver starts machines and ends them. Barrier, fencing and accounting are the site's:
which host a machine carries is claimed by the agent on it (hosts.claim), so machines
are alike, and one too many does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from shardagent.wire import FleetSpec


class MachineState(StrEnum):
    WAITING = "waiting"  # asked for and not granted; why says what it waits for
    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"
    UNREACHABLE = "unreachable"  # nobody can say whether it still runs


LIVING = (
    MachineState.WAITING,
    MachineState.STARTING,
    MachineState.RUNNING,
    MachineState.ENDING,
)
GRANTED = (MachineState.STARTING, MachineState.RUNNING)


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine (or pod, or process) of a Run, as its engine describes it."""

    id: str  # as its agent says it (wire.Machine.id)
    state: MachineState
    type: str = ""
    region: str = ""
    zone: str = ""
    spot: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class Wheelhouse:
    """The agent and all it needs, as wheels in one .tar.gz (fleets/wheelhouse.py)."""

    path: Path
    sha256: str
    url: str  # presigned, good for a day


@dataclass(frozen=True, slots=True)
class Order:
    """What a Run wants of its Fleet; the same order again starts nothing more."""

    run: str
    machines: int  # that shall be there, spares included
    site_url: str
    token: str  # the Run's, by which machines claim hosts
    lifetime_s: int  # after which a machine ends itself, whatever became of the site
    spec: FleetSpec
    wheelhouse: Callable[[], Wheelhouse]
    written_off: Collection[str] = frozenset()  # ids that count no more


@dataclass(frozen=True, slots=True)
class Launched:
    """What is there after a launch, and by reason how many machines did not come."""

    machines: Collection[Machine]
    started: int = 0  # by this launch
    refused: Mapping[str, int] = field(default_factory=dict)


class Fleet(Protocol):
    look_interval_s: float  # between two listings, at least

    def launch(self, order: Order) -> Launched:
        """Bring the Run's machines up to the order. FleetError where none can come."""

    def list(self, run: str) -> list[Machine]:
        """The Run's machines that are not gone."""

    def kill(
        self, run: str, ids: Collection[str] | None = None, *, hard: bool = False
    ) -> int:
        """End some of the Run's machines, or all; how many were told to.

        hard: for those that did not leave when told.
        """

    def runs(self) -> set[str]:
        """Codes of the Runs that any machine there is for."""

    def usd_per_h(self, machines: Iterable[Machine]) -> float | None:
        """What these cost an hour by list price; None where no price is known.

        One without a type is of those that the driver starts first.
        """


def usual(spec: FleetSpec) -> Machine:
    """What is asked for first, before anything is granted."""
    kind = spec.machine_types[0] if spec.machine_types else ""
    return Machine("", MachineState.WAITING, kind, spot=spec.spot)


def useful(machines: Iterable[Machine], written_off: Collection[str]) -> list[Machine]:
    """Those that carry a host, or will."""
    return [
        machine
        for machine in machines
        if machine.state in (*GRANTED, MachineState.WAITING)
        and machine.id not in written_off
    ]
