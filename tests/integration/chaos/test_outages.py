"""Whatever a network or a server does to a request, every sampled point arrives exactly once."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest
from chaos_check import assert_all_on_server
from chaos_nursery import Program
from chaos_proxy import EARLY_TROUBLES, RETRY_AFTER_SECONDS, TROUBLES, Proxy
from chaos_server import TrackingServer
from chaos_starter import Starter, journals

pytest_plugins = ["chaos_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="programs are forked here")

TRAINING = """
    from dataclasses import replace
    from mlflow_sysmetrics.mlflow_api import runs
    runs._TIMEOUTS = replace(runs._TIMEOUTS, read=int(os.environ["CHAOS_READ_TIMEOUT_SECONDS"]))
    attachment = mlflow_sysmetrics.attach(os.environ["RUN"], tracking_uri=URL)
    tell("attached")
    await_word("finish")
    assert mlflow_sysmetrics.flush(60), mlflow_sysmetrics.status()
    assert attachment.detach(60), mlflow_sysmetrics.status()
    status = mlflow_sysmetrics.status()
    print(status.points_delivered, status.points_pending, status.points_dropped, status.last_error)
"""


def finish(program: Program) -> str:
    """Ends a training and returns its final status without the number of delivered points."""
    program.tell("finish")
    assert program.wait() == 0, program.stderr
    return program.stdout.partition(" ")[2]


def training(start: Starter, tracking: TrackingServer, url: str, *, read_timeout: int = 15) -> Program:
    """Starts a training with its own run and waits until it is attached."""
    program = start(
        TRAINING, RUN=tracking.new_run(), CHAOS_URL=url, CHAOS_READ_TIMEOUT_SECONDS=str(read_timeout)
    )
    program.await_word("attached")
    return program


@pytest.mark.parametrize(
    "trouble",
    [
        "reset",
        "reset-mid-body",
        "hang",
        "half-open",
        "lose-answer",
        "cut-answer",
        "drip",
        "500",
        "502",
        "401",
        "503",
        "429",
        "refuse",
    ],
)
def test_an_outage_loses_and_duplicates_nothing(
    trouble: str, start: Starter, tracking: TrackingServer, proxy: Proxy, spool: Path
) -> None:
    program = training(start, tracking, proxy.url)
    proxy.await_requests(2)
    with proxy.troubled(trouble):
        time.sleep(1.5)  # within a second of a failure, even a flush does not retry
    assert finish(program) == "0 0 None"
    assert assert_all_on_server(tracking, start.sides) > 0
    assert journals(spool) == []


def test_a_server_that_was_killed_and_restarted_has_every_point(
    start: Starter, tracking: TrackingServer, spool: Path
) -> None:
    program = training(start, tracking, tracking.url)
    time.sleep(0.5)
    tracking.kill()
    tracking.start()
    assert finish(program) == "0 0 None"
    assert assert_all_on_server(tracking, start.sides) > 0
    assert journals(spool) == []


@pytest.mark.parametrize("read_timeout", [15, 1])
def test_a_locked_database_loses_and_duplicates_nothing(
    read_timeout: int, start: Starter, tracking: TrackingServer, proxy: Proxy
) -> None:
    """MLflow waits up to 20 s for the lock, so its response is late, or arrives after the read timeout."""
    program = training(start, tracking, proxy.url, read_timeout=read_timeout)
    proxy.await_requests(2)
    with tracking.database.locked():
        proxy.await_requests(1 if read_timeout > 1 else 2)
        time.sleep(0.5)
    assert finish(program) == "0 0 None"
    assert assert_all_on_server(tracking, start.sides) > 0


@pytest.mark.parametrize("trouble", ["429", "503"])
def test_a_retry_after_header_is_respected(
    trouble: str, start: Starter, tracking: TrackingServer, proxy: Proxy
) -> None:
    program = training(start, tracking, proxy.url)
    proxy.await_requests(2)  # the first may have tags only, before the server was asked when the run began
    with proxy.troubled(trouble):
        first, second = proxy.await_requests(2)
    assert second.arrived_at - first.arrived_at >= RETRY_AFTER_SECONDS
    assert finish(program) == "0 0 None"
    assert_all_on_server(tracking, start.sides)


def test_consecutive_faults_lose_and_duplicate_nothing(
    start: Starter, tracking: TrackingServer, proxy: Proxy
) -> None:
    """Four trainings run at once; each fault lasts between 0.05 and 0.5 s."""
    programs = [training(start, tracking, proxy.url) for _ in range(4)]
    chosen = random.Random(5)
    for trouble in chosen.sample([*TROUBLES, *EARLY_TROUBLES], k=len(TROUBLES) + len(EARLY_TROUBLES)):
        with proxy.troubled(trouble):
            time.sleep(chosen.uniform(0.05, 0.5))
    for program in programs:
        assert finish(program) == "0 0 None"
    assert assert_all_on_server(tracking, start.sides) > 0


def test_points_sampled_before_the_server_first_responds_are_delivered(
    start: Starter, tracking: TrackingServer, proxy: Proxy
) -> None:
    """At that time nothing is known about the run, not even its start time."""
    with proxy.troubled("refuse"):
        program = training(start, tracking, proxy.url)
        program.await_sample()
        time.sleep(0.5)
    assert finish(program) == "0 0 None"
    assert assert_all_on_server(tracking, start.sides) > 0
