"""A forked child does nothing until it starts a run."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from counting_server import CountingServer
from programs import HOST_METRICS, OUR_THREADS, Program, lasting

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")

FAST = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1", "MLFLOW_SYSMETRICS_SEND_INTERVAL": "0.2"}


def test_a_child_has_no_thread_and_no_run(program: Program, server: CountingServer) -> None:
    code = """
        with mlflow.start_run() as run:
            watched()
            child = os.fork()
            if child == 0:
                status = mlflow_sysmetrics.status()
                print(threading.active_count(), status.running, len(status.attached), flush=True)
                time.sleep(0.3)
                os._exit(0)
            os.waitpid(child, 0)
    """
    assert program(server.url, code, **FAST).words == ["1", "False", "0"]


def test_a_child_may_start_a_run(program: Program, server: CountingServer) -> None:
    code = """
        with mlflow.start_run() as parent:
            watched()
            child = os.fork()
            if child == 0:
                with mlflow.start_run(nested=True) as run:
                    print(run.info.run_id, flush=True)
                    watched()
                print(*lasting_threads()[1:], flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            time.sleep(0.2)
        print(parent.info.run_id)
    """
    child, *threads, parent = program(server.url, code, **FAST).words
    assert threads == OUR_THREADS
    assert lasting(server.points(child)) == HOST_METRICS
    assert lasting(server.points(parent)) == HOST_METRICS


def test_a_pool_of_forked_workers_does_not_affect_the_parents_series(
    program: Program, server: CountingServer
) -> None:
    """Like a DataLoader, while the sampler and the sender are running."""
    code = """
        import multiprocessing
        def work(n):
            time.sleep(0.01)
            return mlflow_sysmetrics.status().ticks
        if __name__ == "__main__":
            with mlflow.start_run() as run:
                watched(0)
                ticks = set()
                for _ in range(5):
                    with multiprocessing.get_context("fork").Pool(4) as pool:
                        ticks.update(pool.map(work, range(20)))
                ticked(2)
            status = mlflow_sysmetrics.status()
            print(run.info.run_id, *ticks, status.ticks, status.points_pending, status.points_dropped)
    """
    run_id, ticks, of_parent, pending, dropped = program(server.url, code, **FAST).words
    assert (ticks, pending, dropped) == ("0", "0", "0")
    points = server.points(run_id)["system/system_memory_usage_megabytes"]
    stamps = [point["timestamp"] for point in points]
    assert max(Counter(stamps).values()) == 1
    assert len(stamps) == int(of_parent)


def test_repeated_forks_under_load_never_hang(program: Program, server: CountingServer) -> None:
    """The parent's threads may hold any lock at the moment of the fork."""
    code = """
        with mlflow.start_run() as run:
            watched()
            for n in range(100):
                child = os.fork()
                if child == 0:
                    mlflow_sysmetrics.flush()
                    mlflow_sysmetrics.status()
                    os._exit(7 if mlflow_sysmetrics.status().attached else 0)
                assert os.waitpid(child, 0)[1] == 0
        print(run.info.run_id)
    """
    (run_id,) = program(server.url, code, MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.1").words
    assert lasting(server.points(run_id)) == HOST_METRICS


def test_a_run_attached_in_a_multiprocessing_child_is_complete(
    program: Program, server: CountingServer
) -> None:
    """These children run no exit functions."""
    code = """
        import multiprocessing
        def work(run_id):
            mlflow_sysmetrics.attach(run_id)
            watched()
        if __name__ == "__main__":
            run_id = mlflow.MlflowClient().create_run("0").info.run_id
            child = multiprocessing.get_context("fork").Process(target=work, args=(run_id,))
            child.start()
            child.join()
            print(run_id, child.exitcode)
    """
    run_id, exitcode = program(server.url, code).words
    assert exitcode == "0"
    assert lasting(server.points(run_id)) == HOST_METRICS


def test_a_child_that_exits_normally_leaves_the_parents_attachment_alone(
    program: Program, server: CountingServer
) -> None:
    code = """
        run = mlflow.MlflowClient().create_run("0")
        attachment = mlflow_sysmetrics.attach(run.info.run_id)
        watched(0)  # private memory of a process tree appears only after all of it was read, which may take longer
        child = os.fork()
        if child == 0:
            attachment.detach()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(run.info.run_id, len(mlflow_sysmetrics.status().attached))
        watched()
        attachment.detach()
    """
    run_id, attached = program(server.url, code, **FAST).words
    assert attached == "1"
    assert lasting(server.points(run_id)) == HOST_METRICS
