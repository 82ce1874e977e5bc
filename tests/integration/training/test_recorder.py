"""MetricRecorder: names, axes and delivery, with system metrics and without."""

from __future__ import annotations

import math
import os
import signal
import sys
from pathlib import Path

import forks
import pytest
from counting_server import CountingServer
from programs import Program, Store

TRAINING = """
    from mlflow_sysmetrics import MetricRecorder
    with mlflow.start_run() as run, MetricRecorder(logging_steps=10) as recorder:
        for step in range(1, 41):
            recorder.step(step, loss=1 / step, accuracy=None, learning_rate=0.1)
            if step % 20 == 0:
                recorder.epoch(step // 20, {"train_loss": 0.5, "val_f1_macro": 0.25}, duration_seconds=2)
        recorder.final(best_val_f1_macro=0.25, best_epoch=1, early_stopped=False)
    print(run.info.run_id)
"""


def axes(store: Store, run_id: str) -> dict[str, list[int]]:
    """Returns the steps of each series that is not a system metric."""
    keys = store.client.get_run(run_id).data.metrics
    return {
        key: [point.step for point in store.points(run_id, key)]
        for key in keys
        if not key.startswith("system/")
    }


@pytest.mark.every_database
def test_every_name_has_its_axis(program: Program, store: Store) -> None:
    (run_id,) = program(store.uri, TRAINING).words
    steps, epochs = [1, 10, 20, 30, 40], [1, 2]
    assert axes(store, run_id) == {
        "train/loss_step": steps,
        "train/learning_rate": steps,
        "epoch/train_loss": epochs,
        "epoch/val_f1_macro": epochs,
        "epoch/duration_seconds": epochs,
        "final/best_val_f1_macro": [40],
        "final/best_epoch": [40],
        "final/early_stopped": [40],
    }
    assert [point.value for point in store.points(run_id, "train/loss_step")] == [
        1,
        0.1,
        1 / 20,
        1 / 30,
        1 / 40,
    ]
    assert store.keys(run_id)  # system metrics, too


@pytest.mark.parametrize(
    "off", [{"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false"}, {"MLFLOW_RUN_CONTEXT_PROVIDER": "none"}]
)
def test_it_works_without_system_metrics(program: Program, store: Store, off: dict[str, str]) -> None:
    (run_id,) = program(store.uri, TRAINING, **off).words
    assert len(axes(store, run_id)) == 8
    assert not store.keys(run_id)


def test_the_end_of_the_run_delivers_the_points_of_a_forgotten_recorder(
    program: Program, store: Store
) -> None:
    code = """
        from mlflow_sysmetrics import MetricRecorder
        with mlflow.start_run() as run:
            MetricRecorder().step(1, loss=0.5)
        print(run.info.run_id, len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss_step")))
    """
    _, count = program(store.uri, code).words
    assert count == "1"


@pytest.mark.every_database
def test_the_end_of_the_program_delivers_the_points_of_an_open_recorder(
    program: Program, store: Store
) -> None:
    code = """
        from mlflow_sysmetrics import MetricRecorder
        run = mlflow.MlflowClient().create_run("0")
        recorder = MetricRecorder(run.info.run_id)
        recorder.step(1, loss=float("nan"))
        print(run.info.run_id)
    """
    (run_id,) = program(store.uri, code).words
    (point,) = store.points(run_id, "train/loss_step")
    assert math.isnan(point.value)


def test_nan_and_infinity_reach_a_server(program: Program, server: CountingServer) -> None:
    code = """
        from mlflow_sysmetrics import MetricRecorder
        with mlflow.start_run() as run, MetricRecorder() as recorder:
            recorder.step(1, loss=float("nan"), learning_rate=float("inf"))
        print(run.info.run_id)
    """
    (run_id,) = program(server.url, code).words
    assert [point["value"] for point in server.points(run_id)["train/loss_step"]] == ["NaN"]
    assert [point["value"] for point in server.points(run_id)["train/learning_rate"]] == ["Infinity"]


def test_steps_from_a_loop_over_an_array_reach_a_server(program: Program, server: CountingServer) -> None:
    code = """
        import numpy
        from mlflow_sysmetrics import MetricRecorder
        with mlflow.start_run() as run, MetricRecorder() as recorder:
            for step in numpy.arange(1, 4):
                recorder.step(step, loss=1)
            recorder.epoch(numpy.int32(1), train_loss=1)
        print(run.info.run_id)
    """
    (run_id,) = program(server.url, code).words
    assert [point["step"] for point in server.points(run_id)["train/loss_step"]] == [1, 2, 3]
    assert [point["step"] for point in server.points(run_id)["epoch/train_loss"]] == [1]


def test_the_error_about_a_missing_run_says_what_to_do(program: Program, store: Store) -> None:
    code = """
        import mlflow_sysmetrics
        try:
            mlflow_sysmetrics.MetricRecorder()
        except mlflow_sysmetrics.errors.NoActiveRunError as error:
            print(error)
    """
    assert "use it inside `with mlflow.start_run():`" in program(store.uri, code).stdout


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("recorder.step(1, loss='low')", "TypeError: train/loss must be a number, got 'low'"),
        (
            "recorder.step(-1, loss=1)",
            "ValueError: step must be an integer from 0 to 9223372036854775807, got -1",
        ),
        (
            "recorder.step(1.5, loss=1)",
            "ValueError: step must be an integer from 0 to 9223372036854775807, got 1.5",
        ),
        (
            "recorder.epoch(1, {'val/../loss': 1})",
            "ValueError: MLflow does not accept the metric name 'val/../loss': Names may",
        ),
        ("recorder.epoch(1, {'a' * 251: 1})", "ValueError: MLflow does not accept the metric name 'aaa"),
        ("MetricRecorder(logging_steps=0)", "ValueError: logging_steps must be an integer >= 1, got 0"),
        ("MetricRecorder(buffer_seconds=-1)", "ValueError: buffer_seconds must be a number >= 0, got -1"),
        ("MetricRecorder(buffer_seconds='5')", "ValueError: buffer_seconds must be a number >= 0, got '5'"),
        ("MetricRecorder(run)", "TypeError: run_id must be a string such as run.info.run_id, got "),
    ],
)
def test_a_call_that_raises_names_the_value_and_records_nothing(
    program: Program, store: Store, call: str, error: str
) -> None:
    code = f"""
        from mlflow_sysmetrics import MetricRecorder
        with mlflow.start_run() as run, MetricRecorder() as recorder:
            try:
                {call}
            except (TypeError, ValueError) as error:
                print(f"{{type(error).__name__}}: {{error}}", file=sys.stderr)
        print(run.info.run_id)
    """
    found = program(store.uri, code)
    assert error in found.stderr
    assert not axes(store, found.words[0])


def test_points_from_before_a_kill_are_delivered_by_the_next_program(
    program: Program, server: CountingServer, tmp_path: Path
) -> None:
    """The server is down all the time, so the points on disk are all there is."""
    spool = {"MLFLOW_SYSMETRICS_SPOOL_DIR": str(tmp_path / "spool"), "MLFLOW_SYSMETRICS_FLUSH_TIMEOUT": "0"}
    (run_id,) = program(server.url, "print(mlflow.MlflowClient().create_run('0').info.run_id)").words
    server.mode("500")
    code = f"""
        from mlflow_sysmetrics import MetricRecorder
        from mlflow_sysmetrics.daemon import process
        recorder = MetricRecorder({run_id!r})
        for step in range(1, 501):
            recorder.step(step, loss=1 / step)
        eventually(lambda: mlflow_sysmetrics.status().points_pending >= 500)
        os.kill(os.getpid(), {int(signal.SIGKILL)})
    """
    if sys.platform == "win32":
        pytest.skip("Windows has no SIGKILL")
    killed = program(server.url, code, check=False, **spool)
    assert killed.returncode == -signal.SIGKILL
    assert not server.points(run_id)
    server.mode("ok")
    forks.run(
        ["-m", "mlflow_sysmetrics.cli", "sync"],
        timeout=240,
        check=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": server.url, **spool},
    )
    points = server.points(run_id)["train/loss_step"]
    assert sorted((point["step"], point["value"]) for point in points) == [
        (step, 1 / step) for step in range(1, 501)
    ]


def test_a_forked_child_does_not_deliver_the_points_of_its_parent(program: Program, store: Store) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows does not fork")
    code = """
        from mlflow_sysmetrics import MetricRecorder
        with mlflow.start_run() as run, MetricRecorder() as recorder:
            recorder.step(1, loss=1)
            if (child := os.fork()) == 0:
                recorder.step(2, loss=2)
                recorder.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            recorder.step(3, loss=3)
        print(run.info.run_id)
    """
    (run_id,) = program(store.uri, code).words
    assert axes(store, run_id) == {"train/loss_step": [1, 3]}


@pytest.mark.parametrize(
    ("start", "ending"),
    [
        ("mlflow.start_run()", "mlflow.end_run()"),
        ("mlflow.start_run()", "mlflow_sysmetrics.flush()"),
        ("client.create_run('0')", "there = lambda: 3  # the exit delivers"),
    ],
    ids=["end_run", "flush", "exit"],
)
def test_values_on_a_device_are_delivered_when_the_run_or_the_program_ends(
    program: Program, store: Store, start: str, ending: str
) -> None:
    """The values pretend to be on an accelerator."""
    pytest.importorskip("torch", reason="torch is not installed")
    code = f"""
        import torch
        import mlflow_sysmetrics
        from mlflow_sysmetrics import MetricRecorder
        from mlflow_sysmetrics.training import recorder as module, values
        module.as_number = lambda name, value: values.Pending(value)
        client = mlflow.MlflowClient()
        run = {start}
        there = lambda: len(client.get_metric_history(run.info.run_id, "train/loss_step"))
        recorder = MetricRecorder(run.info.run_id, buffer_seconds=3600)
        for step in (1, 2, 3):
            recorder.step(step, loss=torch.tensor(0.5))
        {ending}
        print(run.info.run_id, there())
    """
    run_id, count = program(store.uri, code).words
    assert count == "3"
    assert axes(store, run_id) == {"train/loss_step": [1, 2, 3]}


def test_a_forked_child_leaves_values_on_a_device_to_its_parent(program: Program, store: Store) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows does not fork")
    code = """
        from mlflow_sysmetrics import MetricRecorder
        from mlflow_sysmetrics.training import recorder as module, values
        module.as_number = lambda name, value: values.Pending(value)
        module.fetch = lambda pending: sys.exit("fetched") if os.getpid() != parent else [0.5 for _ in pending]
        parent = os.getpid()
        with mlflow.start_run() as run, MetricRecorder(buffer_seconds=3600) as recorder:
            recorder.step(1, loss=1)
            if (child := os.fork()) == 0:
                recorder.step(2, loss=2)
                recorder.epoch(1, loss=2)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        print(run.info.run_id)
    """
    (run_id,) = program(store.uri, code).words
    assert axes(store, run_id) == {"train/loss_step": [1]}
