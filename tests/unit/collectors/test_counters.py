"""Counters: what a bad reading, a restart and a wrap add to a total. A tick is one second."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from mlflow_sysmetrics.collectors.counters import NO_CLOCK, Counters, CounterSet, Step

LIFE = 118_366_253_415  # bytes since boot
MOST = 1e9
ALL_ONES = [2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1]


def steps(counters: Counters, readings: Sequence[int]) -> list[int | None]:
    """Returns the growth at each reading; None where it is not believed."""
    found = [counters.follow((reading,), float(now)) for now, reading in enumerate(readings)]
    return [None if step is None else step.grown[0] for step in found]


@pytest.mark.parametrize(
    ("readings", "grown"),
    [
        ([0, 1, 2], [0, 1, 1]),
        ([LIFE, 0, LIFE + 7, LIFE + 9], [0, None, 7, 2]),  # 0 once
        ([LIFE, 0, 0, LIFE + 7], [0, None, 0, 7]),  # 0 twice, as if it had restarted
        ([LIFE, 0, 0, 0, 5, 6], [0, None, 0, 0, 5, 1]),  # restarted, and idle for a while
        ([LIFE, 0, 5, 9], [0, None, 5, 4]),  # restarted
        ([LIFE, 4, 5, 9], [0, None, 1, 4]),
        ([0, LIFE, LIFE + 1], [0, None, 1]),  # first read as 0
        ([LIFE, 9 * LIFE, LIFE + 3], [0, None, 3]),  # leapt once
        ([LIFE, 9 * LIFE, 9 * LIFE + 3], [0, None, 3]),  # leapt for good
        ([LIFE, -1, LIFE + 3], [0, None, 3]),
        ([LIFE, 0, 9 * LIFE, LIFE + 3], [0, None, None, 3]),  # two bad readings in a row
        ([LIFE, LIFE - 5, LIFE + 3], [0, None, 3]),  # too little once
        ([LIFE, LIFE - 5, LIFE - 4, LIFE + 3], [0, None, None, 3]),
        ([0, 0, 0, 7], [0, 0, 0, 7]),
        *[([100, 103, ones, 105], [0, 3, None, 2]) for ones in ALL_ONES],
        *[([100, ones, ones, ones, 105], [0, None, None, None, 5]) for ones in ALL_ONES],
        *[([ones, 100, 105], [None, 0, 5]) for ones in ALL_ONES],
    ],
)
def test_a_bad_reading_adds_nothing(readings: list[int], grown: list[int | None]) -> None:
    assert steps(Counters(MOST), readings) == grown


def test_a_wrap_at_32_bits_loses_nothing() -> None:
    readings = [2**32 - 3_000_000, 2**32 - 2_000_000, 500_000, 1_500_000]
    assert steps(Counters(MOST), readings) == [0, 1_000_000, None, 3_500_000]


@pytest.mark.parametrize("last", [2**31 - 9, 2**32 - 900_000_000])
def test_a_restart_below_32_bits_is_not_a_wrap(last: int) -> None:
    assert steps(Counters(MOST), [last - 10, last, 5, 9]) == [0, 10, None, 4]


def test_a_wrap_at_a_known_value_is_believed_at_once() -> None:
    assert steps(Counters(100, wraps_at=1000), [940, 990, 40, 60]) == [0, 50, 50, 20]


def test_a_wrapping_counter_that_reads_0_once_adds_nothing() -> None:
    assert steps(Counters(100, wraps_at=1000), [940, 990, 0, 999]) == [0, 50, None, 9]


def test_the_step_after_a_bad_reading_covers_both_spans() -> None:
    counters = Counters(MOST)
    for now, reading in enumerate([LIFE, LIFE + 10, 0]):
        counters.follow((reading,), now)
    assert counters.follow((LIFE + 30,), 3) == Step((20,), 2)


def test_the_step_after_a_restart_covers_the_span_since_the_first_reading_of_it() -> None:
    counters = Counters(MOST)
    for now, reading in enumerate([LIFE, LIFE + 10, 0]):
        counters.follow((reading,), now)
    assert counters.follow((20,), 3) == Step((20,), 1, whole=False)


def test_a_bound_that_hardware_exceeds_is_widened() -> None:
    readings = [now * 3_000_000_000 for now in range(20)]
    grown = steps(Counters(MOST), readings)
    assert grown[:4] == [0, None, 6_000_000_000, 3_000_000_000], "nothing is lost"


def test_a_bound_that_is_far_too_low_is_widened_step_by_step() -> None:
    grown = steps(Counters(1000), [now * 1_000_000 for now in range(20)])
    assert grown[-12:] == [1_000_000] * 12


def test_the_bound_grows_with_the_span() -> None:
    counters = Counters(MOST)
    counters.follow((1,), 0)
    assert counters.follow((1 + 9_000_000_000,), 10) == Step((9_000_000_000,), 10)


def test_a_counter_that_is_first_read_as_0_has_restarted_or_was_misread() -> None:
    bytes_read = Counters(32e9, from_zero=0.01)
    assert steps(bytes_read, [0, 23_935_000_000, 23_936_000_000]) == [0, 0, 1_000_000]
    assert steps(Counters(32e9, from_zero=0.01), [0, 5_000_000]) == [0, 5_000_000]
    assert steps(Counters(32e9, from_zero=0.01), [0, 0, 5_000_000_000]) == [
        0,
        0,
        5_000_000_000,
    ]  # idle before


def test_counters_of_one_device_are_believed_together() -> None:
    counters = Counters(MOST, MOST)
    counters.follow((LIFE, LIFE), 0)
    assert counters.follow((LIFE + 5, 0), 1) is None
    assert counters.follow((LIFE + 7, LIFE + 1), 2) == Step((7, 1), 2)


def test_a_counter_that_stays_too_low_restarts_in_the_end() -> None:
    counters = Counters(MOST)
    counters.follow((3,), 0)
    assert not any(counters.follow((2,), now) for now in range(1, 60))
    assert counters.unusable
    assert [counters.follow((2,), now) is not None for now in range(60, 70)][-1]
    assert not counters.unusable


def test_a_reading_without_a_clock_counts_from_the_first_tick() -> None:
    counters = Counters(MOST)
    counters.follow((LIFE,), NO_CLOCK)
    counters.begin(100)
    assert counters.follow((LIFE + 5,), 102) == Step((5,), 2)


def test_a_clock_that_goes_backwards_gives_no_span() -> None:
    counters = Counters(MOST)
    counters.follow((LIFE,), 100)
    assert counters.follow((LIFE + 5,), 50) == Step((5,), 0)
    assert counters.follow((LIFE + 6,), 51) == Step((1,), 1)


def bytes_of(*devices: tuple[str, int]) -> dict[str, tuple[int]]:
    return {name: (count,) for name, count in devices}


def test_a_device_that_is_away_for_a_tick_goes_on_where_it_was() -> None:
    devices = CounterSet(lambda _: Counters(MOST))
    devices.follow(bytes_of(("a", LIFE), ("b", 5)), 0)
    assert devices.follow(bytes_of(("b", 6)), 1) == {"b": Step((1,), 1)}
    assert devices.follow(bytes_of(("a", LIFE + 9), ("b", 7)), 2)["a"] == Step((9,), 2)


def test_a_device_that_returns_after_minutes_counts_from_there() -> None:
    devices = CounterSet(lambda _: Counters(MOST))
    devices.follow(bytes_of(("a", LIFE)), 0)
    devices.follow({}, 61)
    assert devices.follow(bytes_of(("a", LIFE + 9)), 62)["a"] == Step((0,), 0)


def test_devices_that_come_and_go_are_not_kept() -> None:
    devices = CounterSet(lambda _: Counters(MOST))
    for now in range(1000):
        devices.follow(bytes_of((f"veth{now}", LIFE)), now)
    assert len(devices._known) < 70


def test_rates_are_unknown_while_one_device_is_doubted() -> None:
    devices = CounterSet(lambda _: Counters(MOST))
    devices.follow(bytes_of(("a", 10), ("b", LIFE)), 0)
    devices.follow(bytes_of(("a", 20), ("b", 0)), 1)
    assert devices.rates() is None
    devices.follow(bytes_of(("a", 30), ("b", LIFE + 4)), 2)
    assert devices.rates() == [10 + 2]


def test_a_device_that_is_never_believed_does_not_hide_the_others() -> None:
    devices = CounterSet(lambda _: Counters(MOST))
    for now in range(5):
        devices.follow(bytes_of(("a", now), ("b", 2**64 - 1)), now)
    assert devices.unusable == ("b",)
    assert devices.rates() == [1]


def spoilt(generator: random.Random, true: int) -> int:
    """Returns a reading of a counter, which is sometimes wrong."""
    bad = [0, 2**64 - 1, 2**32 - 1, -1, true + 10**13, true // 3, true - 1000]
    return generator.choice(bad) if generator.random() < 0.1 else true


@pytest.mark.parametrize("seed", range(40))
def test_no_series_of_bad_readings_makes_up_growth(seed: int) -> None:
    generator = random.Random(seed)
    counters = Counters(MOST)
    start = true = generator.choice([LIFE, 5 * 10**9, 2**32 - 10**8])
    total = 0
    for now in range(500):
        true += generator.choice([0, 1, 10**6, 5 * 10**8])
        step = counters.follow((spoilt(generator, true),), now)
        if step is not None:
            assert step.grown[0] >= 0
            assert step.grown[0] <= MOST * max(step.span, 1)
            total += step.grown[0]
    assert total <= true - start + 10**9


@pytest.mark.parametrize("seed", range(20))
def test_restarts_lose_at_most_one_interval_each(seed: int) -> None:
    generator = random.Random(seed)
    counters = Counters(MOST)
    count = LIFE
    total = moved = restarts = 0
    for now in range(500):
        if now % 50 == 49:
            count = 0
            restarts += 1
        more = generator.randrange(10**6)
        count += more
        moved += more if now else 0
        step = counters.follow((count,), now)
        total += 0 if step is None else step.grown[0]
    assert moved - 2 * 10**6 * (restarts + 1) <= total <= moved
