"""The exception that a failed preflight raises: what was tried, what came back, and what to do."""

from __future__ import annotations

from mlflow_sysmetrics.errors import (
    AuthenticationError,
    ExperimentError,
    PreflightError,
    RunStartError,
    RunVerificationError,
    ServerUnreachableError,
    TrackingURIError,
)
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.preflight.remedies import credentials_sent, opens_no_tunnel, remedy
from mlflow_sysmetrics.preflight.retries import Retries

CLOSING_SENTENCE = "Training does not proceed without experiment tracking."
_BY_STEP = (
    (TrackingURIError, "The tracking URI cannot be used"),
    (ServerUnreachableError, "The tracking server cannot be reached"),
    (ExperimentError, "The experiment cannot be used"),
    (RunStartError, "The run cannot be started"),
    (RunVerificationError, "The run does not return what was written to it"),
)
_BY_CAUSE = {
    Cause.UNAUTHENTICATED: (AuthenticationError, "The tracking server refuses the credentials"),
    Cause.FORBIDDEN: (AuthenticationError, "The tracking server refuses the request"),
    Cause.PROXY: (AuthenticationError, "A proxy before the tracking server asks for credentials"),
    Cause.WRONG_HOST: (AuthenticationError, "The tracking server refuses the host name"),
    Cause.BAD_URI: (TrackingURIError, "The tracking URI cannot be used"),
    Cause.NO_DRIVER: (TrackingURIError, "The tracking URI cannot be used here"),
    Cause.NOT_MLFLOW: (ServerUnreachableError, "No MLflow tracking server responds there"),
    Cause.TLS: (ServerUnreachableError, "No TLS connection to the tracking server"),
    Cause.BAD_DATABASE: (ServerUnreachableError, "The tracking store cannot be opened"),
    Cause.OLD_DATABASE: (ServerUnreachableError, "The tracking database has another schema version"),
}


_MORE_TIME = "Then start the job again; a server that starts slowly needs a larger max_retries or deadline."


def failure(fault: Fault, retries: Retries, tracking_uri: str, left_behind: str = "") -> PreflightError:
    """Returns the exception to raise for a fault.

    Args:
        fault: what came back last.
        retries: the attempts that were made, and the step they belong to.
        tracking_uri: the server; shown without secrets.
        left_behind: a sentence about a run that could not be ended.
    """
    step = retries.step
    error_class, headline = _BY_CAUSE.get(fault.cause, _BY_STEP[step])
    if fault.cause is Cause.FORBIDDEN and opens_no_tunnel(fault):
        headline = "A proxy before the tracking server refuses the connection"
    shown = redacted(tracking_uri)
    sentences = [
        f"{headline}: {shown}, step {step} of 4, {_tried(retries)}: {fault.reason.rstrip('.')}.",
        f"It was not tried again: {retries.gave_up}." if retries.gave_up else "",
        remedy(fault, tracking_uri, credentials_sent(tracking_uri)),
        _MORE_TIME if fault.cause is Cause.DOWN and shown.startswith("http") else "",
        left_behind,
        CLOSING_SENTENCE,
    ]
    return error_class(
        cleaned(" ".join(one for one in sentences if one), tracking_uri),
        step=step,
        attempts=tuple(retries.made),
        status_code=fault.status_code,
        tracking_uri=shown,
    )


def _tried(retries: Retries) -> str:
    """Returns how often the last request was sent, and within how many seconds."""
    count = retries.count
    times = "once" if count == 1 else f"{count} times"
    return f"tried {times} within {retries.elapsed:.1f} s"
