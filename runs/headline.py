"""What a Run's page says first: a sentence with its numbers, and what is awaited.

Pure: the Run as the API tells it in, sentences out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from runs.barrier import decide
from runs.templatetags.runs_format import duration, seconds, thousands
from shardagent.wire import Plan, Shape

DESTROY_GRACE_S = 30  # beyond destroy_timeout_s, as the supervisor grants it
PHASES = (
    ("queued", "queue"),
    ("provisioning", "provision"),
    ("arming", "arm"),
    ("bursting", "burst"),
    ("holding", "hold"),
    ("tearing_down", "teardown"),
    ("collecting", "collect"),
    ("sealed", "sealed"),
)
LATENCIES = {
    "create": "create sent → created",
    "ready": "created → readiness command ok, all tries",
    "tti": "create sent → interactive",
    "probe": "a probe of the hold",
    "destroy": "destroy sent → confirmed",
}
Json = Mapping[str, Any]


def headline(run: Json) -> str:
    """One sentence that answers the question the visitor came with."""
    if run["plan"].get("rehearsal"):
        return _rehearsal(run)
    if run["state"] != "sealed":
        return _live(run)
    if run["verdict"]["level"] == "INVALID":
        return "No result: our own rig cannot be ruled out"
    held, plan = run["held"], run["plan"]
    if held is None:
        return _without_hold(run)
    if not held["proven"]:
        return f"No sandbox was proven alive for the whole {_hold(run)} hold"
    return (
        f"At least {thousands(held['proven'])} of {thousands(plan['target'])} "
        f"sandboxes were alive together for the whole {_hold(run)} hold"
    )


def qualifiers(run: Json) -> list[str]:
    """The words without which the number must not be shown, wherever it is."""
    if run["state"] != "sealed":
        return []
    level = run["verdict"]["level"]
    return [level] * (level == "SUSPECT") + list(run["labels"])


def qualified(run: Json) -> str:
    """The headline where only text can stand: with its qualifiers."""
    words = qualifiers(run)
    return headline(run) + (f" ({', '.join(words)})" if words else "")


def beneath(run: Json) -> str:
    """The line under the headline: what it is measured against."""
    held, target = run["held"], run["plan"]["target"]
    if run["state"] != "sealed" or held is None:
        return ""
    if run["verdict"]["level"] == "INVALID":
        return (
            f"What was recorded: at least {thousands(held['proven'])} of "
            f"{thousands(target)} for the whole {_hold(run)} hold. Until the rig is "
            "ruled out this says nothing about the Provider."
        )
    short = target - held["proven"]
    if short <= 0:
        return f"The target of {thousands(target)} was held."
    said = f"The target of {thousands(target)} was missed by {thousands(short)}"
    peak = run["peak"] or {}
    if peak.get("proven") is None or peak.get("elapsed_ms") is None:
        return f"{said}."
    at = seconds(peak["elapsed_ms"] / 1e3)
    return f"{said}; the peak was {thousands(peak['proven'])}, at {at}."


def figures(run: Json) -> list[dict[str, str]]:
    """The numbers beside the headline; a value of "" is missing, and `why` says why."""
    if run["state"] != "sealed":
        return _live_figures(run)
    plan, peak, took = run["plan"], run["peak"] or {}, run["time_to_ms"]
    target = thousands(plan["target"])
    reached = peak.get("proven") is not None
    rows = [
        _figure(
            "Peak proven",
            thousands(peak["proven"]) if reached else "",
            f"at {seconds(peak['elapsed_ms'] / 1e3)}"
            if reached and peak.get("elapsed_ms") is not None
            else "",
            "nothing was ever proven alive",
            anchor="held",
            rows=_alive_at("proven", run, peak.get("at_us")),
        ),
        _figure(
            "Possible then",
            thousands(peak["possible"]) if reached else "",
            "may have been alive",
            "no create was sent",
            anchor="curve",
            rows=_alive_at("possible", run, peak.get("at_us")),
        ),
        _figure(
            "Implied",
            thousands(run["implied_peak"]) if run["implied_peak"] is not None else "",
            "answered creates, what a burst test would claim",
            "no create was sent",
            anchor="curve",
            rows="sandboxes?of=create&sort=-create",
        ),
    ]
    rows += [
        _figure(
            f"Time to {share} %",
            seconds(took[share] / 1e3) if took.get(share) is not None else "",
            f"of {target} proven",
            f"not reached: never were {share} % of {target} proven alive together",
            missing="not reached",
            anchor="held",
            rows=f"sandboxes?alive=proven&at_ms={took[share]}"
            if took.get(share) is not None
            else "",
        )
        for share in ("50", "90", "99", "100")
    ]
    bound = run["clock_bound_us"]
    rows.append(
        _figure(
            "Clock bound",
            "" if bound is None else f"± {seconds(bound / 1e6)}",
            "largest of any instant used",
            "no instant of the proven curve was placed",
            anchor="clocks",
            rows="shards?sort=clock_bound_us",
        )
    )
    return rows + _rig(run["verdict"].get("findings") or ())


def held_rows(run: Json) -> str:
    """What leads to the Sandboxes of the headline: those alive at its lowest."""
    held = run["held"] or {}
    return _alive_at("proven", run, held.get("lowest_us"))


def _alive_at(curve: str, run: Json, at_us: int | None) -> str:
    t0 = run["instants"]["t0_us"]
    if at_us is None or t0 is None:
        return ""
    return f"sandboxes?alive={curve}&at_ms={(at_us - t0) / 1_000:.3f}"


def phases(run: Json) -> list[dict[str, str]]:
    """Every phase of a Run, and whether it is over, under way or to come."""
    state = run["state"]
    if state == "tearing_down" and _is_before(run, "t_end_us"):
        state = "holding"  # the end is announced ahead; until then it is held
    names = [name for name, _ in PHASES]
    place = names.index(state) if state in names else -1
    return [
        {
            "state": PHASES[at][0],
            "name": words,
            "is": "over" if at < place else "now" if at == place else "to-come",
        }
        for at, (_, words) in enumerate(PHASES)
    ]


def awaited(
    run: Json, plan: Plan, *, state_at_us: int, deadline_us: int | None, collect_s: int
) -> str:
    """What an unsealed Run waits for, and for how long at most."""
    state = run["state"]
    if state == "draft":
        return "Not launched yet."
    if state == "queued":
        return (
            f"Waiting for its turn: Runs at {run['provider']} go one after another, "
            "so that none measures the other."
        )
    progress, now = run["progress"], run["now_us"]
    waited_s = max(0.0, (now - state_at_us) / 1e6)
    match state:
        case "provisioning":
            return _machines(run["fleet"], plan, waited_s)
        case "arming":
            verdict = decide(
                armed=min(progress["armed"], plan.shard_count),
                total=plan.shard_count,
                quorum=plan.quorum,
                waited_s=waited_s,
                timeout_s=plan.arm_timeout_s,
            )
            return f"{verdict.why[:1].upper()}{verdict.why[1:]}."
        case "bursting":
            return _burst(run, plan, deadline_us)
        case "holding":
            return _holding(run, plan)
        case "tearing_down":
            return _teardown(run, plan)
    return (
        "Collecting the record and judging it; agents that still run are ended in "
        f"{_left(collect_s - waited_s)}."
    )


def _rig(findings: Sequence[Json]) -> list[dict[str, str]]:
    """What our own rig cost, next to what it measured."""
    wanted = {
        "start_skew_p99_ms": ("Start skew P99", "P99 − P0, sent against planned"),
        "harness_delay_p99_ms": ("Harness delay P99", "worst Shard, sent − intended"),
    }
    return [
        _figure(
            wanted[row["check"]][0],
            "" if row["value"] is None else seconds(row["value"] / 1e3),
            wanted[row["check"]][1],
            "no create was sent",
            anchor="start",
            rows="shards?sort=harness_delay_p99_us"
            if row["check"].startswith("harness")
            else "sandboxes?sort=-delay",
        )
        for row in findings
        if row["check"] in wanted
    ]


def _live_figures(run: Json) -> list[dict[str, str]]:
    progress = run.get("progress")
    if not progress:
        return []
    plan = run["plan"]
    agents = thousands(plan["shard_count"])
    rows = [
        ("Shards armed", "armed", f"of {agents}"),
        ("Creates sent", "sent", f"of {thousands(plan['sandbox_count'])}"),
        ("Interactive", "ready", "answered at least once"),
        ("Alive", "alive", "at the last heartbeats"),
        ("Failed", "failed", "create or readiness"),
        ("Died", "dead", "after they had answered"),
        ("Destroyed", "destroyed", "confirmed by the Provider"),
    ]
    return [
        _figure(label, thousands(progress[name]), of, "") for label, name, of in rows
    ]


def _figure(label: str, value: str, of: str, why: str, **more: str) -> dict[str, str]:
    """anchor: where the methodology defines it; rows: what leads to the rows behind."""
    usual = {"missing": "–", "anchor": "", "rows": ""}
    return {"label": label, "value": value, "of": of, "why": why, **usual, **more}


def _live(run: Json) -> str:
    asked = thousands(run["plan"]["sandbox_count"])
    progress = run.get("progress") or {}
    match run["state"]:
        case "draft":
            return f"{asked} sandboxes at {run['provider']}, ready to be launched"
        case "queued" | "provisioning" | "arming":
            return f"About to ask {run['provider']} for {asked} sandboxes"
        case "bursting" if not progress.get("sent"):
            return f"All agents are armed: {asked} creates at one instant"
        case "bursting":
            return f"{thousands(progress['ready'])} of {asked} sandboxes answer so far"
        case "holding":
            return f"{thousands(progress['alive'])} of {asked} sandboxes are being held"
        case "tearing_down" if _is_before(run, "t_end_us"):
            return f"{thousands(progress['alive'])} of {asked} sandboxes are being held"
        case "tearing_down" if _is_before(run, "t_destroy_us"):
            return f"Asking {thousands(progress['alive'])} sandboxes one last time"
        case "tearing_down":
            return f"Destroying what was created of {asked} sandboxes"
    return f"Judging what was recorded of {asked} sandboxes"


def _rehearsal(run: Json) -> str:
    if run["state"] != "sealed":
        return "A rehearsal: the fleet arms and fires, and creates nothing"
    fired = (run.get("fleet") or {}).get("rehearsed") or {}
    shards, apart_ms = fired.get("shards"), fired.get("skew_max_ms")
    if not shards or apart_ms is None:
        return "A rehearsal in which no Shard fired, and nothing was created"
    return (
        f"A rehearsal: {thousands(shards)} of {thousands(run['plan']['shard_count'])} "
        f"Shards fired within {seconds(apart_ms / 1e3)}, and created nothing"
    )


def _without_hold(run: Json) -> str:
    counts, plan = run["outcomes"], run["plan"]
    asked = thousands(counts["total"])
    if plan["load"]["shape"] == Shape.SEQUENTIAL:
        return (
            f"{thousands(counts['success'])} of {asked} sandboxes succeeded, "
            "one at a time"
        )
    if run["end_reason"] in ("aborted", "failed"):
        sent = counts["total"] - counts["not_attempted"]
        return (
            f"{run['end_reason'].capitalize()} before the hold: "
            f"{thousands(sent)} of {asked} sandboxes had been asked for"
        )
    return f"No hold was measured; {thousands(counts['success'])} of {asked} succeeded"


def _burst(run: Json, plan: Plan, deadline_us: int | None) -> str:
    now, t0 = run["now_us"], run["instants"]["t0_us"]
    progress = run["progress"]
    agents = thousands(plan.shard_count)
    if t0 is not None and now < t0:
        return f"All {agents} agents fire in {_left((t0 - now) / 1e6)}."
    open_shards = plan.shard_count - progress["settled"]
    limit = "" if deadline_us is None else f", or in {_left((deadline_us - now) / 1e6)}"
    return (
        f"Waiting for {thousands(open_shards)} of {agents} Shards "
        f"to settle; the hold begins then{limit}."
    )


def _holding(run: Json, plan: Plan) -> str:
    now, began = run["now_us"], run["instants"]["t_hold_us"]
    if began is None:
        return "The hold is about to begin."
    if now < began:
        return f"The hold begins in {_left((began - now) / 1e6)}."
    left_s = plan.hold_s - (now - began) / 1e6
    return (
        f"Holding for {duration(plan.hold_s)}: {_left(left_s)} to go, then everything "
        "is asked one last time."
    )


def _teardown(run: Json, plan: Plan) -> str:
    now, instants, progress = run["now_us"], run["instants"], run["progress"]
    end, destroy = instants["t_end_us"], instants["t_destroy_us"]
    if end is None or destroy is None:
        return "The final probes are about to begin."
    if now < end:
        return f"The hold ends in {_left((end - now) / 1e6)}."
    if now < destroy:
        return (
            "Final probes: nothing is destroyed before every agent has had its chance, "
            f"{_left((destroy - now) / 1e6)} from now."
        )
    limit_s = plan.destroy_timeout_s + DESTROY_GRACE_S - (now - destroy) / 1e6
    left = plan.shard_count - progress["finished"]
    return (
        f"Destroying: {thousands(progress['destroyed'])} gone; waiting for "
        f"{thousands(left)} of {thousands(plan.shard_count)} agents, "
        f"{_left(limit_s)} at most."
    )


def _machines(fleet: Json, plan: Plan, waited_s: float) -> str:
    """Which are awaited; the rule is provision.py's."""
    per_host = plan.fleet.shards_per_host
    hosts = fleet["hosts"] or math.ceil(plan.shard_count / per_host)
    enough = math.ceil(plan.quorum * plan.shard_count / per_host)
    missing = max(0, hosts - fleet["granted"])
    return (
        f"Waiting for {thousands(missing)} of {thousands(hosts)} machines; goes on "
        f"when all are granted, or with {thousands(enough)} in "
        f"{_left(plan.fleet.provision_timeout_s - waited_s)}."
    )


def _is_before(run: Json, instant: str) -> bool:
    at_us = run["instants"][instant]
    return at_us is not None and run["now_us"] < at_us


def _hold(run: Json) -> str:
    """The hold as it was: less than planned where the Run was stopped in it."""
    planned = float(run["plan"]["hold_s"])
    end, began = run["instants"]["t_end_us"], run["instants"]["t_hold_us"]
    if end is None or began is None:
        return duration(planned)
    took = (end - began) / 1e6
    return duration(planned) if abs(took - planned) < 0.05 * planned else seconds(took)


def _left(left_s: float) -> str:
    """Whole seconds, never negative: a limit that is over is about to be acted on."""
    whole = max(0, math.ceil(left_s))
    return "a moment" if whole == 0 else f"{whole} s" if whole < 100 else seconds(whole)
