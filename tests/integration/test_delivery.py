"""A server that fails, and ends of a program: nothing hangs, and what can be delivered is."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from counting_server import CountingServer

from conftest import HOST_METRICS, LEVELS, Program

FLUSH_TIMEOUT = 2.0
ENVIRON = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1",
    "MLFLOW_SYSMETRICS_SEND_INTERVAL": "0.2",
    "MLFLOW_SYSMETRICS_FLUSH_TIMEOUT": str(FLUSH_TIMEOUT),
}
TRAINING = """
    began = time.perf_counter()
    with mlflow.start_run() as run:
        time.sleep(1.5)
    print(run.info.run_id, time.perf_counter() - began - 1.5)
"""


def test_a_server_that_takes_nothing_costs_less_than_the_flush_timeout(
    program: Program, server: CountingServer
) -> None:
    """The program's time and exit status are what they are without us; one warning says what is lost."""
    began = time.perf_counter()
    program(server.url, TRAINING, MLFLOW_RUN_CONTEXT_PROVIDER="none")
    alone = time.perf_counter() - began
    for mode in ("500", "hang", "refuse"):
        server.mode(mode)
        began = time.perf_counter()
        finished = program(server.url, TRAINING, **ENVIRON)
        # Minutes without us giving up; interpreters start at very different speeds on a busy machine.
        assert time.perf_counter() - began - alone < FLUSH_TIMEOUT + 15, mode
        assert "Traceback" not in finished.stderr
        assert finished.stderr.count("are lost") == 1


def test_ten_runs_that_end_in_one_outage_wait_for_one_timeout_together(
    program: Program, server: CountingServer
) -> None:
    server.mode("hang")
    code = """
        began = time.perf_counter()
        for _ in range(10):
            with mlflow.start_run():
                pass
        print(time.perf_counter() - began)
    """
    (seconds,) = program(server.url, code, **ENVIRON).words
    assert float(seconds) < FLUSH_TIMEOUT + 1


def test_an_outage_in_the_middle_loses_nothing(program: Program, server: CountingServer) -> None:
    code = f"""
        import urllib.request
        def mode(name):
            body = ('{{"log_batch": "%s"}}' % name).encode()
            urllib.request.urlopen(urllib.request.Request("{server.url}/mode", body), timeout=5).read()
        with mlflow.start_run() as run:
            time.sleep(0.5)
            mode("500")
            time.sleep(1.0)
            mode("ok")
            time.sleep(0.5)
            assert mlflow_sysmetrics.flush(20)
        status = mlflow_sysmetrics.status()
        print(run.info.run_id, status.points_delivered, status.points_dropped, status.last_error)
    """
    run_id, delivered, dropped, error = program(server.url, code, **ENVIRON).words
    series = server.points(run_id)
    assert (dropped, error) == ("0", "None")
    stamps = [point["timestamp"] for point in series["system/disk_usage_megabytes"]]
    assert len(stamps) == len(set(stamps)) >= 20
    assert sum(len(points) for points in series.values()) == int(delivered)
    assert max(later - sooner for sooner, later in pairwise(stamps)) < 600


@pytest.mark.parametrize(
    ("ending", "returncode"),
    [
        ("pass", 0),
        ("sys.exit(3)", 3),
        ("raise RuntimeError('training failed')", 1),
        ("raise KeyboardInterrupt", 130),
    ],
)
def test_a_run_that_nobody_ended_is_complete_at_exit(
    program: Program, server: CountingServer, ending: str, returncode: int
) -> None:
    code = f"""
        run = mlflow.start_run()
        print(run.info.run_id, flush=True)
        time.sleep(0.35)
        {ending}
    """
    finished = program(server.url, code, check=False, MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="3600")
    assert finished.returncode in {returncode, -2 if returncode == 130 else returncode}
    series = server.points(finished.words[0])
    assert series.keys() == HOST_METRICS
    assert len(series["system/disk_usage_megabytes"]) == 2


def test_an_attachment_that_nobody_detached_is_complete_at_exit(
    program: Program, server: CountingServer
) -> None:
    code = """
        run = mlflow.MlflowClient().create_run("0")
        attachment = mlflow_sysmetrics.attach(run.info.run_id)
        print(run.info.run_id)
        time.sleep(0.35)
    """
    (run_id,) = program(server.url, code).words
    assert server.points(run_id).keys() == HOST_METRICS


def test_a_run_that_was_deleted_is_set_aside(program: Program, store: object) -> None:
    code = """
        with mlflow.start_run() as run:
            mlflow.MlflowClient().delete_run(run.info.run_id)
            time.sleep(0.3)
            mlflow_sysmetrics.flush()
            mlflow.MlflowClient().restore_run(run.info.run_id)
        status = mlflow_sysmetrics.status()
        print(status.points_pending, status.points_dropped > 0)
    """
    finished = program(store.uri, code, **ENVIRON)  # type: ignore[attr-defined]
    assert finished.words == ["0", "True"]
    assert finished.stderr.count("takes no system metrics any more") == 1


def test_a_start_during_the_shutdown_of_the_interpreter_raises_nothing(
    program: Program, server: CountingServer
) -> None:
    code = """
        import atexit
        def late():
            with mlflow.start_run() as run:
                pass
            print(run.info.run_id)
        atexit.register(late)
    """
    finished = program(server.url, code)
    assert "Traceback" not in finished.stderr
    assert len(finished.words) == 1


def test_secrets_in_the_tracking_uri_are_not_shown(program: Program, server: CountingServer) -> None:
    server.mode("500")
    uri = server.url.replace("http://", "http://somebody:hunter2@")
    finished = program(uri, TRAINING, **ENVIRON)
    assert "does not take system metrics" in finished.stderr
    assert "hunter2" not in finished.stderr


def test_runs_that_end_together_on_a_slow_server_share_the_wait(
    program: Program, server: CountingServer
) -> None:
    """Each of the eight requests takes a second; the ends wait together, each at most the flush timeout."""
    server.mode("slow")
    code = """
        def train():
            with mlflow.start_run():
                time.sleep(0.2)
        threads = [threading.Thread(target=train) for _ in range(8)]
        began = time.perf_counter()
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(time.perf_counter() - began)
    """
    (seconds,) = program(server.url, code, MLFLOW_SYSMETRICS_FLUSH_TIMEOUT="2").words
    assert float(seconds) < 4


def test_levels_are_there_even_for_the_shortest_run(program: Program, server: CountingServer) -> None:
    code = """
        with mlflow.start_run() as run:
            pass
        print(run.info.run_id)
    """
    (run_id,) = program(server.url, code).words
    assert server.points(run_id).keys() >= LEVELS
