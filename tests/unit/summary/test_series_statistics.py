"""Statistics of a series against numpy, which has all the values at once."""

from __future__ import annotations

import math
import random
import sys

import pytest

from mlflow_sysmetrics.summary.series_statistics import MOST_BUCKETS, RELATIVE_ERROR, Statistics

numpy = pytest.importorskip("numpy")

DRAWN = {
    "percent": lambda random_: random_.uniform(0, 100, 10_000),
    "idle or busy": lambda random_: random_.choice([0.0, 98.0, 100.0], 10_000),
    "megabytes": lambda random_: random_.lognormal(9, 1, 10_000),
    "constant": lambda random_: numpy.full(10_000, 0.1),
    "falling": lambda random_: numpy.linspace(4e5, 1e3, 10_000),
    "rising": lambda random_: numpy.linspace(1e-3, 90, 10_000),
}


def of(values: object, seconds: object = None) -> Statistics:
    found = Statistics()
    weights = numpy.ones(len(values)) if seconds is None else seconds  # type: ignore[arg-type]
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):  # type: ignore[attr-defined]
        found.add(value, weight)
    return found


@pytest.mark.parametrize("name", DRAWN)
def test_statistics_are_those_of_numpy(name: str) -> None:
    values = DRAWN[name](numpy.random.default_rng(7))
    found = of(values)
    assert found.mean == pytest.approx(math.fsum(values) / len(values), rel=1e-12)
    assert (found.min, found.max) == (values.min(), values.max())
    for share in (0.05, 0.5, 0.95):
        exact = numpy.quantile(values, share, method="inverted_cdf")
        assert found.quantile(share) == pytest.approx(exact, rel=RELATIVE_ERROR * 1.001), share


@pytest.mark.parametrize("name", DRAWN)
def test_values_count_as_long_as_they_lasted(name: str) -> None:
    random_ = numpy.random.default_rng(3)
    values, seconds = DRAWN[name](random_), random_.uniform(0.1, 60, 10_000)
    found = of(values, seconds)
    assert found.mean == pytest.approx(numpy.average(values, weights=seconds), rel=1e-12)
    exact = numpy.quantile(values, 0.5, weights=seconds, method="inverted_cdf")
    assert found.quantile(0.5) == pytest.approx(exact, rel=RELATIVE_ERROR * 1.01)


def test_small_ticks_of_a_long_run_are_not_lost() -> None:
    found = Statistics()
    found.add(1e12, 1e6)
    for _ in range(100_000):
        found.add(0.1, 0.1)
    exact = (1e18 + math.fsum([0.01] * 100_000)) / (1e6 + 1e4)
    assert found.mean == pytest.approx(exact, rel=1e-15)
    assert found.seconds == pytest.approx(1e6 + 1e4, rel=1e-15)


@pytest.mark.parametrize("parts", [2, 7])
def test_merged_parts_are_the_whole(parts: int) -> None:
    values = DRAWN["megabytes"](numpy.random.default_rng(1))
    whole, merged = of(values), Statistics()
    for part in numpy.array_split(values, parts):
        merged.merge(Statistics.from_text(of(part).to_text()))
    assert merged.mean == pytest.approx(whole.mean, rel=1e-12)
    assert (merged.min, merged.max) == (whole.min, whole.max)
    for share in (0.05, 0.5, 0.95):
        assert merged.quantile(share) == pytest.approx(whole.quantile(share), rel=1e-9)


def test_a_series_is_below_two_kilobytes() -> None:
    found = Statistics()
    draw = random.Random(1)
    for _ in range(20_000):
        found.add(10 ** draw.uniform(-8, 8), 0.1)
    size = sys.getsizeof(found) + sum(
        sys.getsizeof(getattr(found, name)) for name in Statistics.__slots__ if name != "_index"
    )
    assert size < 2000
    assert len(found._counts) == MOST_BUCKETS + 1
    assert len(found.to_text()) < 1200


def test_values_far_below_the_maximum_keep_their_number() -> None:
    found = Statistics()
    for value in (1e-6, 1e-5, 1e6):
        found.add(value, 1.0)
    assert found.quantile(1) == pytest.approx(1e6, rel=RELATIVE_ERROR)
    assert found.share_up_to(2e3) == pytest.approx(2 / 3)
    assert found.seconds == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_ignored(value: float) -> None:
    found = Statistics()
    for one in (5.0, value, 5.0, value):
        found.add(one)
    assert (found.mean, found.max, found.seconds) == (5.0, 5.0, 2.0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan])
def test_what_lasted_no_time_is_ignored(seconds: float) -> None:
    found = Statistics()
    found.add(5.0, seconds)
    assert (found.mean, found.quantile(0.5), found.share_up_to(1)) == (None, None, None)


def test_the_time_at_zero_and_up_to_a_limit_is_known() -> None:
    found = Statistics()
    for value, seconds in ((0.0, 10), (1.0, 20), (1.03, 30), (-2.0, 40)):
        found.add(value, seconds)
    assert found.share_up_to(1) == pytest.approx(0.7)
    assert found.share_up_to(0) == pytest.approx(0.5)
    assert found.min == -2


def test_a_text_keeps_everything() -> None:
    found = of(DRAWN["rising"](numpy.random.default_rng(1)))
    again = Statistics.from_text(found.to_text())
    assert (again.mean, again.min, again.max, again.seconds) == (
        found.mean,
        found.min,
        found.max,
        found.seconds,
    )
    assert again.quantile(0.95) == pytest.approx(found.quantile(0.95))
    again.add(1e9)  # grows on
    assert again.max == 1e9
    empty = Statistics.from_text(Statistics().to_text())
    assert empty.mean is None


@pytest.mark.parametrize("text", ["", "2.abc", "1.", "1.????", "1.AAAA", "1." + "A" * 40])
def test_a_damaged_text_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        Statistics.from_text(text)
