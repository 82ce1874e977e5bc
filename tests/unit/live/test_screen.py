"""The screen: as many lines as the terminal, each exactly as wide, whatever runs are called."""

from __future__ import annotations

import pytest

from made_runs import BEGAN, TAGS, Tick, busy, histories, starved
from mlflow_sysmetrics.live.board import Board, WatchedRun
from mlflow_sysmetrics.live.cells import Row, width
from mlflow_sysmetrics.live.screen import draw, plain
from mlflow_sysmetrics.live.view import MAIN, View, families_of, shown_series

NOW = BEGAN / 1000 + 1200
SIZES = ((80, 24), (40, 10), (200, 60), (20, 5), (10, 2))
HOSTILE = "\x1b[2J\u202e名前[red]" + "x" * 300


def board_of(*runs: WatchedRun, chosen: str | None = None) -> Board:
    board = Board("runs of this machine, from /home/ada/.local/state")
    board.runs = {run.run_id: run for run in runs}
    board.chosen = chosen
    return board


def made(
    run_id: str = "a" * 32, name: str = "ships", nodes: tuple[str, ...] = ("",), tick: Tick = busy
) -> WatchedRun:
    run = WatchedRun(run_id, name, "gpu-node-7", "RUNNING", BEGAN, tags=TAGS)
    for node in nodes:
        for key, points in histories(tick, 20, node).items():
            for at, value in points:
                run.add(key, at, value)
    return run


def text_of(rows: list[Row]) -> str:
    return plain(rows)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chosen", [None, "a" * 32])
@pytest.mark.parametrize("trouble", ["", "no answer from the server: Connection refused"])
def test_each_line_fills_the_terminal(size: tuple[int, int], chosen: str | None, trouble: str) -> None:
    board = board_of(made(name=HOSTILE, nodes=(HOSTILE, "node_1")), made("b" * 32), chosen=chosen)
    board.trouble, board.trouble_since = trouble, NOW - 5
    for view in (View(), View(family="all", offset=7), View(help=True), View(span=3)):
        rows = draw(board, view, size, NOW)
        assert len(rows) == max(size[1], 5)
        assert {sum(width(span.text) for span in row) for row in rows} == {max(size[0], 20)}
        assert all(span.text.isprintable() for row in rows for span in row)


def test_a_run_has_its_curves_by_family_and_gpu_and_its_verdict_on_top() -> None:
    run = made(tick=starved)
    run.judge()
    shown = text_of(draw(board_of(run, chosen=run.run_id), View(), (80, 24), NOW)).splitlines()
    assert shown[0].startswith("ships  RUNNING, 20 min, gpu-node-7")
    assert shown[1].startswith("gpu-starved: ")
    assert "GPU 0" in shown
    assert any(line.startswith(" utilization") and "█" in line and "%" in line for line in shown)
    assert shown.index("GPU 0") < shown.index("cpu") < shown.index("memory")


def test_the_verdict_of_the_run_itself_counts() -> None:
    run = made()
    run.tags = {**TAGS, "sys.verdict": "input-bound: GPUs waited \x1b[0m for data."}
    run.judge()
    shown = text_of(draw(board_of(run, chosen=run.run_id), View(), (80, 24), NOW)).splitlines()
    assert shown[1] == "input-bound: GPUs waited \\x1b[0m for data."


def test_a_run_without_a_verdict_says_so() -> None:
    run = WatchedRun("r", status="RUNNING", started_at=BEGAN)
    shown = text_of(draw(board_of(run, chosen="r"), View(), (80, 24), NOW))
    assert "no verdict" in shown
    assert "no system metrics yet" in shown


def test_a_silent_run_is_not_drawn_as_if_it_went_on() -> None:
    run = made()
    shown = text_of(draw(board_of(run, chosen=run.run_id), View(), (80, 24), NOW + 3600)).splitlines()
    assert "no point for 1 h 0 min" in shown[0]
    assert any("█" in line for line in shown)  # its last quarter of an hour


def test_trouble_is_shown_above_the_curves_with_its_age() -> None:
    board = board_of(made(), chosen="a" * 32)
    board.trouble, board.trouble_since = "no answer from the server: Connection refused", NOW - 65
    shown = text_of(draw(board, View(), (80, 24), NOW)).splitlines()
    assert "no answer from the server: Connection refused; trying again for 1 min 5 s" in shown


def test_the_list_has_a_line_per_run_with_its_newest_means() -> None:
    board = board_of(made(nodes=("node_0", "node_1")), made("b" * 32, name=""))
    shown = text_of(draw(board, View(cursor=1), (100, 24), NOW)).splitlines()
    assert shown[1].split() == ["RUN", "STATUS", "FOR", "CPU", "GPU", "MEM", "VERDICT"]
    assert shown[2].startswith("  ships ")
    assert "40 %  9" in shown[2]  # CPU, then a GPU at 90 odd
    assert shown[3].startswith(f"> {'b' * 29}~ RUNNING  20 min ")


def test_the_line_under_the_cursor_is_visible_in_a_long_list() -> None:
    board = board_of(*(WatchedRun(f"run {number}") for number in range(100)))
    view = View(cursor=70)
    assert "> run 70" in text_of(draw(board, view, (80, 24), NOW))


def test_nodes_are_in_their_natural_order() -> None:
    run = made(nodes=("node_10", "node_2", "node_1"))
    order = list(dict.fromkeys(one.node for one in shown_series(run, View())))
    assert order == ["node_1", "node_2", "node_10"]


def test_ten_gpus_are_in_order_of_their_numbers() -> None:
    run = WatchedRun("r")
    for number in range(12):
        run.add(f"system/gpu_{number}_utilization_percentage", 1, 1.0)
    assert [one.device for one in shown_series(run, View())] == [str(number) for number in range(12)]


def test_what_others_log_under_system_has_a_family_of_its_own() -> None:
    run = made()
    run.add("system/tape_robot_arms", BEGAN, 3.0)
    assert families_of(run)[0] == MAIN
    assert families_of(run)[-2:] == ["other", "all"]
    assert "tape robot arms" in text_of(
        draw(board_of(run, chosen=run.run_id), View(family="other"), (80, 24), NOW)
    )


def test_megabytes_become_gigabytes_with_their_maximum() -> None:
    run = made()
    shown = text_of(draw(board_of(run, chosen=run.run_id), View(family="gpu"), (80, 24), NOW))
    assert "50 GB     max 50" in shown


def test_ascii_is_enough() -> None:
    run = made()
    assert text_of(
        draw(board_of(run, chosen=run.run_id), View(family="all"), (80, 40), NOW, ascii_only=True)
    ).isascii()
