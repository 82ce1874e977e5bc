"""The last tick as a page that Prometheus reads.

Source:  the last tick of the sampler; a request reads nothing else.
Units:   those of `names`; `mlflow_run_info` has a label with the id of each attached run.
Absent:  everything but the age while nothing is sampled.
Check:   curl http://127.0.0.1:9600/metrics
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from mlflow_sysmetrics.exports.last_tick import Source
from mlflow_sysmetrics.exports.names import Exported, Value, exported
from mlflow_sysmetrics.exports.page_server import Answer, PageServer
from mlflow_sysmetrics.settings import PROMETHEUS

RUN_INFO, TICK_AGE = "mlflow_run_info", "mlflow_sysmetrics_tick_age_seconds"
RUN_LABEL = "mlflow_run_id"
_MOST_RUNS = 100  # series of one page; a search for hyperparameters has thousands of runs, few at once
_PATHS = frozenset({"/metrics", "/"})


class LastTick:
    """What prometheus_client collects for a page.

    Args:
        source: the sampler.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def describe(self) -> list[Metric]:
        """Returns nothing: what there is depends on the machine."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yields the last tick."""
        snapshot = self._source.snapshot()
        families: dict[str, list[Value]] = {}
        for value in exported(snapshot):
            families.setdefault(value.exported.prometheus, []).append(value)
        for values in families.values():
            yield _family(values)
        runs = GaugeMetricFamily(
            RUN_INFO, "Attached runs of MLflow, whose values these are.", labels=[RUN_LABEL]
        )
        for run_id in self._source.run_ids()[-_MOST_RUNS:]:
            runs.add_metric([run_id], 1)
        yield runs
        if snapshot:
            age = min(reading.age for reading in snapshot.values())
            yield GaugeMetricFamily(TICK_AGE, "Time since the last tick of the sampler.", value=age)


def _family(values: list[Value]) -> Metric:
    labels = sorted({name for value in values for name in value.attributes})
    made = _empty(values[0].exported, values[0].meaning, labels)
    for value in values:
        made.add_metric([value.attributes.get(name, "") for name in labels], value.value)
    return made


def _empty(one: Exported, meaning: str, labels: list[str]) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if one.instrument == "counter" else GaugeMetricFamily
    name = one.prometheus.removesuffix("_total") if one.instrument == "counter" else one.prometheus
    text = f"{meaning[:1].upper()}{meaning[1:]}."
    return kind(name, text, labels=[label.replace(".", "_") for label in labels])


class PrometheusPage(PageServer):
    """Serves the last tick on a port.

    Args:
        address: host and port.
        source: the sampler.
    """

    def __init__(self, address: str, source: Source) -> None:
        super().__init__(address, self._answer, variable=PROMETHEUS)
        self._registry = CollectorRegistry(auto_describe=False)  # not the one of the program
        self._registry.register(LastTick(source))

    def _answer(self, path: str, accepts: str) -> Answer | None:
        """Returns the page, in the form that a request accepts; None for another path."""
        if path not in _PATHS:
            return None
        encode, content_type = choose_encoder(accepts)
        return Answer(content_type, encode(self._registry))
