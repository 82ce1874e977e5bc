"""The last tick as OpenTelemetry's metrics, sent to a collector by OTLP over HTTP.

Nothing of the program's own OpenTelemetry is used or changed: no provider, no meter, no reader. The points
are made of the SDK's data classes, with the time of the tick, and handed to an exporter of their own.

Source:  the last tick of the sampler.
Units:   those of `names`; each point has the attribute `mlflow.run_id`, once for each attached run.
Cost:    one request every ten seconds.
Absent:  while nothing is sampled.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from opentelemetry.context import attach, set_value
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from mlflow_sysmetrics.exports.last_tick import Source
from mlflow_sysmetrics.exports.names import Value, exported
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.runtime.distribution import installed_version
from mlflow_sysmetrics.runtime.loops import Loop
from mlflow_sysmetrics.runtime.native import Event, get_ident
from mlflow_sysmetrics.settings import OTLP, OTLP_ON

THREAD_NAME = "sysmetrics-otlp"
RUN_ID = "mlflow.run_id"

_SECONDS = 10.0  # between two exports, as between two points
_TIMEOUT_SECONDS = 10.0
_LAST_SECONDS = 1.0  # longest wait for the last one, at the end of the process
_MOST_RUNS = 16  # each has its own points, as in MLflow
_NANOSECONDS = 1_000_000_000
_PATH = "/v1/metrics"

_logger = Log()


class OtlpSender:
    """Sends the last tick to a collector.

    Args:
        address: base URL of the collector, or `OTLP_ON` for what OTEL_EXPORTER_OTLP_ENDPOINT and the other
            variables of OpenTelemetry say.
        source: the sampler.
    """

    def __init__(self, address: str, source: Source) -> None:
        self._source = source
        self._address = address
        self._exporter: Any = None
        self._wake = Event()
        self._idle = Event()
        self._ending = False
        self._failing = False
        self._totals = Totals()
        self._loop = Loop(self._step, THREAD_NAME)

    def start(self) -> None:
        """Starts the thread, which ends with the process.

        Raises:
            ThreadUnavailable: no thread can be started.
        """
        self._loop.start()
        atexit.register(self.end)

    def end(self) -> None:
        """Exports once more, and waits for it, but not long and not for a collector that does not answer."""
        self._ending = True
        if not self._failing and self._loop.is_alive:
            self._idle.clear()
            self._wake.set()
            self._idle.wait(_LAST_SECONDS)

    def forget_after_fork(self) -> None:
        """Keeps a forked child from exporting at its end."""
        atexit.unregister(self.end)

    def _step(self) -> bool:
        if self._exporter is None:
            self._exporter = self._opened()
        self._wake.wait(_SECONDS)
        self._wake.clear()
        metrics = list(metrics_of(self._source, self._totals))
        if metrics:
            self._note(succeeded=self._export(metrics))
        self._idle.set()
        return not self._ending

    def _opened(self) -> OTLPMetricExporter:
        """Returns the exporter, which logs nothing in this thread."""
        # What traces the program's requests does not trace these.
        attach(set_value(_suppress_key(), True))  # noqa: FBT003 - OpenTelemetry's signature
        url = None if self._address == OTLP_ON else _endpoint(self._address)
        exporter = OTLPMetricExporter(endpoint=url, timeout=_TIMEOUT_SECONDS)
        _noise.thread = get_ident()
        for name, logger in list(logging.root.manager.loggerDict.items()):
            if name.startswith("opentelemetry.exporter.") and isinstance(logger, logging.Logger):
                logger.addFilter(_noise)
        return exporter

    def _export(self, metrics: list[Metric]) -> bool:
        scope = InstrumentationScope("mlflow-sysmetrics", installed_version() or "")
        of_resource = ResourceMetrics(_resource(), [ScopeMetrics(scope, metrics, "")], "")
        _noise.text = ""
        try:
            found = self._exporter.export(MetricsData([of_resource]))
        except Exception as error:  # noqa: BLE001 - of the exporter, its transport or a credential provider
            _noise.text = f"{type(error).__name__}: {error}"
            return False
        return bool(found is MetricExportResult.SUCCESS)

    def _note(self, *, succeeded: bool) -> None:
        """Logs a change of health."""
        if succeeded and self._failing:
            _logger.info("mlflow-sysmetrics: The collector of %s answers again.", OTLP)
        elif not succeeded and not self._failing:
            _logger.warning(
                "mlflow-sysmetrics: %s=%s: the collector does not take the metrics: %s. It is tried again "
                "every %g s.",
                OTLP,
                self._address,
                _noise.text or "no reason given",
                _SECONDS,
            )
        self._failing = not succeeded


class Totals:
    """Since when each total counts: one that decreases was started anew."""

    def __init__(self) -> None:
        self._began = time.time_ns()
        self._last: dict[tuple[str, ...], tuple[float, int]] = {}

    def since(self, value: Value) -> int:
        """Returns since when a total counts, in nanoseconds since 1970."""
        key = (value.exported.name, *sorted(f"{name}={text}" for name, text in value.attributes.items()))
        last, began = self._last.get(key, (value.value, self._began))
        if value.value < last:
            began = time.time_ns()
        self._last[key] = value.value, began
        return began


def metrics_of(source: Source, totals: Totals) -> Iterator[Metric]:
    """Yields the last tick as metrics of OpenTelemetry; nothing if nothing is sampled.

    Args:
        source: the sampler.
        totals: since when totals count.
    """
    runs: list[Mapping[str, str]] = [{RUN_ID: one} for one in source.run_ids()[-_MOST_RUNS:]]
    now = time.time_ns()
    families: dict[str, list[Value]] = {}
    for value in exported(source.snapshot()):
        families.setdefault(value.exported.name, []).append(value)
    for name, values in families.items():
        points = [
            NumberDataPoint(
                attributes={**value.attributes, **run},
                start_time_unix_nano=since,
                time_unix_nano=now - int(value.age * _NANOSECONDS),
                value=value.value,
            )
            for value in values
            for since in [totals.since(value) if value.exported.instrument == "counter" else 0]
            for run in runs or [{}]
        ]
        first = values[0]
        yield Metric(name, first.meaning, first.exported.unit, _data(first, points))


def _data(value: Value, points: list[NumberDataPoint]) -> Gauge | Sum:
    if value.exported.instrument == "gauge":
        return Gauge(points)
    is_total = value.exported.instrument == "counter"
    return Sum(points, aggregation_temporality=AggregationTemporality.CUMULATIVE, is_monotonic=is_total)


class _Noise(logging.Filter):
    """Keeps what the exporter logs in our thread: a collector that is away is one warning of ours.

    Attributes:
        text: the last line.
        thread: identifies our thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.thread: int | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a line is logged."""
        if record.thread != self.thread:
            return True
        with contextlib.suppress(Exception):  # a line that does not fit its arguments
            self.text = record.getMessage()
        return False


_noise = _Noise()


def _resource() -> Resource:
    """Returns what is measured; OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME count."""
    ours = Resource(
        {"service.name": "mlflow-sysmetrics", "host.name": socket.gethostname(), "process.pid": os.getpid()}
    )
    return ours.merge(OTELResourceDetector().detect())


def _endpoint(address: str) -> str:
    base = address.rstrip("/")
    return base if base.endswith(_PATH) else base + _PATH


def _suppress_key() -> str:
    """Returns the key that switches instrumentation off; its place has changed between versions."""
    module = import_module("opentelemetry.context")
    return str(getattr(module, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation"))
