"""Runs of a server: one request at a step, the chosen run first, and what happens while it is away."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mlflow_sysmetrics.live.board import Board, WatchedRun
from mlflow_sysmetrics.live.remote import MOST_LISTED, PACE_SECONDS, RemoteRuns
from mlflow_sysmetrics.live.requests import Found
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault

GPU, CPU, DISK = (
    f"system/{name}_percentage" for name in ("gpu_0_utilization", "cpu_utilization", "disk_usage")
)


class Answers:
    """A server in memory, with a clock that each step moves."""

    def __init__(self, *run_ids: str) -> None:
        self.run_ids = list(run_ids)
        self.asked: list[str] = []
        self.down: Fault | None = None
        self.status = "RUNNING"
        self.now = 1000.0

    def run(self, run_id: str) -> Found:
        self._ask(f"run {run_id}")
        at = int(self.now * 1000)
        points = dict.fromkeys((CPU, DISK, GPU), (at, self.now)) | {"loss": (at, 1.0)}
        ended = at if self.status == "FINISHED" else None
        return Found(run_id, f"name of {run_id}", self.status, 0, ended, {"sys.hostname": "node"}, points)

    def newest(self, experiment_ids: Sequence[str], most: int) -> list[Found]:
        self._ask("list")
        assert most == MOST_LISTED
        return [Found(one, one, "RUNNING", 0, None, {}, {}) for one in self.run_ids]

    def history(self, run_id: str, key: str, since: int) -> list[tuple[int, float]]:
        self._ask(f"history {key}")
        return [(at * 1000, 1.0) for at in range(5)]

    def _ask(self, what: str) -> None:
        if self.down is not None:
            raise self.down
        self.asked.append(what)


def steps(source: RemoteRuns, board: Board, answers: Answers, count: int) -> list[float]:
    pauses = []
    for _ in range(count):
        before = len(answers.asked)
        pauses.append(source.step(board))
        assert len(answers.asked) <= before + 1
        assert pauses[-1] >= PACE_SECONDS
        answers.now += pauses[-1]
    return pauses


def watched(answers: Answers, run_id: str | None = None) -> tuple[RemoteRuns, Board]:
    board = Board("there")
    source = RemoteRuns(answers, run_id, ["0"], clock=lambda: answers.now)
    source.begin(board)
    board.chosen = run_id
    return source, board


def test_a_run_is_asked_for_and_its_histories_in_between_the_main_ones_first() -> None:
    answers = Answers()
    source, board = watched(answers, "a")
    answers.now += 1
    steps(source, board, answers, 4)
    assert answers.asked == ["run a", f"history {GPU}", f"history {CPU}", "run a", f"history {DISK}"]
    run = board.runs["a"]
    assert [at for at, _ in run.series[GPU].points][:5] == [0, 1000, 2000, 3000, 4000]
    assert set(run.series) == {CPU, DISK, GPU}


def test_after_that_one_request_in_three_seconds() -> None:
    answers = Answers()
    source, board = watched(answers, "a")
    steps(source, board, answers, 63)
    assert answers.asked.count("run a") == pytest.approx(22, abs=2)
    assert source.is_filled(board)


def test_a_run_that_has_ended_is_asked_for_once_a_minute() -> None:
    answers = Answers()
    answers.status = "FINISHED"
    source, board = watched(answers, "a")
    steps(source, board, answers, 121)
    assert answers.asked.count("run a") == 3


def test_an_experiment_is_listed_and_the_chosen_run_is_followed() -> None:
    answers = Answers("a", "b")
    source, board = watched(answers)
    steps(source, board, answers, 5)
    assert answers.asked == ["list"]
    assert list(board.runs) == ["a", "b"]
    board.chosen = "b"
    steps(source, board, answers, 1)
    assert answers.asked[-1] == "run b"


def test_a_run_that_left_the_list_goes_unless_it_is_chosen() -> None:
    answers = Answers("a", "b")
    source, board = watched(answers)
    board.chosen = "a"
    answers.run_ids = ["c"]
    steps(source, board, answers, 20)
    assert list(board.runs) == ["c", "a"]


def test_a_server_that_is_away_is_asked_less_and_less_and_goes_on_when_it_is_back() -> None:
    answers = Answers()
    source, board = watched(answers, "a")
    steps(source, board, answers, 10)
    kept = len(board.runs["a"].series[GPU].points)
    answers.down = Fault("Connection refused", Cause.DOWN)
    pauses = steps(source, board, answers, 8)
    assert pauses[-1] == 15
    assert board.trouble == "no answer from the server: Connection refused"
    answers.down = None
    steps(source, board, answers, 4)
    assert board.trouble == ""
    assert len(board.runs["a"].series[GPU].points) > kept


def test_a_history_that_was_not_answered_is_asked_for_again() -> None:
    answers = Answers()
    source, board = watched(answers, "a")
    answers.now += 1
    answers.down = Fault("timed out", Cause.DOWN)
    steps(source, board, answers, 1)
    answers.down = None
    steps(source, board, answers, 5)
    assert answers.asked.count(f"history {GPU}") == 1


def test_a_history_that_is_refused_is_not_asked_for_again() -> None:
    answers = Answers()
    source, board = watched(answers, "a")
    answers.now += 1
    answers.down = Fault("no such call", Cause.FAILED)
    steps(source, board, answers, 1)
    answers.down = None
    steps(source, board, answers, 12)
    assert f"history {GPU}" not in answers.asked


def test_the_first_request_says_what_is_wrong() -> None:
    answers = Answers()
    answers.down = Fault("no such run", Cause.MISSING)
    with pytest.raises(Fault, match="no such run"):
        watched(answers, "a")


def test_only_a_few_runs_keep_their_histories() -> None:
    answers = Answers(*"abcdefgh")
    source, board = watched(answers)
    for chosen in "abcdefgh":
        board.chosen = chosen
        steps(source, board, answers, 8)
    assert sum(bool(run.filled) for run in board.runs.values()) <= 6
    assert len(board.runs["a"].series[GPU].points) == 1  # for the list


def test_an_hour_of_a_run_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WatchedRun, "judge", lambda _: None)  # at each tenth step, which takes seconds
    answers = Answers()
    source, board = watched(answers, "a")
    steps(source, board, answers, 3600)
    assert {len(one.points) <= 600 for one in board.runs["a"].series.values()} == {True}
    assert set(source._due) == {"a"}
