"""Training continues while our threads are stuck: no lock that it takes is held during I/O."""

from __future__ import annotations

import os

import pytest
from chaos_check import assert_all_on_server
from chaos_server import TrackingServer
from chaos_starter import Starter

pytest_plugins = ["chaos_fixtures"]
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="programs are forked here"),
    # These tests exercise the program, so one kind of database is enough.
    pytest.mark.parametrize("session_server", ["sqlite"], indirect=True, scope="session"),
]

BLOCKED = """
    inside, never = threading.Event(), threading.Event()
    def block(*_, **__):
        inside.set()
        never.wait()
"""
# The calls of a training thread. A call that waited for a stuck thread would never return.
CALLS = """
    def calls():
        with mlflow_sysmetrics.attach(os.environ["OTHER"], tracking_uri=URL) as other:
            other.put_tags({"a": "b"})
        attachment.put_tags({"a": "b"})
        mlflow_sysmetrics.status()
        mlflow_sysmetrics.flush(0.1)
        attachment.detach(0.1)
        tell("returned")
    training = threading.Thread(target=calls, daemon=True)
    training.start()
    training.join(60)
    print(training.is_alive(), flush=True)
"""


def test_a_stuck_sender_blocks_neither_calls_nor_sampling(start: Starter, tracking: TrackingServer) -> None:
    program = start(
        BLOCKED
        + """
    from mlflow_sysmetrics.daemon.delivery.sink import RunSink
    RunSink.send = block
    attachment = mlflow_sysmetrics.attach(os.environ["RUN"], tracking_uri=URL)
    assert inside.wait(60)
    before = mlflow_sysmetrics.status().ticks
    while mlflow_sysmetrics.status().ticks < before + 3:
        time.sleep(0.01)
    """
        + CALLS
        + "    os._exit(0)",
        **environ(tracking),
    )
    assert program.wait() == 0, program.stderr
    assert program.stdout == "False"
    start.sync()
    assert assert_all_on_server(tracking, start.sides) > 0


def test_a_hanging_disk_blocks_neither_calls_nor_delivery_nor_exit(
    start: Starter, tracking: TrackingServer
) -> None:
    """As with a home directory on a network filesystem: only the journal thread is stuck."""
    program = start(
        BLOCKED
        + """
    from mlflow_sysmetrics.daemon.journal.file import LineFile
    LineFile.append = block
    attachment = mlflow_sysmetrics.attach(os.environ["RUN"], tracking_uri=URL)
    assert inside.wait(60)
    before = mlflow_sysmetrics.status().ticks
    while mlflow_sysmetrics.status().ticks < before + 3:
        time.sleep(0.01)
    assert mlflow_sysmetrics.flush(30)
    """
        + CALLS,
        **environ(tracking),
    )
    assert program.wait() == 0, program.stderr
    assert program.stdout == "False"
    assert_all_on_server(tracking, start.sides)


def environ(tracking: TrackingServer) -> dict[str, str]:
    """Returns the environment of both programs."""
    runs = {"RUN": tracking.new_run(), "OTHER": tracking.new_run()}
    return {
        **runs,
        "CHAOS_URL": tracking.url,
        "CHAOS_LAST_SAMPLE_SECONDS": "0.5",
        "MLFLOW_SYSMETRICS_FLUSH_TIMEOUT": "0.5",
    }
