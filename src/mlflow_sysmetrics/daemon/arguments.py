"""Checks what a program passes to the public functions at once: our threads could only log an error.

A value of a wrong type is a TypeError, any other wrong value a SettingsError, which is a ValueError.
"""

from __future__ import annotations

import math
import os

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.mlflow_api.tracking_uris import origin, redacted

_LARGEST = 2**63 - 1  # times are 64-bit integers in MLflow


def check_run_id(run_id: object) -> str:
    """Returns a run id.

    Raises:
        TypeError: it is not a string.
        SettingsError: it cannot be the id of a run.
    """
    if not isinstance(run_id, str):
        raise TypeError(f"run_id must be a string such as run.info.run_id, got {run_id!r}")
    if not run_id.strip() or not run_id.isprintable():
        raise SettingsError(f"run_id must be the id of a run such as run.info.run_id, got {run_id!r}")
    return run_id


def check_tracking_uri(tracking_uri: object) -> str | None:
    """Returns a tracking URI; that of a path is absolute. None stands for the current one.

    Raises:
        TypeError: it is neither a string nor a path.
        SettingsError: it names no server and no store.
    """
    if tracking_uri is None:
        return None
    if isinstance(tracking_uri, os.PathLike):
        tracking_uri = os.path.abspath(os.fspath(tracking_uri))  # noqa: PTH100 - Path.resolve follows links
    if not isinstance(tracking_uri, str):
        raise TypeError(
            f"tracking_uri must be a string such as http://tracking:5000, or None for the current one, "
            f"got {type(tracking_uri).__name__}"
        )
    is_http = tracking_uri.lower().startswith(("http:", "https:"))
    if not tracking_uri.strip() or not tracking_uri.isprintable() or (is_http and not origin(tracking_uri)):
        raise SettingsError(
            "tracking_uri must name a server or a store, such as http://tracking:5000, or be None for the "
            f"current one, got {redacted(tracking_uri)!r}"
        )
    return tracking_uri


def check_timeout(timeout: object) -> float | None:
    """Returns a timeout in seconds; None stands for the flush timeout, and a time that has passed is 0.

    Raises:
        TypeError: it is not a number.
        SettingsError: it is NaN.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(
            f"timeout must be a number of seconds, or None for the flush timeout, got {timeout!r}"
        )
    if math.isnan(timeout):
        raise SettingsError("timeout must be a number of seconds, or None for the flush timeout, got nan")
    return timeout


def check_started_at(started_at: object) -> int | None:
    """Returns a start time in milliseconds since 1970; None has the server asked.

    Raises:
        TypeError: it is not an integer.
        SettingsError: it is out of range.
    """
    if started_at is None:
        return None
    if isinstance(started_at, bool) or not isinstance(started_at, int):
        raise TypeError(f"started_at must be an integer, milliseconds since 1970, got {started_at!r}")
    if not 0 <= started_at <= _LARGEST:
        raise SettingsError(f"started_at must be milliseconds since 1970, got {started_at}")
    return started_at
