"""SystemMetricsLogger: hardware metrics with the steps of a training as axis."""

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
LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="other systems have other metrics")


@LINUX_ONLY
def test_it_returns_values_without_a_run(program: Program, store: Store) -> None:
    code = """
        logger = mlflow_sysmetrics.SystemMetricsLogger(log_disk=True, log_network=True)
        # Its second reading brings the rates. A busy machine may be late with one source, so a reading may lack it.
        names = set()
        eventually(lambda: names.update(logger.log_metrics(step=1)) or len(names) == 7)
        print(*sorted(names))
        print(len(mlflow.search_runs(search_all_experiments=True)))
    """
    found = program(store.uri, code).words
    assert set(found[:-1]) == CPU | TRAFFIC
    assert found[-1] == "0"


@pytest.mark.every_database
def test_it_logs_to_the_run_of_the_thread_at_the_given_steps(program: Program, store: Store) -> None:
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


def test_units_match_the_names(program: Program, store: Store) -> None:
    code = """
        import psutil
        with mlflow_sysmetrics.SystemMetricsLogger() as logger:
            found = logger.read()
        print(found["memory_used_gb"], psutil.virtual_memory().total / 1e9, found["memory_percent"])
    """
    used, total, percent = (float(word) for word in program(store.uri, code).words)
    assert 0 < used < total
    assert 0 < percent <= 100


def test_it_shares_no_series_with_the_sampler(program: Program, store: Store) -> None:
    """The sampler's series have the seconds of the run as axis, and a key has one axis."""
    code = """
        from mlflow_sysmetrics.collectors import COLLECTORS, load_classes
        from mlflow_sysmetrics.training import system_metrics as module
        ours = {name for group in (module._CPU, module._GPU, module._DISK, module._NETWORK) for name, _, _ in group}
        read = {key for group in (module._CPU, module._GPU, module._DISK, module._NETWORK) for _, key, _ in group}
        theirs = {metric.name for collector in load_classes(COLLECTORS) for metric in collector.metrics}
        print(sorted(ours & theirs), sorted(read - theirs))
    """
    assert program(store.uri, code).stdout.strip() == "[] []"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("SystemMetricsLogger(gpu_device=-1)", "gpu_device must be an integer >= 0, got -1"),
        ("SystemMetricsLogger(gpu_device='0')", "gpu_device must be an integer >= 0, got '0'"),
        (
            "SystemMetricsLogger().log_metrics(step=-1)",
            "step must be an integer from 0 to 9223372036854775807, got -1",
        ),
        (
            "SystemMetricsLogger().log_metrics(step=2.5)",
            "step must be an integer from 0 to 9223372036854775807, got 2.5",
        ),
        (
            "SystemMetricsLogger().log_metrics(prefix='')",
            "prefix must be the start of a metric name, got '': Names may",
        ),
        ("SystemMetricsLogger().log_metrics(prefix=None)", "prefix must be a string, got None"),
        (
            "SystemMetricsLogger().log_metrics(prefix='a@b')",
            "prefix must be the start of a metric name, got 'a@b'",
        ),
        (
            "SystemMetricsLogger().log_metrics(prefix='a' * 240)",
            "names may have at most 250 characters, got 26",
        ),
    ],
)
def test_the_error_about_an_invalid_argument_names_it(
    program: Program, store: Store, call: str, error: str
) -> None:
    code = f"""
        from mlflow_sysmetrics import SystemMetricsLogger
        try:
            {call}
        except ValueError as problem:
            print(problem)
    """
    assert error in program(store.uri, code).stdout


def test_a_forked_child_reads_for_itself_or_not_at_all(program: Program, store: Store) -> None:
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
