"""What can go wrong at this edge.

QueryError   ClickHouse refused or failed a statement; says whether to try again
"""

from __future__ import annotations


class QueryError(Exception):
    """A statement failed. `code` is ClickHouse's, 0 where there was no answer."""

    def __init__(self, message: str, *, code: int, retryable: bool) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
