"""Ways a program may end: what it delivers, what remains in the journal, and that one `sync` delivers the rest."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from chaos_check import assert_all_on_server, assert_nothing_on_server
from chaos_proxy import LOG_BATCH, Proxy
from chaos_sampled import Evidence
from chaos_server import TrackingServer
from chaos_starter import MONITORS_RESUMED_RUNS, Starter, journals

from watching import eventually

pytest_plugins = ["chaos_fixtures"]
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="programs are forked here"),
    # These tests exercise the program, so one kind of database is enough.
    pytest.mark.parametrize("session_server", ["sqlite"], indirect=True, scope="session"),
]

# One sample when the run is attached, one at its end, and none between; only an end sends anything. So the
# effect of an end does not depend on the load of the machine.
STILL = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "3600",
    "MLFLOW_SYSMETRICS_SEND_INTERVAL": "3600",
    "MLFLOW_SYSMETRICS_FLUSH_TIMEOUT": "60",
}
ATTACH = """
    attachment = mlflow_sysmetrics.attach(os.environ["RUN"], tracking_uri=URL)
    await_sample()
"""
START_RUN = """
    mlflow.start_run(run_id=os.environ["RUN"])
    await_sample()
"""
# An end that does not end the program is followed by os._exit, which delivers nothing.
ENDS: Mapping[str, tuple[str, int]] = {
    "end_run": (START_RUN + "    mlflow.end_run(); os._exit(0)", 0),
    "detach": (ATTACH + "    attachment.detach(); os._exit(0)", 0),
    "flush": (
        ATTACH
        + """
    def emptied():
        with open(mlflow_sysmetrics.status().journal, "rb") as journal:
            text = journal.read()
        return b'"run":' in text and b'"m":' not in text
    # Emptying the journal down to the name of the run takes two steps. A program killed between them leaves
    # no name: then `reap` has to find the run on the server.
    if mlflow_sysmetrics.flush():
        eventually(emptied)
    os._exit(0)
    """,
        0,
    ),
    "exit": (ATTACH, 0),
    "exit inside a run": (START_RUN, 0),
    "sys.exit": (ATTACH + "    sys.exit(3)", 3),
    "uncaught exception": (ATTACH + "    raise RuntimeError('training failed')", 1),
    "KeyboardInterrupt": (ATTACH + "    os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", -signal.SIGINT),
    "sys.exit on SIGTERM": (
        ATTACH
        + """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
    os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)
    """,
        4,
    ),
    "exit with threads running": (
        ATTACH
        + """
    def busy():
        while True:
            mlflow_sysmetrics.status(); attachment.put_tags({"a": "b"}); time.sleep(0)
    for _ in range(3):
        threading.Thread(target=busy, daemon=True).start()
    threading.Timer(0.2, print).start()  # outlives the main thread
    """,
        0,
    ),
}
DEATHS: Mapping[str, tuple[str, int]] = {
    "SIGTERM": (ATTACH + "    os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM),
    "os._exit": (ATTACH + "    os._exit(5)", 5),
    "SIGKILL": (ATTACH + "    os.kill(os.getpid(), signal.SIGKILL); time.sleep(60)", -signal.SIGKILL),
    "SIGKILL inside a run": (START_RUN + "    os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
}


def end(start: Starter, tracking: TrackingServer, url: str, how: tuple[str, int], **environ: str) -> str:
    """Runs a program to its end and returns its stderr."""
    code, returncode = how
    if code.startswith(START_RUN) and not MONITORS_RESUMED_RUNS:
        pytest.skip("MLflow 2.8 has no monitor for resumed runs")
    run = {"RUN": tracking.new_run(), "CHAOS_URL": url, "MLFLOW_TRACKING_URI": url}
    program = start(code, **{**STILL, **run, **environ})
    assert program.wait() == returncode, program.stderr
    return program.stderr


@pytest.mark.parametrize("name", ENDS)
def test_an_end_visible_to_python_delivers_everything_and_leaves_no_journal(
    name: str, start: Starter, tracking: TrackingServer, spool: Path
) -> None:
    complaints = end(start, tracking, tracking.url, ENDS[name])
    assert assert_all_on_server(tracking, start.sides) > 0
    assert "sysmetrics" not in complaints
    if "os._exit" in ENDS[name][0]:  # its journal remains, without undelivered points
        start.sync()
    # A program that exits while it is attached to a run leaves the name of the run for `reap`.
    assert len(journals(spool)) == (1 if name == "flush" else 0)


def test_an_interrupt_ends_the_program_while_the_facts_are_imported(
    start: Starter, tracking: TrackingServer
) -> None:
    """Their classes make CPython forget it, which counts when the import lasts until the end."""
    late = """
    class Late:
        def find_spec(self, name, path=None, target=None):
            if name == "mlflow_sysmetrics.facts.fact_list":
                tell("importing")
                eventually(lambda: hasattr(sys, "last_value"))
    sys.meta_path.insert(0, Late())
    """
    ends = """
    await_word("importing")
    os.kill(os.getpid(), signal.SIGINT); time.sleep(60)
    """
    end(start, tracking, tracking.url, (late + ATTACH + ends, -signal.SIGINT))
    assert assert_all_on_server(tracking, start.sides) > 0


@pytest.mark.parametrize("name", DEATHS)
def test_an_end_invisible_to_python_leaves_everything_in_the_journal(
    name: str, start: Starter, tracking: TrackingServer, spool: Path
) -> None:
    end(start, tracking, tracking.url, DEATHS[name])
    assert_nothing_on_server(tracking, start.sides)
    assert len(journals(spool)) == 1
    start.sync()
    assert assert_all_on_server(tracking, start.sides) > 0


@pytest.mark.parametrize("name", [*ENDS, *DEATHS])
def test_one_sync_delivers_everything_after_an_end_during_an_outage(
    name: str, start: Starter, tracking: TrackingServer, proxy: Proxy, spool: Path
) -> None:
    with proxy.troubled("500", only=LOG_BATCH):
        how = {**ENDS, **DEATHS}[name]
        end(start, tracking, proxy.url, how, MLFLOW_SYSMETRICS_FLUSH_TIMEOUT="0.3")
        assert_nothing_on_server(tracking, start.sides)
        assert len(journals(spool)) == 1
    start.sync()
    assert assert_all_on_server(tracking, start.sides) > 0


def test_the_next_training_delivers_what_the_last_one_left(start: Starter, tracking: TrackingServer) -> None:
    """This happens in the background, without a call."""
    end(start, tracking, tracking.url, DEATHS["SIGKILL"])
    heir = start(
        ATTACH + '    await_word("finish"); attachment.detach()',
        **STILL,
        RUN=tracking.new_run(),
        CHAOS_URL=tracking.url,
    )
    heir.await_sample()
    dead = start.programs[0]
    run_ids = Evidence.read([dead.side]).run_ids
    eventually(lambda: tracking.points(*run_ids))
    heir.tell("finish")
    assert heir.wait() == 0
    assert assert_all_on_server(tracking, start.sides) > 0
