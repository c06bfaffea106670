"""How ClickHouse reaches the bucket, from settings."""

from __future__ import annotations

from django.conf import settings

from runs.clickhouse.client import ObjectStore
from runs.clickhouse.store import can_read


def object_store() -> ObjectStore:
    # Embedded, the bucket is a folder beside an engine of this process: reading it
    # there costs a fifth of asking the store for each object.
    beside = settings.S3_EMBEDDED and settings.CLICKHOUSE_URL.startswith("chdb:")
    folder = settings.DATA / "objects" / settings.S3_BUCKET
    return ObjectStore(
        endpoint_url=settings.S3_ENDPOINT_URL,
        bucket=settings.S3_BUCKET,
        key=settings.S3_ACCESS_KEY_ID,
        secret=settings.S3_SECRET_ACCESS_KEY,
        region=settings.S3_REGION,
        folder=str(folder) if beside and can_read(str(folder)) else "",
    )
