"""The daemon is loaded in a thread, and what is to be done with it waits for that."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlflow_sysmetrics.daemon import launch
from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.runtime import loops
from watching import eventually

NAME = "standing_in_for_the_daemon"
LONG = 60.0  # seconds; only a failing test waits as long

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class Loading:
    """A module whose import goes on until the test allows it to end."""

    def __init__(self, directory: Path) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()
        self.path = directory / f"{NAME}.py"
        self.path.write_text(f"import sys\nsys.modules['{NAME}_test'].loading()\nended = True\n")

    def __call__(self) -> None:
        self.began.set()
        assert self.may_end.wait(LONG)


@pytest.fixture
def loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loading]:
    one = Loading(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, f"{NAME}_test", SimpleNamespace(loading=one))  # type: ignore[arg-type]
    monkeypatch.setattr(launch, "_PROCESS", NAME)
    monkeypatch.setattr(launch, "_launch", launch._Launch())
    importlib.invalidate_caches()
    yield one
    one.may_end.set()
    launch.wait(LONG)
    sys.modules.pop(NAME, None)


def test_jobs_wait_for_the_daemon_and_are_done_in_order(loading: Loading) -> None:
    done: list[tuple[int, str]] = []
    for number in range(3):
        assert launch.defer(lambda n=number: done.append((n, threading.current_thread().name)))
    assert loading.began.wait(LONG)
    assert (done, launch.is_loaded(), launch.is_pending(), launch.wait(0)) == ([], False, True, False)
    loading.may_end.set()
    assert launch.wait(LONG)
    assert done == [(n, launch.THREAD_NAME) for n in range(3)]
    assert launch.is_loaded()
    assert not launch.is_pending()
    assert not launch.defer(lambda: done.append((3, "")))  # the caller does it at once


def test_a_job_of_a_job_is_done_too(loading: Loading) -> None:
    loading.may_end.set()
    done: list[int] = []
    assert launch.defer(lambda: done.append(launch.defer(lambda: done.append(2))))
    assert launch.wait(LONG)
    assert done == [True, 2]


def test_nothing_is_waited_for_where_nothing_is_loaded() -> None:
    assert launch._Launch().wait(LONG)


@pytest.mark.usefixtures("loading")
def test_what_our_thread_calls_does_not_wait_for_itself(loading: Loading) -> None:
    """A log handler of the program may ask for the status."""
    loading.may_end.set()
    waited: list[bool] = []
    launch.defer(lambda: waited.append(launch.wait(LONG)))
    eventually(lambda: waited == [True])


@pytest.mark.parametrize(
    "text", ["raise ImportError('broken')", "raise MemoryError", "(", "import nothing_like_it"]
)
def test_jobs_are_done_also_if_the_daemon_cannot_be_imported(loading: Loading, text: str) -> None:
    """They import it too, and say what is wrong."""
    loading.path.write_text(text + "\n")
    importlib.invalidate_caches()
    done: list[int] = []
    assert launch.defer(lambda: done.append(1))
    assert launch.wait(LONG)
    assert done == [1]


@pytest.mark.usefixtures("loading")
def test_without_a_thread_the_caller_is_told_and_may_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object) -> None:
        raise ThreadUnavailable("no thread can be started")

    done: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(loops, "start_thread", unavailable)
        with pytest.raises(ThreadUnavailable):
            launch.defer(lambda: done.append(1))
        assert not launch.is_pending()
    assert launch.defer(lambda: done.append(2))
    sys.modules[f"{NAME}_test"].loading.may_end.set()
    assert launch.wait(LONG)
    assert done == [2]


@pytest.mark.usefixtures("loading")
def test_a_start_that_is_interrupted_leaves_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler may raise anywhere; the next run starts the thread, and its job is done all the same."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    done: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(loops, "start_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            launch.defer(lambda: done.append(1))
        assert launch.wait(0)
    sys.modules[f"{NAME}_test"].loading.may_end.set()
    assert launch.defer(lambda: done.append(2))
    assert launch.wait(LONG)
    assert done == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_waits_until_nothing_is_half_imported(loading: Loading) -> None:
    """A child never gets a module that another thread of its parent was importing."""
    launch.defer(lambda: None)
    assert loading.began.wait(LONG)
    threading.Timer(0.1, loading.may_end.set).start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads
        child = os.fork()
    if not child:
        module = sys.modules.get(NAME)
        complete = getattr(module, "ended", False) and not launch.is_pending()
        os._exit(0 if complete and launch.wait(0) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_does_not_wait_for_ever(loading: Loading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_LONGEST_LOAD_SECONDS", 0.01)
    launch.defer(lambda: None)
    assert loading.began.wait(LONG)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os._exit(0 if launch.wait(0) else 1)  # what its parent waits for is not the child's affair
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not launch.wait(0)
