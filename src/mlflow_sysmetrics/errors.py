"""The exceptions of this package, and how long texts are cut for their messages.

::

    SysMetricsError
    |-- SettingsError (ValueError)           a setting given in code is out of range
    |-- NoActiveRunError (RuntimeError)      a part of the training kit needs a run, and none is active
    |-- HPOError (RuntimeError)              a study could not be completed
    |-- PromotionError (RuntimeError)        a version is registered, and not fully promoted
    |-- ServerStartError (RuntimeError)      a tracking server did not start
    |-- PreflightError (RuntimeError)        the training cannot be tracked, so it must not start
    |   |-- TrackingURIError                 there is no tracking URI, or MLflow cannot use it
    |   |-- ServerUnreachableError           no MLflow server answers there
    |   |-- AuthenticationError              the server refuses the credentials
    |   |-- ExperimentError                  the experiment cannot be created or used
    |   |-- RunStartError                    no run can be started in it
    |   `-- RunVerificationError             the run was started, and does not hold what was written to it
    |-- Unavailable                          internal: this machine does not have a source or fact
    |-- ThreadUnavailable (RuntimeError)     internal: no thread can be started
    |-- JournalUnavailable                   internal: points cannot be written to disk and stay in memory
    `-- mlflow_api.faults.Fault              internal: one failed request to a tracking server
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


def shortened(text: str, most: int) -> str:
    """Returns a text, or its first words and "..." if it is longer than `most` characters."""
    if len(text) <= most:
        return text
    whole = text[: most - len(" ...") + 1].rpartition(" ")[0].rstrip()
    if len(whole) > most // 2:
        return f"{whole} ..."
    return f"{text[: most - len('...')]}..."  # one long word


class SysMetricsError(Exception):
    """Base of all exceptions of this package."""


class SettingsError(SysMetricsError, ValueError):
    """A setting is out of range: says which one, what was given, and what is allowed."""


class Unavailable(SysMetricsError):
    """This machine does not have a source or a fact: says why in one short clause."""


class ThreadUnavailable(SysMetricsError, RuntimeError):
    """No thread can be started: a limit of the system, or the interpreter is shutting down."""


class JournalUnavailable(SysMetricsError):
    """Points cannot be journalled: says why in one short clause (no directory, no permission, no lock)."""


class NoActiveRunError(SysMetricsError, RuntimeError):
    """No MLflow run is active and none was named: says how to get one."""


class HPOError(SysMetricsError, RuntimeError):
    """A hyperparameter study could not be completed. Its results so far are on its run."""


class ServerStartError(SysMetricsError, RuntimeError):
    """A tracking server did not start: says why, what to do, and how its log ends.

    Attributes:
        reason: why, and what to do.
        log_tail: the last lines of its log, without passwords; empty if it never started.
    """

    def __init__(self, reason: str, log_tail: str = "") -> None:
        super().__init__(f"{reason}\n\nIts log ends with:\n{log_tail}" if log_tail else reason)
        self.reason = reason
        self.log_tail = log_tail

    def __reduce__(self) -> tuple[object, ...]:
        """Keeps both arguments when it is pickled, as process pools do with errors."""
        return type(self), (self.reason, self.log_tail)


class PromotionError(SysMetricsError, RuntimeError):
    """A version is registered and not fully promoted: says how to finish.

    Attributes:
        model_name: the registered model.
        version: the version, which can be loaded by its number.
    """

    def __init__(self, message: str, *, model_name: str, version: str) -> None:
        super().__init__(message)
        self.model_name = model_name
        self.version = version

    def __reduce__(self) -> tuple[object, ...]:
        """Keeps its keyword arguments when it is pickled, as process pools do with errors."""
        return _promotion_error, (str(self), self.model_name, self.version)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request of a preflight, and its outcome.

    Attributes:
        n: number within its step, from 1.
        step: step of the preflight, 0 to 4.
        at: when it began, in UTC.
        seconds: how long it took.
        status_code: HTTP status; None if no answer came, or the store does not speak HTTP.
        error: what went wrong, in one line without secrets; None if it succeeded.
    """

    n: int
    step: int
    at: datetime
    seconds: float
    status_code: int | None
    error: str | None


class PreflightError(SysMetricsError, RuntimeError):
    """A training cannot be tracked: says what was tried, what the server answered, and what to do.

    Attributes:
        step: where it failed: 0 the URI, 1 reaching the server, 2 the experiment, 3 the run, 4 its check.
        attempts: every request, oldest first.
        status_code: HTTP status of the last answer; None if no answer came.
        tracking_uri: without user, password and query.
    """

    def __init__(
        self,
        message: str,
        *,
        step: int,
        attempts: tuple[Attempt, ...] = (),
        status_code: int | None = None,
        tracking_uri: str = "",
    ) -> None:
        super().__init__(message)
        self.step = step
        self.attempts = attempts
        self.status_code = status_code
        self.tracking_uri = tracking_uri

    def __reduce__(self) -> tuple[object, ...]:
        """Keeps its keyword arguments when it is pickled, as process pools do with errors."""
        return _preflight_error, (type(self), str(self), dict(vars(self)))


class TrackingURIError(PreflightError):
    """There is no tracking URI, it is malformed, or this MLflow cannot use what it names."""


class ServerUnreachableError(PreflightError):
    """No MLflow server answered at the tracking URI within the attempts or the deadline."""


class AuthenticationError(PreflightError):
    """The server, or a proxy or gateway before it, refuses the request: 401, 403, 407."""


class ExperimentError(PreflightError):
    """The experiment can be neither found nor created, or it is deleted."""


class RunStartError(PreflightError):
    """No run could be started in the experiment, or the given run cannot be resumed."""


class RunVerificationError(PreflightError):
    """The run was started, and what was written to it cannot be read back."""


def _promotion_error(message: str, model_name: str, version: str) -> PromotionError:
    return PromotionError(message, model_name=model_name, version=version)


def _preflight_error(
    kind: type[PreflightError], message: str, attributes: dict[str, object]
) -> PreflightError:
    error = kind(message, step=0)
    vars(error).update(attributes)
    return error
