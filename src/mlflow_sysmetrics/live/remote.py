"""The runs of a tracking server: at most one request a second, whatever is watched."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from mlflow_sysmetrics.live.board import Board, WatchedRun
from mlflow_sysmetrics.live.requests import Found
from mlflow_sysmetrics.live.view import is_main
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.report.measured_runs import split_key
from mlflow_sysmetrics.runtime.backoff import doubled

PACE_SECONDS = 1.0  # between two requests
_RUN_SECONDS = 3.0  # between two looks at the chosen run, whose points come every ten seconds
_LIST_SECONDS = 10.0
_OVER_SECONDS = 60.0  # a run that has ended may still get points, of a sync
_JUDGE_SECONDS = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 15.0  # while the server is away
MOST_LISTED = 50
_MOST_FILLED = 5  # runs that keep their history
_ALL_OVER = frozenset({"FINISHED", "FAILED", "KILLED"})
_DOWN, _REFUSES = "no answer from the server", "the server refuses"
_FIRST = ("gpu", "cpu", "memory", "process")  # the history of these is read first


class Answers(Protocol):
    """What is asked of a server; see `requests.Requests`."""

    def run(self, run_id: str) -> Found:
        """Returns a run."""

    def newest(self, experiment_ids: Sequence[str], most: int) -> list[Found]:
        """Returns the newest runs of experiments."""

    def history(self, run_id: str, key: str, since: int) -> list[tuple[int, float]]:
        """Returns points of a series."""


class RemoteRuns:
    """Reads runs of a server into a board.

    Args:
        answers: the server.
        run_id: the run to watch; None for those of experiments.
        experiment_ids: these.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        answers: Answers,
        run_id: str | None,
        experiment_ids: Sequence[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answers = answers
        self._run_id = run_id
        self._experiments = experiment_ids
        self._clock = clock
        self._due: dict[str, float] = {}
        self._failures = 0
        self._judged_at = -_JUDGE_SECONDS

    def begin(self, board: Board) -> None:
        """Makes the first request.

        Raises:
            Fault: the server does not answer, or does not have the run.
        """
        self._look(board)

    def is_filled(self, board: Board) -> bool:
        """Returns whether the history of the main series of the chosen run was read."""
        with board.lock:
            run = board.runs.get(board.chosen or "")
            return run is None or {key for key in run.series if is_main(key)} <= run.filled

    def step(self, board: Board) -> float:
        """Makes the request that is due, if one is; returns in how many seconds to come again."""
        try:
            asked = self._look(board)
        except Fault as fault:
            pause = doubled(self._failures, first_seconds=_FIRST_PAUSE, longest_seconds=_LONGEST_PAUSE)
            self._failures += 1
            with board.lock:
                board.report(f"{_DOWN if fault.cause is Cause.DOWN else _REFUSES}: {fault}")
            return pause
        if asked:
            self._failures = 0
            with board.lock:
                board.report("")
        self._judge(board)
        return PACE_SECONDS

    def _look(self, board: Board) -> bool:
        """Makes at most one request; returns whether it made one."""
        now = self._clock()
        if self._run_id is None and self._is_due("", now):
            self._list(board)
            self._due[""] = now + _LIST_SECONDS
            return True
        with board.lock:
            chosen = self._run_id or board.chosen
            run = board.runs.get(chosen or "")
        if chosen is None:
            return False
        if self._is_due(chosen, now):
            found = self._answers.run(chosen)
            with board.lock:
                run = _noted(board, found)
            over = run.status in _ALL_OVER
            self._due[chosen] = now + (_OVER_SECONDS if over else _RUN_SECONDS)
            return True
        return run is not None and self._fill(board, run)

    def _is_due(self, what: str, now: float) -> bool:
        return now >= self._due.get(what, now)

    def _list(self, board: Board) -> None:
        found = self._answers.newest(self._experiments, MOST_LISTED)
        with board.lock:
            for one in found:
                _noted(board, one)
            ids = [one.run_id for one in found]
            kept = [*ids, *(one for one in board.runs if one == board.chosen and one not in ids)]
            board.runs = {one: board.runs[one] for one in kept}
            self._due = {key: at for key, at in self._due.items() if not key or key in board.runs}

    def _fill(self, board: Board, run: WatchedRun) -> bool:
        """Reads the history of the next series of a run."""
        with board.lock:
            missing = [key for key in run.series if key not in run.filled]
            self._release(board, run)
        if not missing:
            return False
        key = min(missing, key=_rank)
        run.filled.add(key)  # first: a series that cannot be read must not be asked for again and again
        try:
            points = self._answers.history(run.run_id, key, run.started_at or 0)
        except Fault as fault:
            if fault.cause is Cause.DOWN:
                run.filled.discard(key)
            raise
        with board.lock:
            run.series[key].fill(points)
            board.changes += 1
        return True

    @staticmethod
    def _release(board: Board, run: WatchedRun) -> None:
        """Drops the histories of all but a few runs; their newest points stay for the list."""
        others = [one for one in board.runs.values() if one.filled and one is not run]
        for one in others[: max(len(others) - _MOST_FILLED + 1, 0)]:
            one.filled.clear()
            for series in one.series.values():
                del series.points[:-1]

    def _judge(self, board: Board) -> None:
        now = self._clock()
        with board.lock:
            run = board.runs.get(board.chosen or "")
            if run is not None and now - self._judged_at >= _JUDGE_SECONDS:
                self._judged_at = now
                run.judge()


def _rank(key: str) -> tuple[bool, int, str]:
    name = split_key(key)[1]
    place = next((place for place, word in enumerate(_FIRST) if name.startswith(word)), len(_FIRST))
    return not is_main(key), place, key


def _noted(board: Board, found: Found) -> WatchedRun:
    run = board.run(found.run_id)
    run.name, run.status, run.tags = found.name, found.status, found.tags
    run.started_at, run.ended_at = found.started_at, found.ended_at
    run.owner = found.tags.get("sys.hostname", "")
    for key, (at, value) in found.points.items():
        run.add(key, at, value)
    board.changes += 1
    return run
