"""The log that all adapters share, with values on an accelerator."""

from __future__ import annotations

import pytest
from programs import Program, Store


def test_no_step_waits_for_its_device(program: Program, store: Store) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    # A tensor on the device "meta" has no value: reading it before a flush raises.
    done = program(
        store.uri,
        """
        import torch
        from mlflow_sysmetrics.training.adapters.training_log import Choices, TrainingLog
        from mlflow_sysmetrics.training.values import Pending

        with mlflow.start_run() as run:
            log = TrainingLog(Choices())
            log.epoch_began()
            for step in range(1, 4):
                log.batch_loss(torch.tensor(1.0, device="meta"))
                log.step(step, accuracy=torch.tensor(0.5, device="meta"), batch_time_seconds=0.25)
            print("steps done", file=sys.stderr)
            log.epoch_ended(1)
            log.finish(total_steps=3, early_stopped=False)
        print(run.info.run_id)
        """,
    )
    steps, rest = done.stderr.split("steps done")
    assert "mlflow-sysmetrics" not in steps
    assert "epoch 1 could not be fetched from its device" in rest  # a failed device does not end the training
    metrics = store.client.get_run(done.words[-1]).data.metrics
    assert metrics["train/batch_time_seconds"] == 0.25
    assert metrics["final/total_steps"] == 3


def test_a_run_started_by_mlflow_is_not_attached_again(program: Program, store: Store) -> None:
    done = program(
        store.uri,
        """
        from mlflow_sysmetrics.training.adapters.training_log import Choices, TrainingLog
        with mlflow.start_run(log_system_metrics=False) as run:
            log = TrainingLog(Choices())
            log.finish(total_steps=0, early_stopped=False)
        alone = mlflow.MlflowClient().create_run("0").info.run_id
        log = TrainingLog(Choices(run_id=alone))
        log.finish(total_steps=0, early_stopped=False)
        print(run.info.run_id, alone)
        """,
    )
    active, alone = done.words[-2:]
    assert store.keys(active) == set()
    assert "system/system_memory_usage_percentage" in store.keys(alone)


def test_a_forked_child_leaves_the_log_of_its_parent_alone(program: Program, store: Store) -> None:
    done = program(
        store.uri,
        """
        from mlflow_sysmetrics.training.adapters.training_log import Choices, TrainingLog
        mlflow.start_run()
        print(mlflow.active_run().info.run_id, flush=True)
        log = TrainingLog(Choices())
        child = os.fork()
        if child == 0:
            sys.last_value = ValueError("the child's own")
            from mlflow_sysmetrics.training.adapters import training_log
            training_log._end_at_exit()
            os._exit(0)
        os.waitpid(child, 0)
        print(mlflow.get_run(log.run_id).info.status)
        log.finish(total_steps=0, early_stopped=False)
        mlflow.end_run()
        """,
    )
    assert done.words[1] == "RUNNING"
    assert "final/total_steps" in store.client.get_run(done.words[0]).data.metrics


def test_an_exception_that_the_program_survives_leaves_the_run_to_mlflow(
    program: Program, store: Store
) -> None:
    done = program(
        store.uri,
        """
        from mlflow_sysmetrics.training.adapters.training_log import Choices, TrainingLog
        mlflow.start_run()
        print(mlflow.active_run().info.run_id)
        log = TrainingLog(Choices())
        log.batch_loss(1.0)
        log.step(1)
        with contextlib.suppress(KeyboardInterrupt):
            raise KeyboardInterrupt  # the user has trained enough
        """,
    )
    run = store.client.get_run(done.words[0])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["train/loss_step"] == 1.0
