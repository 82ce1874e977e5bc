"""The values of a window."""

from __future__ import annotations

from fakes import LEVEL, SHARE, TOTAL
from mlflow_sysmetrics.daemon.sampling.window import Window
from mlflow_sysmetrics.samples import Kind


def test_a_gauge_is_weighted_by_time() -> None:
    window = Window(closes_at=0)
    window.add([LEVEL.sample(10)], seconds=1)
    window.add([LEVEL.sample(40)], seconds=2)
    assert window.values() == [(LEVEL.name, Kind.GAUGE, 30.0)]


def test_a_rate_is_weighted_by_its_own_span() -> None:
    window = Window(closes_at=0)
    window.add([SHARE.sample(100, span=1.0)], seconds=0.1)
    window.add([SHARE.sample(0, span=3.0)], seconds=0.1)
    assert window.values() == [(SHARE.name, Kind.RATE, 25.0)]


def test_a_counter_has_its_last_value() -> None:
    window = Window(closes_at=0)
    for value in (5, 7, 9):
        window.add([TOTAL.sample(value)], seconds=1)
    assert window.values() == [(TOTAL.name, Kind.COUNTER, 9)]


def test_a_series_absent_in_some_ticks_is_the_mean_of_the_others() -> None:
    window = Window(closes_at=0)
    window.add([LEVEL.sample(10), SHARE.sample(50)], seconds=1)
    window.add([LEVEL.sample(20)], seconds=1)
    assert {key: value for key, _, value in window.values()} == {LEVEL.name: 15, SHARE.name: 50}


def test_an_empty_window_has_no_values() -> None:
    assert Window(closes_at=0).values() == []


def test_the_mean_of_values_without_weight_is_the_last() -> None:
    window = Window(closes_at=0)
    for value in (3.0, 8.0):
        window.add([LEVEL.sample(value)], seconds=0)
    assert window.values() == [(LEVEL.name, Kind.GAUGE, 8)]


def test_a_long_window_keeps_what_it_has_added_up() -> None:
    window = Window(closes_at=0)
    for value in range(100):
        window.add([LEVEL.sample(value), TOTAL.sample(value)], seconds=1)
    assert {key: value for key, _, value in window.values()} == {LEVEL.name: 49.5, TOTAL.name: 99}
    window.add([LEVEL.sample(150.5)], seconds=1)
    assert window.values()[0].value == 50.5, "a window of which values were taken goes on"
