"""How numbers, times and states read on pages; the only place that formats them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

register = template.Library()

_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\\-_])"
)
MINUTE_S = 60
HOUR_S = 3_600
LETTERS = {
    "success": "S",
    "partial": "P",
    "readiness_failed": "R",
    "failed": "F",
    "unobserved": "U",
    "not_attempted": "N",
    "pending": "…",
}


@register.filter
def thousands(value: float | None) -> str:
    """1234567 → 1,234,567; fractions are rounded; None is a dash."""
    return f"{round(value):,}" if _known(value) else "–"


@register.filter
def seconds(value: float | None) -> str:
    """Three significant digits: 0.321 → 321 ms, 1.2604 → 1.26 s, 124 → 2 m 04 s."""
    if not _known(value):
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
def duration(value: float | None) -> str:
    """A time that somebody chose, exactly: 20 → 20 s, 0.5 → 500 ms, 90 → 90 s."""
    if not _known(value) or value >= 99.95:
        return seconds(value)
    return f"{value:g} s" if value >= 1 else f"{value * 1_000:g} ms"


@register.filter
def milliseconds(value: float | None) -> str:
    return seconds(value / 1_000 if _known(value) else None)


@register.filter
def microseconds(value: float | None) -> str:
    return seconds(value / 1_000_000 if _known(value) else None)


@register.filter
def percent(value: float | None) -> str:
    """A share (0…1) as per cent: 0.98731 → 98.7 %."""
    return f"{100 * value:.3g} %" if _known(value) else "–"


@register.filter
def figure(value: float | None) -> str:
    """Three significant digits, thousands separated: 12345.6 → 12,300, 0.0421."""
    if not _known(value):
        return "–"
    if abs(value) >= 1_000:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


@register.filter
def instant(elapsed_us: int | None) -> str:
    """A place on the Run's own time, T0 = 0: 41183000 → 00:41.183."""
    if not _known(elapsed_us):
        return "–"
    sign, whole_ms = ("−" if elapsed_us < 0 else ""), abs(round(elapsed_us / 1_000))
    whole_s, ms = divmod(whole_ms, 1_000)
    minutes, s = divmod(whole_s, 60)
    return f"{sign}{minutes:02d}:{s:02d}.{ms:03d}"


@register.filter
def words(value: object) -> str:
    """readiness_failed → readiness failed."""
    return str(value).replace("_", " ")


@register.filter
def plain(value: str) -> str:
    """Text of the contract without its code marks."""
    return value.replace("`", "")


@register.filter
def outcome_letter(name: str) -> str:
    """The letter that stands beside an Outcome's colour."""
    return LETTERS.get(name, "")


@register.filter
def plain_number(value: float | None) -> str:
    """As a form field holds it: 1260.5 → 1260.5; None is empty."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if _known(value) else ""


@register.filter
def without_sequences(text: str) -> str:
    """A log line without what would colour a terminal."""
    return _SEQUENCE.sub("", text)


CARD_TOP, CARD_ROW, CARD_ROWS_MAX = 64, 26, 8  # px of the leaderboard's card


@register.filter
def card_row(index: int) -> int:
    return CARD_TOP + CARD_ROW * index


@register.filter
def card_height(places: Sequence[object]) -> int:
    return CARD_TOP + CARD_ROW * min(len(places), CARD_ROWS_MAX) + 8


@register.simple_tag
def linked(text: str, part: str, address: str) -> SafeString:
    """`text` with the first `part` of it as a link; plain where it does not occur."""
    before, found, after = text.partition(part) if part else (text, "", "")
    if not found or not address:
        return format_html("{}", text)
    return format_html('{}<a href="{}">{}</a>{}', before, address, found, after)


@register.simple_tag
def marks(run: Mapping[str, Any], *, verdict: bool = True) -> SafeString:
    """The words that must stand wherever a Run's number does (docs, Labels)."""
    level = (run.get("verdict") or {}).get("level")
    doubtful = verdict and run.get("state") == "sealed" and level != "VALID"
    badges = [(f" {level}", level)] if doubtful and level else []
    badges += [("", label) for label in run.get("labels") or ()]
    return format_html_join("", ' <span class="badge{}">{}</span>', badges)


@register.simple_tag
def missing(reason: str) -> SafeString:
    """Missing is a dash with its reason on hover, never 0."""
    return format_html('<abbr class="missing" title="{}">–</abbr>', reason)


def _known(value: object) -> TypeGuard[float]:
    """A key that a summary of another version lacks comes here as an empty text."""
    return isinstance(value, int | float)


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    if value >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.3g}"
