"""What the function does that Spark's executors run in place of the user's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mlflow_sysmetrics.cluster.engines import samplers, spark
from mlflow_sysmetrics.cluster.engines.spark import Nodes, with_node_sampler
from mlflow_sysmetrics.errors import NoActiveRunError

pytestmark = pytest.mark.unit
RUN, URI = "a" * 32, "http://tracking:5000"


class Sampler:
    """A sampler of a node."""

    open = 0

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        Sampler.open -= 1


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def start(run_id: str, uri: str, *, rank: int | None) -> Sampler:
        calls.append((run_id, uri, rank))
        Sampler.open += 1
        return Sampler()

    Sampler.open = 0
    monkeypatch.delitem(sys.modules, "pyspark", raising=False)
    monkeypatch.setattr(samplers, "start_node_sampler", start)
    return calls


def test_a_function_is_sampled_while_it_runs(started: list[Any]) -> None:
    def train(rate: float, *, epochs: int) -> tuple[float, int, int]:
        return rate, epochs, Sampler.open

    wrapped = with_node_sampler(train, RUN, URI)
    assert wrapped(0.1, epochs=2) == (0.1, 2, 1)
    assert (started, Sampler.open, wrapped.__name__) == ([(RUN, URI, None)], 0, "train")


def test_a_lazy_partition_is_sampled_until_it_is_exhausted() -> None:
    def double(numbers: Iterator[int]) -> Iterator[tuple[int, int]]:
        for number in numbers:
            yield number * 2, Sampler.open

    assert list(with_node_sampler(double, RUN, URI)(iter([1, 2]))) == [(2, 1), (4, 1)]
    assert Sampler.open == 0


def test_a_partition_that_is_given_up_is_no_longer_sampled() -> None:
    items = with_node_sampler(iter, RUN, URI)([1, 2, 3])
    next(items)
    items.close()
    assert Sampler.open == 0


def test_an_error_of_the_function_is_its_own() -> None:
    def fail() -> None:
        raise KeyError("column")

    with pytest.raises(KeyError, match="column"):
        with_node_sampler(fail, RUN, URI)()
    assert Sampler.open == 0


def test_a_function_runs_where_no_sampler_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Sampler:
        raise RuntimeError("no thread can be started")

    monkeypatch.setattr(samplers, "start_node_sampler", refuse)
    assert with_node_sampler(len, RUN, URI)("abc") == 3


def test_a_function_runs_on_an_executor_without_this_package(monkeypatch: pytest.MonkeyPatch) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    blob = cloudpickle.dumps(with_node_sampler(len, RUN, URI))
    monkeypatch.setitem(sys.modules, "mlflow_sysmetrics", None)
    monkeypatch.setitem(sys.modules, "mlflow_sysmetrics.cluster.engines.spark", None)
    assert cloudpickle.loads(blob)("abc") == 3


def test_the_number_of_the_task_names_the_node(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pyspark = ModuleType("pyspark")
    context = SimpleNamespace(partitionId=lambda: 3)
    pyspark.TaskContext = SimpleNamespace(get=lambda: context)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyspark", pyspark)
    with_node_sampler(len, RUN, URI)("abc")
    assert started == [(RUN, URI, 3)]


def test_without_a_run_it_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark.fluent_state, "active_run_ids", lambda: ())
    with pytest.raises(NoActiveRunError, match=r"mlflow\.start_run.*run_id="):
        with_node_sampler(len)
    with pytest.raises(TypeError, match="function must be"):
        with_node_sampler("train", RUN)  # type: ignore[arg-type]


def test_the_active_run_is_taken_where_it_is_wrapped(
    started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark.fluent_state, "active_run_ids", lambda: ("outer", "inner"))
    monkeypatch.setattr(spark.fluent_state, "current_tracking_uri", lambda: "sqlite:////runs.db")
    with_node_sampler(len)("abc")
    assert started == [("inner", "sqlite:////runs.db", None)]


def test_a_driver_is_connected_while_it_has_a_context(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Nodes().is_connected()
    pyspark = ModuleType("pyspark")
    monkeypatch.setitem(sys.modules, "pyspark", pyspark)
    assert not Nodes().is_connected()  # it is just being imported
    pyspark.SparkContext = SimpleNamespace(_active_spark_context=None)  # type: ignore[attr-defined]
    assert not Nodes().is_connected()
    pyspark.SparkContext = SimpleNamespace(_active_spark_context=object())  # type: ignore[attr-defined]
    assert Nodes().is_connected()
    assert tuple(Nodes().reconcile([])) == ()
