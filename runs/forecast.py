"""What a Plan would be: how large, how long, how dear, and the curve that it intends.

Pure. Every figure comes with its formula, so that nobody has to believe it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runs.plan import burst_s, hosts_of, machines_of, typical_duration_s
from runs.prices import PRICES, cost_usd
from runs.templatetags.runs_format import duration, figure, seconds, thousands
from shardagent.wire import Plan, Shape

READY_S = 1.0  # a TTI to draw with; the real one is what the Run is for
STEPS_DRAWN_MAX = 100
WIDTH, HEIGHT = 280.0, 96.0


@dataclass(frozen=True, slots=True)
class Line:
    """One figure, its formula, and why it is missing where it is empty."""

    name: str
    value: str
    formula: str
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the preview; places in its own units, s for people."""

    name: str
    left: float
    width: float
    took_s: float


@dataclass(frozen=True, slots=True)
class Preview:
    """The intended curve as an SVG polyline in WIDTH × HEIGHT."""

    points: str
    target_y: float
    phases: Sequence[Phase]
    total_s: float


def lines(plan: Plan, machines_usd_per_h: float | None = None) -> list[Line]:
    """machines_usd_per_h: of the whole fleet; None where no price is known."""
    count, burst = plan.sandbox_count, burst_s(plan)
    spares = machines_of(plan) - hosts_of(plan)
    cost = estimate_usd(plan)
    probes = count / plan.probe_interval_s
    return [
        Line(
            "Shards",
            thousands(plan.shard_count),
            f"⌈{thousands(count)} / {thousands(plan.sandboxes_per_shard)}⌉",
        ),
        Line(
            "Hosts",
            thousands(hosts_of(plan)),
            f"⌈{thousands(plan.shard_count)} / {thousands(plan.fleet.shards_per_host)}⌉"
            f", fleet {plan.fleet.driver}"
            + (f", and {thousands(spares)} spare" if spares else ""),
        ),
        Line(
            "Duration",
            f"about {seconds(typical_duration_s(plan))}",
            f"arming + burst {duration(round(burst, 3)) if burst else '5 s'} + hold "
            f"{duration(plan.hold_s)} + final probes + collecting",
        ),
        _peak(plan, burst),
        Line(
            "Probes",
            f"{figure(probes)} a second",
            f"{thousands(count)} / {duration(plan.probe_interval_s)}",
        ),
        Line(
            "Cost",
            "" if cost is None else f"about ${cost:,.2f}" if cost else "nothing",
            _cost_formula(plan),
            "no price is published",
        ),
        *_machines(plan, machines_usd_per_h),
    ]


def _machines(plan: Plan, usd_per_h: float | None) -> list[Line]:
    if not usd_per_h:
        return []
    took_s = typical_duration_s(plan)
    formula = f"${usd_per_h:,.2f} an hour × {seconds(took_s)}; list price"
    return [Line("Machines", f"about ${usd_per_h * took_s / 3_600:,.2f}", formula)]


def estimate_usd(plan: Plan) -> float | None:
    """As if every Sandbox lived from T0 to the teardown; None without a price."""
    return cost_usd(
        plan.provider,
        plan.sandbox_count * _life_s(plan),
        cpu=plan.spec.cpu,
        memory_mb=plan.spec.memory_mb,
        sandboxes=plan.sandbox_count,
    )


def warnings(plan: Plan, calibrated_max: int | None) -> list[str]:
    """What exceeds the Plan's own budget, or what this machine was found good for."""
    found = []
    if calibrated_max is not None and plan.sandboxes_per_shard > calibrated_max:
        found.append(
            f"{thousands(plan.sandboxes_per_shard)} sandboxes a Shard are more than "
            f"the {thousands(calibrated_max)} that stayed VALID when this machine was "
            "calibrated: the Run may well be SUSPECT"
        )
    cost = estimate_usd(plan)
    if plan.max_cost is not None and cost is not None and cost > plan.max_cost:
        found.append(
            f"the estimated cost, ${cost:,.2f}, is over the budget of "
            f"${plan.max_cost:,.2f}: the Run would be aborted in good order"
        )
    took_s = typical_duration_s(plan)
    if plan.max_duration_s is not None and took_s > plan.max_duration_s:
        found.append(
            f"it takes about {seconds(took_s)}, over the budget of "
            f"{seconds(plan.max_duration_s)}: the Run would be aborted in good order"
        )
    return found


def preview(plan: Plan) -> Preview:
    """Sandboxes alive over time if everything went as planned."""
    steps = _steps(plan)
    burst = max(at for at, _ in steps) + READY_S
    hold = 0.0 if plan.load.shape is Shape.SEQUENTIAL else plan.hold_s
    down = plan.final_spread_s + plan.probe_failures_max * plan.probe_timeout_s
    total = burst + hold + down
    top = max(alive for _, alive in steps)
    points = [(0.0, 0.0)]
    for at, alive in steps:
        points += [(at + READY_S, points[-1][1]), (at + READY_S, alive)]
    points += [(burst + hold, points[-1][1]), (total, 0.0)]
    drawn = " ".join(
        f"{WIDTH * at / total:.1f},{HEIGHT * (1 - 0.9 * alive / top):.1f}"
        for at, alive in points
    )
    parts = [
        ("burst", 0.0, burst),
        ("hold", burst, hold),
        ("teardown", burst + hold, down),
    ]
    target = plan.target or plan.sandbox_count
    return Preview(
        points=drawn,
        target_y=round(max(0.0, HEIGHT * (1 - 0.9 * min(1.0, target / top))), 1),
        phases=[
            Phase(
                name,
                round(WIDTH * begin / total, 1),
                round(WIDTH * took / total, 1),
                took,
            )
            for name, begin, took in parts
            if took
        ],
        total_s=total,
    )


def _steps(plan: Plan) -> list[tuple[float, float]]:
    """(s since T0, Sandboxes asked for by then)."""
    count, load = plan.sandbox_count, plan.load
    if load.shape is Shape.STAGGERED:
        shown = min(count, STEPS_DRAWN_MAX)
        return [
            (burst_s(plan) * n / shown, count * n / shown) for n in range(1, shown + 1)
        ]
    if load.shape is Shape.STAIRCASE:
        return [
            (step * load.step_s, count * (step + 1) / load.steps)
            for step in range(load.steps)
        ]
    if load.shape is Shape.SEQUENTIAL:
        return [(2.0 * n, float(n % 2)) for n in range(1, min(2 * count, 40))]
    return [(0.0, float(count))]


def _peak(plan: Plan, burst: float) -> Line:
    """The busiest second that the Provider will see."""
    count = plan.sandbox_count
    final = count / plan.final_spread_s if plan.final_spread_s else float(count)
    shape = plan.load.shape
    if shape is Shape.SEQUENTIAL:
        return Line("Peak rate", "1 call at a time", "sequential")
    if shape is Shape.STAIRCASE:
        creates, how = (
            count / plan.load.steps,
            f"{thousands(count)} / {plan.load.steps}",
        )
    elif burst > 1:
        creates, how = (
            count / burst,
            f"{thousands(count)} / {duration(round(burst, 3))}",
        )
    else:
        creates, how = float(count), "every create at T0"
    if final > creates:
        how = f"final probes: {thousands(count)} / {duration(plan.final_spread_s)}"
    return Line("Peak rate", f"{figure(max(creates, final))} a second", how)


def _life_s(plan: Plan) -> float:
    hold = 0.0 if plan.load.shape is Shape.SEQUENTIAL else plan.hold_s
    down = plan.final_spread_s + plan.probe_failures_max * plan.probe_timeout_s
    if plan.load.shape is Shape.SEQUENTIAL:
        return 5.0
    return burst_s(plan) / 2 + 5 + hold + down


def _cost_formula(plan: Plan) -> str:
    price = PRICES.get(plan.provider)
    if price is None:
        return ""
    if not (price.cpu_usd or price.gib_usd):
        return "it runs here"
    said = (
        f"{thousands(plan.sandbox_count)} × {seconds(_life_s(plan))} × "
        f"({plan.spec.cpu:g} × ${_rate(price.cpu_usd)} + "
        f"{plan.spec.memory_mb / 1024:g} GiB × ${_rate(price.gib_usd)}) a second"
    )
    source = f"; list price of {price.as_of}" if price.as_of else ""
    note = f"; {price.note}" if price.note else ""
    return said + source + note


def _rate(usd: float) -> str:
    """Without an exponent: 0.000014."""
    return f"{usd:.9f}".rstrip("0").rstrip(".") or "0"
