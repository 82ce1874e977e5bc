"""Reads in one thread and draws in the other, so that keys answer while a server does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from mlflow_sysmetrics.live.board import Board
from mlflow_sysmetrics.live.screen import draw
from mlflow_sysmetrics.live.terminal import Terminal
from mlflow_sysmetrics.live.view import View
from mlflow_sysmetrics.runtime.native import Event
from mlflow_sysmetrics.runtime.threads import start_thread

_KEY_SECONDS = 0.25  # a resized terminal is drawn again within this time
_DRAW_SECONDS = 1.0  # ages on the screen grow


class Source(Protocol):
    """Where runs are read from."""

    def step(self, board: Board) -> float:
        """Reads into the board; returns in how many seconds to come again."""


class Reader:
    """Calls a source again and again, in a thread.

    Args:
        source: the source.
        board: what it fills.
    """

    def __init__(self, source: Source, board: Board) -> None:
        self._source = source
        self._board = board
        self._over = Event()

    def start(self) -> None:
        """Starts the thread, which ends with the process at the latest."""
        start_thread(self._run, "sysmetrics-watch")

    def stop(self) -> None:
        """Lets the thread end; does not wait for a request under way."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                pause = self._source.step(self._board)
            except Exception as error:  # noqa: BLE001 - of MLflow or a plugin; shown, and tried again
                pause = 5.0
                with self._board.lock:
                    self._board.report(f"{type(error).__name__}: {error}")
            self._over.wait(pause)


def watch(
    board: Board,
    source: Source,
    terminal: Terminal,
    *,
    ascii_only: bool = False,
    clock: Callable[[], float] = time.time,
) -> None:
    """Shows a board until a key ends it.

    Args:
        board: what is shown.
        source: what fills it.
        terminal: where.
        ascii_only: draws curves in ASCII.
        clock: seconds since 1970.
    """
    view, reader = View(), Reader(source, board)
    with terminal.taken():
        reader.start()
        drawn: tuple[object, ...] = ()
        try:
            while not view.over:
                size = terminal.size
                state = size, board.changes, int(clock() / _DRAW_SECONDS)
                if state != drawn:
                    drawn = state
                    with board.lock:
                        rows = draw(board, view, size, clock(), ascii_only=ascii_only)
                    terminal.show(rows)
                keys = terminal.keys(_KEY_SECONDS)
                if keys:
                    drawn = ()
                    with board.lock:
                        for key in keys:
                            view.press(key, board)
        finally:
            reader.stop()
