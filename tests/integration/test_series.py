"""Series are complete, correct, and separate for each run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from counting_server import CountingServer
from programs import HOST_METRICS, LEVELS, MLFLOW, OUR_THREADS, Program, Remote, Store, lasting


@pytest.mark.parametrize(("work", "expected"), [("time.sleep(0.05)", LEVELS), ("watched(0.3)", HOST_METRICS)])
def test_short_runs_have_points(program: Program, store: Store, work: str, expected: set[str]) -> None:
    code = f"""
        with mlflow.start_run() as run:
            {work}
        print(run.info.run_id)
    """
    (run_id,) = program(store.uri, code).words
    assert store.keys(run_id) >= expected


@pytest.mark.skipif(MLFLOW < (2, 9), reason="MLflow 2.8 does not monitor resumed runs, and has no nodes")
def test_the_first_points_are_there_while_the_run_goes_on(program: Program, remote: Remote) -> None:
    """Also those of the nodes that enter the run one after the other, with the intervals of MLflow's setters."""
    code = """
        def seen(prefix):
            keys = mlflow.get_run(run_id).data.metrics
            return f"{prefix}cpu_utilization_percentage" in keys
        mlflow.set_system_metrics_sampling_interval(0.2)
        mlflow.set_system_metrics_samples_before_logging(2)
        with mlflow.start_run() as run:
            run_id = run.info.run_id
            eventually(lambda: seen("system/"))
        for node in ("0", "1"):
            mlflow.set_system_metrics_node_id(node)
            with mlflow.start_run(run_id=run_id, log_system_metrics=True):
                eventually(lambda: seen(f"system/{node}/"))
        print(run_id)
    """
    # No later send than the first two can bring them.
    (run_id,) = program(remote.uri, code, MLFLOW_SYSMETRICS_SEND_INTERVAL="3600").words
    steps = [point.step for point in remote.points(run_id, "system/cpu_utilization_percentage")]
    assert steps == sorted(steps)


def test_steps_are_seconds_since_the_start_time_on_the_server(program: Program, store: Store) -> None:
    code = """
        with mlflow.start_run() as run:
            time.sleep(2.5)
        print(run.info.run_id)
    """
    (run_id,) = program(store.uri, code, MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.1").words
    start = store.client.get_run(run_id).info.start_time
    points = store.points(run_id, "system/disk_usage_megabytes")
    assert points[-1].step >= 2
    assert [point.step for point in points] == [(point.timestamp - start) // 1000 for point in points]


def test_the_first_cpu_value_is_correct(program: Program, server: CountingServer) -> None:
    """One busy core of N is at least 100/N percent; the built-in monitor's first value is noise.

    The core is busy before, during and after the run, so no tick can see less.
    """
    code = """
        import subprocess
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
            clock, wall = (~busy.pid << 3) | 2, time.monotonic()
            with mlflow.start_run() as run:
                ticked(4)
            least = time.clock_gettime(clock) if sys.platform == "linux" else 0.0
            busy.kill()
        print(run.info.run_id, least / (time.monotonic() - wall) / os.cpu_count() * 100)
    """
    run_id, expected = program(server.url, code, MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.4").words
    values = [point["value"] for point in server.points(run_id)["system/cpu_utilization_percentage"]]
    assert values
    assert all(value >= float(expected) * 0.8 for value in values), (values, expected)
    assert all(value <= 100 for value in values)


def test_64_runs_in_64_threads_have_their_own_complete_series(
    program: Program, server: CountingServer
) -> None:
    code = """
        barrier = threading.Barrier(65)
        if mlflow.__version__ < "2.18":  # its active runs are per process, not per thread
            @contextlib.contextmanager
            def start_run():
                run = mlflow.MlflowClient().create_run("0")
                with mlflow_sysmetrics.attach(run.info.run_id):
                    yield run
        else:
            start_run = mlflow.start_run
        def train():
            with start_run() as run:
                barrier.wait()
                barrier.wait()
            sys.stdout.write(run.info.run_id + chr(10))  # one write, because threads interleave
        threads = [threading.Thread(target=train) for _ in range(64)]
        for thread in threads:
            thread.start()
        barrier.wait()
        watched(0)
        ticked(8)
        print(*[name for name in lasting_threads() if name.startswith("sysmetrics")], flush=True)
        barrier.wait()
        for thread in threads:
            thread.join()
        print(mlflow_sysmetrics.status().points_dropped)
    """
    environ = {
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.2",
        "MLFLOW_SYSMETRICS_SEND_INTERVAL": "0.5",
    }
    words = program(server.url, code, **environ).words
    threads, (*run_ids, dropped) = words[: len(OUR_THREADS)], words[len(OUR_THREADS) :]
    assert threads == OUR_THREADS
    assert dropped == "0"
    assert len(set(run_ids)) == 64
    for run_id in run_ids:
        series = server.points(run_id)
        assert lasting(series) == HOST_METRICS
        for key in HOST_METRICS:
            points = series[key]
            assert len(points) >= 4, key  # a rate skips a tick that comes too early
            assert max(Counter(point["timestamp"] for point in points).values()) == 1


def test_200_consecutive_runs_leave_nothing_behind(program: Program, server: CountingServer) -> None:
    code = """
        logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
        for name in ("mlflow", "urllib3", "git"):
            logging.getLogger(name).setLevel(logging.ERROR)
        import psutil
        process = psutil.Process()
        runs = 0
        def train(count):
            global runs
            runs += count
            for _ in range(count):
                with mlflow.start_run():
                    pass
            return threading.active_count(), process.num_fds(), process.memory_info().rss
        train(50)
        lasting_threads()  # startup threads have ended
        before = train(50)
        after = train(100)
        # The C allocator's use of memory for three threads varies; a leak always grows.
        growth = after[2] - before[2]
        while growth > 4e6 and runs < 600:
            previous, (*_, held) = after[2], train(100)
            growth = held - previous
        print(after[0] - before[0], after[1] - before[1], growth)
        print(mlflow_sysmetrics.status().points_pending, runs)
    """
    finished = program(server.url, code)
    threads, descriptors, memory, pending, runs = (int(word) for word in finished.words)
    assert (threads, descriptors, pending) == (0, 0, 0)
    assert memory < 4e6
    assert finished.stderr.count("Sampling started") == 1
    assert finished.stderr.count("Sampling ended") == 1
    assert finished.stderr.count("mlflow_sysmetrics") == 2
    assert server.counts()["requests"]["runs/create"] == runs


def test_the_names_match_the_built_in_monitor(program: Program, server: CountingServer) -> None:
    code = """
        from mlflow.system_metrics.metrics import cpu_monitor, disk_monitor, network_monitor
        for one in (cpu_monitor.CPUMonitor(), disk_monitor.DiskMonitor(), network_monitor.NetworkMonitor()):
            one.collect_metrics()
            print(*one.metrics)
    """
    names = program(server.url, code).words
    assert len(names) == 8
    assert {f"system/{name}" for name in names} <= HOST_METRICS


def test_idle_costs_nothing(program: Program, server: CountingServer) -> None:
    """Remaining work after the run may fall into one of the five intervals, but not into all."""
    code = """
        with mlflow.start_run():
            pass
        lasting_threads()
        ticks, spent = mlflow_sysmetrics.status().ticks, []
        while len(spent) < 5 and min(spent, default=1.0) > 0.005:
            before = time.process_time()
            time.sleep(1)
            spent.append(time.process_time() - before)
        print(min(spent) * 1000, mlflow_sysmetrics.status().ticks - ticks)
    """
    milliseconds, ticks = program(server.url, code, MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.1").words
    assert ticks == "0"
    assert float(milliseconds) < 7


def test_flush_delivers_what_was_sampled_so_far(program: Program, server: CountingServer) -> None:
    code = """
        with mlflow.start_run() as run:
            watched()
            assert mlflow_sysmetrics.flush()
            print(run.info.run_id, mlflow_sysmetrics.status().points_pending)
            os._exit(0)
    """
    run_id, pending = program(server.url, code).words
    assert pending == "0"
    assert lasting(server.points(run_id)) == HOST_METRICS


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_program_that_changes_its_directory_has_its_points_where_the_run_is(
    program: Program, store: Store, tmp_path: Path
) -> None:
    code = """
        with mlflow.start_run() as run:
            os.mkdir("elsewhere")
            os.chdir("elsewhere")
            time.sleep(1)
        print(run.info.run_id)
    """
    (run_id,) = program("sqlite:///runs.db", code).words
    assert store.keys(run_id) >= LEVELS
    assert not list((tmp_path / "elsewhere").glob("*.db"))
