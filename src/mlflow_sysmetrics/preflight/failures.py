"""What is raised where a preflight fails: it says what was tried, what came back, and what to do."""

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
from mlflow_sysmetrics.preflight.mechanisms import mechanism
from mlflow_sysmetrics.preflight.remedies import remedy
from mlflow_sysmetrics.preflight.tries import Tries

LAST_WORDS = "Training does not proceed without experiment tracking."
_BY_STEP = (
    (TrackingURIError, "The tracking URI cannot be used"),
    (ServerUnreachableError, "The tracking server cannot be reached"),
    (ExperimentError, "The experiment cannot be used"),
    (RunStartError, "The run cannot be started"),
    (RunVerificationError, "The run does not hold what is written to it"),
)
_BY_CAUSE = {
    Cause.UNAUTHENTICATED: (AuthenticationError, "The tracking server refuses the credentials"),
    Cause.FORBIDDEN: (AuthenticationError, "The tracking server refuses the request"),
    Cause.PROXY: (AuthenticationError, "A proxy before the tracking server asks for credentials"),
    Cause.WRONG_HOST: (AuthenticationError, "The tracking server refuses the host name"),
    Cause.BAD_URI: (TrackingURIError, "The tracking URI cannot be used"),
    Cause.NO_DRIVER: (TrackingURIError, "The tracking URI cannot be used here"),
    Cause.NOT_MLFLOW: (ServerUnreachableError, "No MLflow tracking server answers there"),
    Cause.TLS: (ServerUnreachableError, "No TLS connection to the tracking server"),
    Cause.BAD_DATABASE: (ServerUnreachableError, "The tracking store cannot be opened"),
    Cause.OLD_DATABASE: (ServerUnreachableError, "The tracking database has another version"),
}


def failure(fault: Fault, tries: Tries, tracking_uri: str, left_behind: str = "") -> PreflightError:
    """Returns what to raise for a fault.

    Args:
        fault: what came back last.
        tries: with what was tried, and the step it was in.
        tracking_uri: where; it is shown without secrets.
        left_behind: a sentence on a run that could not be ended.
    """
    step = tries.step
    kind, headline = _BY_CAUSE.get(fault.cause, _BY_STEP[step])
    shown = redacted(tracking_uri)
    sentences = [
        f"{headline}: {shown}, step {step} of 4, {_tried(tries)}: {fault.reason.rstrip('.')}.",
        f"There was no further try: {tries.gave_up}." if tries.gave_up else "",
        remedy(fault, tracking_uri, mechanism(tracking_uri)),
        left_behind,
        LAST_WORDS,
    ]
    return kind(
        cleaned(" ".join(one for one in sentences if one), tracking_uri),
        step=step,
        attempts=tuple(tries.made),
        status_code=fault.status_code,
        tracking_uri=shown,
    )


def _tried(tries: Tries) -> str:
    """Returns how often the last question was asked."""
    count = tries.asked
    times = "once" if count == 1 else f"{count} times"
    return f"tried {times} within {tries.elapsed:.1f} s"
