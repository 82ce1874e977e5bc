"""The door through which we log: a handler of the program reaches neither our threads nor its own runs."""

from __future__ import annotations

import functools
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from mlflow_sysmetrics.log import Log, LogQueue, use_in_this_thread
from mlflow_sysmetrics.runtime.threads import start_thread
from watching import LONG_SECONDS, eventually


class Handler(logging.Handler):
    """Does something with each record."""

    def __init__(self, act: object) -> None:
        super().__init__()
        self.act = act
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        if callable(self.act):
            self.act()


@pytest.fixture
def handler() -> Iterator[Handler]:
    found = Handler(None)
    logger = logging.getLogger("mlflow_sysmetrics")
    logger.addHandler(found)
    yield found
    logger.removeHandler(found)


def fail() -> None:
    raise RuntimeError("the log sink is gone")


def in_our_thread(queue: LogQueue, *messages: str) -> None:
    """Logs in a thread whose lines go to a queue."""
    done = threading.Event()

    def body() -> None:
        use_in_this_thread(queue)
        for message in messages:
            Log().warning(message)
        done.set()

    start_thread(body, "sysmetrics-test")
    assert done.wait(LONG_SECONDS)


def test_a_handler_that_raises_does_not_reach_the_program(handler: Handler) -> None:
    handler.act = fail
    Log().warning("one")
    assert handler.messages == ["one"]


def test_a_filter_that_raises_does_not_reach_the_program(handler: Handler) -> None:
    logging.getLogger("mlflow_sysmetrics").addFilter(lambda _: fail())  # type: ignore[arg-type,return-value]
    try:
        Log().warning("one")
    finally:
        logging.getLogger("mlflow_sysmetrics").filters.clear()
    assert handler.messages == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_passes(handler: Handler, error: type[BaseException]) -> None:
    def end() -> None:
        raise error

    handler.act = end
    with pytest.raises(error):
        Log().warning("one")


def end_the_job(*_: object) -> None:
    raise RuntimeError("job timed out")


class Job:
    """A handler that is an object."""

    def __call__(self, *_: object) -> None:
        end_the_job()


def wait_long() -> None:
    for _ in range(int(LONG_SECONDS * 1000)):
        time.sleep(0.001)


def wait_in_a_library() -> None:
    try:
        wait_long()
    except RuntimeError as error:
        raise OSError("the log sink is broken") from error


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a system with timers")
@pytest.mark.parametrize("wait", [wait_long, wait_in_a_library])
@pytest.mark.parametrize("end", [end_the_job, Job(), functools.partial(end_the_job, "job")])
def test_the_timeout_of_the_program_passes(
    handler: Handler, wait: Callable[[], None], end: Callable[..., None]
) -> None:
    """An exception of a signal handler, as of RQ and Celery, is not the log handler's."""
    before = signal.signal(signal.SIGALRM, end)
    handler.act = wait
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(RuntimeError, match="job timed out"):
            Log().warning("one")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_lines_of_our_threads_are_logged_in_order(handler: Handler) -> None:
    queue = LogQueue(start_thread)
    in_our_thread(queue, "one", "two", "three")
    queue.wait(LONG_SECONDS)
    assert handler.messages == ["one", "two", "three"]


def test_a_handler_that_raises_or_ends_the_thread_costs_one_line(handler: Handler) -> None:
    def end() -> None:
        if len(handler.messages) == 1:
            raise SystemExit

    handler.act = end
    queue = LogQueue(start_thread)
    in_our_thread(queue, "one", "two")
    queue.wait(LONG_SECONDS)
    assert handler.messages == ["one", "two"]


def test_a_handler_that_blocks_does_not_block_our_threads(handler: Handler) -> None:
    over = threading.Event()
    handler.act = lambda: over.wait(LONG_SECONDS)
    queue = LogQueue(start_thread)
    in_our_thread(queue, *[str(number) for number in range(5000)])  # returns
    over.set()
    queue.wait(LONG_SECONDS)
    assert 1000 <= len(handler.messages) <= 1001 + 1  # the newest, and what was being logged
    assert handler.messages[-1] == "4999"


def test_without_a_thread_lines_wait_for_the_next_one(handler: Handler) -> None:
    refuses = [True]

    def start(run: object, name: str) -> object:
        if refuses:
            raise RuntimeError("can't start new thread")
        return start_thread(run, name)  # type: ignore[arg-type]

    queue = LogQueue(start)
    in_our_thread(queue, "one")
    assert handler.messages == []
    refuses.clear()
    in_our_thread(queue, "two")
    eventually(lambda: handler.messages == ["one", "two"])


def test_a_traceback_is_that_of_the_thread_that_logs(caplog: pytest.LogCaptureFixture) -> None:
    queue = LogQueue(start_thread)
    done = threading.Event()

    def body() -> None:
        use_in_this_thread(queue)
        try:
            fail()
        except RuntimeError:
            Log().warning("one", exc_info=True)
        done.set()

    start_thread(body, "sysmetrics-test")
    assert done.wait(LONG_SECONDS)
    queue.wait(LONG_SECONDS)
    assert "the log sink is gone" in caplog.text
