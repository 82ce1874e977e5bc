"""Importing the registry loads no model library; registering loads only that of the model."""

from __future__ import annotations

import forks
import pytest
from programs import Program, Store


def test_importing_the_registry_loads_no_library() -> None:
    alone = (
        "import sys, mlflow_sysmetrics.training.registry as _; print([one for one in "
        "('mlflow', 'torch', 'sklearn', 'numpy') if one in sys.modules])"
    )
    done = forks.run_interpreter(["-c", alone], timeout=240)
    assert (done.returncode, done.stdout.strip()) == (0, "[]")


def test_a_scikit_learn_model_does_not_load_torch(store: Store, program: Program) -> None:
    pytest.importorskip("sklearn")
    done = program(
        store.uri,
        """
        from sklearn.linear_model import LinearRegression
        from mlflow_sysmetrics.training.registry import load_model, register_model
        run = mlflow.MlflowClient().create_run("0")
        register_model(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), "ships", [[1.0]], "Production",
                       run_id=run.info.run_id, pip_requirements=["mlflow"])
        print("torch" in sys.modules)
        """,
        own_interpreter=True,
        MLFLOW_RUN_CONTEXT_PROVIDER="none",
    )
    assert done.words == ["False"]


def test_the_logging_of_the_program_is_unchanged(store: Store, program: Program) -> None:
    pytest.importorskip("torch")
    done = program(
        store.uri,
        """
        import torch
        from mlflow_sysmetrics.training.registry import load_model, register_model
        run = mlflow.MlflowClient().create_run("0")
        register_model(torch.nn.Linear(4, 2), "ships", torch.ones(1, 3), "Production",
                       run_id=run.info.run_id, pip_requirements=["mlflow"])
        load_model("ships")
        print(logging.getLevelName(logging.root.level), logging.root.handlers)
        """,
        own_interpreter=True,
        MLFLOW_RUN_CONTEXT_PROVIDER="none",
    )
    assert done.words == ["WARNING", "[]"]
    assert "fails on the sample" in done.stderr
