"""Every documented way a vendor says no, and the cause that a reader gets for it."""

from __future__ import annotations

import re

import pytest

from shardagent import providers
from shardagent.errors import Cause
from shardagent.providers.taxonomy import Rule, cause_of, words_of

A, Q, R, C = Cause.AUTH, Cause.QUOTA, Cause.RATE_LIMITED, Cause.CAPACITY
BAD, N, P, T = (
    Cause.INVALID_REQUEST,
    Cause.NOT_FOUND,
    Cause.PROVIDER_ERROR,
    Cause.TIMEOUT,
)

# (verb, status, words, cause): true of every vendor.
EVERYWHERE = [
    ("create", 400, "field cpu must be a number", BAD),
    ("create", 400, "Invalid API key", A),
    ("create", 401, "Unauthorized", A),
    ("create", 402, "Payment required", Q),
    ("create", 403, "forbidden", A),
    ("create", 403, "quota exceeded for this organization", Q),
    ("create", 403, "rate limit exceeded", R),
    ("create", 404, "no such image", BAD),
    ("list", 404, "no such route", BAD),
    ("execute", 404, "not found", N),
    ("destroy", 404, "not found", N),
    ("execute", 410, "gone", N),
    ("create", 405, "method not allowed", BAD),
    ("create", 408, "request timeout", T),
    ("create", 409, "a sandbox with this name exists", BAD),
    ("create", 409, "limit reached for your plan", Q),
    ("create", 413, "too large", BAD),
    ("create", 422, "memory_mb: not a valid value", BAD),
    ("create", 429, "Too Many Requests", R),
    ("create", 429, "", R),
    ("create", 429, "Rate limit exceeded, retry later (Retry-After: 3)", R),
    ("create", 429, "maximum number of concurrent sandboxes", Q),
    ("execute", 429, "slow down", R),
    ("create", 500, "internal error", P),
    ("create", 500, "no capacity left in region", C),
    ("create", 502, "bad gateway", P),
    ("create", 503, "service unavailable", P),
    ("create", 503, "insufficient capacity", C),
    ("create", 503, "throttled", R),
    ("create", 504, "upstream timed out", T),
    ("create", 507, "insufficient storage", C),
    ("create", 302, "moved", P),
    ("create", 599, "?", P),
    ("create", None, "the sandbox is failed", P),
]
# (vendor, verb, status, words, cause): in each vendor's own words.
OF_VENDORS = [
    ("e2b", "execute", 502, "The sandbox was not found", N),
    ("e2b", "execute", 502, "The sandbox is running but port is not open", P),
    ("e2b", "create", 404, "template 'nope' not found", BAD),
    (
        "e2b",
        "create",
        429,
        "you have reached the maximum number of concurrent E2B sandboxes (20)",
        Q,
    ),
    ("e2b", "create", 400, "Timeout cannot be greater than 1 hours", Q),
    ("daytona", "create", 400, "No available runners", C),
    ("daytona", "create", 403, "Total CPU limit exceeded. Maximum allowed: 10.", Q),
    ("daytona", "create", 403, "Total memory limit exceeded. Maximum allowed: 20.", Q),
    ("daytona", "create", 403, "Organization is suspended: Depleted credits", Q),
    ("daytona", "create", 429, "ThrottlerException: Too Many Requests", R),
    ("daytona", "create", 404, "Snapshot node-99 not found. Did you add it?", BAD),
    ("daytona", "execute", 400, "Sandbox is not running", N),
    ("runloop", "create", 429, "Account concurrent devbox limit reached", Q),
    ("runloop", "create", 404, "Blueprint x not found", BAD),
    ("runloop", "execute", 400, "Devbox is not running: shutdown", N),
    ("vercel", "execute", 410, "The sandbox session has stopped (sandbox_stopped)", N),
    ("vercel", "execute", 422, "sandbox is stopping", N),
    ("vercel", "create", 402, "hobby plan limit reached", Q),
    ("vercel", "create", 429, "Rate limit exceeded (rate_limited)", R),
    ("tensorlake", "execute", 404, "sandbox not found (SANDBOX_NOT_FOUND)", N),
    ("tensorlake", "execute", 503, "SANDBOX_NOT_READY", P),
    ("tensorlake", "create", 403, "quota exceeded: too many sandboxes", Q),
    ("novita", "execute", 502, "The sandbox was not found", N),
    ("blaxel", "create", 403, "You have reached your tier (QUOTA_EXCEEDED)", Q),
    ("blaxel", "create", 403, "Authorization failed (UNAUTHORIZED)", A),
    ("blaxel", "create", 503, "try again (AUTHENTICATION_UNAVAILABLE)", A),
    ("blaxel", "create", 408, "not ready (CREATION_TIMEOUT)", T),
    ("blaxel", "create", 400, "image not supported (INVALID_IMAGE)", BAD),
    ("blaxel", "create", 409, "exists (SANDBOX_ALREADY_EXISTS)", BAD),
    ("blaxel", "execute", 404, "no such sandbox (SANDBOX_NOT_FOUND)", N),
    ("northflank", "create", 429, "Rate limit exceeded. Try again later.", R),
    ("northflank", "create", 403, "reached the maximum number of services", Q),
    ("northflank", "create", 404, "Project not found.", BAD),
    ("northflank", "execute", 404, "Service not found.", N),
    ("northflank", "execute", None, "exec error: no running instances", N),
    ("northflank", "execute", None, "exec error: boom", P),
    (
        "agent-sandbox",
        "create",
        403,
        'sandboxclaims "a" is forbidden: exceeded quota: sandboxes, limited: 100',
        Q,
    ),
    (
        "agent-sandbox",
        "create",
        403,
        "sandboxclaims is forbidden: User x cannot create resource: Forbidden",
        A,
    ),
    (
        "agent-sandbox",
        "create",
        400,
        'admission webhook "policy" denied the request: no label',
        BAD,
    ),
    (
        "agent-sandbox",
        "create",
        403,
        "unable to create new content in namespace x: it is being terminated",
        BAD,
    ),
    ("agent-sandbox", "create", 409, "already exists: AlreadyExists", BAD),
    ("agent-sandbox", "create", 422, "spec.warmPoolRef: Required value", BAD),
    ("agent-sandbox", "create", 429, "Too many requests, please try again later.", R),
    ("agent-sandbox", "create", 500, "etcdserver: request timed out", P),
    ("agent-sandbox", "execute", 502, "Could not connect to the backend sandbox", P),
]


@pytest.mark.parametrize(("verb", "status", "words", "cause"), EVERYWHERE)
def test_what_means_the_same_everywhere(
    verb: str, status: int | None, words: str, cause: Cause
) -> None:
    assert cause_of(verb, status, words) is cause


@pytest.mark.parametrize(("vendor", "verb", "status", "words", "cause"), OF_VENDORS)
def test_a_vendors_own_words(
    vendor: str, verb: str, status: int | None, words: str, cause: Cause
) -> None:
    assert cause_of(verb, status, words, rules_of(vendor)) is cause


@pytest.mark.parametrize(
    "vendor",
    [
        *("agent-sandbox", "blaxel", "daytona", "e2b", "northflank", "novita"),
        *("runloop", "tensorlake", "vercel"),
    ],
)
@pytest.mark.parametrize(
    ("verb", "status", "words", "cause"),
    [row for row in EVERYWHERE if row[1] in (401, 403, 429, 500, 503) and row[2]],
)
def test_no_vendors_rules_spoil_what_is_clear(
    vendor: str, verb: str, status: int | None, words: str, cause: Cause
) -> None:
    assert cause_of(verb, status, words, rules_of(vendor)) is cause


def rules_of(vendor: str) -> tuple[Rule, ...]:
    found: tuple[Rule, ...] = providers.adapter(vendor).rules  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("slug", sorted(providers.OWN))
def test_every_rule_is_a_regular_expression(slug: str) -> None:
    for rule in getattr(providers.adapter(slug), "rules", ()):
        assert re.compile(rule.words)


@pytest.mark.parametrize(
    ("body", "text", "said"),
    [
        ({"message": "no"}, "", "no"),
        ({"error": {"code": "x", "message": "no"}}, "", "no (x)"),
        ({"errors": 1}, '{"errors": 1}', '{"errors": 1}'),
        ({"message": ["a", "b"]}, "", "a"),
        ({"error": "E", "message": "no"}, "", "no: E"),
        (None, "<html><h1>502 Bad</h1>\n<p>gateway</p></html>", "502 Bad gateway"),
        (None, "plain words", "plain words"),
    ],
)
def test_the_vendors_words_are_found_in_any_body(
    body: object, text: str, said: str
) -> None:
    assert words_of(body, text) == said
