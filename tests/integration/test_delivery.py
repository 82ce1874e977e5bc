"""Failing servers and the end of a program: nothing hangs, and everything deliverable is delivered."""

from __future__ import annotations

import signal

import pytest
from counting_server import CountingServer
from programs import HOST_METRICS, LEVELS, MLFLOW, PATIENT, Program, Store, lasting

FLUSH_TIMEOUT = 2.0
ENVIRON = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1",
    "MLFLOW_SYSMETRICS_SEND_INTERVAL": "0.2",
    "MLFLOW_SYSMETRICS_FLUSH_TIMEOUT": str(FLUSH_TIMEOUT),
}
# Seconds that our part of `end_run` and of the exit took, without the stalls of the machine. Exit functions run
# in reverse order: the one registered first sees the time of all others.
TIMED = """
    import atexit
    from mlflow_sysmetrics.monitor import SystemMetricsMonitor
    stalls = Stalls()
    stalls.__enter__()
    kept, finish = [], SystemMetricsMonitor.finish
    def timed(self):
        began, before = time.perf_counter(), stalls.seconds
        finish(self)
        kept.append(time.perf_counter() - began - (stalls.seconds - before))
    SystemMetricsMonitor.finish = timed
"""
TRAINING = (
    TIMED
    + """
    def exit_took():
        took = time.perf_counter() - began - (stalls.seconds - before)
        print(sum(kept) + took, flush=True)
    atexit.register(exit_took)
    with mlflow.start_run() as run:
        ticked(5)
    began, before = time.perf_counter(), stalls.seconds
"""
)


@pytest.mark.parametrize("mode", ["500", "hang", "refuse"])
def test_a_failing_server_costs_less_than_the_flush_timeout(
    program: Program, server: CountingServer, mode: str
) -> None:
    """At the end of the run and of the program together; one warning names the undelivered points."""
    server.mode(mode)
    finished = program(server.url, TRAINING, **ENVIRON)
    (seconds,) = finished.words
    assert float(seconds) < FLUSH_TIMEOUT + 0.5
    assert "Traceback" not in finished.stderr
    assert finished.stderr.count("they are sent by the next run on this machine") == 1


def test_ten_runs_that_end_in_one_outage_share_one_timeout(program: Program, server: CountingServer) -> None:
    server.mode("hang")
    code = (
        TIMED
        + """
    for _ in range(10):
        with mlflow.start_run():
            pass
    print(sum(kept))
"""
    )
    (seconds,) = program(server.url, code, **ENVIRON).words
    assert float(seconds) < FLUSH_TIMEOUT + 0.5


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a system with signals")
def test_a_timeout_of_the_program_passes_through_the_end_of_a_run(
    program: Program, server: CountingServer
) -> None:
    """What a signal handler raises, as RQ and Celery do, whatever its class; the next run is sampled."""
    server.mode("hang")
    code = """
        import signal
        class JobTimeout(Exception):
            pass
        def interrupt(*_):
            raise raised
        signal.signal(signal.SIGALRM, interrupt)
        for raised in (JobTimeout("late"), TimeoutError("late"), RuntimeError("late"), SystemExit("late")):
            mlflow.start_run()
            ticked(1)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            try:
                mlflow.end_run()
            except (Exception, SystemExit) as error:
                assert error is raised, error
            else:
                print("swallowed", type(raised).__name__)
        eventually(lambda: not mlflow_sysmetrics.status().attached)
        with mlflow.start_run():
            ticked(2)
            print(len(mlflow_sysmetrics.status().attached))
            sys.stdout.flush()
            os._exit(0)
    """
    assert program(server.url, code).words == ["1"]


def test_an_outage_in_the_middle_loses_nothing(program: Program, server: CountingServer) -> None:
    code = f"""
        import urllib.request
        def mode(name):
            body = ('{{"log_batch": "%s"}}' % name).encode()
            urllib.request.urlopen(urllib.request.Request("{server.url}/mode", body), timeout=60).read()
        def fails():
            return mlflow_sysmetrics.status().last_error is not None
        with mlflow.start_run() as run:
            ticked(5)
            mode("500")
            eventually(fails)
            ticked(5)
            mode("ok")
            eventually(lambda: not fails(), 120)
            ticked(5)
        status = mlflow_sysmetrics.status()
        print(run.info.run_id, status.ticks, status.points_delivered, status.points_dropped, status.last_error)
    """
    run_id, ticks, delivered, dropped, error = program(server.url, code, **ENVIRON | PATIENT).words
    series = server.points(run_id)
    assert (dropped, error) == ("0", "None")
    stamps = [point["timestamp"] for point in series["system/system_memory_usage_megabytes"]]
    assert len(stamps) == len(set(stamps)) == int(ticks)
    assert sum(len(points) for points in series.values()) == int(delivered)


@pytest.mark.parametrize(
    ("ending", "returncode"),
    [
        ("pass", 0),
        ("sys.exit(3)", 3),
        ("raise RuntimeError('training failed')", 1),
        ("raise KeyboardInterrupt", 130),
    ],
)
def test_a_run_that_was_not_ended_is_complete_at_exit(
    program: Program, server: CountingServer, ending: str, returncode: int
) -> None:
    code = f"""
        run = mlflow.start_run()
        print(run.info.run_id, flush=True)
        watched()
        {ending}
    """
    finished = program(server.url, code, check=False, MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="3600")
    assert finished.returncode in {returncode, -2 if returncode == 130 else returncode}
    series = server.points(finished.words[0])
    assert lasting(series) == HOST_METRICS
    assert len(series["system/disk_usage_megabytes"]) == 2


def test_an_attachment_that_was_not_detached_is_complete_at_exit(
    program: Program, server: CountingServer
) -> None:
    code = """
        run = mlflow.MlflowClient().create_run("0")
        attachment = mlflow_sysmetrics.attach(run.info.run_id)
        print(run.info.run_id)
        watched()
    """
    (run_id,) = program(server.url, code).words
    assert lasting(server.points(run_id)) == HOST_METRICS


def test_a_run_that_was_deleted_is_set_aside(program: Program, store: Store) -> None:
    code = """
        with mlflow.start_run() as run:
            mlflow.MlflowClient().delete_run(run.info.run_id)
            watched()
            mlflow_sysmetrics.flush()
            mlflow.MlflowClient().restore_run(run.info.run_id)
        status = mlflow_sysmetrics.status()
        print(status.points_pending, status.points_dropped > 0)
    """
    finished = program(store.uri, code, **ENVIRON | PATIENT)
    assert finished.words == ["0", "True"]
    assert finished.stderr.count("no longer accepts system metrics") == 1


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
    assert "does not accept system metrics" in finished.stderr
    assert "hunter2" not in finished.stderr


@pytest.mark.skipif(MLFLOW < (2, 9), reason="the active runs of MLflow 2.8 belong to all threads together")
def test_runs_that_end_together_on_a_slow_server_share_the_wait(
    program: Program, server: CountingServer
) -> None:
    """Each of the eight requests takes a second; the runs wait together, each at most the flush timeout."""
    server.mode("slow")
    code = (
        TIMED
        + """
    def train():
        with mlflow.start_run():
            time.sleep(0.2)
    threads = [threading.Thread(target=train) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(len(kept), max(kept))
"""
    )
    count, longest = program(server.url, code, **ENVIRON).words
    assert count == "8"
    assert float(longest) < FLUSH_TIMEOUT + 0.5


def test_even_the_shortest_run_has_levels(program: Program, server: CountingServer) -> None:
    code = """
        with mlflow.start_run() as run:
            pass
        print(run.info.run_id)
    """
    (run_id,) = program(server.url, code).words
    # Private memory is read beside the ticks: on a busy machine not before the end of the run.
    assert server.points(run_id).keys() >= LEVELS - {"system/process_memory_uss_megabytes"}
