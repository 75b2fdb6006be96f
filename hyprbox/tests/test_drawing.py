"""Percentages as paths: scaled, clamped, broken where data is missing."""

from __future__ import annotations

from hyprbox.lib import drawing


def test_a_spark_spans_its_box() -> None:
    assert drawing.spark_path([0, 50, 100]) == "M0 31 60 16 120 1"


def test_a_missing_value_breaks_the_line() -> None:
    assert drawing.spark_path([0, None, 100, 100]) == "M0 31 1 31M80 1 120 1"


def test_values_outside_are_clamped() -> None:
    assert drawing.spark_path([-5, 400]) == "M0 31 120 1"


def test_an_area_closes_at_the_bottom() -> None:
    assert drawing.spark_path([0, 100], area=True) == "M0 31 120 1V32H0Z"


def test_nothing_to_draw_is_an_empty_path() -> None:
    assert drawing.spark_path([]) == ""
    assert drawing.spark_path([None, None]) == ""


def test_a_gap_in_time_breaks_the_line() -> None:
    points = [(0.0, 10.0), (10.0, 10.0), (60.0, 10.0), (70.0, 10.0)]
    path = drawing.chart_path(points, start=0, end=100, step=10, width=100, height=102)
    assert path.count("M") == 2


def test_a_chart_knows_its_figures() -> None:
    rows = [[0.0, 10.0, 12.0], [10.0, 30.0, 44.0], [60.0, 20.0, 21.0]]
    chart = drawing.chart([("cpu", "CPU", rows)], start=0, end=100, step=10)
    [line] = chart.lines
    assert (line.now, line.average, line.highest, line.lowest) == (20.0, 20.0, 44.0, 10.0)
    assert chart.data["t"] == [0, 10, 20, 60]
    assert line.values == (10.0, 30.0, None, 20.0)
    assert chart.data["span"] == [0, 100]


def test_an_empty_chart_says_so() -> None:
    assert drawing.chart([("cpu", "CPU", [])], start=0, end=100, step=10).is_empty
