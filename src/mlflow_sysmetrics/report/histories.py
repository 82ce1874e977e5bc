"""From the points of a run to its summary and its curves.

The points of a run are not evenly spaced (docs/explanation/scaling.md), so a value counts for the time since
the point before. Where points are far apart nothing was measured, and the value counts for one usual
distance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter
from statistics import median

from mlflow_sysmetrics.report.measured_runs import Point, split_key
from mlflow_sysmetrics.summary.rules import WARM_UP_SECONDS, WARM_UP_SHARE, Verdict, verdicts_of_nodes
from mlflow_sysmetrics.summary.run_statistics import RunStatistics, is_summarised
from mlflow_sysmetrics.summary.summary import Summary, Surroundings, figures_of_nodes

#: Points further apart have a gap between them, unless all points of the series are.
GAP_SECONDS = 75.0
_USUAL_DISTANCES = 3
_FIRST_SECONDS = 1.0  # what the first point of a series counts: it is one reading
_ENDS, _BEGINS = 0, 1
_MILLISECONDS = 1000


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """What one node did: in the whole run, and without its beginning (None if that is all there is)."""

    whole: Summary
    settled: Summary | None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What all nodes of a run did.

    Attributes:
        nodes: each of them.
        figures: numbers of the run, by their names in `summary.FIGURES`.
        verdicts: what the rules find; empty if they cannot say.
    """

    nodes: tuple[NodeSummary, ...]
    figures: Mapping[str, float]
    verdicts: tuple[Verdict, ...]


def summarise(histories: Mapping[str, Sequence[Point]], tags: Mapping[str, str]) -> RunSummary:
    """Returns the summary of a run.

    Args:
        histories: points of each system metric by its whole key, oldest first.
        tags: of the run.
    """
    by_node: dict[str, dict[str, Sequence[Point]]] = {}
    for key, points in histories.items():
        node, name = split_key(key)
        if points and is_summarised(name):
            by_node.setdefault(node, {})[name] = points
    around = Surroundings.of_tags(tags)
    nodes = tuple(_node(name, series, around) for name, series in sorted(by_node.items()))
    found = verdicts_of_nodes([(one.whole, one.settled) for one in nodes])
    return RunSummary(nodes, figures_of_nodes([one.whole.figures() for one in nodes]), found)


def _node(name: str, series: Mapping[str, Sequence[Point]], around: Surroundings) -> NodeSummary:
    begins = min(points[0][0] for points in series.values())
    ends = max(points[-1][0] for points in series.values())
    warm_up = max(WARM_UP_SECONDS, WARM_UP_SHARE * (ends - begins) / _MILLISECONDS)
    settles = begins + warm_up * _MILLISECONDS
    whole = part = RunStatistics()
    settled: RunStatistics | None = None
    for began, ended, values in _ticks(series):
        if settled is None and began >= settles:
            part = settled = whole.continued()
        part.add(values, (ended - began) / _MILLISECONDS)
    if settled is None:
        return NodeSummary(whole.summary(name, around), None)
    rest = settled.summary(name, around)
    whole.merge(settled)
    return NodeSummary(whole.summary(name, around), rest)


def _ticks(series: Mapping[str, Sequence[Point]]) -> Iterator[tuple[float, float, Mapping[str, float]]]:
    """Yields spans of time in which no series changes: begin, end, and the values in it."""
    changes: list[tuple[float, int, str, float]] = []
    for key, points in series.items():
        for began, ended, value in _spans(points):
            changes.extend(((began, _BEGINS, key, value), (ended, _ENDS, key, value)))
    changes.sort(key=itemgetter(0, 1))
    current: dict[str, float] = {}
    last: float | None = None
    for at, together in groupby(changes, key=itemgetter(0)):
        if last is not None and current:
            yield last, at, current
        for _, what, key, value in together:
            if what == _BEGINS:
                current[key] = value
            else:
                del current[key]
        last = at


def _spans(points: Sequence[Point]) -> Iterator[tuple[float, float, float]]:
    """Yields for which time each value of a series counts, in milliseconds since 1970."""
    distances = [later[0] - earlier[0] for earlier, later in pairwise(points) if later[0] > earlier[0]]
    usual = median(distances) if distances else _FIRST_SECONDS * _MILLISECONDS
    gap = max(GAP_SECONDS * _MILLISECONDS, _USUAL_DISTANCES * usual)
    last = float(points[0][0]) - _FIRST_SECONDS * _MILLISECONDS
    for at, value in points:
        if at <= last:
            continue  # two points at one moment, as of a run that was resumed within it
        yield (last if at - last <= gap else at - usual), at, value
        last = at


def thinned(points: Sequence[Point], begin: float, end: float, buckets: int) -> list[Point]:
    """Returns at most two points per bucket of time, the lowest and the highest value in it.

    Args:
        points: oldest first.
        begin: of the first bucket, in milliseconds since 1970.
        end: of the last one.
        buckets: how many there are.
    """
    if len(points) <= 2 * buckets:
        return list(points)
    width = max((end - begin) / buckets, 1)
    found: list[Point] = []
    for _, together in groupby(points, key=lambda point: int((point[0] - begin) / width)):
        some = list(together)
        low, high = min(some, key=itemgetter(1)), max(some, key=itemgetter(1))
        found.extend(sorted({low, high}))
    return found
