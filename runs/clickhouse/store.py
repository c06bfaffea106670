"""How ClickHouse reaches the bucket: s3(), or file() where it is a folder beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from runs.clickhouse.client import ObjectStore, literal

# The embedded object store answers LIST with unquoted ETags.
READ_SETTINGS = {"s3_validate_etag_on_read": 0, "s3_retry_attempts": 3}


def source(store: ObjectStore, keys: Sequence[str], *, unpack: bool = True) -> str:
    """A table function over these objects, each one row: `_path` and `blob`.

    The `{a,b}` list form makes no LIST call. The keys hold no character that the
    pattern would read as its own: the caller has matched them. An absent object is
    an error of s3(), and no row of file().
    """
    listed = keys[0] if len(keys) == 1 else "{" + ",".join(keys) + "}"
    if store.folder:
        parts = [f"{_plain(store.folder)}/{listed}", "RawBLOB", "blob String"]
        return _call("file", parts if unpack else [*parts, "none"])
    url = f"{store.endpoint_url.rstrip('/')}/{store.bucket}/{listed}"
    parts = [url, store.key, store.secret, "RawBLOB", "blob String"]
    return _call("s3", parts if unpack else [*parts, "none"])


def key_of(run: str) -> str:
    """The expression for an object's key, from the path that it was read by."""
    assert re.fullmatch(r"[a-z0-9-]{1,40}", run), run
    return f"extract(toString(_path), '^.*(runs/{run}/.*)$')"


def is_absent(store: ObjectStore, key: str) -> bool:
    """Of an object that file() gave no row for: whether it is not there at all."""
    return bool(store.folder) and not (Path(store.folder) / key).exists()


def can_read(folder: str) -> bool:
    """Whether file() would take the folder's name as it stands."""
    return not set(folder) & set("{}*?")


def _plain(folder: str) -> str:
    assert can_read(folder), folder
    return folder.rstrip("/")


def _call(name: str, parts: Sequence[str]) -> str:
    return f"{name}({', '.join(literal(part) for part in parts)})"
