"""What the answers of tracking servers mean."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from mlflow_sysmetrics.errors import BatchTooLarge, NotAllowed, RunDeleted, RunRefused, ServerUnreachable
from mlflow_sysmetrics.mlflow_api.classification import fault, seconds_from

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=timezone.utc)
AZURE = (
    "Response: {'Error': {'Message': 'A field of the entity is over the size limit. Limit=200, Size=699.'}}"
)


@pytest.mark.parametrize(
    ("status", "code", "text", "kind"),
    [
        (404, "RESOURCE_DOES_NOT_EXIST", "Run with id=7 not found", RunRefused),
        (400, "INVALID_STATE", "The run must be in the active state", RunDeleted),
        (400, "INVALID_PARAMETER_VALUE", "The run 7 must be in the 'active' state.", RunDeleted),
        (None, "INVALID_PARAMETER_VALUE", "The run 7 must be in 'active' lifecycle_stage.", RunDeleted),
        (400, "INVALID_PARAMETER_VALUE", "Invalid value for parameter 'run_id'", RunRefused),
        (
            400,
            "INVALID_PARAMETER_VALUE",
            "can contain at most 1000 metrics. Got 1200 metrics.",
            BatchTooLarge,
        ),
        (400, "BAD_REQUEST", "requests must be at most 1000000 bytes, got 1000001", BatchTooLarge),
        (400, "INVALID_PARAMETER_VALUE", AZURE, BatchTooLarge),
        (None, "INVALID_PARAMETER_VALUE", "'metrics' exceeds the maximum length", BatchTooLarge),
        (413, None, "<html>Request Entity Too Large</html>", BatchTooLarge),
        (400, None, "<html>Bad Request</html>", ServerUnreachable),
        (404, None, "<html>not here</html>", ServerUnreachable),
        (401, None, "You are not authenticated", NotAllowed),
        (403, "PERMISSION_DENIED", "Permission denied", NotAllowed),
        (408, None, "", ServerUnreachable),
        (429, "REQUEST_LIMIT_EXCEEDED", "more than 10 requests", ServerUnreachable),
        (500, "INTERNAL_ERROR", "database is locked", ServerUnreachable),
        (502, None, "", ServerUnreachable),
        (None, "TEMPORARILY_UNAVAILABLE", "", ServerUnreachable),
        (None, None, "", ServerUnreachable),
    ],
)
def test_an_answer_may_pass_is_final_or_is_about_the_size(
    status: int | None, code: str | None, text: str, kind: type[Exception]
) -> None:
    assert type(fault(status, code, text, "why")) is kind


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("Sat, 31 Jan 2026 12:00:30 GMT", 30.0),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("1e9", None),
        ("\u0663", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    assert seconds_from(header, NOW) == seconds


def test_what_the_server_asks_for_travels_with_the_fault() -> None:
    error = fault(503, None, "", "HTTP 503", "9")
    assert isinstance(error, ServerUnreachable)
    assert error.retry_after == 9
