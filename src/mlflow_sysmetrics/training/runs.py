"""Chooses the run that a part of the training kit records to."""

from __future__ import annotations

from mlflow_sysmetrics.errors import NoActiveRunError


def active_run_id() -> str | None:
    """Returns the id of the run that is active in this thread, or None."""
    import mlflow

    run = mlflow.active_run()
    return None if run is None else str(run.info.run_id)


def chosen_run_id(run_id: str | None, *, by: str) -> str:
    """Returns the given run id, or the id of the active run.

    Args:
        run_id: the id that the user passed, if any.
        by: the public name that needs a run, for the message.

    Raises:
        NoActiveRunError: no id was given and no run is active in this thread.
        TypeError: the id is not a string.
        ValueError: the id is empty.
    """
    if run_id is not None and not isinstance(run_id, str):
        raise TypeError(f"run_id must be a string such as run.info.run_id, got {run_id!r}")
    if run_id is not None and not run_id.strip():
        raise ValueError(f"run_id must be the id of a run such as run.info.run_id, got {run_id!r}")
    chosen = run_id or active_run_id()
    if chosen is None:
        raise NoActiveRunError(
            f"{by} needs a run to write to, and none is active in this thread: "
            "use it inside `with mlflow.start_run():`, or pass run_id=..."
        )
    return chosen
