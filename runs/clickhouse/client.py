"""The only door to ClickHouse: one lazy client per thread, one error type."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError

from runs.errors import QueryError

QUERY_TIME_MAX_S = 60
COMMAND_TIME_MAX_S = 900
STAGING = "staging_"  # the twin tables a sealed partition is built in
# Statements that read a live Run's record go after all else on this machine: agents may
# be on it. A nice value; without the right to set it ClickHouse leaves it.
BESIDE_A_RUN = {"os_thread_priority": 10}
# Where speed counts, and one statement does not fill the machine by itself.
STATEMENTS_AT_ONCE = min(4, os.cpu_count() or 1)
SCHEMA_DIR = Path(__file__).parent / "schema"
# Timeouts, memory, too many queries or parts, lost connections, Keeper, S3.
RETRYABLE_CODES = frozenset({0, 159, 202, 209, 210, 241, 242, 252, 319, 499, 999})

_CODE = re.compile(r"Code: (\d+)\.")
_SAFE_NAME = re.compile(r"[a-z0-9-]{1,40}")


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """Where the raw record lies, and the key to read it."""

    endpoint_url: str
    bucket: str
    key: str
    secret: str = field(repr=False)
    region: str = "auto"
    folder: str = ""  # where the engine may read the bucket as plain files


_Part = TypeVar("_Part")
_Answer = TypeVar("_Answer")

_local = threading.local()
_url = ""
_generation = 0


def configure(url: str) -> None:
    """Name the engine: `chdb:///abs/path`, or `http(s)://user:pw@host:8123/db`."""
    global _url, _generation
    _url = url
    _generation += 1


def query_rows(
    sql: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    name: str,
    settings: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """All rows of a SELECT as dicts; `name` is left in ClickHouse's query log."""
    try:
        merged = {**_settings(name, QUERY_TIME_MAX_S), **(settings or {})}
        result = _client().query(sql, parameters=parameters, settings=merged)
        return list(result.named_results())
    except ClickHouseError as error:
        raise _translated(error) from error


def command(
    sql: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    name: str,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Run a statement that answers nothing."""
    merged = {**_settings(name, COMMAND_TIME_MAX_S), **(settings or {})}
    try:
        _client().command(sql, parameters=parameters, settings=merged)
    except ClickHouseError as error:
        raise _translated(error) from error


def stream(
    sql: str, parameters: Mapping[str, Any] | None, *, name: str, fmt: str
) -> Iterator[bytes]:
    """A SELECT's bytes in ClickHouse's own format, a chunk at a time."""
    try:
        source = _client().raw_stream(
            sql,
            parameters=parameters,
            settings={
                **_settings(name, COMMAND_TIME_MAX_S),
                "output_format_write_statistics": 0,  # the same file each time
            },
            fmt=fmt,
        )
        with source:
            while chunk := source.read(65_536):
                yield chunk
    except ClickHouseError as error:
        raise _translated(error) from error


def at_once(ask: Callable[[_Part], _Answer], parts: Iterable[_Part]) -> list[_Answer]:
    """Ask of each part, STATEMENTS_AT_ONCE together; the answers in order.

    The first error ends it, when those under way have ended.
    """
    with ThreadPoolExecutor(STATEMENTS_AT_ONCE) as threads:
        return list(threads.map(ask, parts))


def let_go_of_memory() -> None:
    """The embedded engine keeps what it freed for later; this process is the site's."""
    if _url.startswith("chdb:"):
        command("SYSTEM JEMALLOC PURGE", name="let_go_of_memory")


def literal(value: str) -> str:
    """A string as a ClickHouse literal, for places where nothing can be bound."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def code_literal(run: str) -> str:
    """A Run's code as a literal; asserted to be one, as it names partitions."""
    assert _SAFE_NAME.fullmatch(run), run
    return literal(run)


def integers(values: Sequence[int]) -> str:
    """Integers as an array literal: too many of them for a bound parameter."""
    return "[" + ",".join(str(int(value)) for value in values) + "]"


def is_current() -> bool:
    """Whether the tables are those of this code's schema."""
    rows = query_rows(
        "SELECT 1 FROM system.tables WHERE database = currentDatabase()"
        " AND name = 'schema_version' LIMIT 1",
        name="migrate",
    )
    return bool(rows) and _applied_version() == _schema_version()


def migrate() -> bool:
    """Bring the tables to this code's schema; True where they were built anew.

    All that is in ClickHouse can be rebuilt from the bucket, so a change of the
    schema drops everything; the caller then rebuilds the Runs.
    """
    command(
        "CREATE TABLE IF NOT EXISTS schema_version (version UInt64"
        " COMMENT 'hash of the schema files', applied_at DateTime DEFAULT now()"
        " COMMENT 'when the tables were built') ENGINE = MergeTree ORDER BY applied_at",
        name="migrate",
    )
    if _applied_version() == _schema_version():
        return False
    reset()
    return True


def reset() -> None:
    """Drop every table and build them anew, empty."""
    statements = _statements()
    for statement in reversed(statements):
        match = re.match(r"CREATE (TABLE|MATERIALIZED VIEW) (\w+)", statement)
        assert match is not None, statement
        what = "VIEW" if match[1] != "TABLE" else "TABLE"
        command(f"DROP {what} IF EXISTS {match[2]} SYNC", name="reset")
    for statement in statements:
        command(statement, name="reset")
    command("TRUNCATE TABLE schema_version", name="reset")
    command(
        f"INSERT INTO schema_version (version) VALUES ({_schema_version()})",
        name="reset",
    )


def _statements() -> list[str]:
    texts = [path.read_text() for path in sorted(SCHEMA_DIR.glob("*.sql"))]
    return [
        part.strip()
        for text in texts
        for prefix in ("", STAGING)
        for part in text.replace("{prefix}", prefix).split(";\n")
        if part.strip()
    ]


def _applied_version() -> int | None:
    rows = query_rows(
        "SELECT version FROM schema_version ORDER BY applied_at DESC LIMIT 1",
        name="migrate",
    )
    return int(rows[0]["version"]) if rows else None


def _schema_version() -> int:
    return crc32("\n".join(_statements()).encode())


def _settings(name: str, time_max_s: int) -> dict[str, Any]:
    return {"max_execution_time": time_max_s, "log_comment": name}


def _client() -> Any:
    assert _url, "configure() comes first"
    if getattr(_local, "generation", None) != _generation:
        try:
            # The embedded engine knows no sessions; on a server a client bound
            # to one could not be used again before its last query ended.
            _local.client = (
                clickhouse_connect.get_client(dsn=_url)
                if _url.startswith("chdb:")
                else clickhouse_connect.get_client(
                    dsn=_url, autogenerate_session_id=False
                )
            )
        except ClickHouseError as error:
            raise _translated(error) from error
        _local.generation = _generation
    return _local.client


def _translated(error: ClickHouseError) -> QueryError:
    message = str(error)
    found = _CODE.search(message)
    code = int(found[1]) if found else 0
    return QueryError(message, code=code, retryable=code in RETRYABLE_CODES)
