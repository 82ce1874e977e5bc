"""Programs whose last tick Prometheus and OpenTelemetry get, while they fork, are patched, and end."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import forks
import pytest
from counting_server import CountingServer
from programs import PATIENT, QUIET

pytest.importorskip("prometheus_client")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http.metric_exporter")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

TESTS = Path(__file__).parents[1]
PROGRAM = f"""
import os, sys, urllib.request
sys.path.append({str(TESTS)!r})
import mlflow, psutil
from mlflow_sysmetrics import snapshot
from watching import eventually

URL = "http://" + os.environ["MLFLOW_SYSMETRICS_PROMETHEUS"] + "/metrics"

def page():
    try:
        with urllib.request.urlopen(URL, timeout=20) as answer:
            return answer.read().decode()
    except OSError:
        return ""

def listening():
    return [one for one in psutil.Process().net_connections("tcp") if one.status == "LISTEN"]

run = mlflow.start_run()
eventually(lambda: "process_threads" in page())
assert f'mlflow_run_info{{{{mlflow_run_id="{{run.info.run_id}}"}}}} 1.0' in page()
assert snapshot() and len(listening()) == 1
pid = os.fork()
if not pid:
    os._exit(bool(snapshot()) + 2 * len(listening()))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), run.info.run_id, flush=True)
# The run is active until the interpreter exits.
"""
GEVENT = "from gevent import monkey\nmonkey.patch_all()\n"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportMetricsServiceRequest]]]:
    """A collector that decodes what it gets."""
    found: list[ExportMetricsServiceRequest] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = ExportMetricsServiceRequest()
            message.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
            found.append(message)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", found
        server.shutdown()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@pytest.mark.parametrize("patched", [False, True], ids=["threads", "gevent"])
def test_a_page_and_a_collector_have_the_run_and_end_with_it(
    patched: bool,
    tmp_path: Path,
    collector: tuple[str, list[ExportMetricsServiceRequest]],
    server: CountingServer,
) -> None:
    url, found = collector
    port = free_port()
    path = tmp_path / "program.py"
    path.write_text((GEVENT if patched else "") + PROGRAM)
    environ = {
        **os.environ,
        **QUIET,
        **PATIENT,
        "MLFLOW_TRACKING_URI": server.url,
        "MLFLOW_SYSMETRICS_SPOOL_DIR": str(tmp_path / "spool"),
        "MLFLOW_SYSMETRICS_PROMETHEUS": f"127.0.0.1:{port}",
        "MLFLOW_SYSMETRICS_OTLP": url,
    }
    options = {"env": environ, "cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if patched:
        program = subprocess.Popen([sys.executable, "-W", "ignore", str(path)], **options)  # type: ignore[call-overload]
    else:
        program = forks.popen([str(path)], forks.MLFLOW, **options)
    printed, said = program.communicate(timeout=60)
    assert program.returncode == 0, said
    child, run_id = printed.decode().split()
    assert child == "0"  # no snapshot and no port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    sent = {
        attribute.value.string_value
        for message in found
        for metric in message.resource_metrics[0].scope_metrics[0].metrics
        for point in getattr(metric, metric.WhichOneof("data")).data_points
        for attribute in point.attributes
        if attribute.key == "mlflow.run_id"
    }
    assert sent == {run_id}
