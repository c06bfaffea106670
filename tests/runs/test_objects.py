from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from runs import objects
from runs.errors import ObjectsError
from runs.objects import StoreClock
from runs.presign import presigned

SKEWED = {"Error": {"Code": "RequestTimeTooSkewed"}}


def answer(date: str | None, said: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    headers = {} if date is None else {"Date": date}
    return SimpleNamespace(headers=headers), said


def test_requests_are_signed_by_the_time_of_the_store() -> None:
    clock = StoreClock()
    theirs = datetime.now(UTC) + timedelta(hours=1)
    refusal = answer(format_datetime(theirs, usegmt=True), SKEWED)
    assert clock.corrected(refusal, attempts=1) is not None
    assert abs(clock.now(remove_tzinfo=False) - theirs) < timedelta(seconds=5)
    assert clock.now().tzinfo is None


@pytest.mark.parametrize(
    "response",
    [
        None,
        answer("Mon, 23 Jun 2025 10:00:00 GMT", {}),
        answer("Mon, 23 Jun 2025 10:00:00 GMT", {"Error": {"Code": "NoSuchKey"}}),
        answer(None, SKEWED),
        answer("yesterday", SKEWED),
    ],
    ids=["nothing", "fine", "other", "no-date", "no-time"],
)
def test_other_answers_change_nothing(response: Any) -> None:
    clock = StoreClock()
    assert clock.corrected(response, attempts=1) is None
    assert abs(clock.now(remove_tzinfo=False) - datetime.now(UTC)) < timedelta(
        seconds=5
    )


def test_urls_of_many_keys_are_those_that_botocore_signs(settings: Any) -> None:
    settings.S3_ENDPOINT_URL = "http://127.0.0.1:9000"
    settings.S3_SECRET_ACCESS_KEY = "a+secret/with=signs"
    objects.forget_client()
    keys = [
        f"runs/sim-1/shards/{n:05d}/00/log-{n:06d}.txt.zst" for n in range(0, 90, 7)
    ]
    try:
        signs = Mock(wraps=lambda key: objects.put_url(key, 3_600))
        for _ in range(3):  # a second may pass between the two
            many = presigned(keys, settings.S3_SECRET_ACCESS_KEY, signs)
            alone = [objects.put_url(key, 3_600) for key in keys]
            if many == alone:
                break
        assert many == alone
        assert signs.call_count <= 3  # once each time: the rest followed
        # Where the pattern is not understood, botocore signs each.
        wrong = presigned(keys, "another secret", lambda key: objects.put_url(key, 60))
        again = [objects.put_url(key, 60) for key in keys]
        assert [url.split("?")[0] for url in wrong] == [u.split("?")[0] for u in again]
        assert len(set(wrong)) == len(keys)
        assert presigned([], "s", signs) == []
    finally:
        objects.forget_client()


KEYS = (
    "publication.json",
    "runs/a-1/run.json",
    "runs/a-1/shards/0/1/events-000000.ndjson.zst",
    "runs/a-1/shards/0/1/log-000000.txt.zst",
    "runs/a-1/shards/10/1/events-000000.ndjson.zst",
    "runs/a-1/shards/2/1/events-000000.ndjson.zst",
    "runs/a-10/run.json",
)


@pytest.mark.parametrize(
    "prefix", ["", "r", "runs/", "runs/a-1", "runs/a-1/", "runs/a-1/run.json", "no/"]
)
@pytest.mark.parametrize("after", ["", KEYS[2], "runs/a-1/shards/10"])
def test_the_embedded_store_is_listed_as_any_other(
    settings: Any, tmp_path: Path, prefix: str, after: str
) -> None:
    settings.DATA, settings.S3_BUCKET, settings.S3_EMBEDDED = tmp_path, "raw", True
    for size, key in enumerate(KEYS):
        path = tmp_path / "objects" / "raw" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    wanted = [
        objects.Stored(key, size)
        for size, key in enumerate(KEYS)
        if key.startswith(prefix) and key > after
    ]
    assert list(objects.listing(prefix, after=after)) == wanted


def test_a_bucket_that_is_not_there_is_not_an_empty_one(
    settings: Any, tmp_path: Path
) -> None:
    settings.DATA, settings.S3_BUCKET, settings.S3_EMBEDDED = tmp_path, "raw", True
    with pytest.raises(ObjectsError, match="bucket is not there"):
        list(objects.listing("runs/a-1/"))
    (tmp_path / "objects" / "raw").mkdir(parents=True)
    assert list(objects.listing("runs/a-1/")) == []
