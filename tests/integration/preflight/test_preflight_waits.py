"""What waiting can cure is waited for, no longer than was said."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from chaos_server import free_port
from mlflow_double import Answer, Double, Fly, Hangs, eventually

from mlflow_sysmetrics import preflight
from mlflow_sysmetrics.errors import ServerUnreachableError
from mlflow_sysmetrics.preflight import read_status

pytest_plugins = ["preflight_fixtures"]


def test_a_server_that_answers_503_at_first_is_waited_for(double: Double, fly: Fly) -> None:
    double.answers("/health", Answer(503), times=3)
    waits: list[float] = []
    result = fly(tracking_uri=double.url, shortened=lambda wait: waits.append(wait) or 0.0)
    assert [one.status_code for one in result.attempts if one.step == 1] == [503, 503, 503, 200]
    assert waits == [10, 20, 30]


def test_five_tries_with_waits_of_10_20_30_and_30_seconds_are_all(double: Double, fly: Fly) -> None:
    double.answers("/health", Answer(503))
    waits: list[float] = []
    with pytest.raises(ServerUnreachableError, match="tried 5 times") as raised:
        fly(tracking_uri=double.url, shortened=lambda wait: waits.append(wait) or 0.0)
    assert waits == [10, 20, 30, 30]
    assert [one.n for one in raised.value.attempts] == [1, 2, 3, 4, 5]
    assert raised.value.status_code == 503


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_a_busy_server_answers_is_tried_again(double: Double, fly: Fly, status: int) -> None:
    double.answers("/health", Answer(status), times=1)
    assert fly(tracking_uri=double.url).run_id in double.runs


def test_retry_after_wins_over_our_own_wait(double: Double, fly: Fly) -> None:
    double.answers("/health", Answer(503, headers={"Retry-After": "7"}), times=1)
    waits: list[float] = []
    fly(tracking_uri=double.url, shortened=lambda wait: waits.append(wait) or 0.0)
    assert waits == [7]


def test_a_retry_after_beyond_the_deadline_is_not_waited_for(double: Double, fly: Fly) -> None:
    double.answers("/health", Answer(503, headers={"Retry-After": "3600"}))
    with pytest.raises(
        ServerUnreachableError, match="asks for a pause of 3600 s, which would exceed the deadline of 240 s"
    ):
        fly(tracking_uri=double.url)
    assert double.count("/health") == 1


def test_a_server_that_never_answers_is_left_at_the_timeout(double: Double, fly: Fly) -> None:
    double.answers("/health", Hangs())
    with pytest.raises(ServerUnreachableError, match=r"no answer within|[Tt]imeout|timed out"):
        fly(tracking_uri=double.url, timeout=0.2, max_retries=2)


def test_a_closed_port_raises_within_the_deadline_with_mlflows_own_settings(fly: Fly) -> None:
    began = time.monotonic()
    with pytest.raises(ServerUnreachableError, match="Connection refused"):
        fly(tracking_uri=f"http://127.0.0.1:{free_port()}", deadline=60)
    assert time.monotonic() - began < 60  # MLflow's own retries take 247 s


def test_the_status_file_says_waiting_while_it_waits(double: Double, fly: Fly, files: Path) -> None:
    double.answers("/health", Answer(503), times=1)
    seen: list[str] = []

    def look(_wait: float) -> float:
        seen.append(read_status(files).stage)
        return 0.0

    fly(tracking_uri=double.url, shortened=look)
    assert seen == ["waiting"]


def test_ctrl_c_during_a_wait_leaves_a_status_that_says_so(double: Double, fly: Fly, files: Path) -> None:
    double.answers("/health", Answer(503))

    def interrupt(_wait: float) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fly(tracking_uri=double.url, shortened=interrupt)
    status = read_status(files)
    assert (status.stage, status.error_type) == ("failed", "KeyboardInterrupt")


def test_a_server_that_is_up_after_six_real_seconds_is_waited_for(double: Double) -> None:
    """The one wait that is not shortened; the 25 s of a cold start differ from it in nothing but length."""
    up_at = time.monotonic() + 6
    double.answers("/health", Answer(503), times=3)
    result = preflight("ships", tracking_uri=double.url, backoff=(2,))
    assert time.monotonic() >= up_at
    assert eventually(lambda: double.statuses() == ["RUNNING"])
    assert len([one for one in result.attempts if one.step == 1]) == 4
