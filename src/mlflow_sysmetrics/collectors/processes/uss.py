"""USS of many processes, read in a thread beside the ticks, since the kernel walks every page of a process.

That takes a millisecond for a process of 200 MB with small pages, and 130 ms for one of 4 GB. No tick waits
for it.

The sum of a round is valid while resident memory, which is read at every tick, stays the same: private memory
is a part of it. After a change the sum is unknown until another round is complete. Memory that a child shares
with its parent until one of them writes to it (copy on write) becomes private without such a change: hence a
round every minute while there are children, and every five minutes without. A sum that is ten minutes old,
because there are very many processes, is unknown.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from mlflow_sysmetrics.collectors.contract import KIBIBYTE
from mlflow_sysmetrics.collectors.rhythm import Ration
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.kept_files import read_bytes
from mlflow_sysmetrics.runtime.background_reading import BackgroundReading

_ROUND_SECONDS = 60.0
# Of a process without children, whose reading may be a tenth of all that an idle training pays for. Not a
# multiple of a minute, at which paths are looked up: the kernel holds the memory map while it walks.
_ALONE_SECONDS = 290.0
_OLDEST_SECONDS = 600.0
_SECONDS_PER_TURN = 5e-3  # of a thread: small processes take 130 us each, starting a thread 100 us
_ANSWER_SECONDS = 0.0  # how long a tick waits for the reading; tests on recorded machines do
_MOVED = 0.1  # of resident memory: more than an interpreter's normal variation, less than a batch of data
_REST = 5000.0  # 0.02 % of a core: one process of 200 MB in 4 s
_AT_ONCE_SECONDS = 5e-3  # spent once without a rest, so that a short run with a few children gets a sum
_FEWEST_SIZES = 2  # clean and dirty; Hugetlb was added in Linux 4.4
_PRIVATE = re.compile(rb"^Private_(?:Clean|Dirty|Hugetlb): +(\d+) kB$", re.MULTILINE)

Process = TypeVar("Process")


def parse_smaps_rollup(text: bytes) -> int:
    """Returns the private bytes of one process, from the text of /proc/<pid>/smaps_rollup.

    Raises:
        ValueError: the text has no private sizes.
    """
    sizes = _PRIVATE.findall(text)
    if len(sizes) < _FEWEST_SIZES:
        raise ValueError(f"smaps_rollup is {text[:40]!r}")
    return sum(map(int, sizes)) * KIBIBYTE


def read_smaps_rollup(directory: str) -> int | None:
    """Returns the private bytes of one process; None if they cannot be read."""
    try:
        return parse_smaps_rollup(read_bytes(directory + "/smaps_rollup"))
    except (OSError, ValueError):
        return None


class _Turn(NamedTuple):
    """What one turn has read.

    Attributes:
        size: bytes of some processes.
        readable: whether this process can be read.
        seconds: CPU time.
    """

    size: int
    readable: bool
    seconds: float


class UssRounds(Generic[Process]):
    """Adds up USS in rounds over all processes of a tree.

    Args:
        read: returns the bytes of one process, None if they cannot be read.

    Attributes:
        readable: True if the last round could read this process.
    """

    def __init__(self, read: Callable[[Process], int | None]) -> None:
        self.readable = True
        self._read = read
        self._ration = Ration(_REST)
        # One name for all: a process whose memory is locked for ever costs one thread.
        self._beside = BackgroundReading("uss", self._read_some, rest_seconds=0)
        self._is_reading = False
        self._taken_at = -math.inf
        self._own: Process | None = None
        self._left: list[Process] = []  # of the reading thread while there is one
        self._at_once = _AT_ONCE_SECONDS
        self._bytes = 0
        self._sum: int | None = None
        self._resident = self._resident_then = 0  # of the sum, and of the current round
        self._began = self._began_then = -math.inf  # likewise

    def advance(self, now: float, processes: Sequence[Process], resident: int) -> int | None:
        """Has some more processes read if it is time to; returns the sum of the last round, None if unknown.

        Args:
            now: seconds of a clock that never goes back.
            processes: the living processes, this one first; a round that cannot read it ends without a sum.
            resident: bytes of resident memory of all of them.
        """
        seconds = _ROUND_SECONDS if len(processes) > 1 else _ALONE_SECONDS
        is_due = not 0 <= now - self._began_then < seconds or now - self._began > _OLDEST_SECONDS
        is_busy = self._is_reading or self._left or self._at_once > 0
        if not (is_busy or is_due) and abs(resident - self._resident) <= _MOVED * self._resident:
            return self._sum  # as nearly always: nothing to read, and nothing has changed
        if self._is_reading:
            self._take()
        if not self._is_reading and (self._at_once > 0 or self._ration.over(now)):
            is_due = not 0 <= now - self._began_then < seconds
            if not self._left and (is_due or self._has_moved(resident)):
                self._bytes, self._resident_then, self._began_then = 0, resident, now
                self._own, self._left = processes[0], list(reversed(processes))
            if self._left:
                self._ration.begin(now)
                self._is_reading = True
                self._beside.ask()
                self._take()
        is_old = now - self._began > _OLDEST_SECONDS
        return None if is_old or self._has_moved(resident) else self._sum

    def _has_moved(self, resident: int) -> bool:
        return self._sum is not None and abs(resident - self._resident) > _MOVED * self._resident

    def _read_some(self) -> _Turn:
        """Reads some processes; in a thread."""
        began, seconds = time.thread_time(), 0.0
        total, readable = 0, self.readable
        while self._left and seconds < _SECONDS_PER_TURN:
            process = self._left.pop()
            size = self._read(process)
            if process is self._own:
                readable = size is not None
                if size is None:
                    self._left.clear()
            total += size or 0
            seconds = time.thread_time() - began
        return _Turn(total, readable, seconds)

    def _take(self) -> None:
        """Takes what was read, if the turn is over."""
        try:
            self._beside.answer(within=_ANSWER_SECONDS)
            if self._beside.waiting_seconds:
                return
            reading = self._beside.answer()  # after the thread has ended: the last answer is its own
        except Unavailable:  # no thread can be started, or another one waits for such a reading
            self._is_reading = False
            return
        self._is_reading = False
        if reading is None or reading.ended_at == self._taken_at:
            return
        self._taken_at = reading.ended_at
        self.readable = reading.value.readable
        self._bytes += reading.value.size
        self._ration.charge(reading.value.seconds)
        self._at_once -= reading.value.seconds
        if not self._left:
            self._sum = self._bytes if self.readable else None
            self._resident, self._began = self._resident_then, self._began_then
