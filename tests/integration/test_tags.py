"""Tags: which runs get them, what they cost, and what happens if a tool hangs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from counting_server import CountingServer
from programs import HOST_METRICS, MLFLOW, Program, Remote, Store


@pytest.mark.parametrize("value", ["sysmetrics", "git,sysmetrics"])
def test_a_provider_list_with_sysmetrics_keeps_everything_on(
    program: Program, remote: Remote, value: str
) -> None:
    code = """
        with mlflow.start_run() as run:
            watched()
        print(run.info.run_id)
    """
    (run_id,) = program(remote.uri, code, MLFLOW_RUN_CONTEXT_PROVIDER=value).words
    assert remote.tags(run_id)["sys.metrics"] == "on"
    assert remote.keys(run_id) == HOST_METRICS


def test_tags_can_be_disabled_separately(program: Program, remote: Remote) -> None:
    code = """
        with mlflow.start_run() as run:
            watched()
        print(run.info.run_id)
    """
    (run_id,) = program(remote.uri, code, MLFLOW_SYSMETRICS_TAGS="off").words
    assert not [key for key in remote.tags(run_id) if key.startswith("sys")]
    assert remote.keys(run_id) == HOST_METRICS


def test_a_tag_says_that_metrics_are_off(program: Program, remote: Remote) -> None:
    code = """
        with mlflow.start_run() as run:
            pass
        print(run.info.run_id)
    """
    (run_id,) = program(remote.uri, code, MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING="false").words
    assert remote.tags(run_id)["sys.metrics"] == "off: MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false"


def test_a_tag_says_that_start_run_enabled_metrics(program: Program, remote: Remote) -> None:
    code = """
        with mlflow.start_run(log_system_metrics=True) as run:
            pass
        print(run.info.run_id)
    """
    (run_id,) = program(remote.uri, code, MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING="false").words
    assert remote.keys(run_id)
    assert remote.tags(run_id)["sys.metrics"] == "on"


def test_a_run_that_is_not_sampled_does_not_say_that_it_is(program: Program, remote: Remote) -> None:
    """Autologging makes the children of a search as this does, with tags and without starting them."""
    code = """
        from mlflow.tracking.context.registry import resolve_tags
        with mlflow.start_run(log_system_metrics=False) as run:
            print(run.info.run_id)
        print(mlflow.MlflowClient().create_run("0", tags=resolve_tags()).info.run_id)
    """
    off, child = (remote.tags(run_id) for run_id in program(remote.uri, code).words)
    assert "sys.cpu" in off.keys() & child.keys()
    assert off["sys.metrics"] == "off: log_system_metrics=False"
    assert "sys.metrics" not in child


@pytest.mark.parametrize("known", [False, True], ids=["from the start", "when the facts are known"])
def test_a_run_says_that_no_thread_could_be_started(program: Program, remote: Remote, known: bool) -> None:
    """The limit of a container, as `RuntimeError: can't start new thread`."""
    code = f"""
        if {known}:
            mlflow.start_run(log_system_metrics=False)
            mlflow.end_run()
            time.sleep(1)
        def none(*_, **__):
            raise RuntimeError("can't start new thread")
        for name in ("_start_new_thread", "_start_joinable_thread"):
            if hasattr(threading, name):
                setattr(threading, name, none)
        with mlflow.start_run() as run:
            pass
        print(run.info.run_id)
    """
    found = program(remote.uri, code)
    tags = remote.tags(found.words[-1])
    assert tags["sys.metrics"] == "off: no thread can be started"
    assert found.stderr.count("System metrics are off") == 1


@pytest.mark.skipif(MLFLOW < (2, 9), reason="MLflow 2.8 does not monitor resumed runs")
def test_runs_made_elsewhere_get_the_tags_that_they_lack(program: Program, remote: Remote) -> None:
    """By a client, an orchestrator, or `mlflow run`. The first machine that a run is sampled on stays its own."""
    code = """
        client = mlflow.MlflowClient()
        made = [client.create_run("0").info.run_id for _ in range(4)]
        client.set_tag(made[2], "sys.hostname", "elsewhere")
        with mlflow.start_run(run_id=made[0]):
            pass
        os.environ["MLFLOW_RUN_ID"] = made[1]
        with mlflow.start_run():
            pass
        with mlflow.start_run(run_id=made[2]):
            pass
        with mlflow_sysmetrics.attach(made[3]):
            pass
        mlflow_sysmetrics.flush()
        print(*made)
    """
    *new, old, attached = program(remote.uri, code).words
    here = remote.tags(new[0])
    assert {"sys.cpu", "sys.hostname", "sys.platform"} <= here.keys()
    for run_id in (*new, attached):
        tags = remote.tags(run_id)
        assert tags["sys.metrics"] == "on"
        assert {key for key in tags if key.startswith("sys.")} == {
            key for key in here if key.startswith("sys.")
        }
    kept = {key: value for key, value in remote.tags(old).items() if key.startswith("sys.")}
    assert kept == {"sys.hostname": "elsewhere", "sys.metrics": "on"}


def test_a_run_made_elsewhere_gets_no_tags_if_they_are_off(program: Program, remote: Remote) -> None:
    code = """
        run_id = mlflow.MlflowClient().create_run("0").info.run_id
        with mlflow_sysmetrics.attach(run_id):
            pass
        print(run_id)
    """
    (run_id,) = program(remote.uri, code, MLFLOW_SYSMETRICS_TAGS="off").words
    assert not [key for key in remote.tags(run_id) if key.startswith("sys")]


@pytest.fixture
def hanging_nvidia_smi(tmp_path: Path) -> Path:
    """A folder with an nvidia-smi that hangs for a minute."""
    tool = tmp_path / "tools" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nsleep 60\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return tool.parent


@pytest.mark.skipif(os.name == "nt", reason="the fake tool is a POSIX shell script")
def test_a_timeout_of_the_program_passes_through_the_start_of_a_run(
    program: Program, server: CountingServer, hanging_nvidia_smi: Path
) -> None:
    """Here while the tags are collected, under a guard of MLflow's. The next run is sampled."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA GPU, so nvidia-smi is not called")
    code = """
        import signal
        def interrupt(*_):
            raise TimeoutError("late")
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            mlflow.start_run()
        except TimeoutError as error:
            print(error, len(mlflow_sysmetrics.status().attached), mlflow.active_run())
        with mlflow.start_run():
            print(len(mlflow_sysmetrics.status().attached))
    """
    path = f"{hanging_nvidia_smi}{os.pathsep}{os.environ['PATH']}"
    assert program(server.url, code, PATH=path).words == ["late", "0", "None", "1"]


@pytest.mark.skipif(os.name == "nt", reason="the fake tool is a POSIX shell script")
def test_a_hanging_tool_costs_one_second_and_is_reported_later(
    program: Program, server: CountingServer, hanging_nvidia_smi: Path
) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA GPU, so nvidia-smi is not called")
    code = """
        def seconds_of_tags():
            with Stalls() as stalls:
                began = time.perf_counter()
                mlflow_sysmetrics.SysMetricsRunContextProvider().tags()
                took = time.perf_counter() - began
                return took - stalls.seconds
        first, second = seconds_of_tags(), seconds_of_tags()
        with mlflow.start_run() as run:
            lasting_threads()  # wait for the facts
        with mlflow.start_run() as other:
            pass
        print(run.info.run_id, other.info.run_id, first, second)
    """
    path = f"{hanging_nvidia_smi}{os.pathsep}{os.environ['PATH']}"
    run_id, other, first, second = program(server.url, code, PATH=path).words
    assert float(first) < 2  # one second for the facts; the tool times out after three
    assert float(second) < 0.5
    for tags in (Store(server.url).tags(run_id), Store(server.url).tags(other)):
        assert "nvidia-smi" in tags["sysmetrics.error"]
        assert "sys.gpu" not in tags
        assert "sys.cpu" in tags


BAD = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "abc",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "-1",
    "MLFLOW_SYSMETRICS_SEND_INTERVAL": "0",
    "MLFLOW_SYSMETRICS_FLUSH_TIMEOUT": "nan",
    "MLFLOW_SYSMETRICS_COLLECTORS": "gpuu",
    "MLFLOW_SYSMETRICS_TAGS": "perhaps",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "2",
}


def test_invalid_settings_warn_once_each_and_the_run_starts(program: Program, remote: Remote) -> None:
    code = """
        for _ in range(2):
            with mlflow.start_run() as run:
                watched()
        print(run.info.run_id)
    """
    finished = program(remote.uri, code, **BAD)
    assert remote.keys(finished.words[-1]) == HOST_METRICS
    for variable, value in BAD.items():
        (line,) = [line for line in finished.stderr.splitlines() if variable in line]
        assert repr(value) in line
        assert "using" in line


def test_tags_are_cheap_and_start_no_process(program: Program, server: CountingServer) -> None:
    code = """
        provider = mlflow_sysmetrics.SysMetricsRunContextProvider()
        first = provider.tags()
        import subprocess
        subprocess.Popen = None
        threads = threading.active_count()
        again = provider.tags()
        assert threading.active_count() == threads
        assert again is not first and again.keys() == first.keys()
        print(provider.in_context(), all(isinstance(value, str) and len(value) < 250 for value in again.values()))
    """
    assert program(server.url, code).words == ["True", "True"]


def test_the_provider_may_be_imported_before_mlflow(program: Program, server: CountingServer) -> None:
    """Its module must not import MLflow, whose import loads the provider."""
    code = """
        import subprocess
        line = (
            "import warnings; warnings.simplefilter('error');"
            "from mlflow_sysmetrics import SysMetricsRunContextProvider;"
            "warnings.simplefilter('ignore');"
            "import mlflow.tracking.context.registry as registry;"
            "print([type(p).__name__ for p in registry._run_context_provider_registry].count('SysMetricsRunContextProvider'))"
        )
        print(subprocess.run([sys.executable, "-c", line], check=True, capture_output=True, text=True).stdout)
    """
    assert program(server.url, code).words == ["1"]
