"""A real terminal, a pair of pseudo terminals, as the view takes it and gives it back."""

from __future__ import annotations

import os
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select

import pytest

from mlflow_sysmetrics.cli.program import main
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.live import loop
from watching import LONG_SECONDS

pytest.importorskip("rich")
fcntl = pytest.importorskip("fcntl", reason="Windows has no pseudo terminals")
pty = pytest.importorskip("pty", reason="Windows has no pseudo terminals")
termios = pytest.importorskip("termios", reason="Windows has no pseudo terminals")
pytestmark = pytest.mark.heavy
TAKEN, GIVEN_BACK = b"\x1b[?1049h", b"\x1b[?25h\x1b[0m\x1b[?1049l"


class Terminal:
    """What somebody at a terminal sees and types, with a program in it."""

    def __init__(self, program: Callable[[], object], size: tuple[int, int] = (80, 24)) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads, of other tests
            self.pid, self.fd = pty.fork()
        if not self.pid:
            _run(program, size)
        self.shown = b""
        self.before: list[object] = []
        self.resize(size)

    def resize(self, size: tuple[int, int]) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))

    def shows(self, text: bytes, since: int = 0) -> None:
        """Waits until a text was written."""
        ends = time.monotonic() + LONG_SECONDS
        while text not in self.shown[since:]:
            assert time.monotonic() < ends, self.shown
            assert self.read(), self.shown

    def read(self) -> bool:
        """Reads what is written; returns False at its end."""
        if not select([self.fd], [], [], 0.1)[0]:
            return True
        with suppress(OSError):  # the other end is closed
            text = os.read(self.fd, 65536)
            self.shown += text
            return bool(text)
        return False

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def mode(self) -> list[object]:
        return list(termios.tcgetattr(self.fd))

    def end(self) -> int:
        """Waits for the end of the program; returns its exit code."""
        while self.read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _run(program: Callable[[], object], size: tuple[int, int]) -> None:
    """Runs a program in the child, as an interpreter of its own would."""
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            os.environ.pop(name, None)
        os.environ["TERM"] = "xterm-256color"
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(*one) for one in ((0, "r"), (1, "w"), (2, "w")))
        sys.stdout.write("\r\nREADY\r\n")
        sys.stdout.flush()
        sys.stdin.readline()
        program()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 70
    except BaseException:  # noqa: BLE001 - as an interpreter does
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


@contextmanager
def watching(spool: Path, size: tuple[int, int] = (80, 24)) -> Iterator[Terminal]:
    """A terminal in which `watch` shows the run of a living process."""
    journal = Journal.create(spool, 1_000_000)
    now = time.time_ns() // 1_000_000
    number = journal.register("a" * 32, "http://tracking:5000", now - 60_000)
    for index in range(6):
        journal.append(number, index, now - 10_000 * (6 - index), {"system/cpu_utilization_percentage": 50.0})
    terminal = Terminal(lambda: main(["watch", "--dir", str(spool)], prog_name="mlflow-sysmetrics"), size)
    try:
        terminal.shows(b"READY")
        terminal.before = terminal.mode()
        terminal.type(b"\n")
        terminal.shows(b"cpu utilization")
        assert terminal.mode() != terminal.before
        yield terminal
    finally:
        with suppress(ProcessLookupError):
            os.kill(terminal.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(terminal.pid, 0)
        with suppress(OSError):
            os.close(terminal.fd)
        journal.close(delete=True)


@contextmanager
def given_back(terminal: Terminal) -> Iterator[None]:
    """Checks that the terminal is as it was before."""
    assert terminal.shown.count(TAKEN) == 1
    yield
    assert terminal.shown.count(GIVEN_BACK) == 1
    assert terminal.mode() == terminal.before


def test_a_key_leaves_the_view(tmp_path: Path) -> None:
    with watching(tmp_path) as terminal, given_back(terminal):
        terminal.type(b"f")
        terminal.shows(b"family: cpu")
        terminal.type(b"q")
        assert terminal.end() == 0
    assert terminal.shown.endswith(GIVEN_BACK)


@pytest.mark.parametrize("how", ["key", "SIGTERM", "SIGHUP"])
def test_an_interrupted_view_gives_the_terminal_back(tmp_path: Path, how: str) -> None:
    with watching(tmp_path) as terminal, given_back(terminal):
        if how == "key":
            terminal.type(b"\x03")
        else:
            os.kill(terminal.pid, signal.Signals[how])
        assert terminal.end() == 130
    assert terminal.shown.endswith(GIVEN_BACK + b"Interrupted.\r\n")


def test_a_view_that_crashes_gives_the_terminal_back_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, drawn = loop.draw, []

    def draw(*arguments: object, **named: object) -> object:
        drawn.append(1)
        if len(drawn) > 1:
            raise ZeroDivisionError
        return real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "draw", draw)
    with watching(tmp_path) as terminal, given_back(terminal):
        assert terminal.end() == 70
    _, _, after = terminal.shown.partition(GIVEN_BACK)
    assert after.startswith(b"Traceback")
    assert b"ZeroDivisionError" in after


def test_a_terminal_that_is_resized_is_drawn_anew(tmp_path: Path) -> None:
    with watching(tmp_path) as terminal:
        since = len(terminal.shown)
        terminal.resize((40, 10))
        terminal.shows(b"\x1b[2J", since)
        terminal.shows(b"\x1b[10;1H", since)
        assert b"\x1b[11;1H" not in terminal.shown[since:]
        terminal.resize((120, 30))
        terminal.shows(b"\x1b[30;1H", since)


def test_a_view_whose_window_is_closed_ends(tmp_path: Path) -> None:
    with watching(tmp_path) as terminal:
        os.close(terminal.fd)
        assert os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]) in {1, 70, 130}


def test_lines_that_are_the_same_are_not_written_again(tmp_path: Path) -> None:
    with watching(tmp_path) as terminal:
        terminal.type(b"?")
        terminal.shows(b"Ctrl-C")
        since = len(terminal.shown)
        terminal.type(b"?")
        terminal.shows(b"cpu utilization", since)
        assert b"\x1b[2J" not in terminal.shown[since:]
        assert b"\x1b[20;1H" not in terminal.shown[since:]  # a blank line in both
        terminal.type(b"q")
        assert terminal.end() == 0
