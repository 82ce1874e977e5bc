"""An exception of a signal handler may arrive at any point of attaching and detaching."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from fakes import STARTED_AT, FakeSink, scripted
from mlflow_sysmetrics.daemon.daemon import Daemon
from mlflow_sysmetrics.daemon.process import Attachment
from mlflow_sysmetrics.settings import Settings
from watching import LONG_SECONDS, eventually

FAST = Settings(sampling_interval=0.1, samples_before_logging=1, send_interval=0.1, spool_dir="off")


class JobTimeout(Exception):
    """What the program's signal handler raises."""


@contextmanager
def interrupted_at(line: int) -> Iterator[list[int]]:
    """Raises after so many lines of the package have been run in this thread; yields how many were."""
    count = [0]

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if "mlflow_sysmetrics" not in frame.f_code.co_filename:
            return None
        # Python itself handles no signal between the body of a `with` and its exit.
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and not text.lstrip().startswith("with "):
            count[0] += 1
            if count[0] == line:
                sys.settrace(None)
                raise JobTimeout
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)


def begin(attachment: Attachment) -> None:
    attachment.begin(FAST, STARTED_AT)


def lines_of(call: Callable[[Attachment], object], prepare: Callable[[Attachment], object]) -> int:
    attachment = Attachment(new_daemon(), "run", "uri")
    prepare(attachment)
    with interrupted_at(-1) as count:
        call(attachment)
    return count[0]


def new_daemon() -> Daemon:
    collector = scripted(level=10)
    return Daemon(FAST, collectors=[collector], open_sink=lambda _: FakeSink(), transparent=True)


def is_over(daemon: Daemon) -> bool:
    return not daemon.status().attached and not daemon.sampler._series and not daemon.sampler._arriving


def end(attachment: Attachment) -> None:
    attachment.detach(LONG_SECONDS)


def interrupt_everywhere(
    call: Callable[[Attachment], object], prepare: Callable[[Attachment], object]
) -> Iterator[tuple[Daemon, Attachment]]:
    """Makes a call once for each of its lines, interrupted there; yields what has become of the run."""
    lines = lines_of(call, prepare)
    assert lines > 20
    daemon = new_daemon()
    passed = 0
    for line in range(1, lines + 1):
        attachment = Attachment(daemon, f"run {line}", "uri")
        prepare(attachment)
        with interrupted_at(line):
            try:
                call(attachment)
            except JobTimeout:
                passed += 1
        yield daemon, attachment
        eventually(lambda: is_over(daemon))
    assert passed > 20  # later calls run fewer lines than the first, which starts the threads
    attachment = Attachment(daemon, "last", "uri")
    begin(attachment)
    before = daemon.status().points_delivered
    assert attachment.detach(LONG_SECONDS)
    assert daemon.status().points_delivered > before


def test_whenever_an_attach_is_interrupted_the_detach_ends_the_run() -> None:
    for _, attachment in interrupt_everywhere(begin, lambda _: None):
        assert attachment.detach(LONG_SECONDS)


@pytest.mark.heavy
def test_whenever_a_detach_is_interrupted_the_run_ends() -> None:
    for _, attachment in interrupt_everywhere(end, begin):
        attachment.release()  # as the stand-in does, for an interruption before the first line
