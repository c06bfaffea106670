"""JSON that many ask for: encoded, compressed and hashed once, then only handed out."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Any

import orjson
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response, patch_vary_headers

SMALL_BYTES = 500  # not worth compressing
LEVEL = 6
SHARE = 0.02  # of the time, at most, that making a thing anew and anew may take
WAIT_S = 5.0  # for whoever makes it already; then one makes it oneself
# One of them makes a thing while the others wait for it; two keys may share a lock.
_LOCKS = tuple(Lock() for _ in range(64))


@dataclass(frozen=True, slots=True)
class Packed:
    """`packed` is None where the body is too small for it to pay."""

    body: bytes
    packed: bytes | None
    etag: str


def pack(value: Any) -> Packed:
    body = orjson.dumps(value)
    small = len(body) < SMALL_BYTES
    packed = None if small else gzip.compress(body, LEVEL, mtime=0)
    return Packed(body, packed, f'"{sha256(body).hexdigest()[:20]}"')


def kept(key: str, make: Callable[[], tuple[Any, float]]) -> Packed:
    """What is kept under the key; else made, with the seconds that it may be kept.

    Made once in this process, however many ask within WAIT_S; `make` must ask for no
    other thing that is kept.
    """
    found: Packed | None = cache.get(key)
    if found is not None:
        return found
    lock = _LOCKS[hash(key) % len(_LOCKS)]
    mine = lock.acquire(timeout=WAIT_S)
    try:
        found = cache.get(key)
        if found is None:
            value, keep_s = make()
            found = pack(value)
            cache.set(key, found, keep_s)
    finally:
        if mine:
            lock.release()
    return found


def by_cost(
    took_s: float, least_s: float, most_s: float, *, share: float = SHARE
) -> float:
    """How long to keep what took so long to make."""
    return min(max(least_s, took_s / share), most_s)


def answer(request: HttpRequest, found: Packed) -> HttpResponse:
    """304 where the browser has it already; compressed where it can take that."""
    takes = "gzip" in request.headers.get("Accept-Encoding", "")
    compressed = found.packed is not None and takes
    body = found.packed if compressed else found.body
    response = HttpResponse(body, content_type="application/json")
    if compressed:
        response["Content-Encoding"] = "gzip"
    patch_vary_headers(response, ("Accept-Encoding", "Cookie"))
    response["Cache-Control"] = "private, no-cache"
    response["ETag"] = found.etag
    same = get_conditional_response(request, etag=found.etag, response=response)
    return same if isinstance(same, HttpResponse) else response
