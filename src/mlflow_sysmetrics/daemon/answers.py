"""What the answer of a tracking server means for what was sent."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from mlflow_sysmetrics.daemon.resending import AlreadyThere, complains_of_a_copy
from mlflow_sysmetrics.errors import (
    BatchTooLarge,
    DeliveryError,
    NotAllowed,
    RunDeleted,
    RunRefused,
    ServerUnreachable,
)
from mlflow_sysmetrics.retry_after import seconds_from

# Answers that no waiting can change. Any other one, and any that is not MLflow's own (a proxy's page with 404
# or 400), may pass.
_FINAL = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE"})
_NOT_ALLOWED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"})
_NOT_ALLOWED_STATUS = frozenset({401, 403})
_TOO_LARGE_STATUS = 413
_BAD_REQUEST_STATUS = 400
_BAD_REQUEST = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST"})
# MLflow: "can contain at most 1000 metrics", "must be at most 1000000 bytes"; Azure: "is over the size limit.
# FieldName=..., Limit=200, Size=699" (github.com/mlflow/mlflow/issues/11462), "is larger than the max metric
# size". Where it is one point that is at fault and not the number of them, halving finds that one.
_ABOUT_SIZE = re.compile(
    r"at most \d|size limit|(more|larger|greater|bigger|longer) than|too (large|many|big|long)|exceed|maximum"
    r"|limit=\d",
    re.IGNORECASE,
)
# Databases: "The run 7 must be in the 'active' state. Current state is deleted."; files: "The run 7 must be
# in 'active' lifecycle_stage."; the same of the experiment. No store says so of a run that it never had.
_ABOUT_DELETION = re.compile(r"must be in (?:an? |the )?'?active", re.IGNORECASE)


def fault(
    status: int | None, code: str | None, text: str, reason: str, retry_after: str | None = None
) -> DeliveryError:
    """Returns what to raise for an answer that is not a success.

    Args:
        status: of HTTP; None where the store was called directly.
        code: MLflow's name of the error; None where the answer was not MLflow's.
        text: the answer.
        reason: what to say of it, in one line.
        retry_after: the header of that name.
    """
    bad_request = status == _BAD_REQUEST_STATUS or code in _BAD_REQUEST
    # First: it quotes the names of metrics, which may be any words.
    if bad_request and complains_of_a_copy(text):
        return AlreadyThere(reason)
    if status == _TOO_LARGE_STATUS or (bad_request and _ABOUT_SIZE.search(text)):
        return BatchTooLarge(reason)
    if code in _FINAL:
        return (RunDeleted if _ABOUT_DELETION.search(text) else RunRefused)(reason)
    seconds = None if retry_after is None else seconds_from(retry_after, datetime.now(timezone.utc))
    if status in _NOT_ALLOWED_STATUS or code in _NOT_ALLOWED:
        return NotAllowed(reason, seconds)
    return ServerUnreachable(reason, seconds)
