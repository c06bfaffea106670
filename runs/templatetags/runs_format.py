"""How numbers, times and states read on pages; the only place that formats them."""

from __future__ import annotations

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

MINUTE_S = 60
HOUR_S = 3_600


@register.filter
def thousands(value: float | None) -> str:
    """1234567 → 1,234,567; fractions are rounded; None is a dash."""
    return "–" if value is None else f"{round(value):,}"


@register.filter
def seconds(value: float | None) -> str:
    """Three significant digits: 0.321 → 321 ms, 1.2604 → 1.26 s, 124 → 2 m 04 s."""
    if value is None:
        return "–"
    if value >= HOUR_S:
        whole = round(value)
        return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S:02d} m"
    if value >= 99.95:
        whole = round(value)
        return f"{whole // MINUTE_S} m {whole % MINUTE_S:02d} s"
    if value >= 0.9995:
        return f"{_three_digits(value)} s"
    return f"{_three_digits(value * 1_000)} ms"


@register.filter
def milliseconds(value: float | None) -> str:
    return seconds(None if value is None else value / 1_000)


@register.filter
def microseconds(value: float | None) -> str:
    return seconds(None if value is None else value / 1_000_000)


@register.filter
def percent(value: float | None) -> str:
    """A share (0…1) as per cent: 0.98731 → 98.7 %."""
    return "–" if value is None else f"{100 * value:.3g} %"


@register.filter
def words(value: object) -> str:
    """readiness_failed → readiness failed."""
    return str(value).replace("_", " ")


@register.simple_tag
def missing(reason: str) -> SafeString:
    """Missing is a dash with its reason on hover, never 0."""
    return format_html('<abbr class="missing" title="{}">–</abbr>', reason)


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    if value >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.3g}"
