"""Runs the command line: ``mlflow-sysmetrics``, or ``python -m mlflow_sysmetrics.cli``."""

from __future__ import annotations

import atexit
import os
import sys

# MLflow's defaults (7 retries of 120 s each) would block a terminal for a quarter of an hour.
_SHORT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
# A command reports these problems itself, once and in its own words.
_QUIET = ("mlflow_sysmetrics", "urllib3")
_INTERRUPTED = 130


def run() -> None:
    """Runs the command given on the command line, then exits the process."""
    for name, value in _SHORT.items():
        os.environ.setdefault(name, value)
    try:
        _handle_interrupts()
        import logging  # what is imported takes a while, in which Ctrl-C must print no traceback

        from mlflow_sysmetrics.cli import main

        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.ERROR)
        main(prog_name="mlflow-sysmetrics")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("mlflow_sysmetrics"):
            raise
        sys.exit(f"Error: the command needs {error.name}, which is not installed: pip install {error.name}")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _handle_interrupts() -> None:
    """Ends the command with the same exit code also if Ctrl-C is pressed again, at any time.

    The first raises KeyboardInterrupt, as usual; the next ends the process at once, since what was waited
    for may wait again. Python itself would then end it by the signal, or print a traceback.
    """
    import signal

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # ignored by what started this command, as a shell does for one in the background

    def end_at_once(_number: int, _frame: object) -> None:
        os._exit(_INTERRUPTED)

    def interrupt(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, end_at_once)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    # The first to be registered is the last to be called: after it, the exit code is certain.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    run()
