"""What the machine does, on the axis of a training's steps."""

from __future__ import annotations

import sys

import pytest
from programs import Program, Store

CPU = {"cpu_percent", "memory_used_gb", "memory_percent"}
TRAFFIC = {
    "disk_read_mb_per_s",
    "disk_write_mb_per_s",
    "network_receive_mb_per_s",
    "network_transmit_mb_per_s",
}
LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="what there is differs between systems")


@LINUX_ONLY
def test_it_returns_values_without_a_run(program: Program, store: Store) -> None:
    code = """
        logger = mlflow_sysmetrics.SystemMetricsLogger(log_disk=True, log_network=True)
        print(*sorted(logger.log_metrics(step=1)))
        print(len(mlflow.search_runs(search_all_experiments=True)))
    """
    found = program(store.uri, code).words
    assert set(found[:-1]) == CPU | TRAFFIC
    assert found[-1] == "0"


@pytest.mark.every_database
def test_it_logs_to_the_run_of_the_thread_on_the_axis_of_its_steps(program: Program, store: Store) -> None:
    code = """
        with mlflow_sysmetrics.SystemMetricsLogger(log_gpu=False) as logger:
            with mlflow.start_run() as first:
                logger.log_metrics(step=10)
                values = logger.log_metrics(step=20)
            with mlflow.start_run() as second:
                logger.log_metrics(step=7, prefix="machine/here")
        print(first.info.run_id, second.info.run_id, values["memory_used_gb"])
    """
    first, second, used = program(store.uri, code).words
    assert [point.step for point in store.points(first, "system/cpu_percent")] == [10, 20]
    assert store.points(first, "system/memory_used_gb")[-1].value == float(used)
    assert [point.step for point in store.points(second, "machine/here/memory_percent")] == [7]
    assert not store.points(second, "system/cpu_percent")


def test_units_are_those_of_the_names(program: Program, store: Store) -> None:
    code = """
        import psutil
        with mlflow_sysmetrics.SystemMetricsLogger() as logger:
            found = logger.read()
        print(found["memory_used_gb"], psutil.virtual_memory().total / 1e9, found["memory_percent"])
    """
    used, total, percent = (float(word) for word in program(store.uri, code).words)
    assert 0 < used < total
    assert 0 < percent <= 100


def test_no_series_of_it_is_one_of_the_sampler(program: Program, store: Store) -> None:
    """Those have the seconds of the run as axis: one key, one axis."""
    code = """
        from mlflow_sysmetrics.collectors import COLLECTORS
        from mlflow_sysmetrics.training import system_metrics as module
        ours = {name for group in (module._CPU, module._GPU, module._DISK, module._NETWORK) for name, _, _ in group}
        read = {key for group in (module._CPU, module._GPU, module._DISK, module._NETWORK) for _, key, _ in group}
        theirs = {metric.name for collector in COLLECTORS for metric in collector.metrics}
        print(sorted(ours & theirs), sorted(read - theirs))
    """
    assert program(store.uri, code).stdout.strip() == "[] []"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("SystemMetricsLogger(gpu_device=-1)", "gpu_device=-1"),
        ("SystemMetricsLogger(gpu_device='0')", "gpu_device='0'"),
        ("SystemMetricsLogger().log_metrics(step=-1)", "step=-1"),
        ("SystemMetricsLogger().log_metrics(step=2.5)", "step=2.5"),
        ("SystemMetricsLogger().log_metrics(prefix='')", "prefix=''"),
        ("SystemMetricsLogger().log_metrics(prefix=None)", "prefix=None"),
        ("SystemMetricsLogger().log_metrics(prefix='a:b')", "prefix='a:b'"),
    ],
)
def test_wrong_arguments_are_named(program: Program, store: Store, call: str, error: str) -> None:
    code = f"""
        from mlflow_sysmetrics import SystemMetricsLogger
        try:
            {call}
        except ValueError as problem:
            print(problem)
    """
    assert error in program(store.uri, code).stdout


def test_in_a_forked_child_it_reads_for_itself_or_nothing(program: Program, store: Store) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows does not fork")
    code = """
        logger = mlflow_sysmetrics.SystemMetricsLogger()
        if (child := os.fork()) == 0:
            logger.log_metrics(step=1)
            logger.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(len(logger.log_metrics(step=2)) > 0)
    """
    assert program(store.uri, code).words == ["True"]
