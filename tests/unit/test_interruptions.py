"""What a signal handler of the program raises is told from what our code raises."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from mlflow_sysmetrics.interruptions import foreign, reraise_interruption

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs a system with signals")


class JobTimeout(Exception):
    """As RQ's and Celery's: any class of the program's."""


def with_arguments(number: int, frame: object) -> None:
    raise TimeoutError("late")


def with_any_arguments(*_: object) -> None:
    raise JobTimeout("late")


def that_drops_them(number: int, frame: object) -> None:
    del number, frame
    raise OSError("late")


def that_calls_another(number: int, frame: object) -> None:
    def deeper() -> None:
        raise RuntimeError("late")

    deeper()


def that_is_in_place_no_more(number: int, frame: object) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    raise ValueError("late")


class OfAnObject:
    """A handler that is no function."""

    def __call__(self, number: int, frame: object) -> None:
        del number, frame
        raise KeyError("late")

    def method(self, number: int, frame: object) -> None:
        del number, frame
        raise JobTimeout("late")


def guarded(
    call: Callable[[], object], reraise: Callable[[Exception], None] = reraise_interruption
) -> Exception:
    """Runs a call under a guard like ours, and returns what the guard holds back."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - it is what is tested
        reraise(error)
        return error
    raise AssertionError("nothing was raised")


def reraise_foreign(error: Exception) -> None:
    found = foreign(error)
    if found is not None:
        raise found


def throw(error: Exception) -> None:
    raise error


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, with_any_arguments)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(
    "handler",
    [
        with_arguments,
        with_any_arguments,
        that_drops_them,
        that_calls_another,
        that_is_in_place_no_more,
        functools.partial(with_arguments),
        OfAnObject(),
        OfAnObject().method,
        lambda *_: throw(JobTimeout("late")),
    ],
)
def test_what_a_signal_handler_raises_passes(handler: Callable[..., None]) -> None:
    signal.signal(signal.SIGUSR1, handler)
    with pytest.raises(Exception, match="late"):
        guarded(interrupted)


def test_it_passes_as_it_was_if_a_library_has_wrapped_it() -> None:
    def library() -> None:
        try:
            interrupted()
        except JobTimeout as error:
            raise ConnectionError("the request failed") from error

    with pytest.raises(JobTimeout):
        guarded(library)


@pytest.mark.parametrize("error", [OSError("full"), RuntimeError("a bug"), TimeoutError("of a socket")])
def test_our_own_exceptions_stay(error: Exception) -> None:
    assert guarded(lambda: throw(error), reraise_foreign) is error


def test_a_timeout_that_the_program_is_handling_does_not_make_ours_pass() -> None:
    """`mlflow.end_run()` in an `except JobTimeout:` of the program."""
    with pytest.raises(JobTimeout) as raised:
        interrupted()
    try:
        throw(raised.value)
    except JobTimeout:
        error = guarded(lambda: throw(OSError("full")), reraise_foreign)
    assert error.__context__ is raised.value


def test_a_frame_in_a_local_variable_is_no_signal_handler() -> None:
    def start(number: int) -> None:
        caller = sys._getframe(1)
        assert caller is not None
        raise OSError("full")

    assert str(guarded(lambda: start(1), reraise_foreign)) == "full"


def test_a_class_of_nobody_we_call_passes_without_a_handler() -> None:
    """PyThreadState_SetAsyncExc raises in another thread and leaves no trace."""
    with pytest.raises(JobTimeout):
        guarded(lambda: throw(JobTimeout()), reraise_foreign)
    guarded(lambda: throw(JobTimeout()), reraise_interruption)


def test_a_chain_that_bites_its_tail_ends() -> None:
    error = OSError("round")
    error.__cause__ = error
    assert guarded(lambda: throw(error)) is error
