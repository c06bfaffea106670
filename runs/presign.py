"""Presigned PUT URLs by the thousand: botocore signs one, the rest follow its pattern.

Signing is AWS Signature Version 4 in the query string. Botocore takes some 0.15 ms for
each; a Shard needs dozens, a Run tens of thousands, and all within the arming. So the
signature alone is computed here, and only while it agrees with botocore's own for the
first key; where it does not, botocore signs every one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl, quote, urlsplit

_SIGNATURE = "&X-Amz-Signature="


def presigned(
    keys: Sequence[str], secret: str, sign: Callable[[str], str]
) -> list[str]:
    """A URL for each key. sign: botocore's own, for one key."""
    if not keys:
        return []
    first = sign(keys[0])
    pattern = _Pattern.of(first, keys[0], secret)
    if pattern is None or pattern.url(keys[0]) != first:
        return [first, *(sign(key) for key in keys[1:])]
    return [first, *(pattern.url(key) for key in keys[1:])]


class _Pattern:
    """What all URLs signed at one instant have in common."""

    def __init__(self, before: str, path: str, query: str, host: str, key: bytes):
        self._before = before
        self._path = path
        self._query = query
        self._host = host
        fields = dict(parse_qsl(query))
        date, region, service, kind = fields["X-Amz-Credential"].split("/")[-4:]
        for part in (date, region, service, kind):
            key = hmac.digest(key, part.encode(), "sha256")
        self._key = key
        self._head = (
            f"AWS4-HMAC-SHA256\n{fields['X-Amz-Date']}\n"
            f"{date}/{region}/{service}/{kind}\n"
        )

    @classmethod
    def of(cls, url: str, key: str, secret: str) -> _Pattern | None:
        """None where the URL is not of the form that is known here."""
        unsigned, mark, _ = url.partition(_SIGNATURE)
        parts = urlsplit(unsigned)
        tail = "/" + quote(key)
        if not mark or not parts.path.endswith(tail):
            return None
        folder = parts.path.removesuffix(tail) + "/"
        before = f"{parts.scheme}://{parts.netloc}"
        try:
            return cls(
                before, folder, parts.query, parts.netloc, f"AWS4{secret}".encode()
            )
        except (KeyError, ValueError):
            return None

    def url(self, key: str) -> str:
        path = self._path + quote(key)
        canonical = (
            f"PUT\n{path}\n{self._query}\nhost:{self._host}\n\nhost\nUNSIGNED-PAYLOAD"
        )
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        signature = hmac.digest(self._key, (self._head + digest).encode(), "sha256")
        return f"{self._before}{path}?{self._query}{_SIGNATURE}{signature.hex()}"
