"""Exceptions that the program throws into our code: they pass through every guard of ours.

A signal handler that raises (a timeout of RQ, of Celery, or of the program itself) does so in whatever
function the main thread happens to run. Most such exceptions are ordinary subclasses of Exception,
`TimeoutError` among them, so their class alone does not tell.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from inspect import CO_VARARGS
from itertools import pairwise
from types import CodeType, FrameType

_OWN = __name__.partition(".")[0]
# Where the classes come from that our bookkeeping, MLflow and Python raise.
_KNOWN = frozenset({_OWN, "mlflow", "builtins"})


def reraise_interruption(error: Exception) -> None:
    """Raises what a signal handler has raised; returns if an exception is anything else.

    Args:
        error: what a guard has caught: what the handler raised, or what a library has made of that.
    """
    interruption = _interruption(error)
    if interruption is not None:
        raise interruption


def foreign(error: Exception) -> BaseException | None:
    """Returns the exception of the program behind one that a guard has caught; None if it is ours.

    For guards around code that calls no library but MLflow and Python's own. There a class of which nothing
    is known comes from the program: also from another thread (`PyThreadState_SetAsyncExc`, RQ's way on
    Windows), which leaves no other trace.
    """
    return _interruption(error) if _is_known(type(error).__module__) else error


def _is_known(module: object) -> bool:
    root = str(module).partition(".")[0]
    return root in _KNOWN or root in sys.stdlib_module_names


def _interruption(error: BaseException) -> BaseException | None:
    seen: list[BaseException] = []
    left = [error]
    while left:
        one = left.pop()
        seen.append(one)
        frames = list(_frames(one))
        if any(_is_signal_handler(frame) for frame in frames):
            return one
        for inner in (one.__cause__, one.__context__):
            # Only one that a library has caught below our guard: any other is the program's own affair.
            is_below = inner is not None and next(_frames(inner), None) in frames
            if inner is not None and is_below and inner not in seen:
                left.append(inner)
    return None


def _frames(error: BaseException) -> Iterator[FrameType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _is_signal_handler(frame: FrameType) -> bool:
    """Returns whether a frame is that of a signal handler: Python passes it the frame that it interrupts."""
    code = frame.f_code
    if code in _codes_of_handlers():
        return True
    if _is_known(frame.f_globals.get("__name__")):
        # Before Python 3.13, asking a frame for its locals makes it keep them, until the garbage collector
        # finds the cycle if the exception is among them.
        return False
    values = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount]]
    if code.co_flags & CO_VARARGS:
        rest = frame.f_locals.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount])
        values += rest if isinstance(rest, tuple) else ()
    return any(
        isinstance(number, int) and interrupted is not None and interrupted is frame.f_back
        for number, interrupted in pairwise(values)
    )


def _codes_of_handlers() -> Iterator[CodeType]:
    """Yields the code of the handlers in place, for those that drop their arguments."""
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        for function in (handler, getattr(handler, "__call__", None)):  # noqa: B004 - an object's own method
            code = getattr(getattr(function, "__func__", function), "__code__", None)
            if isinstance(code, CodeType):
                yield code
