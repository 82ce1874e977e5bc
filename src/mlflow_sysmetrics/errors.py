"""The exception tree.

::

    SysMetricsError
    |-- SettingsError (ValueError)   a setting given in code is out of range
    |-- Unavailable                  this machine does not have that source or fact
    |-- JournalUnavailable           points cannot be kept on disk: they wait in memory only
    |-- NoActiveRunError (RuntimeError)  a part of the training kit needs a run, and there is none
    |-- HPOError (RuntimeError)      a study could not be carried out to its end
    |-- PromotionError (RuntimeError)  a version is registered, not promoted
    |-- ServerStartError (RuntimeError)  a tracking server did not come up
    |-- PreflightError (RuntimeError)  the training cannot be tracked, so it must not start
    |   |-- TrackingURIError         there is no tracking URI, or MLflow cannot use it
    |   |-- ServerUnreachableError   no MLflow server answers there
    |   |-- AuthenticationError      it answers, and refuses the credentials
    |   |-- ExperimentError          the experiment cannot be made or used
    |   |-- RunStartError            no run can be started in it
    |   `-- RunVerificationError     the run was started, and is not what it should be
    `-- DeliveryError                the tracking server did not take what was sent
        |-- ServerUnreachable        it may do so later: keep the points, try again
        |   `-- NotAllowed           it will once the credentials are right: say so, try again slowly
        |-- BatchTooLarge            it would take fewer points at a time
        `-- RunRefused               it never will for this run: set its points aside
            `-- RunDeleted           it has the run, which was deleted: no other store answers so
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the one name from a floor above, and only for who reads the types
    from mlflow_sysmetrics.preflight.attempts import Attempt  # noqa: TID251 - as said


class SysMetricsError(Exception):
    """Is the base of everything that this package raises."""


class SettingsError(SysMetricsError, ValueError):
    """Says which setting is out of range, what was given, and what is allowed."""


class Unavailable(SysMetricsError):
    """Says why a source or a fact does not exist on this machine, in one short clause."""


class DeliveryError(SysMetricsError):
    """Is the base of what a sink raises."""


class ServerUnreachable(DeliveryError):
    """The server did not answer, or answered that it may do better later.

    Attributes:
        retry_after: seconds after which the server asked to be tried again; None where it said nothing.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class NotAllowed(ServerUnreachable):
    """The server refused the credentials, which are read anew at each attempt."""


class BatchTooLarge(DeliveryError):
    """The server takes fewer points, or fewer bytes, in one request."""


class RunRefused(DeliveryError):
    """The server will never take points for this run: it was deleted, or it never existed there."""


class RunDeleted(RunRefused):
    """The server has the run, and the run or its experiment was deleted."""


class JournalUnavailable(SysMetricsError):
    """Says why points cannot be journalled, in one short clause: no directory, no permission, no lock."""


class NoActiveRunError(SysMetricsError, RuntimeError):
    """There is no active MLflow run and none was named; says how to have one."""


class HPOError(SysMetricsError, RuntimeError):
    """A study of hyperparameters could not be carried out to its end; what it had found is on its run."""


class ServerStartError(SysMetricsError, RuntimeError):
    """A tracking server did not come up; says why, what to do, and how its log ends.

    Attributes:
        log_tail: the last lines of its log, without passwords; empty where it never started.
    """

    def __init__(self, reason: str, log_tail: str = "") -> None:
        super().__init__(f"{reason}\n\nIts log ends with:\n{log_tail}" if log_tail else reason)
        self.reason = reason
        self.log_tail = log_tail

    def __reduce__(self) -> tuple[object, ...]:
        """Keeps both arguments when it is pickled, as pools of workers do with errors."""
        return type(self), (self.reason, self.log_tail)


class PromotionError(SysMetricsError, RuntimeError):
    """A version is registered but not, or not wholly, promoted; says how to finish.

    Attributes:
        model_name: the registered model.
        version: the version, which may be loaded by its number.
    """

    def __init__(self, message: str, *, model_name: str, version: str) -> None:
        super().__init__(message)
        self.model_name = model_name
        self.version = version

    def __reduce__(self) -> tuple[object, ...]:
        """Keeps its keyword arguments when it is pickled, as pools of workers do with errors."""
        return _promotion_error, (str(self), self.model_name, self.version)


def _promotion_error(message: str, model_name: str, version: str) -> PromotionError:
    return PromotionError(message, model_name=model_name, version=version)


class PreflightError(SysMetricsError, RuntimeError):
    """A training cannot be tracked: the message says what was tried, what came back, and what to do.

    Attributes:
        step: where it failed: 0 the URI, 1 reaching the server, 2 the experiment, 3 the run, 4 its check.
        attempts: every request that was made, oldest first.
        status_code: the last answer's, of HTTP; None where no answer came.
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
        """Keeps its keyword arguments when it is pickled, as pools of workers do with errors."""
        return _rebuilt, (type(self), str(self), dict(vars(self)))


class TrackingURIError(PreflightError):
    """There is no tracking URI, it is malformed, or this MLflow cannot use what it names."""


class ServerUnreachableError(PreflightError):
    """No MLflow server answered at the tracking URI within the attempts or the deadline."""


class AuthenticationError(PreflightError):
    """The server, or what stands before it, refuses us: 401, 403."""


class ExperimentError(PreflightError):
    """The experiment can be neither found nor made, or it is deleted."""


class RunStartError(PreflightError):
    """No run could be started in the experiment, or the one to resume cannot be."""


class RunVerificationError(PreflightError):
    """The run was started, but what was written to it cannot be read back."""


def _rebuilt(kind: type[PreflightError], message: str, attributes: dict[str, object]) -> PreflightError:
    """Returns an error as it was before it was pickled."""
    error = kind(message, step=0)
    vars(error).update(attributes)
    return error
