"""Forks at the worst moments: during a tick, a write to the journal, or a request."""

from __future__ import annotations

import os
import signal

import pytest
from chaos_check import assert_all_on_server
from chaos_server import TrackingServer
from chaos_starter import Starter

pytest_plugins = ["chaos_fixtures"]
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    # These tests exercise the program, so one kind of database is enough.
    pytest.mark.parametrize("session_server", ["sqlite"], indirect=True, scope="session"),
]

# `nox -s slow` sets CHAOS_FORKS=1000.
FORKS = int(os.environ.get("CHAOS_FORKS", "60"))

# Slows the threads down at each place, and signals when they are there.
SLOWLY = """
    from mlflow_sysmetrics.daemon.journal.file import LineFile
    from mlflow_sysmetrics.daemon.sampling.probe import Probe
    from mlflow_sysmetrics.daemon.delivery.sink import RunSink
    places = {name: threading.Event() for name in ("sampling", "journalling", "sending")}
    def slowly(name, function):
        def inside(*arguments, **named):
            places[name].set()
            time.sleep(0.02)
            return function(*arguments, **named)
        return inside
    Probe.read = slowly("sampling", Probe.read)
    RunSink.send = slowly("sending", RunSink.send)
    # The journal holds its lock during this time.
    LineFile.append = slowly("journalling", LineFile.append)
    def await_inside(name):
        places[name].clear()
        assert places[name].wait(60), name
"""
# Everything a child may do; a deadlock ends in SIGALRM.
CHILD = """
    def descriptors():
        numbers = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
        paths = [os.path.realpath(f"/proc/self/fd/{number}") for number in numbers]
        return [path for path in paths if path.startswith(os.environ["MLFLOW_SYSMETRICS_SPOOL_DIR"])]
    def child(n):
        signal.alarm(120)
        status = mlflow_sysmetrics.status()
        assert not status.attached and not status.running, status
        assert not descriptors(), descriptors()
        assert mlflow_sysmetrics.flush()
        attachment.put_tags({"a": "b"})
        assert attachment.detach()
        if n % 10 == 0:
            with mlflow_sysmetrics.attach(os.environ["RUN_OF_CHILD"], tracking_uri=URL):
                time.sleep(0.1)
            # Checking whether the journal of the parent is an orphan briefly opens one more.
            eventually(lambda: len(descriptors()) == 2)
        (os._exit if n % 5 else sys.exit)(0)  # the interpreter's end takes half a second with MLflow
"""


@pytest.mark.slow
def test_forks_at_the_worst_moments_harm_neither_process(start: Starter, tracking: TrackingServer) -> None:
    """Children exit cleanly, and the server has every point of parent and children once."""
    program = start(
        SLOWLY
        + CHILD
        + """
    attachment = mlflow_sysmetrics.attach(os.environ["RUN"], tracking_uri=URL)
    await_sample()
    for n in range(int(os.environ["FORKS"])):
        await_inside(list(places)[n % 3])
        pid = os.fork()
        if pid == 0:
            child(n)
        assert os.waitpid(pid, 0)[1] == 0, n
    assert mlflow_sysmetrics.flush(60)
    assert attachment.detach(60)
    """,
        RUN=tracking.new_run(),
        RUN_OF_CHILD=tracking.new_run(),
        CHAOS_URL=tracking.url,
        FORKS=str(FORKS),
        MLFLOW_SYSMETRICS_SEND_INTERVAL="0.1",
    )
    assert program.wait(240 + 5 * FORKS) == 0, program.stderr
    start.sync()
    assert assert_all_on_server(tracking, start.sides) > 0


@pytest.mark.parametrize("place", ["sampling", "journalling", "sending"])
def test_a_child_that_outlives_its_killed_parent_does_not_lock_the_journal(
    place: str, start: Starter, tracking: TrackingServer
) -> None:
    """The lock of the journal belongs to an open file, which a child inherits."""
    program = start(
        SLOWLY
        + f"""
    attachment = mlflow_sysmetrics.attach(os.environ["RUN"], tracking_uri=URL)
    await_sample()
    await_inside("{place}")
    pid = os.fork()
    if pid == 0:
        signal.alarm(300)
        (HERE / "its pid").write_text(str(os.getpid()))
        (HERE / "its pid").rename(HERE / "child")  # atomic, so that readers never see an empty file
        time.sleep(300)
        os._exit(0)
    await_word("child")
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
    """,
        RUN=tracking.new_run(),
        CHAOS_URL=tracking.url,
    )
    assert program.wait() == -signal.SIGKILL, program.stderr
    child = int((program.here / "child").read_text())
    try:
        start.sync()
        assert assert_all_on_server(tracking, start.sides) > 0
    finally:
        os.kill(child, signal.SIGKILL)
