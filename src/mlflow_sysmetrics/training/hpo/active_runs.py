"""The runs that are active in a thread: MLflow logs to the last of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.tracking import fluent

from mlflow_sysmetrics.training.hpo.store_calls import StoreCalls


def run_stack() -> list[Any]:
    """Returns MLflow's list of the runs that are active in this thread."""
    stack = fluent._active_run_stack  # noqa: SLF001 - `mlflow.active_run` tells the innermost one only
    found: list[Any] = stack if isinstance(stack, list) else stack.get()
    return found


def one_stack_for_all_threads() -> bool:
    """Returns whether a run that is active in one thread is active in all, as it was in MLflow 2.8."""
    return isinstance(fluent._active_run_stack, list)  # noqa: SLF001 - as above


@contextmanager
def only_active(*runs: Any) -> Iterator[None]:  # noqa: ANN401 - of MLflow
    """Makes these the active runs of this thread for a ``with`` block, and then what was before."""
    stack = run_stack()
    before = list(stack)
    stack[:] = runs
    try:
        yield
    finally:
        stack[:] = before


def started_below(parent: Any, calls: StoreCalls, **named: Any) -> Any:  # noqa: ANN401 - of MLflow
    """Starts a run below another by `mlflow.start_run` and returns it; it is not yet active here.

    Raises:
        NotRecorded: it could not be started in time.
    """

    def start() -> Any:  # noqa: ANN401 - of MLflow
        # As the one active run its parent is the new run's parent in every MLflow; `parent_run_id=` came
        # with 2.15, and costs a request.
        with only_active(parent):
            return mlflow.start_run(nested=True, **named)

    # Where threads share the active runs, another thread would change what is active here.
    return calls.make(start, undo=discard, here=one_stack_for_all_threads())


def discard(run: Any) -> None:  # noqa: ANN401 - of MLflow
    """Deletes a run that came too late: its trial has gone on without it."""
    finish_monitor(run.info.run_id)
    client = MlflowClient()
    client.set_terminated(run.info.run_id, "KILLED")
    client.delete_run(run.info.run_id)


def left_active(run_id: str | None) -> list[str]:
    """Takes the runs off this thread's stack that were started in it, and returns them, innermost first.

    Args:
        run_id: one that is taken off too, but not returned.
    """
    stack = run_stack()
    found = [str(run.info.run_id) for run in reversed(stack)]
    stack.clear()
    return [one for one in found if one != run_id]


def finish_monitor(run_id: str) -> None:
    """Ends the system metrics of a run, as `mlflow.end_run` does."""
    monitors = getattr(fluent, "run_id_to_system_metrics_monitor", {})
    monitor = monitors.pop(run_id, None)
    if monitor is not None:
        monitor.finish()
