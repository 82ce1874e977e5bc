"""Temporary failures are retried within the limits."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from chaos_server import free_port
from mlflow_double import Answer, Double, Hangs, RunPreflight, eventually

from mlflow_sysmetrics import preflight
from mlflow_sysmetrics.errors import ServerUnreachableError
from mlflow_sysmetrics.preflight import read_status

pytest_plugins = ["preflight_fixtures"]


def test_a_server_that_answers_503_at_first_is_retried(double: Double, run_preflight: RunPreflight) -> None:
    double.answers("/health", Answer(503), times=3)
    waits: list[float] = []
    result = run_preflight(tracking_uri=double.url, shortened=lambda wait: waits.append(wait) or 0.0)
    assert [one.status_code for one in result.attempts if one.step == 1] == [503, 503, 503, 200]
    assert waits == [10, 20, 30]


def test_there_are_five_attempts_with_pauses_of_10_20_30_and_30_seconds(
    double: Double, run_preflight: RunPreflight
) -> None:
    double.answers("/health", Answer(503))
    waits: list[float] = []
    with pytest.raises(ServerUnreachableError, match="tried 5 times") as raised:
        run_preflight(tracking_uri=double.url, shortened=lambda wait: waits.append(wait) or 0.0)
    assert waits == [10, 20, 30, 30]
    assert [one.n for one in raised.value.attempts] == [1, 2, 3, 4, 5]
    assert raised.value.status_code == 503


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_statuses_of_a_busy_server_are_retried(
    double: Double, run_preflight: RunPreflight, status: int
) -> None:
    double.answers("/health", Answer(status), times=1)
    assert run_preflight(tracking_uri=double.url).run_id in double.runs


def test_retry_after_takes_precedence_over_our_pause(double: Double, run_preflight: RunPreflight) -> None:
    double.answers("/health", Answer(503, headers={"Retry-After": "7"}), times=1)
    waits: list[float] = []
    run_preflight(tracking_uri=double.url, shortened=lambda wait: waits.append(wait) or 0.0)
    assert waits == [7]


def test_a_retry_after_beyond_the_deadline_ends_the_preflight(
    double: Double, run_preflight: RunPreflight
) -> None:
    double.answers("/health", Answer(503, headers={"Retry-After": "3600"}))
    with pytest.raises(
        ServerUnreachableError, match="asks for a pause of 3600 s, which would exceed the deadline of 240 s"
    ):
        run_preflight(tracking_uri=double.url)
    assert double.count("/health") == 1


def test_a_silent_server_is_abandoned_at_the_timeout(double: Double, run_preflight: RunPreflight) -> None:
    double.answers("/health", Hangs())
    with pytest.raises(ServerUnreachableError, match=r"no answer within|[Tt]imeout|timed out"):
        run_preflight(tracking_uri=double.url, timeout=0.2, max_retries=2)


def test_a_closed_port_raises_within_the_deadline_with_mlflows_own_settings(
    run_preflight: RunPreflight,
) -> None:
    began = time.monotonic()
    with pytest.raises(ServerUnreachableError, match="Connection refused"):
        run_preflight(tracking_uri=f"http://127.0.0.1:{free_port()}", deadline=60)
    assert time.monotonic() - began < 60  # MLflow's own retries take 247 s


def test_the_status_is_waiting_during_a_pause(
    double: Double, run_preflight: RunPreflight, files: Path
) -> None:
    double.answers("/health", Answer(503), times=1)
    seen: list[str] = []

    def look(_wait: float) -> float:
        seen.append(read_status(files).stage)
        return 0.0

    run_preflight(tracking_uri=double.url, shortened=look)
    assert seen == ["waiting"]


def test_ctrl_c_during_a_pause_is_in_the_status(
    double: Double, run_preflight: RunPreflight, files: Path
) -> None:
    double.answers("/health", Answer(503))

    def interrupt(_wait: float) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_preflight(tracking_uri=double.url, shortened=interrupt)
    status = read_status(files)
    assert (status.stage, status.error_type) == ("failed", "KeyboardInterrupt")


def test_a_server_that_is_up_after_six_real_seconds_is_reached(double: Double) -> None:
    """These pauses are real; a cold start of 25 s differs only in their length."""
    up_at = time.monotonic() + 6
    double.answers("/health", Answer(503), times=3)
    result = preflight("ships", tracking_uri=double.url, backoff=(2,))
    assert time.monotonic() >= up_at
    assert eventually(lambda: double.statuses() == ["RUNNING"])
    assert len([one for one in result.attempts if one.step == 1]) == 4
