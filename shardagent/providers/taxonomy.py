"""What a vendor's refusal means: status and words in, Cause out. Pure, table-driven.

A vendor's own rules come first, then the words, then the status. Words decide only
where a status is ambiguous: many vendors answer 403 or 429 for a quota and 503 for a
lack of machines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import unescape

from shardagent.errors import Cause

MESSAGE_KEYS = ("message", "error", "detail", "error_description", "title", "reason")
_TAGS = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rule:
    """Where the status is one of these (empty: any) and the words are found."""

    cause: Cause
    words: str
    statuses: tuple[int, ...] = ()
    verbs: tuple[str, ...] = ()  # create, execute, destroy, list; empty: any

    def fits(self, verb: str, status: int | None, text: str) -> bool:
        return (
            (not self.statuses or status in self.statuses)
            and (not self.verbs or verb in self.verbs)
            and re.search(self.words, text, re.IGNORECASE) is not None
        )


# A 429 is a rate unless it speaks of how many there are at once, or of money.
_QUOTA_AT_ONCE = (
    r"quota|concurren|simultaneous|maximum (number|amount) of|max(imum)? sandbox"
    r"|(running|active) (sandbox|devbox|instance|container)|spend(ing)? limit"
    r"|(total|cpu|vcpu|memory|disk) limit|credits?\b|billing|payment"
)
_QUOTA = (
    _QUOTA_AT_ONCE
    + r"|limit (is |was |has been )?(exceeded|reached|hit)|limits? exceeded"
    r"|exceed(s|ed|ing)? .{0,40}(limit|allow)|insufficient (funds|balance|credit)"
    r"|upgrade (your|to)|(account|team|organi[sz]ation).{0,20}suspended|plan allows"
)
_RATE = r"rate.?limit|too many requests|throttl|slow down|requests per"
_CAPACITY = (
    r"no (available |free )?(capacity|runner|node|host|machine|worker)s?\b"
    r"|(out of|insufficient|not enough|lack of|at) (cluster |host )?capacity"
    r"|(out of|insufficient|not enough) (cluster |host )?resources"
    r"|no .{0,30}available|capacity (is )?(exhausted|unavailable|limit)|overloaded"
    r"|failed to place|could not be (placed|scheduled)|unschedulable"
)
_AUTH = r"unauthori[sz]ed|unauthenticated|invalid (api.?key|token|credential)|forbidden"

WORDS: tuple[Rule, ...] = (
    Rule(Cause.QUOTA, _QUOTA_AT_ONCE, (429,)),
    Rule(Cause.RATE_LIMITED, _RATE, (400, 403, 409, 503)),
    Rule(Cause.CAPACITY, _CAPACITY, (400, 409, 422, 423, 500, 502, 503, 504, 507, 529)),
    Rule(Cause.QUOTA, _QUOTA, (400, 403, 409, 412, 422, 423)),
    Rule(Cause.AUTH, _AUTH, (400,)),
)
_STATUSES = {
    401: Cause.AUTH,
    402: Cause.QUOTA,
    403: Cause.AUTH,
    407: Cause.NETWORK,
    408: Cause.TIMEOUT,
    410: Cause.NOT_FOUND,
    429: Cause.RATE_LIMITED,
    504: Cause.TIMEOUT,
    507: Cause.CAPACITY,
}


def cause_of(
    verb: str, status: int | None, text: str, rules: Sequence[Rule] = ()
) -> Cause:
    """The cause of an answer that was no success.

    verb: what was asked (create, execute, destroy, list): a 404 to a create is a wrong
    image or path, to a command the sandbox is gone. status: None where the vendor's
    protocol has none.
    """
    for rule in (*rules, *WORDS):
        if rule.fits(verb, status, text):
            return rule.cause
    if status is None or status >= 600:
        return Cause.PROVIDER_ERROR
    if status == 404:
        gone = verb in ("execute", "destroy")
        return Cause.NOT_FOUND if gone else Cause.INVALID_REQUEST
    if status in _STATUSES:
        return _STATUSES[status]
    if 400 <= status < 500:
        return Cause.INVALID_REQUEST
    return Cause.PROVIDER_ERROR  # 5xx; and a 2xx or 3xx that nobody documented


def words_of(body: object, text: str) -> str:
    """The vendor's own words out of an error body: JSON's message, or bare text."""
    found = _message(body)
    if found is None:
        found = unescape(_TAGS.sub(" ", text)) if "<" in text else text
    return " ".join(found.split())


def _message(body: object, depth: int = 0) -> str | None:
    if isinstance(body, str):
        return body
    if isinstance(body, list) and body and depth < 3:
        return _message(body[0], depth + 1)
    if isinstance(body, dict) and depth < 3:
        parts = [_message(body[key], depth + 1) for key in MESSAGE_KEYS if key in body]
        said = [part for part in parts if part]
        code = body.get("code")
        if isinstance(code, str) and said:
            return " ".join([": ".join(dict.fromkeys(said)), f"({code})"])
        return ": ".join(dict.fromkeys(said)) or None
    return None
