"""The text of /proc/<pid>/stat (proc_pid_stat(5))."""

from __future__ import annotations

import os
from operator import itemgetter
from typing import NamedTuple

from mlflow_sysmetrics.collectors.kernel_files import WORD
from mlflow_sysmetrics.machine.kept_files import read_short
from mlflow_sysmetrics.machine.reasons import Malformed, quoted

# Windows, which has no sysconf and no /proc, imports and tests this module too.
_SYSCONF = getattr(os, "sysconf", {"SC_CLK_TCK": 100, "SC_PAGE_SIZE": 4096}.__getitem__)
TICKS_PER_SECOND: int = _SYSCONF("SC_CLK_TCK")
PAGE_BYTES: int = _SYSCONF("SC_PAGE_SIZE")

# Positions after the command's closing parenthesis; field 3 of the manual is the first.
_STATE, _PARENT = 0, 1
_UTIME, _STIME, CUTIME, CSTIME = 11, 12, 13, 14
THREADS, _START, RSS = 17, 19, 21
FIELDS = RSS + 2  # one more than is used, so a text cut within a number is rejected
_used = itemgetter(_PARENT, _UTIME, _STIME, CUTIME, CSTIME, THREADS, _START, RSS)

_make = tuple.__new__  # a third of the cost of calling the class


class ProcessStat(NamedTuple):
    """One process at one moment.

    Attributes:
        pid: its id.
        parent: id of its parent.
        start: start time in ticks since boot; together with the id it identifies the process.
        own: its own CPU time, in seconds.
        ended: CPU time of its children that it has waited for, in seconds.
        alive: False for a zombie, which holds nothing but its id.
        threads: number of threads.
        rss: resident memory, in bytes.
    """

    pid: int
    parent: int
    start: int
    own: float
    ended: float
    alive: bool
    threads: int
    rss: int


def parse_process_stat(text: bytes) -> ProcessStat:
    """Returns a process's stat.

    The command is in parentheses and may itself contain parentheses, spaces and line breaks: it ends at the
    last closing parenthesis.

    Raises:
        Malformed: the text is cut off, or is not a process's stat.
    """
    end = text.rfind(b")")
    fields = text[end + 1 :].split(None, FIELDS - 1)
    if end < 0 or len(fields) < FIELDS:
        raise Malformed(f"not the stat of a process: {quoted(text)}")
    try:
        pid = int(text[: text.find(b" ")])
        parent, user, system, user_of_ended, system_of_ended, threads, start, rss = numbers = tuple(
            map(int, _used(fields))
        )
    except ValueError as error:
        raise Malformed(f"not the stat of a process: {quoted(text)}") from error
    if pid < 0 or min(numbers) < 0 or max(numbers) >= WORD:
        raise Malformed(f"the stat of a process has a number out of range: {quoted(text)}")
    # The main thread may have ended before the others: the process is still alive.
    alive = fields[_STATE] not in b"ZX" or threads > 1
    own = (user + system) / TICKS_PER_SECOND
    ended = (user_of_ended + system_of_ended) / TICKS_PER_SECOND
    return _make(ProcessStat, (pid, parent, start, own, ended, alive, threads, rss * PAGE_BYTES))


def read_process_stat(directory: str) -> ProcessStat:
    """Returns the stat in a process's directory.

    Raises:
        OSError: the process is gone or invisible.
        Malformed: the text is not a process's stat.
    """
    return parsed_stat(directory + "/stat", read_short(directory + "/stat"))


def parsed_stat(path: str, text: bytes) -> ProcessStat:
    """Returns the stat that was read from a path, which an error names.

    Raises:
        Malformed: the text is not a process's stat.
    """
    try:
        return parse_process_stat(text)
    except Malformed as error:
        raise Malformed(f"{path}: {error.finding}") from error
