"""The end of a forked program, at the price of what the program itself has imported; see `forks`.

The end of an interpreter clears every module, which in a fork copies the pages of each: nine tenths of the time of
a short program. What was imported before the fork is left out, except for this package and the modules of Python
that act at an end, and the process ends before the interpreter frees its types and strings.
A module of its own, because a program takes the place of ``__main__``.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from collections.abc import Callable
from types import ModuleType

# The modules that are cleared at the end of a program, as at the end of any.
_CLEARED = {"__main__", "mlflow_sysmetrics", "atexit", "builtins", "logging", "sys", "threading", "weakref"}

_imported: dict[str, ModuleType] = {}


def spare_imported() -> None:
    """Leaves the libraries that are imported now out of the end of this interpreter and of its forks."""
    _imported.update(
        {name: one for name, one in sys.modules.items() if name.partition(".")[0] not in _CLEARED}
    )


@atexit.register
def _spare() -> None:
    """Runs after what the libraries have registered, if this module was imported before them."""
    for name, module in _imported.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_imported))  # it is never freed, nor are the modules


def run(program: Callable[[list[str]], None], arguments: list[str]) -> None:
    """Runs a program whose process ends when its modules have been cleared.

    What an interpreter frees afterwards, and the destructors of PyTorch, take longer than most programs.
    """
    status: object = 1
    try:
        program(arguments)
        status = 0
    except SystemExit as end:
        status = 0 if end.code is None else end.code
        raise
    except KeyboardInterrupt:
        status = None  # the process ends by a signal
        raise
    finally:
        if status is not None:
            vars(sys)["_last"] = _Last(status if isinstance(status, int) else 1)


class _Last:
    """Ends the process when `sys` is cleared, after every module but `builtins`."""

    def __init__(self, status: int) -> None:
        self._end = lambda exit_=os._exit: exit_(status & 0xFF)
        self._streams = (sys.__stdout__, sys.__stderr__)

    def __del__(self) -> None:
        try:
            for stream in self._streams:
                if stream is not None:
                    stream.flush()
        finally:
            self._end()
