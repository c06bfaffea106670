"""Errors of the site.

RunsError
├── PlanError            the Plan cannot be carried out; one message per field
├── StateError           the Run is not in a state that allows this
├── FleetError           a Fleet could not launch, list or kill
├── ObjectsError         object storage did not do what was asked
├── ServiceError         an embedded child or the installation cannot start
├── RecordError          the raw record cannot be read as a Run
├── CredentialError      an operator's account at a Provider cannot be opened
└── QueryError           ClickHouse refused or failed a statement
"""

from __future__ import annotations

from collections.abc import Mapping


class RunsError(Exception):
    """Root of everything the site raises on purpose."""


class PlanError(RunsError):
    """messages: field (dotted) → what is wrong with it and what would do."""

    def __init__(self, messages: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{k}: {v}" for k, v in messages.items()))
        self.messages = dict(messages)


class StateError(RunsError):
    """What was asked does not fit the Run's state."""


class CredentialError(RunsError):
    """A stored account cannot be opened, or is used by somebody else."""


class FleetError(RunsError):
    """A host could not be launched, listed or killed."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class ObjectsError(RunsError):
    """Object storage failed; retryable."""


class ServiceError(RunsError):
    """One line: what cannot start and how to mend it."""


class RecordError(RunsError):
    """run.json is missing or is not a Plan."""


class QueryError(RunsError):
    """ClickHouse failed a statement; code is its error number (0 unknown)."""

    def __init__(self, message: str, code: int = 0, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
