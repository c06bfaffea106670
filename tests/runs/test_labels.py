"""Names of the curve's lines: beside the line where there is room, else left out."""

from __future__ import annotations

from runs.labels import direct_labels


def points(*rows: tuple[int, int, int]) -> list[dict[str, int]]:
    names = ("proven", "possible", "implied")
    return [
        {"elapsed_ms": 1_000 * place, **dict(zip(names, row, strict=True))}
        for place, row in enumerate(rows)
    ]


def test_each_line_is_named_where_it_stands_apart() -> None:
    """Up in ten seconds, held for sixty, then the last probes come in for thirty."""
    rise = [(n * 90, n * 100, n * 100) for n in range(10)]
    hold = [(950, 980, 1_000)] * 60
    fall = [(0, 980, 1_000)] * 25 + [(0, 0, 1_000)] * 5
    found = {x.name: x for x in direct_labels(points(*rise, *hold, *fall), 1_100)}
    assert set(found) == {"proven", "possible", "implied"}
    assert 30 < found["proven"].x_s < 50
    assert (found["proven"].y, found["proven"].yanchor) == (950, "top")
    assert 75 < found["possible"].x_s < 90
    assert found["possible"].y == 490
    assert (found["implied"].x_s, found["implied"].xanchor) == (99, "right")


def test_lines_that_end_together_are_left_to_the_legend() -> None:
    live = points(*[(n * 10, n * 10 + 5, n * 10 + 2) for n in range(1, 100)])
    names = {label.name for label in direct_labels(live, 1_100)}
    assert "implied" not in names
    assert "possible" not in names


def test_a_curve_of_nothing_names_nothing() -> None:
    assert direct_labels([], 100) == []
    assert direct_labels(points((0, 0, 0), (0, 0, 0)), 1.1) == []
