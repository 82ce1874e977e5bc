"""The page for Prometheus, read by Prometheus' own parsers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing

import pytest
from ticking import Bench, every_key

from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.exports import page_server, publish
from mlflow_sysmetrics.exports.last_tick import Source
from mlflow_sysmetrics.exports.publish import Publisher
from mlflow_sysmetrics.runtime.loops import log_queue
from mlflow_sysmetrics.settings import Settings
from watching import LONG_SECONDS

pytest.importorskip("prometheus_client")

from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from mlflow_sysmetrics.exports.prometheus import PrometheusPage

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def bench() -> Bench:
    return Bench()


def page_of(source: Source, accepts: str = "") -> str:
    answer = PrometheusPage("127.0.0.1:0", source)._answer("/metrics", accepts)
    assert answer is not None
    return answer.body.decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def test_the_page_has_the_tick_in_base_units_and_the_run(bench: Bench) -> None:
    bench.sampler.tick({"gpu_1_utilization_percentage": 75.0, "network_receive_megabytes": 12.0})
    bench.clock.move(2.5)
    assert samples(page_of(bench.source)) == {
        ("hw_gpu_utilization_ratio", (("hw_id", "1"),)): 0.75,
        ("system_network_io_bytes_total", (("network_io_direction", "receive"),)): 12e6,
        ("mlflow_run_info", (("mlflow_run_id", "a" * 32),)): 1,
        ("mlflow_sysmetrics_tick_age_seconds", ()): 2.5,
    }


@pytest.mark.parametrize(("accepts", "parser"), [("", parse), (OPENMETRICS, parse_openmetrics)])
def test_every_metric_is_understood_by_a_parser(bench: Bench, accepts: str, parser: object) -> None:
    bench.sampler.tick(every_key())
    families = list(parser(page_of(bench.source, accepts)))  # type: ignore[operator]
    # Each series once, and the two of our own.
    found = [(one.name, *sorted(one.labels.items())) for family in families for one in family.samples]
    assert len(found) == len(set(found)) == len(every_key()) + 2
    assert {family.type for family in families} == {"gauge", "counter"}
    assert all(family.documentation for family in families)


def test_promtool_has_no_complaint(bench: Bench) -> None:
    """Only where it is installed; the parsers of the test before are always."""
    bench.sampler.tick(every_key())
    tool = shutil.which("promtool")
    if tool is None:
        return
    text = page_of(bench.source)
    done = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_is_said_while_nothing_is_sampled(bench: Bench) -> None:
    bench.runs = ()
    assert samples(page_of(bench.source)) == {}


def test_many_runs_do_not_make_a_long_page(bench: Bench) -> None:
    bench.runs = tuple(f"{number}" for number in range(5000))
    assert page_of(bench.source).count("mlflow_run_info{") == 100


def test_hostile_names_stay_within_their_label(bench: Bench) -> None:
    bench.sampler.tick({'disk_a"} 1\nevil{x="_usage_megabytes': 1.0})
    bench.runs = ('b"} 2\nworse 3',)
    found = samples(page_of(bench.source))
    assert {name for name, _ in found} == {
        "system_filesystem_usage_bytes",
        "mlflow_run_info",
        "mlflow_sysmetrics_tick_age_seconds",
    }


def test_the_registry_of_the_program_is_left_alone(bench: Bench) -> None:
    before = [family.name for family in REGISTRY.collect()]
    bench.sampler.tick(every_key())
    page_of(bench.source)
    assert [family.name for family in REGISTRY.collect()] == before


class Served:
    """A page on a port, whose thread is the test."""

    def __init__(self, source: Source) -> None:
        self.page = PrometheusPage("127.0.0.1:0", source)
        assert self.page._open()

    def get(self, path: str, *, method: str = "GET", accepts: str = "") -> tuple[int, str, str]:
        found: list[tuple[int, str, str]] = []

        def ask() -> None:
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.page.port}{path}", method=method, headers={"Accept": accepts}
            )
            try:
                with urllib.request.urlopen(request, timeout=LONG_SECONDS) as answer:
                    found.append((answer.status, answer.headers["Content-Type"], answer.read().decode()))
            except urllib.error.HTTPError as error:
                found.append((error.code, "", error.read().decode()))

        asking = threading.Thread(target=ask)
        asking.start()
        self.page._step()
        asking.join()
        return found[0]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.page.port or 0))


@pytest.fixture
def served(bench: Bench) -> Iterator[Served]:
    bench.sampler.tick({"process_threads": 7.0})
    one = Served(bench.source)
    yield one
    one.page.forget_after_fork()


def test_a_request_is_answered(served: Served) -> None:
    status, content_type, text = served.get("/metrics")
    assert (status, content_type.partition(";")[0]) == (200, "text/plain")
    assert "process_threads 7.0" in text
    assert served.get("/metrics?x=1")[0] == 200
    assert served.get("/")[0] == 200
    status, content_type, text = served.get("/metrics", accepts=OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_other_requests_are_refused(served: Served) -> None:
    assert served.get("/secrets")[0] == 404
    assert served.get("/metrics", method="POST")[0] == 405
    assert served.get("/metrics", method="HEAD") == (200, served.get("/metrics")[1], "")


@pytest.mark.parametrize(
    "sent", [b"", b"GET", b"\xff\x00\r\n\r\n", b"x" * 20_000, b"GET /metrics HTTP/1.1\r\n"]
)
def test_garbage_does_no_harm(served: Served, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "_REQUEST_SECONDS", 0.05)
    with closing(served.connect()) as connection:
        connection.sendall(sent)
        served.page._step()
    assert served.get("/metrics")[0] == 200


def test_a_reader_that_says_nothing_is_not_waited_for_long(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_server, "_REQUEST_SECONDS", 0.05)
    with closing(served.connect()):
        served.page._step()
    assert served.get("/metrics")[0] == 200


def test_a_reader_that_is_gone_does_no_harm(served: Served) -> None:
    served.connect().close()
    served.page._step()
    assert served.get("/metrics")[0] == 200


def test_a_port_in_use_is_one_warning_and_is_tried_again(
    served: Served, bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_server, "_RETRY_SECONDS", 0.0)
    second = PrometheusPage(f"127.0.0.1:{served.page.port}", bench.source)
    for _ in range(3):
        assert second._step()
    assert second.port is None
    (line,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert (
        f"MLFLOW_SYSMETRICS_PROMETHEUS=127.0.0.1:{served.page.port} cannot be served: Address already" in line
    )
    served.page.forget_after_fork()  # the first process has ended
    assert second._open()
    second.forget_after_fork()


def test_a_host_that_is_not_this_one_is_a_warning(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    assert not PrometheusPage("192.0.2.1:9600", bench.source)._open()
    assert "cannot be served" in caplog.text


def test_without_the_extra_there_is_one_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> object:
        raise ModuleNotFoundError("No module named 'prometheus_client'", name="prometheus_client")

    monkeypatch.setattr(publish, "_export", missing)
    Publisher(Settings(prometheus="127.0.0.1:9600"), bench.source).start()
    log_queue.wait(LONG_SECONDS)
    assert "MLFLOW_SYSMETRICS_PROMETHEUS needs prometheus_client: pip install" in caplog.text
    assert publish._running == []


def test_nothing_is_started_by_default(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_export", None)
    Publisher(Settings(), bench.source).start()
    assert publish._running == []


def test_where_no_thread_can_start_there_is_one_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher(Settings(prometheus="127.0.0.1:9600"), bench.source)

    def refuse(_: object) -> None:
        raise ThreadUnavailable("no thread can be started: a limit")

    monkeypatch.setattr(PrometheusPage, "start", refuse)
    publisher.start()
    log_queue.wait(LONG_SECONDS)
    assert "MLFLOW_SYSMETRICS_PROMETHEUS has no effect: no thread can be started" in caplog.text
