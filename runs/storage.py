"""How ClickHouse reaches the bucket, from settings."""

from __future__ import annotations

from django.conf import settings

from runs.clickhouse.client import ObjectStore


def object_store() -> ObjectStore:
    return ObjectStore(
        endpoint_url=settings.S3_ENDPOINT_URL,
        bucket=settings.S3_BUCKET,
        key=settings.S3_ACCESS_KEY_ID,
        secret=settings.S3_SECRET_ACCESS_KEY,
        region=settings.S3_REGION,
    )
