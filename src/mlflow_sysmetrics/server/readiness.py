"""Whether a server that was started really answers: a green /health proves neither database nor names."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from mlflow_sysmetrics.errors import ServerStartError
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.preflight.verification import Verification
from mlflow_sysmetrics.server.allowed_hosts import example_of
from mlflow_sysmetrics.server.direct import DirectDeleter, DirectStore, Door
from mlflow_sysmetrics.server.ports import listens
from mlflow_sysmetrics.server.supervised import SupervisedProcess

_log = logging.getLogger("mlflow_sysmetrics")

_LOOK_SECONDS = 0.1
_HEALTH_SECONDS = 5.0
_ANSWER_SECONDS = 30.0  # of a database that makes its first run on a busy machine
# Made by MLflow in every new store. An experiment of our own would be left behind, deleted, at each start.
_EXPERIMENT = "Default"
_FOREIGN = "no-name-of-this-server.invalid"


def wait_until_it_answers(
    process: SupervisedProcess, door: Door, allowed: Sequence[str], seconds: float
) -> None:
    """Returns once the server has made a run, logged to it and read it back, under each of its names.

    Args:
        process: the server.
        door: how it is called from here.
        allowed: patterns of the names that it may be called by, as it has been told; empty for MLflow's own.
        seconds: longest wait.

    Raises:
        ServerStartError: it ended, it does not answer in time, or it refuses one of its names.
    """
    ends = time.monotonic() + seconds
    reason = "nothing listens on its port"
    while True:
        if process.exit_code() is not None:
            raise ServerStartError(
                f"The tracking server ended with exit code {process.exit_code()} as it started."
            )
        found = _fault_of(process, door)
        if found is None:
            break
        reason = found
        if time.monotonic() > ends:
            raise ServerStartError(
                f"The tracking server does not answer within {seconds:g} s: {reason}. On a slow machine, or "
                "with a large database, a larger start_timeout helps."
            )
        process.wait(_LOOK_SECONDS)
    _check_names(door, allowed)


def _fault_of(process: SupervisedProcess, door: Door) -> str | None:
    """Returns why a server is not up yet; None if it is."""
    if process.pid is not None and listens(process.pid, door.port) is False:
        return "nothing of it listens on its port"
    try:
        DirectStore(door).reach(_HEALTH_SECONDS)
    except Fault as fault:
        return fault.reason
    verification = Verification(
        door.url,
        _EXPERIMENT,
        timeout=_ANSWER_SECONDS,
        connect=lambda _uri: (DirectStore(door), DirectDeleter(door)),
    )
    failed = next((step for step in verification.steps() if not step.passed), None)
    verification.clean_up()  # what cannot be removed is a deleted run's worth of rows
    return None if failed is None else f"{failed.name}: {failed.text}"


def _check_names(door: Door, allowed: Sequence[str]) -> None:
    for pattern in allowed:
        name = example_of(pattern, door.port)
        if _refuses(replace(door, called=name)):
            raise ServerStartError(
                f"The tracking server refuses to be called {name!r}, as {pattern!r} allows."
            )
    if allowed and "*" not in allowed and not _refuses(replace(door, called=_FOREIGN)):
        _log.warning(
            "This version of MLflow does not look at the names that a server is called by: allowed_hosts has "
            "no effect. MLflow 3.5 and newer do."
        )


def _refuses(door: Door) -> bool:
    try:
        DirectStore(door).experiment_named(_EXPERIMENT, _ANSWER_SECONDS)
    except Fault as fault:
        return fault.cause is Cause.WRONG_HOST
    return False
