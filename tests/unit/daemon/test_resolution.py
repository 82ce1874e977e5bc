"""Which points are sent, and that the curve through them is the curve through all."""

from __future__ import annotations

import bisect
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fakes import STARTED_AT
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.sampling.resolution import LINE_SECONDS, TOLERANCE, Resolution
from mlflow_sysmetrics.samples import Kind

HOUR = 3600
Curve = list[tuple[float, float]]  # (seconds since the start, value)
LEVELS = st.lists(st.integers(0, 3) | st.none(), min_size=2, max_size=60)
NUMBERS = st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 3)), min_size=2, max_size=60)


class Bench:
    """A run whose windows the test closes.

    Args:
        age: of the run at its attach, in seconds.
    """

    def __init__(self, age: float = 0, *, is_start_known: bool = True) -> None:
        self.seconds = 0.0
        self.jumped = 0
        self.resolution = Resolution()
        self.sent: list[Point] = []
        self.full: list[Point] = []
        self.started_at = STARTED_AT - round(age * 1000) if is_start_known else None

    @property
    def timestamp(self) -> int:
        return STARTED_AT + round(self.seconds * 1000) + self.jumped

    def close(self, kind: Kind = Kind.GAUGE, **values: float | None) -> None:
        """Closes a window in which these series have a value."""
        points = [Point(key, value, self.timestamp) for key, value in values.items() if value is not None]
        self.full += points
        self.resolution.add([(kind, point) for point in points], self.timestamp, self.started_at, self.sent)

    def play(self, values: Iterable[float | None], kind: Kind = Kind.GAUGE, seconds: float = 10) -> None:
        """Closes a window every ten seconds."""
        for value in values:
            self.close(kind, x=value)
            self.seconds += seconds

    def flush(self) -> None:
        self.resolution.release(self.sent)

    def curve(self, points: Sequence[Point] | None = None, key: str = "x") -> Curve:
        found = self.sent if points is None else points
        return [((one.timestamp - STARTED_AT) / 1000, one.value) for one in found if one.key == key]


def old(hours: float = 7) -> Bench:
    """Returns a run of that age which had a range from 0 to 100 and rests at 0."""
    bench = Bench(hours * HOUR)
    bench.play([0, 100, 0, 0, 0, 0, 0])
    bench.flush()
    bench.sent.clear()
    bench.full.clear()
    return bench


def at(curve: Curve, time: float) -> float:
    """Returns the value of a chart's line at a time."""
    right = bisect.bisect_left(curve, (time, float("-inf")))
    if right < len(curve) and curve[right][0] == time:
        return curve[right][1]
    (start, first), (end, last) = curve[right - 1], curve[right]
    return first + (last - first) * (time - start) / (end - start)


def test_a_young_run_sends_every_change_at_once() -> None:
    bench = Bench()
    for count, value in enumerate([3, 1, 4, 1, 5], 1):
        bench.play([value])
        assert len(bench.sent) == count


def test_a_line_is_two_points_and_one_a_minute() -> None:
    bench = Bench()
    bench.play([5] * 16 + [7])
    assert bench.curve() == [(0, 5), (60, 5), (120, 5), (150, 5), (160, 7)]


def test_a_line_that_has_just_had_its_point_needs_none_before_the_change() -> None:
    bench = Bench()
    bench.play([5] * 7 + [7])
    assert bench.curve() == [(0, 5), (60, 5), (70, 7)]


def test_ticks_that_are_not_exact_do_not_make_a_line_sparser() -> None:
    bench = Bench()
    bench.play([5] * 13, seconds=9.98)
    assert [round(time) for time, _ in bench.curve()] == [0, 60, 120]


def test_each_series_has_its_own_line() -> None:
    bench = Bench()
    for number in range(6):
        bench.close(flat=1, noisy=number)
        bench.seconds += 10
    assert Counter(point.key for point in bench.sent) == {"flat": 1, "noisy": 6}


@pytest.mark.parametrize(
    ("age", "times"),
    [
        (0, [*range(0, 130, 10)]),
        (HOUR - 130, [*range(0, 130, 10)]),
        (HOUR - 80, [*range(0, 90, 10), 110]),
        (HOUR, [*range(0, 70, 10), 90, 120]),
        (6 * HOUR + 1, [*range(0, 70, 10), 120]),
        (-50 * HOUR, [*range(0, 130, 10)]),  # the clock of another machine
    ],
)
def test_windows_widen_with_the_age_of_the_run_after_a_fresh_minute(age: float, times: list[int]) -> None:
    bench = Bench(age)
    bench.play([number * 1e-9 for number in range(13)], Kind.COUNTER)
    assert [time for time, _ in bench.curve()] == times


def test_a_run_whose_start_is_not_known_ages_from_its_attach_until_it_is() -> None:
    bench = Bench(is_start_known=False)
    bench.play([number % 2 for number in range(30)])
    assert len(bench.sent) == 30
    bench.started_at = STARTED_AT - 7 * HOUR * 1000
    bench.play([0])
    bench.play([0.001 * number for number in range(1, 7)])
    assert len(bench.sent) == 31 + 1


@pytest.mark.parametrize("jump", [-86_400_000, 86_400_000])
def test_a_clock_that_is_set_makes_a_run_neither_older_nor_younger(jump: int) -> None:
    for age, more in ((0, 6), (7 * HOUR, 1)):
        bench = Bench(age)
        bench.play([number % 2 for number in range(12)])
        bench.jumped = jump
        bench.play([0])
        sent = len(bench.sent)
        bench.play([0.002 * number for number in range(1, 7)])
        assert len(bench.sent) - sent == more, age


def test_a_quiet_wide_window_is_its_mean() -> None:
    bench = old()
    bench.play([0.1, 0.3, 0.2, 0.2, 0.1, 0.3])
    assert bench.curve() == [(120, 0.2)]


@pytest.mark.parametrize(
    ("values", "points"),
    [
        ([0, 0, 0, 100, 0, 0], [(100, 100), (120, 0)]),  # a peak, at its time
        ([0, 0, 0, 0, 0, 100], [(110, 0), (120, 100)]),
        ([100, 0, 0, 0, 0, 0], [(70, 100), (120, 0)]),
        ([0.2, 0.1, 0, 100, 0.1, 0.2], [(100, 100), (120, 0)]),
        ([0, 0, 0, 50, 50, 50], [(90, 0), (120, 50)]),  # a step, exactly
        ([50, 50, 50, 0, 0, 0], [(90, 50), (120, 0)]),
        ([98, 20, 20, 98, 98, 98], [(90, 20), (120, 98)]),  # a pause of some load
        ([20, 90, 10, 50, 30, 40], [(80, 90), (120, 10)]),  # noise
    ],
)
def test_a_wide_window_that_varies_has_its_lowest_and_its_highest_value(
    values: list[float], points: Curve
) -> None:
    bench = old()
    bench.play(values)
    assert bench.curve() == points


def test_half_a_minute_that_varies_waits_for_the_other_half() -> None:
    bench = old(hours=2)
    bench.play([0, 0, 90])
    assert bench.curve() == []
    bench.play([0, 0, 0])
    assert bench.curve() == [(90, 90), (120, 0)]
    bench.play([0, 0, 0, 90, 0, 0])
    assert bench.curve()[2:] == [(150, 0), (160, 90), (180, 0)]


def test_a_jump_between_two_wide_windows_stays_one() -> None:
    bench = old()
    bench.play([0, 0, 0, 0, 0, 90])
    bench.play([0.1] * 6)
    assert bench.curve()[-3:] == [(120, 90), (130, 0.1), (180, 0.1)]
    bench.play([0.1] * 4 + [80])
    bench.flush()
    assert bench.curve()[-2:] == [(220, 0.1), (230, 80)]


def test_a_total_keeps_its_bend() -> None:
    bench = Bench(7 * HOUR)
    bench.play([0, 10, 20, 30, 40, 50, 60], Kind.COUNTER)
    bench.sent.clear()
    bench.play([60, 60, 60, 60, 100, 140], Kind.COUNTER)
    assert bench.curve() == [(100, 60), (120, 140)]
    bench.play([150, 160, 170, 180, 190, 200], Kind.COUNTER)
    assert bench.curve()[2:] == [(180, 200)]


def test_a_value_outside_what_the_series_had_so_far_is_sent_at_once() -> None:
    """A kill for lack of memory then takes ten seconds of the rise with it, not a minute."""
    bench = old()
    bench.play([0, 1])
    assert bench.curve() == []
    bench.play([110])
    assert bench.curve() == [(80, 0), (90, 110)]
    bench.play([140])
    assert bench.curve()[-1] == (100, 140)


def test_a_series_that_appears_late_is_sent_at_once() -> None:
    bench = old()
    bench.close(x=0, late=3)
    assert bench.curve(key="late") == [(70, 3)]


def test_events_are_sent_at_once() -> None:
    bench = old()
    bench.close(Kind.EVENTS, x=1)
    bench.seconds += 10
    bench.close(Kind.EVENTS, x=1)
    assert len(bench.sent) == 2


def test_a_line_ends_where_its_series_ends() -> None:
    bench = Bench()
    for value in (5, 5, 5, None, None, None, 5, 5):
        bench.close(x=value, other=1)
        bench.seconds += 10
    assert bench.curve() == [(0, 5), (20, 5), (60, 5)]


def test_a_wide_window_ends_where_its_series_ends() -> None:
    bench = old()
    for value in (1, 2, None, None, None, 1):
        bench.close(x=value, other=1)
        bench.seconds += 10
    assert bench.curve() == [(80, 1.5), (120, 1)]
    bench.play([1])
    assert bench.curve()[2:] == []


def test_a_line_ends_where_the_machine_slept() -> None:
    bench = Bench()
    bench.play([5, 5, 5])
    bench.seconds += 600
    bench.play([5])
    assert bench.curve() == [(0, 5), (20, 5), (630, 5)]


@pytest.mark.parametrize("hours", [0, 2, 7])
def test_a_release_sends_the_last_value_and_the_curve_goes_on(hours: float) -> None:
    bench = old(hours)
    bench.play([0, 0.4])
    bench.flush()
    bench.flush()
    assert bench.curve()[-1][0] == 80
    assert len(set(bench.curve())) == len(bench.curve())
    bench.play([0.4] * 8)
    bench.flush()
    assert bench.curve()[-1] == (160, 0.4)


def test_a_window_that_is_added_again_after_a_failure_gives_no_point_twice() -> None:
    bench = Bench(7 * HOUR)
    for number in range(20):
        bench.close(x=number % 3, y=5)
        bench.close(x=number % 3, y=5)
        bench.seconds += 10
        if number == 12:
            bench.seconds += 100  # a gap
    bench.flush()
    assert max(Counter((point.key, point.timestamp) for point in bench.sent).values()) == 1


@given(LEVELS, st.sampled_from([Kind.GAUGE, Kind.RATE]))
def test_lines_are_the_same_curve(values: list[float | None], kind: Kind) -> None:
    bench = Bench()
    bench.play(values, kind)
    bench.flush()
    sent, full = bench.curve(), bench.curve(bench.full)
    assert set(sent) <= set(full)
    assert [at(sent, time) for time, _ in full] == pytest.approx([value for _, value in full])
    missing = {10.0 * place for place, value in enumerate(values) if value is None}
    for (start, _), (end, _) in itertools.pairwise(sent):
        inside = {start + 10.0 * count for count in range(1, round((end - start) / 10))}
        assert end - start <= LINE_SECONDS or inside <= missing  # a line is never drawn over a gap
        assert not inside & missing or inside <= missing


@given(NUMBERS, st.sampled_from([HOUR, 6 * HOUR]))
def test_a_wide_window_keeps_the_extremes(values: list[float], age: int) -> None:
    bench = Bench(age)
    bench.play(values)
    bench.flush()
    sent, full = bench.curve(), bench.curve(bench.full)
    spread = max(values) - min(values)
    assert sent[-1][0] == full[-1][0]
    assert [time for time, _ in sent] == sorted({time for time, _ in sent})
    assert min(values) <= min(value for _, value in sent)
    assert max(value for _, value in sent) <= max(values)
    for time, value in full:
        near = [one for when, one in sent if abs(when - time) <= LINE_SECONDS]
        margin = TOLERANCE * spread + 0.001
        assert min(near) - margin <= value <= max(near) + margin
    wide = [time for time, _ in sent if time > 60]
    assert len(wide) <= 2 * len(full)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=60))
def test_a_total_is_off_by_a_margin(growth: list[int]) -> None:
    totals = [sum(growth[: count + 1]) for count in range(len(growth))]
    bench = Bench(7 * HOUR)
    bench.play(totals, Kind.COUNTER)
    bench.flush()
    sent = bench.curve()
    assert set(sent) <= set(bench.curve(bench.full))
    assert sent[-1][1] == totals[-1]
    assert [value for _, value in sent] == sorted(value for _, value in sent)


@example([1, 0, 0, 0, 0, 0, 0, 0, 0], HOUR)  # the fresh minute ends in the middle of a line
@given(st.lists(st.integers(0, 3), min_size=2, max_size=90), st.sampled_from([0, HOUR, 6 * HOUR]))
def test_a_curve_is_never_older_than_a_minute(values: list[int], age: int) -> None:
    bench = Bench(age)
    for value in values:
        bench.play([value])
        assert bench.seconds - 10 - bench.curve()[-1][0] < LINE_SECONDS


@given(
    st.lists(st.tuples(st.integers(0, 3) | st.none(), st.sampled_from("wfsj")), max_size=60), st.booleans()
)
def test_whatever_happens_no_point_is_sent_twice_and_the_end_is_there(
    steps: list[tuple[float | None, str]], is_old: bool
) -> None:
    bench = Bench(7 * HOUR if is_old else 0)
    happens: Mapping[str, Callable[[], None]] = {
        "w": lambda: None,
        "f": bench.flush,
        "s": lambda: setattr(bench, "seconds", bench.seconds + 500),
        "j": lambda: setattr(bench, "jumped", bench.jumped - 7_200_000),
    }
    for value, what in steps:
        bench.close(x=value, y=1)
        bench.seconds += 10
        happens[what]()
    bench.flush()
    assert max(Counter((one.key, one.timestamp) for one in bench.sent).values(), default=1) == 1
    assert [one.timestamp for one in bench.full if one.key == "x"][-1:] == [
        one.timestamp for one in bench.sent if one.key == "x"
    ][-1:]


def test_a_day_of_noise_and_lines_has_a_third_of_the_rows() -> None:
    rng = random.Random(1)
    bench = Bench()
    for _ in range(24 * 360):
        bench.close(noise=round(rng.gauss(50, 10), 3), flat=12, slow=round(bench.seconds / 1000, 3))
        bench.seconds += 10
    counts = Counter(point.key for point in bench.sent)
    assert counts["flat"] == 24 * 60
    assert counts["slow"] == 360 + 5 * 120 + 18 * 60
    assert counts["noise"] < 24 * 360 * 0.45
    assert max(value for _, value in bench.curve(key="noise")) == max(
        value for _, value in bench.curve(bench.full, "noise")
    )
