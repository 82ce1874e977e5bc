"""The first run of a process, while a thread loads the daemon.

Programs are forked from one that has loaded everything, so these begin by forgetting the daemon.
"""

from __future__ import annotations

import os
import sys

import pytest
from programs import Program, Remote, Store

UNLOADED = """
        for name in [name for name in sys.modules if name.startswith("mlflow_sysmetrics.daemon")]:
            del sys.modules[name]
        from mlflow_sysmetrics.daemon import launch
        assert not launch.is_loaded()
"""
# Loading takes as long as a test of what happens meanwhile needs.
SLOWLY = """
        from importlib.machinery import SourceFileLoader
        def slowly(self, module, exec_module=SourceFileLoader.exec_module):
            if module.__name__ == "mlflow_sysmetrics.daemon.daemon":
                assert loading.wait(60)
            exec_module(self, module)
        loading = threading.Event()
        SourceFileLoader.exec_module = slowly
"""


def test_a_run_that_is_over_at_once_is_complete(program: Program, store: Store) -> None:
    code = f"""{UNLOADED}
        with mlflow.start_run() as run:
            pass
        print(run.info.run_id, *(one.name for one in threading.enumerate() if one.name == launch.THREAD_NAME))
    """
    (run_id,) = program(store.uri, code).words
    tags = store.tags(run_id)
    assert {"sys.cpu", "sys.cpu_cores", "sys.memory_gb", "sys.disk_free_gb", "sys.platform"} <= tags.keys()
    assert tags["sys.metrics"] == "on"
    assert "system/system_memory_usage_percentage" in store.keys(run_id)


def test_a_program_may_end_before_the_daemon_is_loaded(program: Program, remote: Remote) -> None:
    """Its run is ended by MLflow at the exit, after its last points.

    An interpreter of Python 3.12 that ends starts no thread, so that the run has none, and says why.
    """
    code = f"""{UNLOADED}{SLOWLY}
        print(mlflow.start_run().info.run_id)
        assert launch.is_pending()
        threading.Timer(0.2, loading.set).start()
    """
    (run_id,) = program(remote.uri, code).words
    starts_threads = sys.version_info[:2] != (3, 12)
    assert remote.tags(run_id)["sys.metrics"] == ("on" if starts_threads else "off: no thread can be started")
    assert ("system/system_memory_usage_percentage" in remote.keys(run_id)) is starts_threads


def test_runs_of_many_threads_are_attached_to_one_daemon(program: Program, remote: Remote) -> None:
    code = f"""{UNLOADED}{SLOWLY}
        ids = []
        def train():
            with mlflow.start_run() as run:
                started.wait()
                watched(0)
            ids.append(run.info.run_id)
        started = threading.Barrier(9)
        threads = [threading.Thread(target=train) for _ in range(8)]
        for thread in threads:
            thread.start()
        started.wait()
        loading.set()
        for thread in threads:
            thread.join()
        assert len([one for one in threading.enumerate() if one.name == "sysmetrics-sampler"]) == 1
        print(*ids)
    """
    ids = program(remote.uri, code).words
    assert len(ids) == 8
    for run_id in ids:
        assert "system/system_memory_usage_percentage" in remote.keys(run_id)


def test_the_state_of_the_program_at_the_start_counts(program: Program, store: Store) -> None:
    """Its tracking URI and its working directory may change while the daemon is loaded."""
    code = f"""{UNLOADED}{SLOWLY}
        uri, here = mlflow.get_tracking_uri(), os.getcwd()
        os.mkdir("elsewhere")
        run = mlflow.start_run()
        os.chdir("elsewhere")
        mlflow.set_tracking_uri("sqlite:///other.db")
        loading.set()
        watched(0)
        os.chdir(here)
        mlflow.set_tracking_uri(uri)
        mlflow.end_run()
        assert not os.path.exists("elsewhere/other.db")
        print(run.info.run_id)
    """
    (run_id,) = program(store.uri, code).words
    assert "system/system_memory_usage_percentage" in store.keys(run_id)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_that_is_forked_meanwhile_can_start_a_run(program: Program, remote: Remote) -> None:
    code = f"""{UNLOADED}{SLOWLY}
        with mlflow.start_run() as run:
            threading.Timer(0.1, loading.set).start()
            child = os.fork()
            if not child:
                from mlflow.tracking import fluent
                active = fluent._active_run_stack
                (active if isinstance(active, list) else active.get()).clear()  # a list in MLflow 2.8
                with mlflow.start_run() as own:
                    watched(0)
                print(own.info.run_id, flush=True)
                mlflow_sysmetrics.flush()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        print(run.info.run_id)
    """
    ids = program(remote.uri, code).words
    assert len(ids) == 2
    for run_id in ids:
        assert "system/system_memory_usage_percentage" in remote.keys(run_id)


def test_where_loading_never_ends_a_run_ends_after_the_flush_timeout(
    program: Program, remote: Remote
) -> None:
    """As where the package is on a filesystem that does not answer."""
    code = f"""{UNLOADED}{SLOWLY}
        launch._LONGEST_LOAD_SECONDS = 0.1
        with mlflow.start_run() as run:
            pass
        assert launch.is_pending()
        print(run.info.run_id)
    """
    (run_id,) = program(remote.uri, code, MLFLOW_SYSMETRICS_FLUSH_TIMEOUT="0.2").words
    assert remote.keys(run_id) == set()
    assert "sys.metrics" not in remote.tags(run_id)
