"""Spark: samples the hosts on which a function runs, for one run.

Spark's Python side has no hook for the start of an executor, so the function that runs there is wrapped:

    rdd.barrier().mapPartitions(with_node_sampler(train_partition)).collect()
    TorchDistributor(num_processes=4).run(with_node_sampler(train), learning_rate)

Tasks on one host share one sampler.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from mlflow_sysmetrics.cluster.engines.samplers import Run, quietly_started
from mlflow_sysmetrics.cluster.sampler import NodeSampler
from mlflow_sysmetrics.errors import NoActiveRunError
from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.tracking_uris import anchored


class Nodes:
    """Spark's executors, which are sampled where a function is wrapped; here only the driver's own node."""

    def is_connected(self) -> bool:
        """Returns whether this process is a driver with a context."""
        context = getattr(sys.modules.get("pyspark"), "SparkContext", None)
        return getattr(context, "_active_spark_context", None) is not None

    def reconcile(self, runs: Sequence[Run]) -> Sequence[int]:
        """Does nothing."""
        del runs
        return ()

    def close(self, timeout: float) -> None:
        """Does nothing."""


def with_node_sampler(
    function: Callable[..., Any], run_id: str | None = None, tracking_uri: str | None = None
) -> Callable[..., Any]:
    """Returns a function that does the same while its host is sampled for a run.

    Call it in the driver. Where the sampler cannot be started, the function runs all the same.

    Args:
        function: what runs on the executors, as `TorchDistributor.run` or `mapPartitions` takes it.
        run_id: the run; by default the active one.
        tracking_uri: its tracking server; by default the current one.

    Raises:
        TypeError: `function` cannot be called.
        NoActiveRunError: no run is given, and none is active.
    """
    if not callable(function):
        raise TypeError(f"function must be what runs on the executors, got {function!r}")
    active = fluent_state.active_run_ids()
    if run_id is None and not active:
        raise NoActiveRunError(
            "with_node_sampler needs a run to sample for, and none is active in this thread: "
            "call it inside `with mlflow.start_run():`, or pass run_id=..."
        )
    uri = anchored(tracking_uri or fluent_state.current_tracking_uri())
    return _wrapped(function, active[-1] if run_id is None else run_id, uri)


def _wrapped(function: Callable[..., Any], run_id: str, tracking_uri: str) -> Callable[..., Any]:
    """Returns the function that runs on the executors.

    It is made in a function so that it is pickled by value: on an executor without this package it runs
    without a sampler, where one that is pickled by name would fail.
    """

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        try:
            from mlflow_sysmetrics.cluster.engines.spark import call_sampled
        except ImportError:
            return function(*arguments, **named)
        return call_sampled(run_id, tracking_uri, lambda: function(*arguments, **named))

    return wrapped


def call_sampled(run_id: str, tracking_uri: str, call: Callable[[], Any]) -> Any:
    """Returns what a call returns; samples this host meanwhile, or until a lazy result is exhausted."""
    sampler = quietly_started(Run(tracking_uri, run_id), _partition())
    if sampler is None:
        return call()
    try:
        result = call()
    except BaseException:
        sampler.close()
        raise
    if isinstance(result, Iterator):
        return _sampled_items(result, sampler)
    sampler.close()
    return result


def _sampled_items(items: Iterator[Any], sampler: NodeSampler) -> Generator[Any, None, None]:
    with sampler:
        yield from items


def _partition() -> int | None:
    """Returns the number of the task's partition; None outside of a task, as in processes of torchrun."""
    pyspark = sys.modules.get("pyspark")
    context = None if pyspark is None else pyspark.TaskContext.get()
    return None if context is None else int(context.partitionId())
