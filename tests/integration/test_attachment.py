"""Exactly the runs that MLflow monitors are attached, each of them once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from programs import HOST_METRICS, LEVELS, MLFLOW, OUR_THREADS, Program, Remote, Store

ONCE = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1", "MLFLOW_SYSMETRICS_SEND_INTERVAL": "0.5"}


def test_an_unmodified_script_has_tags_and_metrics(program: Program, store: Store) -> None:
    """A script that only imports mlflow and starts a run has tags and metrics on it."""
    code = """
        with mlflow.start_run() as run:
            watched()
        print(run.info.run_id)
    """
    (run_id,) = program(store.uri, code).words
    assert store.keys(run_id) == HOST_METRICS
    tags = store.tags(run_id)
    assert {"sys.cpu", "sys.cpu_cores", "sys.memory_gb", "sys.disk_free_gb", "sys.platform"} <= tags.keys()
    assert tags["sys.metrics"] == "on"


def test_nested_and_threaded_runs(program: Program, remote: Remote) -> None:
    code = """
        ids = []
        with mlflow.start_run() as parent:
            with mlflow.start_run(nested=True) as child:
                watched()
            ids += [parent.info.run_id, child.info.run_id]
        def train():
            with mlflow.start_run() as run:
                watched()
            ids.append(run.info.run_id)
        thread = threading.Thread(target=train)
        thread.start(); thread.join()
        print(*ids)
    """
    ids = program(remote.uri, code, **ONCE).words
    assert len(ids) == 3
    for run_id in ids:
        assert remote.keys(run_id) == HOST_METRICS


def test_a_resumed_run_continues_its_series(program: Program, store: Store) -> None:
    """MLflow 2.8 monitors new runs only; newer versions also monitor resumed runs.

    The steps go on without a look at the points so far, of which a long run has millions.
    """
    code = """
        reads = []
        mlflow.MlflowClient.get_metric_history = lambda *given, **named: reads.append(given)
        if len(sys.argv) == 1 and "RESUME" not in os.environ:
            with mlflow.start_run() as run:
                watched()
        else:
            with mlflow.start_run(run_id=os.environ["RESUME"]) as run:
                time.sleep(0.3)
        print(run.info.run_id, int(time.time() * 1000), len(reads))
    """
    run_id, first_end, _ = program(store.uri, code, **ONCE).words
    assert program(store.uri, code, RESUME=run_id, **ONCE).words[-1] == "0"
    points = store.points(run_id, "system/system_memory_usage_megabytes")
    start = store.client.get_run(run_id).info.start_time
    assert [point.step for point in points] == [(point.timestamp - start) // 1000 for point in points]
    resumed = [point for point in points if point.timestamp > int(first_end)]
    assert bool(resumed) is (MLFLOW >= (2, 9))


@pytest.mark.skipif(MLFLOW < (2, 9), reason="MLflow 2.8 does not monitor resumed runs")
def test_a_run_restarted_inside_itself_continues_its_series(program: Program, store: Store) -> None:
    """kedro-mlflow does this for each node of a pipeline. The series continues until the outer end."""
    code = """
        with mlflow.start_run() as run:
            for _ in range(5):
                with mlflow.start_run(run_id=run.info.run_id, nested=True):
                    time.sleep(0.1)
            inner = int(time.time() * 1000)
            time.sleep(0.4)
        print(run.info.run_id, inner)
        print(len(mlflow_sysmetrics.status().attached), *lasting_threads())
    """
    run_id, inner, attached, *threads = program(store.uri, code, **ONCE).words
    points = store.points(run_id, "system/disk_usage_megabytes")
    assert points[-1].timestamp > int(inner) + 300
    assert len({point.timestamp for point in points}) == len(points)
    assert attached == "0"
    assert threads == ["MainThread", *OUR_THREADS]


def test_autologged_runs(program: Program, store: Store) -> None:
    code = """
        import numpy
        from sklearn.linear_model import LinearRegression
        mlflow.sklearn.autolog(log_models=False, log_datasets=False)
        LinearRegression().fit(numpy.arange(20).reshape(10, 2), numpy.arange(10))
        print(mlflow.last_active_run().info.run_id)
    """
    run_id = program(store.uri, code).words[-1]
    assert store.keys(run_id) >= LEVELS
    assert "sys.cpu" in store.tags(run_id)


def test_a_monitor_built_by_a_library_is_replaced(program: Program, remote: Remote) -> None:
    """Lightning callbacks and MONAI build MLflow's class directly."""
    code = """
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
        run = mlflow.MlflowClient().create_run("0")
        monitor = SystemMetricsMonitor(run.info.run_id, sampling_interval=0.1, samples_before_logging=1)
        monitor.start()
        ticked(6)
        monitor.finish()
        monitor.finish()
        SystemMetricsMonitor("missing", resume_logging=True)  # neither raises nor asks for the run
        print(run.info.run_id, *[thread.name for thread in threading.enumerate()])
    """
    run_id, *threads = program(remote.uri, code).words
    assert remote.keys(run_id) == HOST_METRICS
    assert len(remote.points(run_id, "system/disk_usage_megabytes")) >= 5
    assert "SystemMetricsMonitor" not in threads


def test_a_run_created_by_the_client(program: Program, remote: Remote) -> None:
    code = """
        run = mlflow.MlflowClient().create_run("0")
        with mlflow_sysmetrics.attach(run.info.run_id, node_id="node_1") as attachment:
            watched()
        assert attachment.detach()
        print(run.info.run_id)
    """
    (run_id,) = program(remote.uri, code).words
    assert remote.keys(run_id) == {key.replace("system/", "system/node_1/") for key in HOST_METRICS}


@pytest.mark.parametrize(
    ("code", "environ"),
    [
        ("mlflow.start_run(log_system_metrics=False)", {}),
        ("mlflow.disable_system_metrics_logging(); mlflow.start_run()", {}),
        ("mlflow.start_run()", {"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false"}),
        ("mlflow.start_run()", {"MLFLOW_RUN_CONTEXT_PROVIDER": "git"}),
    ],
)
def test_off_means_off(program: Program, remote: Remote, code: str, environ: dict[str, str]) -> None:
    after = """
        time.sleep(0.3)
        print(mlflow.active_run().info.run_id, *lasting_threads())
        mlflow.end_run()
    """
    run_id, *threads = program(remote.uri, f"{code}\n{dedent(after)}", **environ).words
    assert remote.keys(run_id) == set()
    assert threads == ["MainThread"]


@pytest.mark.parametrize(
    "environ",
    [{"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false"}, {"MLFLOW_SYSMETRICS_COLLECTORS": "-gpu"}],
)
def test_the_argument_of_start_run_has_priority(
    program: Program, remote: Remote, environ: dict[str, str]
) -> None:
    code = """
        with mlflow.start_run(log_system_metrics=True) as run:
            watched()
        print(run.info.run_id)
    """
    (run_id,) = program(remote.uri, code, **environ).words
    assert remote.keys(run_id) == HOST_METRICS


def test_a_provider_list_without_sysmetrics_leaves_mlflow_untouched(program: Program, remote: Remote) -> None:
    code = """
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
        assert SystemMetricsMonitor.__module__.startswith("mlflow."), SystemMetricsMonitor.__module__
        with mlflow.start_run() as run:
            pass
        print(run.info.run_id)
    """
    (run_id,) = program(remote.uri, code, MLFLOW_RUN_CONTEXT_PROVIDER="none").words
    assert not [key for key in remote.tags(run_id) if key.startswith("sys")]


def test_mlflows_setters_are_read_again_for_each_run(program: Program, remote: Remote) -> None:
    """The unit tests of the sampler check when points are due, with a fake clock."""
    code = """
        from mlflow_sysmetrics.daemon import process
        for interval, samples in ((0.2, 2), (0.4, 3)):
            mlflow.set_system_metrics_sampling_interval(interval)
            mlflow.set_system_metrics_samples_before_logging(samples)
            if hasattr(mlflow, "set_system_metrics_node_id"):
                mlflow.set_system_metrics_node_id(f"node_{samples}")
            with mlflow.start_run() as run:
                watched(0)
                (series,) = process._daemon.sampler._series
                chosen = series.settings
            print(run.info.run_id, chosen.sampling_interval, chosen.samples_before_logging)
        print(hasattr(mlflow, "set_system_metrics_node_id"))
    """
    first, *of_first, second, interval, samples, has_nodes = program(remote.uri, code).words
    assert (of_first, [interval, samples]) == (["0.2", "2"], ["0.4", "3"])
    if has_nodes == "True":  # not in MLflow 2.8
        assert {key.split("/")[1] for key in remote.keys(first)} == {"node_2"}
        assert {key.split("/")[1] for key in remote.keys(second)} == {"node_3"}


def test_a_changed_tracking_uri_moves_later_runs_only(
    program: Program, store: Store, tmp_path: object
) -> None:
    code = f"""
        first = mlflow.MlflowClient().create_run("0")
        attachment = mlflow_sysmetrics.attach(first.info.run_id)
        mlflow.set_tracking_uri("sqlite:///{tmp_path}/second.db")
        with mlflow.start_run() as second:
            watched()
        mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
        attachment.detach()
        print(first.info.run_id, second.info.run_id)
        print(*lasting_threads()[1:])
    """
    first, second, *threads = program(store.uri, code).words
    assert store.keys(first) == HOST_METRICS
    assert Store(f"sqlite:///{tmp_path}/second.db").keys(second) == HOST_METRICS
    assert threads == [f"sysmetrics-{name}" for name in ("journal", "sampler", "sender-0", "sender-1")]


def test_mlflow_is_imported_before_our_threads_begin(tmp_path: Path) -> None:
    """Concurrent imports in two threads break each other, and one may be the program's."""
    code = (
        "import sys, mlflow_sysmetrics;"
        f"mlflow_sysmetrics.attach('0' * 32, tracking_uri='sqlite:///{tmp_path}/none.db', started_at=0);"
        "print('MlflowClient' in vars(sys.modules.get('mlflow.tracking', sys)))"
    )
    environ = {**os.environ, "MLFLOW_SYSMETRICS_SPOOL_DIR": "off", "MLFLOW_SYSMETRICS_FLUSH_TIMEOUT": "0"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["True"]
