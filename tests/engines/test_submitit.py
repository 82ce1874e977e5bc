"""Tasks of submitit's local executor, which numbers them as its executor for Slurm does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from programs import Store
from series import sections

pytest.importorskip("submitit")

PROGRAM = """
import os
import submitit

def train(seconds):
    import os, time
    import mlflow
    from submitit import JobEnvironment
    from mlflow_sysmetrics.cluster import start
    task = JobEnvironment()
    run = mlflow.start_run() if task.global_rank == 0 else None
    ends = time.monotonic() + 120
    while not (samplers := list(start._samplers.values())) and time.monotonic() < ends:
        time.sleep(0.1)
    time.sleep(seconds)
    led = [one.is_leader for one in samplers]
    if run:
        mlflow.end_run()
    return run and run.info.run_id, task.num_tasks, led

if __name__ == "__main__":
    executor = submitit.AutoExecutor(os.environ["RESULTS"], cluster="local")
    executor.update_parameters(tasks_per_node=3, timeout_min=5)
    found = executor.submit(train, 4.0).results()
    assert [tasks for _, tasks, _ in found] == [3, 3, 3]
    assert [len(led) for _, _, led in found] == [1, 1, 1]
    print("found:", found[0][0], sum(sum(led) for _, _, led in found))
"""


def test_tasks_of_a_job_share_one_sampler(on_engine: Callable[[str], list[str]], store: Store) -> None:
    [line] = on_engine(PROGRAM)
    run_id, leaders = line.split()
    assert (sections(store, run_id), leaders) == ({"system"}, "1")
