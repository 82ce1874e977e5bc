"""Spark in local mode, whose executors share the host of the driver; and processes of another host."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable

import pytest
from programs import Store
from series import sections

pytest.importorskip("pyspark")
if shutil.which("java") is None:
    pytest.skip("Spark needs a Java runtime", allow_module_level=True)

BEGIN = """
import os, time
import mlflow
from mlflow_sysmetrics.cluster.engines.spark import with_node_sampler
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

settings = {"spark.ui.enabled": "false", "spark.driver.memory": "512m", "spark.ui.showConsoleProgress": "false",
            "spark.executorEnv.MLFLOW_SYSMETRICS_HOST_ID": HOST}
builder = SparkSession.builder.master("local[3]")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("ERROR")

def train(rows):
    from pyspark import BarrierTaskContext
    from mlflow_sysmetrics.cluster import start
    context = BarrierTaskContext.get()
    context.barrier()
    led = [one.is_leader for one in start._samplers.values()]
    time.sleep(3)
    context.barrier()
    for _ in rows:
        yield os.getpid(), sum(led)

def train_ranks(rate):
    import torch.distributed as dist
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    time.sleep(2)
    dist.barrier()
    dist.destroy_process_group()
    return rank, rate

with mlflow.start_run() as run:
    time.sleep(2)
    rows = spark.sparkContext.parallelize(range(3), 3)
    found = rows.barrier().mapPartitions(with_node_sampler(train)).collect()
    assert len({pid for pid, _ in found}) == 3
    print("found:", run.info.run_id, sum(led for _, led in found))
    if HOST == "":
        distributor = TorchDistributor(num_processes=2, local_mode=False, use_gpu=False)
        assert distributor.run(with_node_sampler(train_ranks), 0.5) == (0, 0.5)
spark.stop()
"""


def test_tasks_on_the_host_of_the_driver_leave_it_to_the_driver(
    on_engine: Callable[[str], list[str]], store: Store
) -> None:
    [line] = on_engine('HOST = ""' + BEGIN)
    run_id, leaders = line.split()
    assert (sections(store, run_id), leaders) == ({"system"}, "0")


def test_three_tasks_of_a_barrier_job_on_another_host_share_one_sampler(
    on_engine: Callable[[str], list[str]], store: Store
) -> None:
    [line] = on_engine('HOST = "another"' + BEGIN)
    run_id, leaders = line.split()
    found = sections(store, run_id)
    assert found - {"system"} <= {f"system/node_{number}" for number in range(3)} | {
        f"system/{socket.gethostname()}"
    }
    assert (len(found), leaders) == (2, "1")
