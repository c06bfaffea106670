"""How ClickHouse reaches the bucket: the s3() table function."""

from __future__ import annotations

from collections.abc import Sequence

from runs.clickhouse.client import ObjectStore, literal

# The embedded object store answers LIST with unquoted ETags.
READ_SETTINGS = {"s3_validate_etag_on_read": 0, "s3_retry_attempts": 3}


def s3_source(store: ObjectStore, keys: Sequence[str], *, unpack: bool = True) -> str:
    """`s3(…)` over these objects, each one row: `_path` and `blob`.

    The `{a,b}` list form makes no LIST call. The keys hold no character that the
    pattern would read as its own: the caller has matched them (ingest.parse_key).
    """
    listed = keys[0] if len(keys) == 1 else "{" + ",".join(keys) + "}"
    url = f"{store.endpoint_url.rstrip('/')}/{store.bucket}/{listed}"
    parts = [url, store.key, store.secret, "RawBLOB", "blob String"]
    if not unpack:
        parts.append("none")
    return f"s3({', '.join(literal(part) for part in parts)})"
