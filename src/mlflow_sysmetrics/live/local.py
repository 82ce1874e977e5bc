"""The runs of the processes of this machine, as their journals have them.

A journal is emptied now and then, once its points are delivered, so what was read is kept here. Only what was
appended since is read again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from mlflow_sysmetrics.daemon.journal.lines import EndLine, Header, PointsLine, RunLine, understood
from mlflow_sysmetrics.daemon.journal.open_file import open_to_read
from mlflow_sysmetrics.daemon.journal.spool import is_owned, journals
from mlflow_sysmetrics.live.board import Board, WatchedRun

LOOK_SECONDS = 2.0
_JUDGE_SECONDS = 10.0
_MOST_BYTES = 8_000_000  # at one look: a journal of a long outage is read in several
_TAIL_BYTES = 64  # with the checksum of a line
_LIVING, _ENDED, _DEAD = "alive", "ended", "dead"


class _Journal:
    """One journal, followed as it grows.

    Attributes:
        path: its file.
        pid: its process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pid = 0
        self._file: tuple[int, int] = (0, 0)  # its identity
        self._offset = 0
        self._tail = b""  # what is before the place
        self._runs: dict[int, RunLine] = {}

    def read(self) -> Iterator[RunLine | tuple[RunLine, PointsLine | EndLine]]:
        """Yields what was appended since the last look.

        Raises:
            OSError: it cannot be read, or is gone.
        """
        with open_to_read(self.path) as file:
            status = Path(self.path).stat()
            identity = status.st_dev, status.st_ino
            file.seek(self._offset - len(self._tail))
            is_same = identity == self._file and file.read(len(self._tail)) == self._tail
            if not is_same:  # emptied, and perhaps grown beyond the place meanwhile
                self._file, self._offset, self._tail = identity, 0, b""
                self._runs.clear()
                file.seek(0)
            text = file.read(_MOST_BYTES)
        whole = text.rfind(b"\n") + 1  # the last line may be still being written
        self._offset += whole
        self._tail = text[max(whole - _TAIL_BYTES, 0) : whole] or self._tail
        for line in text[:whole].splitlines(keepends=True):
            for one in understood(line):
                match one:
                    case Header():
                        self.pid = one.pid
                    case RunLine():
                        self._runs[one.run] = one
                        yield one
                    case PointsLine() | EndLine():
                        if (run := self._runs.get(one.run)) is not None:
                            yield run, one


class LocalRuns:
    """Reads the journals of living processes into a board.

    Args:
        directory: the directory of the journals.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._followed: dict[Path, _Journal] = {}
        self._dead: dict[Path, float] = {}  # modification times of journals without a living process
        self._judged_at = 0.0

    def step(self, board: Board) -> float:
        """Looks once; returns in how many seconds to look again."""
        trouble = ""
        try:
            paths = journals(self._directory)
        except OSError as error:
            paths, trouble = [], f"{error.filename or self._directory}: {error.strerror}"
        for path in paths:
            if self._is_living(path):
                self._followed.setdefault(path, _Journal(path))
        for path, journal in list(self._followed.items()):
            try:
                found = list(journal.read())
            except FileNotFoundError:
                found = []
            except OSError as error:
                found, trouble = [], f"{path}: {error.strerror or error}"
            with board.lock:
                self._note(board, journal, found)
                if path not in paths or path in self._dead:
                    self._end(board, journal)
                    del self._followed[path]
        self._dead = {path: at for path, at in self._dead.items() if path in paths}
        with board.lock:
            board.report(trouble)
            self._judge(board)
        return LOOK_SECONDS

    def _is_living(self, path: Path) -> bool:
        try:
            changed = path.lstat().st_mtime
        except OSError:
            return False
        if self._dead.get(path) == changed:  # its lock is not tried at every look
            return False
        if is_owned(path):
            self._dead.pop(path, None)
            return True
        self._dead[path] = changed
        return False

    @staticmethod
    def _note(
        board: Board, journal: _Journal, found: list[RunLine | tuple[RunLine, PointsLine | EndLine]]
    ) -> None:
        for one in found:
            line, rest = (one, None) if isinstance(one, RunLine) else one
            run = board.run(line.run_id)
            board.changes += 1
            run.owner = f"process {journal.pid}"
            run.started_at = line.started_at or run.started_at
            if isinstance(rest, PointsLine):
                for key, value in rest.values.items():
                    run.add(key, rest.timestamp, value)
            if isinstance(rest, EndLine):
                run.status, run.ended_at = _ENDED, run.ended_at or _now()
            elif run.status != _LIVING and rest is None:
                run.status, run.ended_at = _LIVING, None

    @staticmethod
    def _end(board: Board, journal: _Journal) -> None:
        owner = f"process {journal.pid}"
        for run in board.runs.values():
            if run.owner == owner and run.status == _LIVING:
                is_gone = not journal.path.exists()  # delivered and deleted: it has ended as it should
                run.status, run.ended_at = (_ENDED if is_gone else _DEAD), _now()
                board.changes += 1

    def _judge(self, board: Board) -> None:
        now = time.monotonic()
        run: WatchedRun | None = board.runs.get(board.chosen or "")
        if run is not None and now - self._judged_at >= _JUDGE_SECONDS:
            self._judged_at = now
            run.judge()


def _now() -> int:
    return time.time_ns() // 1_000_000
