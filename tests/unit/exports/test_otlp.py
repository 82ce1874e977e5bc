"""What a collector gets by OTLP, decoded with OpenTelemetry's own messages."""

from __future__ import annotations

import gzip
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from ticking import Bench, every_key

pytest.importorskip("opentelemetry.exporter.otlp.proto.http.metric_exporter")

from opentelemetry import metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from mlflow_sysmetrics.exports.names import exported
from mlflow_sysmetrics.exports.otlp import OtlpSender, Totals, metrics_of

RUN = "a" * 32


class Collector:
    """A collector on a port: decodes what comes, and can refuse it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                message = ExportMetricsServiceRequest()
                message.ParseFromString(body)
                collector.requests.append((self.path, message))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}).start()

    def points(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Returns the values of the last request by name and attributes."""
        found = {}
        for metric in self.metrics():
            kind = metric.WhichOneof("data")
            for point in getattr(metric, kind).data_points:
                attributes = tuple(sorted((one.key, one.value.string_value) for one in point.attributes))
                found[metric.name, attributes] = point.as_double
        return found

    def metrics(self) -> list[Any]:
        (resource,) = self.requests[-1][1].resource_metrics
        (scope,) = resource.scope_metrics
        assert scope.scope.name == "mlflow-sysmetrics"
        return list(scope.metrics)

    def resource(self) -> dict[str, str]:
        (resource,) = self.requests[-1][1].resource_metrics
        return {one.key: one.value.string_value for one in resource.resource.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def send(bench: Bench, address: str, times: int = 1) -> OtlpSender:
    """Exports in this thread, as the sender's own does."""
    sender = OtlpSender(address, bench.source)
    for _ in range(times):
        sender._wake.set()
        assert sender._step()
    return sender


def test_a_collector_gets_the_tick_in_base_units_with_the_run(bench: Bench, collector: Collector) -> None:
    bench.sampler.tick({"gpu_1_utilization_percentage": 75.0, "network_receive_megabytes": 12.0})
    send(bench, collector.url)
    assert collector.requests[0][0] == "/v1/metrics"
    run = ("mlflow.run_id", RUN)
    assert collector.points() == {
        ("hw.gpu.utilization", (("hw.id", "1"), run)): 0.75,
        ("system.network.io", (run, ("network.io.direction", "receive"))): 12e6,
    }
    assert collector.resource()["service.name"] == "mlflow-sysmetrics"


def test_every_metric_arrives_with_unit_and_kind(bench: Bench, collector: Collector) -> None:
    bench.sampler.tick(every_key())
    send(bench, collector.url)
    assert len(collector.points()) == len(every_key())
    wanted = {one.exported.name: one.exported for one in exported(bench.source.snapshot())}
    for metric in collector.metrics():
        one = wanted.pop(metric.name)
        assert (metric.unit, bool(metric.description)) == (one.unit, True)
        assert metric.WhichOneof("data") == ("gauge" if one.instrument == "gauge" else "sum")
        if one.instrument != "gauge":
            assert metric.sum.is_monotonic == (one.instrument == "counter")
            assert metric.sum.aggregation_temporality == 2  # cumulative
    assert wanted == {}


def test_points_have_the_time_of_their_tick(bench: Bench) -> None:
    bench.sampler.tick({"process_threads": 7.0})
    (first,) = metrics_of(bench.source, Totals())
    bench.clock.move(30)
    (later,) = metrics_of(bench.source, Totals())
    older = later.data.data_points[0].time_unix_nano - first.data.data_points[0].time_unix_nano
    assert older == pytest.approx(-30e9, abs=5e9)


def test_each_run_has_its_own_points_and_none_is_enough(bench: Bench) -> None:
    bench.sampler.tick({"process_threads": 7.0})
    bench.runs = tuple(f"{number}" for number in range(40))
    (metric,) = metrics_of(bench.source, Totals())
    assert [dict(point.attributes or {}) for point in metric.data.data_points] == [
        {"mlflow.run_id": f"{number}"} for number in range(24, 40)
    ]
    bench.runs = ()
    (metric,) = metrics_of(bench.source, Totals())
    assert [dict(point.attributes or {}) for point in metric.data.data_points] == [{}]


def test_a_total_that_begins_anew_says_so(bench: Bench) -> None:
    totals = Totals()

    def since(value: float) -> int:
        bench.sampler.tick({"network_receive_megabytes": value})
        (metric,) = metrics_of(bench.source, totals)
        return int(metric.data.data_points[0].start_time_unix_nano)

    began = since(10)
    assert since(20) == began
    assert since(5) > began


def test_nothing_is_sent_while_nothing_is_sampled(bench: Bench, collector: Collector) -> None:
    send(bench, collector.url)
    assert collector.requests == []


@pytest.mark.parametrize("path", ["", "/", "/v1/metrics"])
def test_an_address_may_have_the_path(bench: Bench, collector: Collector, path: str) -> None:
    bench.sampler.tick({"process_threads": 7.0})
    send(bench, collector.url + path)
    assert collector.requests[0][0] == "/v1/metrics"


def test_the_variables_of_opentelemetry_count_if_that_is_asked_for(
    bench: Bench, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ships")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=blue")
    bench.sampler.tick({"process_threads": 7.0})
    send(bench, "on")
    assert collector.requests[0][0] == "/v1/metrics"
    found = collector.resource()
    assert (found["service.name"], found["team"]) == ("ships", "blue")


def test_a_collector_that_refuses_is_one_warning_and_no_noise(
    bench: Bench, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    collector.status = 400
    bench.sampler.tick({"process_threads": 7.0})
    sender = send(bench, collector.url, times=3)
    (line,) = [one.getMessage() for one in caplog.records]
    assert line.startswith(
        f"mlflow-sysmetrics: MLFLOW_SYSMETRICS_OTLP={collector.url}: the collector does not"
    )
    assert "400" in line or "Bad Request" in line
    collector.status = 200
    sender._wake.set()
    sender._step()
    assert caplog.records[-1].getMessage().endswith("answers again.")


def test_the_provider_of_the_program_is_left_alone(bench: Bench, collector: Collector) -> None:
    before = metrics.get_meter_provider()
    bench.sampler.tick({"process_threads": 7.0})
    send(bench, collector.url)
    assert metrics.get_meter_provider() is before


def test_the_end_exports_once_more_and_waits_for_it(bench: Bench, collector: Collector) -> None:
    bench.sampler.tick({"process_threads": 7.0})
    sender = OtlpSender(collector.url, bench.source)
    sender.start()
    sender.end()
    sender.forget_after_fork()
    assert len(collector.requests) == 1
