"""Errors of the shard agent.

ShardAgentError
├── ProviderError        the vendor, the way to it, or our own side failed one call
├── SiteError            the site could not be reached or answered nonsense (retryable)
│   └── FencedError      the site refuses this attempt; it must leave
├── StorageError         a segment could not be stored (retryable)
└── ConfigError          the agent was started with something it cannot use
"""

from __future__ import annotations

from enum import StrEnum

MESSAGE_LENGTH_MAX = 500


class Cause(StrEnum):
    """Why a call failed; the closed set of measurement.md §2."""

    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    QUOTA = "quota"
    CAPACITY = "capacity"
    AUTH = "auth"
    INVALID_REQUEST = "invalid_request"
    PROVIDER_ERROR = "provider_error"
    NETWORK = "network"
    NOT_FOUND = "not_found"
    COMMAND_FAILED = "command_failed"
    HARNESS = "harness"


class Origin(StrEnum):
    """Where a failure arose, as the agent saw it; measurement.md §2."""

    PROVIDER = "provider"
    NETWORK = "network"
    HARNESS = "harness"


class ShardAgentError(Exception):
    """Root of everything the agent raises on purpose."""


class ProviderError(ShardAgentError):
    """One failed provider call, already classed.

    status is the vendor's (HTTP or exit) status or None; message is the vendor's
    own words, at most MESSAGE_LENGTH_MAX characters, secrets removed.
    """

    def __init__(
        self,
        cause: Cause,
        origin: Origin,
        message: str = "",
        *,
        status: int | None = None,
    ) -> None:
        super().__init__(f"{cause}: {message}" if message else str(cause))
        self.cause = cause
        self.origin = origin
        self.status = status
        self.message = message[:MESSAGE_LENGTH_MAX]


class SiteError(ShardAgentError):
    """The site did not answer, or not with what the protocol says. Retryable."""


class FencedError(SiteError):
    """The site refuses this host or attempt for good. Permanent."""


class StorageError(ShardAgentError):
    """Object storage did not take a segment. Retryable."""


class ConfigError(ShardAgentError):
    """The agent cannot start with what it was given. Permanent."""
