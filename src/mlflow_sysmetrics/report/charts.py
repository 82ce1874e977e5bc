"""Curves of system metrics on one axis of time, as paths of an SVG that a template draws.

A path is stretched to the width of the page, so it has no text: labels are HTML and keep their size on a
phone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from mlflow_sysmetrics.report.histories import GAP_SECONDS, thinned
from mlflow_sysmetrics.report.measured_runs import Point, split_key
from mlflow_sysmetrics.summary.amounts import duration, number

WIDTH, HEIGHT = 1000, 100  # of a drawing, in its own units
_MOST_POINTS = 26_000  # of a page: some ten bytes each, so that a page stays below 500 kB
_MOST_BUCKETS, _FEWEST_BUCKETS = 500, 40
_MOST_LINES = 64  # of a panel; a legend of more cannot be read
_MOST_MARKS = 200  # of epochs; more would hide the curves
_COLORS = 6
_MILLISECONDS = 1000
_USUAL_DISTANCES = 3
_PERCENT = "%"
_SMALLEST = 1e-6  # upper end of an axis

#: Title, unit and names of the series of each panel, from what matters most.
PANELS = (
    ("GPU utilization", _PERCENT, r"gpu_\d+_utilization_percentage"),
    ("GPU memory", _PERCENT, r"gpu_\d+_memory_usage_percentage"),
    ("GPU power", "W", r"gpu_\d+_power_usage_watts"),
    ("GPU throttled", _PERCENT, r"gpu_\d+_throttled_percentage"),
    ("GPU temperature", "°C", r"gpu_\d+_temperature_celsius"),
    ("GPU faults", "", r"gpu_\d+_(?:ecc_errors|xid_errors|remapped_rows)"),
    ("CPU", _PERCENT, r"cpu_utilization_percentage|cpu_throttled_percentage|host_cpu_utilization_percentage"),
    ("Waiting", _PERCENT, r"(?:cpu|memory|io)_pressure_percentage"),
    ("Memory", _PERCENT, r"(?:system|host)_memory_usage_percentage"),
    ("Memory of the job", "MB", r"process_memory_(?:rss|uss)_megabytes"),
    ("Processes killed for memory", "", r"memory_oom_kills"),
    ("Disk", "MB/s", r"disk_(?:read|write)_megabytes_per_second"),
    ("Network", "MB/s", r"(?:network|infiniband)_(?:receive|transmit)_megabytes_per_second"),
    ("CPU power", "W", r"cpu_power_watts"),
    ("Threads", "", r"process_threads"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One curve.

    Attributes:
        label: what it is.
        path: the ``d`` of an SVG path.
        color: number of its colour.
        dashed: whether its colour is used for the second time.
        mean: of its points.
        high: its highest value.
    """

    label: str
    path: str
    color: int
    dashed: bool
    mean: str
    high: str


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves with one unit.

    Attributes:
        title: what they show.
        unit: of the values; "" for a count.
        top: the value at the upper edge.
        lines: the curves.
        omitted: how many there are besides.
        evidence: verdicts that are about them.
    """

    title: str
    unit: str
    top: str
    lines: tuple[Line, ...]
    omitted: int
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Charts:
    """All panels.

    Attributes:
        panels: from top to bottom.
        times: labels of the axis, evenly spaced from its beginning to its end.
        warm_up: share of the axis that verdicts leave out, in units of `WIDTH`.
        marks: ends of epochs on the axis, in units of `WIDTH`.
        epochs: how many epochs there were.
    """

    panels: tuple[Panel, ...]
    times: tuple[str, ...]
    warm_up: float
    marks: tuple[float, ...] = ()
    epochs: int = 0


@dataclass(frozen=True, slots=True)
class Curves:
    """The series of one run, as `draw` takes them.

    Attributes:
        name: of the run; "" if it is the only one.
        began: milliseconds since 1970 at the left edge.
        histories: points by key.
        epochs: ends of epochs, in milliseconds since 1970.
    """

    name: str
    began: int
    histories: Mapping[str, Sequence[Point]]
    epochs: Sequence[int] = ()


def draw(runs: Sequence[Curves], evidence: Mapping[str, Sequence[str]], warm_up: float) -> Charts:
    """Returns the panels of one run, or of several from their begin on.

    Args:
        runs: their series.
        evidence: verdict -> regular expressions of the series that it is about.
        warm_up: seconds that verdicts leave out.
    """
    end = max((p[-1][0] - run.began for run in runs for p in run.histories.values() if p), default=0)
    count = sum(len(run.histories) for run in runs)
    buckets = min(max(_MOST_POINTS // (2 * max(count, 1)), _FEWEST_BUCKETS), _MOST_BUCKETS)
    panels = []
    for title, unit, names in PANELS:
        found = [
            (index, run, key) for index, run in enumerate(runs) for key in matching(run.histories, names)
        ]
        if any(value for _, run, key in found for _, value in run.histories[key]):
            about = tuple(
                verdict
                for verdict, series in evidence.items()
                if is_about(series, [key for *_, key in found])
            )
            panels.append(_panel((title, unit), found, end, buckets, about, is_one=len(runs) == 1))
    quarters = (end / _MILLISECONDS * part / 4 for part in range(5))
    share = warm_up * _MILLISECONDS / end * WIDTH if end else 0
    # Of several runs no epochs are drawn: one could not be told from another.
    epochs = [at - runs[0].began for at in runs[0].epochs if 0 <= at - runs[0].began <= end]
    shown = epochs if len(runs) == 1 and len(epochs) <= _MOST_MARKS else []
    marks = tuple(at / end * WIDTH for at in shown) if end else ()
    return Charts(tuple(panels), tuple(map(duration, quarters)), min(share, WIDTH), marks, len(epochs))


def matching(histories: Mapping[str, Sequence[Point]], names: str) -> Iterator[str]:
    """Yields the keys of the series of a panel, GPU 10 after GPU 9."""
    pattern = re.compile(names)
    keys = (key for key, points in histories.items() if points and pattern.fullmatch(split_key(key)[1]))
    yield from sorted(keys, key=lambda key: [int(part) if part.isdigit() else part for part in _parts(key)])


def _parts(key: str) -> list[str]:
    """Returns a key cut into words and numbers, which take turns, so that GPU 10 comes after GPU 9."""
    return re.split(r"(\d+)", key)


def is_about(series: Sequence[str], keys: Sequence[str]) -> bool:
    """Returns whether a verdict is about one of some keys."""
    return any(re.fullmatch(one, split_key(key)[1]) for one in series for key in keys)


def _panel(
    about: tuple[str, str],
    found: Sequence[tuple[int, Curves, str]],
    end: int,
    buckets: int,
    evidence: tuple[str, ...],
    *,
    is_one: bool,
) -> Panel:
    title, unit = about
    high = max(value for _, run, key in found for _, value in run.histories[key])
    top = 100.0 if unit == _PERCENT and high <= 100 else _round_up(high)  # noqa: PLR2004 - percent
    lines = []
    for number_, (index, run, key) in enumerate(found[:_MOST_LINES]):
        points = run.histories[key]
        color = number_ if is_one else index
        values = [value for _, value in points]
        lines.append(
            Line(
                label=" ".join(filter(None, (run.name, label(key)))),
                path=_path(points, run.began, end, top, buckets),
                color=color % _COLORS,
                dashed=bool(color // _COLORS % 2),
                mean=number(_mean_over_time(points) if len(values) > 1 else values[0]),
                high=number(max(values)),
            )
        )
    return Panel(title, unit, number(top), tuple(lines), max(len(found) - _MOST_LINES, 0), evidence)


def label(key: str) -> str:
    """Returns what a curve is called in its panel: "node 0 GPU 3", "io pressure"."""
    node, name = split_key(key)
    gpu = re.match(r"gpu_(\d+)_", name)
    words = re.sub(r"_(percentage|megabytes(_per_second)?|watts|celsius)$", "", name).replace("_", " ")
    what = f"GPU {gpu[1]}" if gpu and "errors" not in name and "rows" not in name else words
    return f"{node}: {what}" if node else what


def _mean_over_time(points: Sequence[Point]) -> float:
    spans = [(later[0] - earlier[0], later[1]) for earlier, later in pairwise(points)]
    total = sum(span for span, _ in spans)
    return sum(span * value for span, value in spans) / total if total else points[-1][1]


def _round_up(value: float) -> float:
    """Returns the next of 1, 2, 5, 10, ... above a value."""
    if value < _SMALLEST:
        return 1.0
    power = 1.0
    while power * 10 < value:
        power *= 10
    while power > value:
        power /= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * 0.999999)


def longest_step(points: Sequence[Point], length: float, buckets: int) -> float:
    """Returns how far points of a thinned curve may be apart without a gap, in milliseconds.

    Args:
        points: all of them.
        length: of the axis, in milliseconds.
        buckets: that the points are thinned to.
    """
    distances = [later[0] - earlier[0] for earlier, later in pairwise(points)]
    usual = median(distances) if distances else 0
    return max(GAP_SECONDS * _MILLISECONDS, _USUAL_DISTANCES * usual, _USUAL_DISTANCES * length / buckets)


def _path(points: Sequence[Point], began: int, end: int, top: float, buckets: int) -> str:
    """Returns the path of a curve, which is broken where nothing was measured."""
    shown = thinned(points, began, began + end, buckets)
    gap = longest_step(points, end, buckets)
    parts, last = [], None
    for at, value in shown:
        x = (at - began) / end * WIDTH if end else 0
        y = HEIGHT - min(max(value / top, 0), 1) * HEIGHT
        begins = last is None or at - last > gap
        parts.append(f"{'M' if begins else 'L'}{x:.0f} {y:.1f}")
        last = at
    if len(shown) == 1:
        parts.append("h1")  # a point alone would not be seen
    return "".join(parts)
