"""What the installed MLflow makes of its environment variables."""

from __future__ import annotations

_JOBS = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"


def runs_jobs() -> bool:
    """Returns whether a server started in this environment would start processes for jobs beside it."""
    from mlflow import environment_variables  # noqa: PLC0415 - importing us must not import MLflow

    variable = getattr(environment_variables, _JOBS, None)
    return variable is not None and bool(variable.get())
