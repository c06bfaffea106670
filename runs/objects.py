"""Object storage: the one module that speaks S3 for the site."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.auth
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings

from runs.errors import ObjectsError
from runs.presign import presigned

RETRIES_MAX = 3  # a tick a second later tries again in any case
OBJECT_BYTES_MAX = 64 * 1024 * 1024  # of one object read whole
LIST_PAGES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Stored:
    key: str
    bytes: int


class StoreClock:
    """The time by which requests are signed; a store refuses one 15 minutes off.

    The host's wall clock is read once: a step of it must not cut us, and the agents
    that we sign for, from the record. Where it was wrong from the start, the store's
    own refusal says by how much (botocore corrects no skew itself).
    """

    def __init__(self) -> None:
        self._base = datetime.now(UTC)
        self._base_s = time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self, remove_tzinfo: bool = True) -> datetime:  # noqa: FBT001, FBT002
        """As botocore.compat.get_current_datetime."""
        since_s = time.clock_gettime(time.CLOCK_BOOTTIME) - self._base_s
        found = self._base + timedelta(seconds=since_s)
        return found.replace(tzinfo=None) if remove_tzinfo else found

    def corrected(
        self, response: Any = None, attempts: int = 0, **_: Any
    ) -> float | None:
        """Botocore's needs-retry: the pause before one more try, or None for none."""
        if not response or attempts > RETRIES_MAX:
            return None
        http, said = response
        if said.get("Error", {}).get("Code") != "RequestTimeTooSkewed":
            return None
        try:
            theirs = parsedate_to_datetime(http.headers["Date"])
        except (KeyError, ValueError):
            return None
        self._base += theirs - self.now(remove_tzinfo=False)
        return 0.1


_clock = StoreClock()
botocore.auth.get_current_datetime = _clock.now  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def _client() -> Any:
    local = urlsplit(settings.S3_ENDPOINT_URL).hostname in {"127.0.0.1", "localhost"}
    client = boto3.client(
        "s3",
        endpoint_url=settings.S3_ENDPOINT_URL,
        region_name=settings.S3_REGION,
        aws_access_key_id=settings.S3_ACCESS_KEY_ID,
        aws_secret_access_key=settings.S3_SECRET_ACCESS_KEY,
        config=Config(
            signature_version="s3v4",
            retries={"max_attempts": RETRIES_MAX, "mode": "standard"},
            connect_timeout=5,
            read_timeout=30,
            max_pool_connections=32,
            s3={"addressing_style": "path" if local else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    client.meta.events.register_first("needs-retry.s3", _clock.corrected)
    return client


def forget_client() -> None:
    """After the endpoint changed."""
    _client.cache_clear()


def make_bucket() -> None:
    try:
        _client().create_bucket(Bucket=settings.S3_BUCKET)
    except ClientError as error:
        if error.response["Error"]["Code"] not in {
            "BucketAlreadyOwnedByYou",
            "BucketAlreadyExists",
        }:
            raise ObjectsError(f"cannot make bucket: {error}") from error
    except BotoCoreError as error:
        raise ObjectsError(f"cannot reach object storage: {error}") from error


def put(key: str, body: bytes) -> None:
    try:
        _client().put_object(Bucket=settings.S3_BUCKET, Key=key, Body=body)
    except (ClientError, BotoCoreError) as error:
        raise ObjectsError(f"cannot store {key}: {error}") from error


def get(key: str) -> bytes | None:
    """The object's bytes, or None where there is none."""
    try:
        answer = _client().get_object(Bucket=settings.S3_BUCKET, Key=key)
        size = answer["ContentLength"]
        if size > OBJECT_BYTES_MAX:
            raise ObjectsError(f"{key} has {size} bytes, more than {OBJECT_BYTES_MAX}")
        return bytes(answer["Body"].read())
    except ClientError as error:
        if error.response["Error"]["Code"] in {"NoSuchKey", "404", "NoSuchBucket"}:
            return None
        raise ObjectsError(f"cannot read {key}: {error}") from error
    except BotoCoreError as error:
        raise ObjectsError(f"cannot read {key}: {error}") from error


def size(key: str) -> int | None:
    """Bytes of one object, or None where there is none."""
    found = next(iter(listing(key)), None)
    return found.bytes if found is not None and found.key == key else None


def listing(prefix: str, *, after: str = "") -> Iterator[Stored]:
    """Every object under `prefix` (after a key), in key order, a page at a time."""
    if settings.S3_EMBEDDED:
        yield from _listing_beside(prefix, after)
        return
    token: dict[str, str] = {"StartAfter": after} if after else {}
    try:
        for _ in range(LIST_PAGES_MAX):
            page = _client().list_objects_v2(
                Bucket=settings.S3_BUCKET, Prefix=prefix, **token
            )
            for item in page.get("Contents", ()):
                yield Stored(item["Key"], item["Size"])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}
    except (ClientError, BotoCoreError) as error:
        raise ObjectsError(f"cannot list {prefix}: {error}") from error
    raise ObjectsError(f"{prefix} lists more than {LIST_PAGES_MAX} pages")


def _listing_beside(prefix: str, after: str) -> Iterator[Stored]:
    """The same of the embedded store, whose bucket is a folder of this machine.

    It would walk the whole folder anew for each page of a thousand.
    """
    bucket = settings.DATA / "objects" / settings.S3_BUCKET
    if not bucket.is_dir():  # not the same as a bucket without objects
        raise ObjectsError(f"cannot list {prefix}: the bucket is not there")
    found: list[Stored] = []
    try:
        _walk(bucket, prefix.rpartition("/")[0], prefix, found)
    except OSError as error:
        raise ObjectsError(f"cannot list {prefix}: {error}") from error
    yield from sorted((one for one in found if one.key > after), key=_by_key)


def _walk(bucket: Path, folder: str, prefix: str, found: list[Stored]) -> None:
    try:
        entries = os.scandir(bucket / folder)
    except (FileNotFoundError, NotADirectoryError):
        return  # no object lies there
    with entries:
        for entry in entries:
            key = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                if f"{key}/".startswith(prefix):
                    _walk(bucket, key, prefix, found)
            elif entry.is_file(follow_symlinks=False) and key.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                    found.append(Stored(key, entry.stat().st_size))


def _by_key(stored: Stored) -> str:
    return stored.key


def folders(prefix: str) -> Iterator[str]:
    """The names directly below `prefix` (which ends in a slash)."""
    token: dict[str, str] = {}
    try:
        for _ in range(LIST_PAGES_MAX):
            page = _client().list_objects_v2(
                Bucket=settings.S3_BUCKET, Prefix=prefix, Delimiter="/", **token
            )
            for item in page.get("CommonPrefixes", ()):
                yield item["Prefix"][len(prefix) :].rstrip("/")
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}
    except (ClientError, BotoCoreError) as error:
        raise ObjectsError(f"cannot list {prefix}: {error}") from error


def put_url(key: str, lifetime_s: int) -> str:
    """A presigned PUT for exactly this key; at most 7 days (SigV4)."""
    return str(
        _client().generate_presigned_url(
            "put_object",
            Params={"Bucket": settings.S3_BUCKET, "Key": key},
            ExpiresIn=min(lifetime_s, 7 * 24 * 3600),
        )
    )


def put_urls(keys: Sequence[str], lifetime_s: int) -> list[str]:
    """The same for many keys at once."""
    return presigned(
        keys, settings.S3_SECRET_ACCESS_KEY, lambda key: put_url(key, lifetime_s)
    )


def get_url(key: str, lifetime_s: int) -> str:
    return str(
        _client().generate_presigned_url(
            "get_object",
            Params={"Bucket": settings.S3_BUCKET, "Key": key},
            ExpiresIn=min(lifetime_s, 7 * 24 * 3600),
        )
    )
