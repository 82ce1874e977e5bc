"""The terminal as the view has it: another screen, keys one by one, and everything back at the end.

Whatever ends the view (a key, Ctrl-C, SIGTERM, an exception), the terminal is as it was before. Ctrl-Z gives
it back as well, until the job continues.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_sysmetrics.live.cells import Row

if TYPE_CHECKING:
    from rich.console import Console

#: what a span is -> how rich draws it
STYLES = {
    "head": "bold",
    "good": "green",
    "bad": "bold yellow",
    "dim": "dim",
    "curve": "cyan",
    "chosen": "reverse",
}
_KEYS = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[C": "right",
    b"\x1b[D": "left",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1bOC": "right",
    b"\x1bOD": "left",
    b"\x1b[5~": "pageup",
    b"\x1b[6~": "pagedown",
    b"\x1b[Z": "N",
    b"\x1b": "escape",
    b"\r": "enter",
    b"\n": "enter",
    b"\t": "tab",
    b" ": "space",
}
_LONGEST_READ = 256  # what was pasted is read in pieces


class Terminal:
    """A terminal in which a view is drawn.

    Args:
        console: of rich; its file is the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stdin = _terminal_of(sys.stdin)
        self._before: Any = None
        self._shown: list[str] = []

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in cells."""
        found = self._console.size
        return found.width, found.height

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Takes the terminal for the block, and gives it back whatever ends the block."""
        try:
            self._take()
            with self._given_back_while_stopped():
                yield
        finally:
            self._give_back()

    def show(self, rows: Sequence[Row]) -> None:
        """Draws lines, one for each of the terminal; only those that have changed since."""
        from rich.text import Text

        lines = []
        for one in rows:
            text = Text(no_wrap=True, end="")
            for span in one:
                text.append(span.text, style=STYLES.get(span.style, ""))
            with self._console.capture() as captured:
                self._console.print(text, end="", overflow="crop", crop=True, highlight=False, markup=False)
            lines.append(captured.get())
        same = len(lines) == len(self._shown)
        changed = [
            f"\x1b[{number};1H{line}"
            for number, line in enumerate(lines, 1)
            if not (same and self._shown[number - 1] == line)
        ]
        clear = "" if same else "\x1b[2J"
        self._write(clear + "".join(changed))
        self._shown = lines

    def keys(self, seconds: float) -> list[str]:
        """Waits for keys, at most so long; returns their names, or the characters themselves."""
        if self._stdin is None:
            time.sleep(seconds)
            return []
        import select

        if not select.select([self._stdin], [], [], seconds)[0]:
            return []
        text = os.read(self._stdin, _LONGEST_READ)
        if not text:  # the other end is gone, as when a window is closed
            self._stdin = None
        return list(_named(text))

    def _take(self) -> None:
        if self._stdin is not None:
            import termios
            import tty

            self._before = termios.tcgetattr(self._stdin)
            tty.setcbreak(self._stdin)
        # Another screen, no cursor, no wrapping at the right margin.
        self._write("\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J")
        self._shown = []

    def _give_back(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone
            self._write("\x1b[?7h\x1b[?25h\x1b[0m\x1b[?1049l")
        if self._stdin is not None and self._before is not None:
            import termios

            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._stdin, termios.TCSADRAIN, self._before)
        self._before = None

    @contextlib.contextmanager
    def _given_back_while_stopped(self) -> Iterator[None]:
        stop = getattr(signal, "SIGTSTP", None)
        if stop is None:  # Windows
            yield
            return

        def give_back(_number: int, _frame: object) -> None:
            self._give_back()
            signal.signal(stop, signal.SIG_DFL)
            os.kill(os.getpid(), stop)  # stops here; what follows is done when the job continues
            signal.signal(stop, give_back)
            self._take()

        before = signal.signal(stop, give_back)
        try:
            yield
        finally:
            signal.signal(stop, before)

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()


def _terminal_of(stream: Any) -> int | None:
    """Returns the descriptor of a stream that is a terminal whose keys can be read one by one."""
    try:
        import termios  # noqa: F401 - not on Windows

        return int(stream.fileno()) if stream.isatty() else None
    except (ImportError, AttributeError, OSError, ValueError):
        return None


def _named(text: bytes) -> Iterator[str]:
    while text:
        known = next((key for key in sorted(_KEYS, key=len, reverse=True) if text.startswith(key)), None)
        if known == b"\x1b" and len(text) > 1:  # a key that is not known here
            text = _after_sequence(text)
        elif known is not None:
            text = text.removeprefix(known)
            yield _KEYS[known]
        else:
            if 0x20 < text[0] < 0x7F:  # noqa: PLR2004 - a printable character of ASCII
                yield chr(text[0])
            text = text[1:]


def _after_sequence(text: bytes) -> bytes:
    """Returns what follows an escape sequence."""
    if text[1:2] not in {b"[", b"O"}:
        return text[2:]
    rest = text[2:].lstrip(b"0123456789;?<")
    return rest[1:]
