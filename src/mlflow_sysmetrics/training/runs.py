"""Which run a part of the training kit writes to."""

from __future__ import annotations

from mlflow_sysmetrics.errors import NoActiveRunError


def active_run_id() -> str | None:
    """Returns the id of the run that is active in this thread; None where there is none."""
    import mlflow

    run = mlflow.active_run()
    return None if run is None else str(run.info.run_id)


def chosen_run_id(run_id: str | None, *, by: str) -> str:
    """Returns the run that was named, else the active one.

    Args:
        run_id: what was named, if anything.
        by: what needs it, for the message.

    Raises:
        NoActiveRunError: none was named and none is active in this thread.
        TypeError: what was named is no text.
    """
    if run_id is not None and not isinstance(run_id, str):
        raise TypeError(f"run_id={run_id!r} is no text; the id of a run is run.info.run_id")
    found = run_id or active_run_id()
    if found is None:
        raise NoActiveRunError(
            f"{by} needs a run to write to, and none is active in this thread: "
            "use it inside `with mlflow.start_run():`, or pass run_id=..."
        )
    return found
