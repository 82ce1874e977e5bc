"""What a process has measured, cut where its runs begin and end, so that all runs share one history.

Each tick is added once, to the newest segment, however many runs are active. A mark stands at the beginning
of a segment; what happened since a mark is the sum of the segments from there on. A run has marks where it
began, where its warm-up was over and a few minutes ago. Segments without a mark are merged, so there are
hardly more of them than marks.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlflow_sysmetrics.samples import Sample
from mlflow_sysmetrics.summary.run_statistics import RunStatistics
from mlflow_sysmetrics.summary.summary import Summary, Surroundings

# Getting to the statistics would take most of the time of adding a single tick.
_MOST_PENDING = 64
# Of some 30 kB each. Beyond it, marks that are near each other become one.
_MOST_SEGMENTS = 256


class Mark:
    """A moment in the history; None as segment once it was removed."""

    __slots__ = ("segment",)

    def __init__(self, segment: _Segment) -> None:
        self.segment: _Segment | None = segment


class _Segment:
    """Statistics between two cuts.

    Attributes:
        statistics: of its ticks.
        marks: those at its beginning.
    """

    __slots__ = ("marks", "statistics")

    def __init__(self, statistics: RunStatistics) -> None:
        self.statistics = statistics
        self.marks: list[Mark] = []


class TickHistory:
    """The ticks of a process while runs are active. Used by the sampler only.

    Attributes:
        seconds: time that was added; the clock of the summaries.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._runs = 0
        self._segments: list[_Segment] = []
        self._pending: list[tuple[Sequence[Sample], float]] = []
        self._last: Sequence[Sample] = ()
        # What happened since each segment: of many runs that are refreshed in one tick.
        self._sums: dict[_Segment, RunStatistics] = {}
        self._summaries: dict[tuple[_Segment | None, str], Summary] = {}

    def add(self, samples: Sequence[Sample], seconds: float) -> None:
        """Adds one tick.

        Args:
            samples: its samples, which must not change any more.
            seconds: time since the tick before.
        """
        if not self._segments:
            self._last = samples  # from which totals count if a run begins with this tick
            return
        self.seconds += seconds
        self._forget_sums()
        self._pending.append((samples, seconds))
        if len(self._pending) >= _MOST_PENDING:
            self._add_up()

    def begin(self) -> Mark:
        """Begins a run with the tick that was added last, and returns a mark there."""
        self._runs += 1
        return self._cut()

    def end(self, marks: Sequence[Mark]) -> None:
        """Ends a run and removes its marks."""
        self._runs -= 1
        for mark in marks:
            self.remove(mark)
        if self._runs:
            self._cut_off()
        else:
            self._segments, self._pending = [], []
            self._forget_sums()

    def mark(self) -> Mark:
        """Returns a mark at the tick that was added last."""
        return self._cut()

    def remove(self, mark: Mark) -> None:
        """Removes a mark. Safe to call again."""
        segment, mark.segment = mark.segment, None
        if segment is None:
            return
        segment.marks.remove(mark)
        self._merge_if_unmarked(segment)

    def since(self, mark: Mark) -> RunStatistics:
        """Returns what happened since a mark, to be read until the next tick."""
        self._add_up()
        wanted, following = mark.segment, None
        for segment in reversed(self._segments) if wanted is not None else ():
            found = self._sums.get(segment)
            if found is None:
                found = self._sums[segment] = RunStatistics()
                found.merge(segment.statistics)
                if following is not None:
                    found.merge(following)
            if segment is wanted:
                return found
            following = found
        return RunStatistics()

    def summary(self, mark: Mark, node: str, surroundings: Surroundings) -> Summary:
        """Returns the summary of what happened since a mark.

        Args:
            mark: the mark.
            node: id of the node; "" for a run without one.
            surroundings: how the program is run; the same for all its runs.
        """
        key = mark.segment, node
        found = self._summaries.get(key)
        if found is None:
            found = self._summaries[key] = self.since(mark).summary(node, surroundings)
        return found

    def _forget_sums(self) -> None:
        if self._sums or self._summaries:
            self._sums.clear()
            self._summaries.clear()

    def _add_up(self) -> None:
        pending, self._pending = self._pending, []
        if pending:
            self._segments[-1].statistics.add_ticks(pending)

    def _cut(self) -> Mark:
        """Returns a mark at the beginning of the newest segment, which is a new one unless that is empty."""
        newest = self._cut_off()
        mark = Mark(newest)
        newest.marks.append(mark)
        if len(self._segments) > _MOST_SEGMENTS:
            self._join_shortest()
        return mark

    def _cut_off(self) -> _Segment:
        share = 1 / self._runs
        if not self._segments:
            first = RunStatistics(share)
            first.count_from(self._last)
            self._last = ()
            self._segments.append(_Segment(first))
            return self._segments[0]
        self._add_up()
        newest = self._segments[-1]
        if newest.statistics.seconds:
            following = newest.statistics.continued()
            self._segments.append(_Segment(following))
            self._merge_if_unmarked(newest)
            newest = self._segments[-1]
        newest.statistics.share = share
        return newest

    def _merge_if_unmarked(self, segment: _Segment) -> None:
        """Merges a segment into the one before it, or forgets it if it is the first. Not the newest one."""
        if segment.marks or segment is self._segments[-1]:
            return
        place = self._segments.index(segment)
        if place:
            self._segments[place - 1].statistics.merge(segment.statistics)
        del self._segments[place]
        if not place:  # what follows may have lost its last mark before
            self._merge_if_unmarked(self._segments[0])

    def _join_shortest(self) -> None:
        """Joins the two neighbours that are shortest together; the marks between them move on to the next."""
        lengths = [segment.statistics.seconds for segment in self._segments]
        place = min(range(1, len(lengths) - 1), key=lambda one: lengths[one - 1] + lengths[one])
        segment, following = self._segments[place], self._segments[place + 1]
        for mark in segment.marks:
            mark.segment = following
        following.marks += segment.marks
        segment.marks = []
        self._merge_if_unmarked(segment)
