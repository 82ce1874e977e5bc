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


def test_registering_loads_only_the_library_of_the_model_and_leaves_logging_alone(
    store: Store, program: Program
) -> None:
    """One program for both, because its first imports take seconds."""
    pytest.importorskip("sklearn")
    pytest.importorskip("torch")
    done = program(
        store.uri,
        """
        from sklearn.linear_model import LinearRegression
        from mlflow_sysmetrics.training.registry import load_model, register_model
        run = mlflow.MlflowClient().create_run("0")
        register_model(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), "lines", [[1.0]], "Production",
                       run_id=run.info.run_id, pip_requirements=["mlflow"])
        print("torch" in sys.modules)
        import torch
        run = mlflow.MlflowClient().create_run("0")
        register_model(torch.nn.Linear(4, 2), "ships", torch.ones(1, 3), "Production",
                       run_id=run.info.run_id, pip_requirements=["mlflow"])
        load_model("ships")
        print(logging.getLevelName(logging.root.level), logging.root.handlers)
        """,
        own_interpreter=True,
        MLFLOW_RUN_CONTEXT_PROVIDER="none",
    )
    assert done.words == ["False", "WARNING", "[]"]
    assert "fails on the sample" in done.stderr
