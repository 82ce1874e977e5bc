"""The documented limit of how long an end may take while the server is unreachable."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest
from chaos_nursery import Program
from chaos_proxy import LOG_BATCH, Proxy
from chaos_server import TrackingServer
from chaos_starter import MONITORS_RESUMED_RUNS, Starter

pytest_plugins = ["chaos_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="programs are forked here")

FLUSH_TIMEOUT = 1.0
# Counts our own time: without stalls of a busy machine, and without MLflow's own request in end_run.
PROMISED = FLUSH_TIMEOUT + 0.5

ATTACH = """
    stalls = Stalls()
    stalls.__enter__()
    attachment = mlflow_sysmetrics.attach(os.environ["RUN"], tracking_uri=URL)
    await_sample()
    time.sleep(0.5)
"""
BEGIN = """
    began, before = time.monotonic(), stalls.seconds
"""
TOOK = "print(time.monotonic() - began - (stalls.seconds - before), flush=True)"
# Exit functions run in reverse order, so the first one registered measures all others.
WAYS: Mapping[str, str] = {
    "detach": f"{ATTACH}{BEGIN}    attachment.detach(); {TOOK}; os._exit(0)",
    "exit": f"    atexit.register(lambda: {TOOK}){ATTACH}{BEGIN}",
    "end_run": f"""
    from mlflow_sysmetrics.monitor import SystemMetricsMonitor
    stalls, finish = Stalls(), SystemMetricsMonitor.finish
    stalls.__enter__()
    def timed(monitor):
        began, before = time.monotonic(), stalls.seconds
        finish(monitor)
        {TOOK}
    SystemMetricsMonitor.finish = timed
    mlflow.start_run(run_id=os.environ["RUN"])
    await_sample()
    time.sleep(0.5)
    mlflow.end_run(); os._exit(0)
    """,
}


@pytest.mark.parametrize("trouble", ["refuse", "hang", "half-open", "drip", "503"])
def test_an_end_costs_at_most_the_flush_timeout(
    trouble: str, start: Starter, tracking: TrackingServer, proxy: Proxy
) -> None:
    """MLflow's own requests pass if the fault can distinguish them; otherwise end_run is not tested."""
    spares_others = trouble not in {"refuse", "half-open"}
    ways = dict(WAYS)
    if not spares_others or not MONITORS_RESUMED_RUNS:
        del ways["end_run"]
    with proxy.troubled(trouble, only=LOG_BATCH if spares_others else ""):
        programs = {name: begin(start, tracking, proxy, code) for name, code in ways.items()}
        for name, program in programs.items():
            assert program.wait() == 0, program.stderr
            assert float(program.stdout) < PROMISED, name


def begin(start: Starter, tracking: TrackingServer, proxy: Proxy, code: str) -> Program:
    """Starts a training with its own run."""
    return start(
        code,
        RUN=tracking.new_run(),
        CHAOS_URL=proxy.url,
        MLFLOW_TRACKING_URI=proxy.url,
        MLFLOW_SYSMETRICS_FLUSH_TIMEOUT=str(FLUSH_TIMEOUT),
        CHAOS_LAST_SAMPLE_SECONDS="0.25",
    )


def test_an_outage_costs_one_flush_timeout_for_any_number_of_runs(
    start: Starter, tracking: TrackingServer, proxy: Proxy
) -> None:
    code = f"""
        with Stalls() as stalls:
            {BEGIN.strip()}
            for run in os.environ["RUNS"].split():
                mlflow_sysmetrics.attach(run, tracking_uri=URL).detach()
            {TOOK}
        os._exit(0)
    """
    runs = " ".join(tracking.new_run() for _ in range(8))
    with proxy.troubled("hang"):
        program = start(code, RUNS=runs, CHAOS_URL=proxy.url, MLFLOW_SYSMETRICS_FLUSH_TIMEOUT="1")
        assert program.wait() == 0, program.stderr
        assert float(program.stdout) < PROMISED
