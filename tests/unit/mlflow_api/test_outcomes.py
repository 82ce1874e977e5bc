"""The table of outcomes, and what delivery makes of each cause."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
import requests

from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.outcomes import (
    cause_by_code,
    cause_of,
    fault_of_answer,
    fault_of_error,
    is_not_found,
    lacks_call,
    nothing,
    read_answer,
    seconds_from,
)

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=timezone.utc)
AZURE = (
    "Response: {'Error': {'Message': 'A field of the entity is over the size limit. Limit=200, Size=699.'}}"
)
STORED_IN_SQLITE = (
    "(sqlite3.IntegrityError) UNIQUE constraint failed: metrics.key, metrics.timestamp\n"
    "[SQL: INSERT INTO metrics (key, value) VALUES (?, ?)] [parameters: ('maximum', 1)]"
)
STORED_IN_POSTGRESQL = (
    '(psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint "metric_pk"\n'
    "DETAIL:  Key (key) already exists.\n[SQL: INSERT INTO metrics (key) VALUES (%(key)s)]"
)
STORED_IN_MYSQL = (
    "(1062, \"Duplicate entry 'x' for key 'PRIMARY'\")\n[SQL: INSERT INTO metrics (`key`) VALUES (%s)]"
)
LATEST_VALUES = STORED_IN_SQLITE.replace("INTO metrics", "INTO latest_metrics").replace("maximum", "loss")

ROWS = [
    (404, "RESOURCE_DOES_NOT_EXIST", "Run with id=7 not found", Cause.MISSING),
    (400, "INVALID_STATE", "The run must be in the active state", Cause.DELETED),
    (400, "INVALID_PARAMETER_VALUE", "The run 7 must be in the 'active' state.", Cause.DELETED),
    (None, "INVALID_PARAMETER_VALUE", "The run 7 must be in 'active' lifecycle_stage.", Cause.DELETED),
    (400, "INVALID_PARAMETER_VALUE", "Invalid value for parameter 'run_id'", Cause.REFUSED),
    (400, "INVALID_PARAMETER_VALUE", "can contain at most 1000 metrics. Got 1200 metrics.", Cause.TOO_LARGE),
    (400, "BAD_REQUEST", "requests must be at most 1000000 bytes, got 1000001", Cause.TOO_LARGE),
    (400, "INVALID_PARAMETER_VALUE", AZURE, Cause.TOO_LARGE),
    (None, "INVALID_PARAMETER_VALUE", "'metrics' exceeds the maximum length", Cause.TOO_LARGE),
    (413, None, "<html>Request Entity Too Large</html>", Cause.TOO_LARGE),
    (400, "BAD_REQUEST", STORED_IN_SQLITE, Cause.POINT_EXISTS),
    (400, "BAD_REQUEST", STORED_IN_POSTGRESQL, Cause.POINT_EXISTS),
    (400, "BAD_REQUEST", STORED_IN_MYSQL, Cause.POINT_EXISTS),
    (400, "BAD_REQUEST", LATEST_VALUES, Cause.FAILED),
    (500, "INTERNAL_ERROR", "Python int too large to convert to SQLite INTEGER", Cause.REFUSED),
    (500, "INTERNAL_ERROR", "A string literal cannot contain NUL (0x00) characters.", Cause.REFUSED),
    (500, "INTERNAL_ERROR", "'utf-8' codec can't encode character: surrogates not allowed", Cause.REFUSED),
    (400, "BAD_REQUEST", "(psycopg2.errors.NumericValueOutOfRange) bigint out of range", Cause.REFUSED),
    (400, "BAD_REQUEST", "(1264, \"Out of range value for column 'step' at row 1\")", Cause.REFUSED),
    (400, "BAD_REQUEST", "(1366, \"Incorrect string value: '\\xF0\\x9F' for column 'key'\")", Cause.REFUSED),
    (None, "INTERNAL_ERROR", "API request to http://h failed: 'latin-1' codec can't encode", Cause.DOWN),
    (500, "INTERNAL_ERROR", "disk full [SQL: INSERT ...] [parameters: ('out of range', 1)]", Cause.DOWN),
    (500, None, "integer out of range", Cause.DOWN),
    (400, None, "<html>Bad Request</html>", Cause.NOT_MLFLOW),
    (404, None, "<html>not here</html>", Cause.NOT_MLFLOW),
    (404, "ENDPOINT_NOT_FOUND", "", Cause.NOT_MLFLOW),
    (401, None, "You are not authenticated", Cause.UNAUTHENTICATED),
    (403, "PERMISSION_DENIED", "Permission denied", Cause.FORBIDDEN),
    (403, "BAD_REQUEST", "no", Cause.FORBIDDEN),
    (403, None, "Invalid Host header - possible DNS rebinding attack detected", Cause.WRONG_HOST),
    (407, None, "", Cause.PROXY),
    (408, None, "", Cause.DOWN),
    (429, "REQUEST_LIMIT_EXCEEDED", "more than 10 requests", Cause.DOWN),
    (500, "INTERNAL_ERROR", "database is locked", Cause.DOWN),
    (502, None, "", Cause.DOWN),
    (None, "TEMPORARILY_UNAVAILABLE", "", Cause.DOWN),
    (None, None, "", Cause.DOWN),
    (400, "RESOURCE_ALREADY_EXISTS", "", Cause.EXISTS),
    (400, "ALREADY_EXISTS", "", Cause.EXISTS),
    (400, "FEATURE_DISABLED", "", Cause.FAILED),
    (501, "NOT_IMPLEMENTED", "", Cause.FAILED),
    (400, "SOMETHING_NEW", "", Cause.FAILED),
    (200, "INTERNAL_ERROR", "disk full", Cause.FAILED),
    (200, "RESOURCE_DOES_NOT_EXIST", "no such run", Cause.NOT_MLFLOW),
    (200, "INVALID_PARAMETER_VALUE", "at most 1000 metrics", Cause.NOT_MLFLOW),
    (200, None, "<html>Sign in</html>", Cause.NOT_MLFLOW),
]


@pytest.mark.parametrize(("status", "code", "text", "cause"), ROWS)
def test_each_answer_has_one_cause(status: int | None, code: str | None, text: str, cause: Cause) -> None:
    assert cause_of(status, code, text) is cause


@pytest.mark.parametrize(
    ("cause", "gives_up", "slowly"),
    [
        (Cause.MISSING, True, False),
        (Cause.REFUSED, True, False),
        (Cause.DELETED, True, False),
        (Cause.UNAUTHENTICATED, False, True),
        (Cause.FORBIDDEN, False, True),
        (Cause.WRONG_HOST, False, True),
        *(
            (cause, False, False)
            for cause in (Cause.DOWN, Cause.NOT_MLFLOW, Cause.FAILED, Cause.TOO_LARGE, Cause.POINT_EXISTS)
        ),
    ],
)
def test_delivery_gives_up_a_run_only_by_mlflows_own_word(
    cause: Cause, *, gives_up: bool, slowly: bool
) -> None:
    answered = Fault("why", cause, status_code=400, error_code="CODE")
    assert (answered.refuses_run, answered.refuses_credentials) == (gives_up, slowly)
    assert answered.run_is_deleted == (cause is Cause.DELETED)
    unproven = Fault("why", cause)
    assert not unproven.refuses_run
    assert not unproven.refuses_credentials
    assert not unproven.run_is_deleted


def test_the_error_code_of_a_wrapped_exception_proves_nothing_about_a_run() -> None:
    inner, outer = ValueError("no run"), RuntimeError("plugin")
    inner.error_code = "RESOURCE_DOES_NOT_EXIST"  # type: ignore[attr-defined]
    outer.__cause__ = inner
    assert fault_of_error(inner).refuses_run
    assert fault_of_error(outer).cause is Cause.MISSING
    assert not fault_of_error(outer).refuses_run


@pytest.mark.parametrize(
    "body",
    ['{"error_code": "INTERNAL_ERROR", "message": "disk full"}', "<html>Sign in</html>", "", "[]", "null"],
)
def test_status_200_alone_is_not_success(body: str) -> None:
    found = fault_of_answer(200, body, {})
    assert found is not None
    assert not found.refuses_run


def test_an_answer_to_another_request_is_not_success() -> None:
    found = fault_of_answer(200, "{}", {}, redirected_to="http://server/login", is_to_request=False)
    assert found is not None
    assert found.cause is Cause.NOT_MLFLOW
    assert "redirected to http://server/login" in found.reason


@pytest.mark.parametrize(
    ("status", "code", "message", "cause"),
    [
        (404, "RESOURCE_DOES_NOT_EXIST", "No such run", Cause.NOT_MLFLOW),
        (400, "INVALID_PARAMETER_VALUE", "The run must be in the 'active' state", Cause.NOT_MLFLOW),
        (413, None, "", Cause.NOT_MLFLOW),
        (401, None, "", Cause.UNAUTHENTICATED),
        (403, "PERMISSION_DENIED", "", Cause.FORBIDDEN),
        (503, None, "", Cause.DOWN),
    ],
)
def test_an_answer_to_another_request_settles_nothing(
    status: int, code: str | None, message: str, cause: Cause
) -> None:
    body = json.dumps({"error_code": code, "message": message})
    found = fault_of_answer(status, body, {}, redirected_to="http://server/login", is_to_request=False)
    assert found is not None
    assert (found.cause, found.refuses_run) == (cause, False)


def test_a_secret_at_the_end_of_what_is_shown_is_masked_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hush-S3CR3T-w0rd")
    for length in range(240, 300):
        with pytest.raises(Fault) as raised:
            read_answer(json.dumps(["." * length + "hush-S3CR3T-w0rd"]), nothing)
        assert "hush" not in str(raised.value)


@pytest.mark.parametrize("body", ['{"status": "UP"}', '{"run": {}}', "[]", "null", "0"])
def test_only_the_empty_object_acknowledges_a_batch(body: str) -> None:
    read_answer(" {}\n", nothing)
    with pytest.raises(Fault, match="HTTP 200, but not MLflow's answer") as raised:
        read_answer(body, nothing)
    assert raised.value.cause is Cause.NOT_MLFLOW
    assert raised.value.__context__ is None


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
        pytest.param("9" * 400, None, id="infinity"),
        ("\u0663", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    assert seconds_from(header, NOW) == seconds


def test_the_fault_carries_what_the_server_asks_for() -> None:
    found = fault_of_answer(503, "", {"Retry-After": "9"})
    assert found is not None
    assert (found.cause, found.retry_after) == (Cause.DOWN, 9)


@pytest.mark.parametrize("tag", ["<", "<a ", "<script>", "<head ", "</style"])
def test_a_huge_error_page_is_not_searched_as_a_whole(tag: str) -> None:
    found = fault_of_answer(502, "<p>Bad gateway</p>" + tag * 1_000_000, {})
    assert found is not None
    assert found.reason.startswith("HTTP 502: Bad gateway")


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (
            "<html><head><title>502</title></head><body><h1>Bad&nbsp;gateway</h1></body></html>",
            "Bad&nbsp;gateway",
        ),
        ("<HEAD class=x>a</HEAD><p>b<br/>c", "b c"),
        ("<style>p > a {}</style>x<script>if (a < b) </p> {}</script>y", "x y"),
        ("<header>top</header> 1 < 2", "top 1 2"),
        ("no markup", "no markup"),
    ],
)
def test_the_words_of_a_page_are_shown(page: str, words: str) -> None:
    found = fault_of_answer(502, page, {})
    assert found is not None
    assert found.reason == f"HTTP 502: {words}"


class Named(Exception):
    """An exception with MLflow's name of an error."""

    def __init__(self, code: str | None, text: str = "") -> None:
        super().__init__(text)
        self.error_code = code


def test_the_name_of_an_object_does_not_change_the_cause() -> None:
    missing = Named("INVALID_PARAMETER_VALUE", "Registered model alias maximum not found.")
    assert cause_of(None, missing.error_code, str(missing)) is Cause.TOO_LARGE
    assert cause_by_code(missing) is Cause.REFUSED
    assert is_not_found(missing)


@pytest.mark.parametrize("code", ["RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"])
def test_both_names_say_that_an_object_exists(code: str) -> None:
    assert cause_by_code(Named(code)) is Cause.EXISTS
    assert not is_not_found(Named(code))


@pytest.mark.parametrize(
    ("code", "not_found", "lacks"),
    [
        ("RESOURCE_DOES_NOT_EXIST", True, False),
        ("INVALID_PARAMETER_VALUE", True, False),
        ("ENDPOINT_NOT_FOUND", False, True),
        ("FEATURE_DISABLED", False, True),
        ("NOT_IMPLEMENTED", False, True),
        ("PERMISSION_DENIED", False, False),
        ("INTERNAL_ERROR", False, False),
        ("BAD_REQUEST", False, False),
        (None, False, False),
    ],
)
def test_what_does_not_exist_is_an_object_or_the_call_itself(
    code: str | None, not_found: bool, lacks: bool
) -> None:
    error = Named(code)
    assert (is_not_found(error), lacks_call(error)) == (not_found, lacks)


def test_an_exception_without_a_name_says_nothing_about_objects() -> None:
    assert cause_by_code(OSError("not found")) is None
    assert not is_not_found(OSError("not found"))
    assert lacks_call(NotImplementedError())


@pytest.mark.parametrize(
    ("status", "code", "may"),
    [
        (500, "INTERNAL_ERROR", True),
        (500, None, True),
        (413, None, True),
        (400, "BAD_REQUEST", True),
        (400, None, True),
        (502, None, False),
        (503, "TEMPORARILY_UNAVAILABLE", False),
        (429, None, False),
        (401, None, False),
        (404, None, False),
    ],
)
def test_a_point_may_be_the_reason_of_what_a_server_answers_while_it_works(
    status: int, code: str | None, *, may: bool
) -> None:
    body = json.dumps({"error_code": code, "message": "no"}) if code else "<html></html>"
    fault = fault_of_answer(status, body, {})
    assert fault is not None
    assert fault.may_concern_content is may
    assert fault.concerns_server


@pytest.mark.parametrize(
    ("error", "local"),
    [
        (TypeError("Object of type bytes is not JSON serializable"), True),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), True),
        (OverflowError("int too big"), True),
        (ConnectionRefusedError("no"), False),
        (requests.exceptions.InvalidHeader("a header with a newline"), False),
        (requests.exceptions.JSONDecodeError("no JSON", "", 0), False),
        (MemoryError(), False),
    ],
)
def test_an_error_about_what_was_to_be_sent_says_nothing_about_the_server(
    error: Exception, *, local: bool
) -> None:
    fault = fault_of_error(error)
    assert fault.is_local is local
    assert fault.concerns_server is not local


def test_what_a_server_sends_cannot_control_a_terminal() -> None:
    found = fault_of_answer(500, "\x1b[2J\x07gone\x00\u202e\r\nÄ 実験", {})
    assert found is not None
    assert found.reason == r"HTTP 500: \x1b[2J\x07gone\x00\u202e Ä 実験"
    assert fault_of_error(OSError("\x1b]0;title\x07")).reason == r"OSError: \x1b]0;title\x07"
