"""Ray clusters of two nodes on this machine, told apart by `MLFLOW_SYSMETRICS_HOST_ID`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_examples import block, run
from programs import Store
from ray_settings import RAY
from series import sections

pytest.importorskip("ray")

CLUSTER = """
import os, time
import mlflow, psutil, ray
from ray.cluster_utils import Cluster

NODE = {"num_cpus": 2, "num_gpus": 2, "object_store_memory": 80_000_000}
cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
other = cluster.add_node(**NODE, env_vars={"MLFLOW_SYSMETRICS_HOST_ID": "another"})
ray.init(address=cluster.address, logging_level="ERROR")

def agents():
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "ray::SystemMetricsAgent" in " ".join(process.info["cmdline"] or ()):
            with_cluster = any(f"gcs-address={cluster.address}" in word for one in process.parents()
                               for word in one.cmdline())
            found += [process.pid] * with_cluster
    return found

def sampled(run, *nodes):
    keys = mlflow.MlflowClient().get_run(run.info.run_id).data.metrics
    return {f"system/{node}" for node in nodes} <= {key.rpartition("/")[0] for key in keys}

def eventually(found):
    ends = time.monotonic() + 240
    while not found():
        assert time.monotonic() < ends, found
        time.sleep(0.2)
"""
DOWN = """
ray.shutdown()
eventually(lambda: not agents())
cluster.shutdown()
"""

DRIVER = """
@ray.remote(num_cpus=1, num_gpus=1)
class Worker:
    def held(self):
        from mlflow_sysmetrics.cluster.engines.ray import held, own_share
        return os.getpid(), ray.get_runtime_context().get_node_id(), own_share(None).pids

with mlflow.start_run() as run:
    workers = [Worker.options(scheduling_strategy="SPREAD").remote() for _ in range(2)]
    print("found:", run.info.run_id)
    found = ray.get([one.held.remote() for one in workers])
    assert len({node for _, node, _ in found}) == 2
    assert [pid in pids for pid, _, pids in found] == [False, False]  # its own is left out
    eventually(lambda: len(agents()) == 1)
    third = cluster.add_node(**NODE, env_vars={"MLFLOW_SYSMETRICS_HOST_ID": "third"})
    eventually(lambda: len(agents()) == 2)
    eventually(lambda: sampled(run, "node_1", "node_2"))
    killed = agents()[0]
    os.kill(killed, 9)
    eventually(lambda: killed not in agents() and len(agents()) == 2)  # Ray has restarted it
eventually(lambda: not agents())
"""


def test_a_driver_has_every_node_sampled_until_its_run_ends(
    on_engine: Callable[[str], list[str]], store: Store
) -> None:
    [run_id] = on_engine(CLUSTER + DRIVER + DOWN)
    assert sections(store, run_id) == {"system", "system/node_1", "system/node_2"}


KILLED = """
with mlflow.start_run() as run:
    eventually(lambda: len(agents()) == 1)
    ray.shutdown()
    eventually(lambda: not agents())
    assert not ray.is_initialized()
    time.sleep(3)
    assert not ray.is_initialized()  # nothing of ours starts another cluster
cluster.shutdown()
print("found: ended")
"""


def test_nothing_is_left_behind_by_a_shutdown_within_a_run(on_engine: Callable[[str], list[str]]) -> None:
    assert on_engine(CLUSTER + KILLED) == ["ended"]


TRAIN = """
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

def train(config):
    import time
    import mlflow, ray.train
    rank = ray.train.get_context().get_world_rank()
    if rank == 0:
        run = mlflow.start_run()
    ends = time.monotonic() + 240
    while rank == 0 and time.monotonic() < ends:
        keys = mlflow.MlflowClient().get_run(run.info.run_id).data.metrics
        if len({key.rpartition("/")[0] for key in keys}) == 2:
            break
        time.sleep(1)
    if rank == 0:
        mlflow.end_run()

TorchTrainer(train, scaling_config=ScalingConfig(num_workers=2, placement_strategy="STRICT_SPREAD"),
             run_config=RunConfig(storage_path=os.environ["RESULTS"])).fit()
[run] = mlflow.search_runs(output_format="list")
print("found:", run.info.run_id)
eventually(lambda: not agents())
"""


def test_two_workers_of_ray_train_sample_a_node_each(
    on_engine: Callable[[str], list[str]], store: Store
) -> None:
    [run_id] = on_engine(CLUSTER + TRAIN + DOWN)
    found = sections(store, run_id)
    assert len(found) == 2
    assert found <= {"system", "system/node_0", "system/node_1"}


TUNE = """
from ray import tune

def trial(config):
    import os, time
    import mlflow
    with mlflow.start_run():
        mlflow.log_metric("trial", config["x"])
        time.sleep(3)

tune.Tuner(trial, param_space={"x": tune.grid_search([1, 2, 3, 4])},
           run_config=tune.RunConfig(storage_path=os.environ["RESULTS"], verbose=0)).fit()
for run in mlflow.search_runs(output_format="list"):
    print("found:", run.info.run_id)
assert not agents()
"""


def test_each_trial_of_ray_tune_samples_its_node_for_its_own_run(
    on_engine: Callable[[str], list[str]], store: Store
) -> None:
    run_ids = on_engine(CLUSTER + TUNE + DOWN)
    assert len(run_ids) == 4
    assert [sections(store, run_id) for run_id in run_ids] == [{"system"}] * 4


def test_the_example_prints_the_sections_of_its_run(store: Store, tmp_path: Path) -> None:
    commands, shown = block("train_ray.py")
    # The paths of its sockets have to be short, and an agent takes its time to start on two busy cores.
    own = {**RAY, "RAY_TMPDIR": tempfile.gettempdir(), "SECONDS_TO_TRAIN": "40"}
    assert run(commands, store, tmp_path, **own, PYTHONWARNINGS="ignore") == shown
