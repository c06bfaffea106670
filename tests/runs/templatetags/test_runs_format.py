from __future__ import annotations

from typing import Any

import pytest

from runs.templatetags import runs_format as fmt


@pytest.mark.parametrize(
    ("filter_name", "value", "said"),
    [
        ("thousands", 1_234_567, "1,234,567"),
        ("seconds", 0.321, "321 ms"),
        ("seconds", 1.2604, "1.26 s"),
        ("seconds", 124, "2 m 04 s"),
        ("seconds", 3_660, "1 h 01 m"),
        ("duration", 20.0, "20 s"),
        ("duration", 0.5, "500 ms"),
        ("duration", 600.0, "10 m 00 s"),
        ("microseconds", 5_300, "5.30 ms"),
        ("figure", 12_345.6, "12,300"),
        ("figure", 0.04213, "0.0421"),
        ("figure", 140.2, "140"),
        ("figure", 0, "0"),
        ("instant", 41_183_000, "00:41.183"),
        ("instant", -1_500_000, "−00:01.500"),
        ("percent", 0.98731, "98.7 %"),
    ],
)
def test_numbers_read_like_this(filter_name: str, value: Any, said: str) -> None:
    assert getattr(fmt, filter_name)(value) == said


@pytest.mark.parametrize(
    "filter_name",
    ["thousands", "seconds", "duration", "microseconds", "figure", "instant"],
)
@pytest.mark.parametrize("value", [None, ""])
def test_missing_is_a_dash_never_zero(filter_name: str, value: Any) -> None:
    assert getattr(fmt, filter_name)(value) == "–"
