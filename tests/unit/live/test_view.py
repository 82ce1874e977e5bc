"""What keys do."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.live.board import Board
from mlflow_sysmetrics.live.terminal import _named
from mlflow_sysmetrics.live.view import SPANS, View


@pytest.fixture
def board() -> Board:
    board = Board("all")
    for run_id in ("a", "b", "c"):
        run = board.run(run_id)
        for node in ("node_0", "node_1"):
            for name in (
                "cpu_utilization_percentage",
                "gpu_0_utilization_percentage",
                "disk_busy_percentage",
            ):
                run.add(f"system/{node}/{name}", 1, 1.0)
    return board


def press(view: View, board: Board, *keys: str) -> View:
    for key in keys:
        view.press(key, board)
    return view


def test_q_leaves_and_a_question_mark_explains(board: Board) -> None:
    assert press(View(), board, "q").over
    assert press(View(), board, "?").help
    assert not press(View(), board, "?", "?").help


def test_a_run_is_chosen_and_left(board: Board) -> None:
    view = press(View(), board, "down", "j", "j", "j", "up", "enter")
    assert board.chosen == "b"
    press(view, board, "b")
    assert board.chosen is None


def test_a_single_run_has_no_list() -> None:
    board = Board("one")
    board.run("a")
    board.chosen = "a"
    press(View(), board, "b", "escape")
    assert board.chosen == "a"


def test_families_go_round(board: Board) -> None:
    board.chosen = "a"
    seen = []
    view = View()
    for _ in range(6):
        press(view, board, "f")
        seen.append(view.family)
    assert seen == ["gpu", "cpu", "disk", "all", "main", "gpu"]
    assert press(view, board, "F").family == "main"


def test_nodes_go_round(board: Board) -> None:
    board.chosen = "a"
    view = View()
    assert [press(view, board, "n").node for _ in range(4)] == ["node_0", "node_1", None, "node_0"]
    assert press(view, board, "N").node is None


def test_the_span_stays_within_what_there_is(board: Board) -> None:
    assert press(View(), board, *["-"] * 9).span == len(SPANS) - 1
    assert press(View(), board, *["+"] * 9).span == 0


def test_a_run_that_is_gone_meanwhile_does_no_harm(board: Board) -> None:
    board.chosen = "gone"
    assert press(View(), board, "f", "n", "down", "enter").offset == 1


def test_keys_of_an_empty_list_do_nothing() -> None:
    board = Board("none")
    assert press(View(), board, "down", "enter", "f", "n", "b").cursor == 0
    assert board.chosen is None


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B\x1bOA", ["up", "down", "up"]),
        (b"\x1b", ["escape"]),
        (b"\x1b[15~q", ["q"]),  # F5, which means nothing
        (b"\x1b[1;5Cq", ["q"]),
        (b"\x1b[200~pasted", list("pasted")),
        (b"\r\n\t ", ["enter", "enter", "tab", "space"]),
        (b"\xff\x00\xc3\xa9n", ["n"]),
    ],
)
def test_what_a_terminal_sends(typed: bytes, keys: list[str]) -> None:
    assert list(_named(typed)) == keys
