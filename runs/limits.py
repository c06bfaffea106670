"""What vendors publish as their limits, by tier: dated, with the source. Pure.

A Plan above them is not refused (an account may have been granted more) but the
operator is told before launch, and the Run is labelled by its granted quota.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runs.plan import burst_s, is_simulated
from shardagent.wire import Plan


@dataclass(frozen=True, slots=True)
class Limit:
    """One tier's published limits; None where the vendor publishes no number.

    as_of: the day on which the source said so (YYYY-MM-DD).
    """

    tier: str
    source: str
    as_of: str
    create_per_s: float | None = None
    sandboxes: int | None = None  # alive at once
    vcpus: float | None = None  # of all sandboxes together
    vcpus_per_s: float | None = None  # of new sandboxes
    ttl_s: int | None = None
    calls_per_s_per_address: float | None = None
    note: str = ""


_E2B = "https://e2b.dev/docs/sandbox/rate-limits"
_DAYTONA = "https://www.daytona.io/docs/en/limits"
_NORTHFLANK = "https://northflank.com/docs/v1/api/use-the-api"
_NOVITA = "https://novita.ai/docs/guides/sandbox-quota-limit"
_VERCEL = "https://vercel.com/docs/vercel-sandbox/pricing"
_DAY = "2026-11-24"  # on which copies of the sources below were read

LIMITS: Mapping[str, tuple[Limit, ...]] = {
    "e2b": (
        Limit(
            "Hobby",
            _E2B,
            _DAY,
            create_per_s=1,
            sandboxes=20,
            ttl_s=3_600,
            calls_per_s_per_address=40_000 / 60,
        ),
        Limit(
            "Pro",
            _E2B,
            _DAY,
            create_per_s=5,
            sandboxes=100,
            ttl_s=24 * 3_600,
            calls_per_s_per_address=40_000 / 60,
            note="up to 1,100 sandboxes as an add-on; more by agreement",
        ),
    ),
    "daytona": (
        Limit(
            "Tier 4",
            _DAYTONA,
            _DAY,
            create_per_s=600 / 60,
            vcpus=500,
            note="50,000 lifecycle calls in 60 s; more by agreement",
        ),
    ),
    "blaxel": (
        Limit(
            "all",
            "https://docs.blaxel.ai/Security/Quotas",
            _DAY,
            note="sandboxes at once by the account's tier, shown in its console alone",
        ),
    ),
    "northflank": (
        Limit(
            "default",
            _NORTHFLANK,
            _DAY,
            create_per_s=1_000 / 3_600,
            ttl_s=7 * 24 * 3_600,
            note="1,000 requests an hour in all; a lifetime of 5 minutes at least",
        ),
    ),
    "novita": (
        Limit("Free", _NOVITA, _DAY, sandboxes=5, ttl_s=3_600),
        Limit("Paid", _NOVITA, _DAY, sandboxes=100, ttl_s=3 * 3_600),
        Limit(
            "Enterprise",
            _NOVITA,
            _DAY,
            sandboxes=500,
            ttl_s=4 * 3_600,
            note="by default; more by agreement",
        ),
    ),
    "vercel": (
        Limit("Hobby", _VERCEL, _DAY, sandboxes=10, vcpus_per_s=40 / 600, ttl_s=2_700),
        Limit(
            "Pro", _VERCEL, _DAY, sandboxes=2_000, vcpus_per_s=200 / 60, ttl_s=18_000
        ),
        Limit(
            "Enterprise",
            _VERCEL,
            _DAY,
            sandboxes=2_000,
            vcpus_per_s=400 / 60,
            ttl_s=18_000,
        ),
    ),
    "runloop": (Limit("all", "https://docs.runloop.ai", _DAY, ttl_s=48 * 3_600),),
    "modal": (
        Limit("all", "https://modal.com/docs/guide/sandbox", _DAY, ttl_s=86_400),
    ),
}


def limits_of(provider: str) -> Sequence[Limit]:
    """The tiers of a Provider, the largest last; empty where nothing is published."""
    return LIMITS.get(provider, ())


def resolved(plan: Plan) -> Plan:
    """With the published limit of calls from one address, unless the Plan has its own.

    A stand-in has no such limit. The largest tier's: what this account has is not
    known, and every tier's so far is the same.
    """
    tiers = limits_of(plan.provider)
    if plan.egress_calls_per_s is not None or not tiers or is_simulated(plan):
        return plan
    published = tiers[-1].calls_per_s_per_address
    return plan.model_copy(update={"egress_calls_per_s": published})


def warnings(plan: Plan) -> list[str]:
    """One line for each published limit of the largest tier that a Plan exceeds."""
    tiers = limits_of(plan.provider)
    if not tiers:
        return []
    largest = tiers[-1]
    granted = plan.quota_granted or 0
    found = []
    for what, asked, limit in _demands(plan, largest):
        if limit is not None and asked > limit and plan.sandbox_count > granted:
            found.append(
                f"{what}: this Plan asks for {asked:,.4g}, the published limit "
                f"({largest.tier}) is {limit:,.4g} ({largest.source}, "
                f"{largest.as_of}); without a granted quota the excess will be refused"
            )
    return found


def _demands(plan: Plan, tier: Limit) -> list[tuple[str, float, float | None]]:
    burst = max(1.0, burst_s(plan))
    probes_per_s = plan.sandbox_count / plan.probe_interval_s
    vcpus = plan.sandbox_count * plan.spec.cpu
    return [
        ("sandboxes at once", plan.sandbox_count, tier.sandboxes),
        ("creates a second", plan.sandbox_count / burst, tier.create_per_s),
        ("vCPUs at once", vcpus, tier.vcpus),
        ("new vCPUs a second", vcpus / burst, tier.vcpus_per_s),
        ("calls a second per address", probes_per_s, tier.calls_per_s_per_address),
    ]
