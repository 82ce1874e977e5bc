"""The command lines of the transcripts, and the machines and servers on which they are run."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from fake_tracking_server import FakeServer as CheckedServer
from orphaned import MEMORY, SERVER, FakeServer, FakeSink, living, now_ms, orphan, running
from test_doctor_sections import BOTH, ENTRY_POINTS, mlflow

from made_runs import BEGAN, fleet
from made_runs import FakeServer as MeasuredServer
from mlflow_sysmetrics.cli.node_agent import State
from mlflow_sysmetrics.cli.orphan_delivery import OrphanDelivery
from mlflow_sysmetrics.cli.program import Stopped, main
from mlflow_sysmetrics.daemon.journal.lines import DroppedLine, dump
from mlflow_sysmetrics.errors import ServerStartError
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.preflight.verification import Verification
from mlflow_sysmetrics.server.database import DatabaseState
from recorded import HOSTS, LINUX, advance, revive

RUNS = tuple(f"{number}" * 32 for number in "123456")
OTHER_SERVER = "https://mlflow.machine-learning.example.org:5000"
SHOWN = ("CpuLinux", "MemoryLinux", "Nvidia", "AmdLinux", "InfinibandLinux")  # some of each state
DOWN = Fault("Connection refused", Cause.DOWN)
Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Case:
    """One command line.

    Attributes:
        line: what follows `mlflow-sysmetrics`.
        title: what the transcript shows, if the line does not say so.
        world: makes the machine and the servers.
        environ: environment variables.
    """

    line: str
    title: str = ""
    world: Callable[[Patch], Any] = lambda _: None
    environ: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def written_by(pid: int, host: str = "trainer") -> Iterator[None]:
    """Makes a journal that is written meanwhile look like that of a process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid)
        patch.setattr(secrets, "token_hex", lambda _: "00c0ffee")
        patch.setattr(socket, "gethostname", lambda: host)
        yield


# Process ids above the largest that Linux gives.
def outage(patch: Patch) -> None:
    """Two dead processes, a living one, and one of another host, with points for two servers."""
    patch.setattr(socket, "gethostname", lambda: "trainer")
    patch.setattr(platform, "node", lambda: "trainer")
    spool = Path("spool")
    with written_by(5_000_001):
        orphan(spool, RUNS[0], 12, silent_s=450)
    with written_by(5_000_002):
        orphan(spool, RUNS[1], 1_234, OTHER_SERVER, silent_s=9000)
    with written_by(5_000_003, "another-trainer-7f9c5d"):
        orphan(spool, RUNS[2], 8, silent_s=900_000)
    with written_by(5_000_004):
        alive.append(living(spool, RUNS[3], 3, silent_s=30))


alive: list[Any] = []  # journals of living processes, closed after each transcript


def dropped(patch: Patch) -> None:
    """A dead process that had to drop points."""
    patch.setattr(socket, "gethostname", lambda: "trainer")
    with written_by(5_000_001):
        path = orphan(Path("spool"), RUNS[0], 12, silent_s=450)
        with path.open("ab") as file:
            file.write(dump(DroppedLine(0, 1234)))


def damaged(patch: Patch) -> None:
    """A dead process whose journal is partly unreadable, and one of a newer version."""
    patch.setattr(socket, "gethostname", lambda: "trainer")
    spool = Path("spool")
    with written_by(5_000_001):
        path = orphan(spool, RUNS[0], 12, silent_s=450)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join((*lines[:3], b"\0\0\0\n", *lines[4:])))
        os.utime(path, (path.stat().st_mtime - 450,) * 2)
    with written_by(5_000_002):
        path = orphan(spool, RUNS[1], 3, silent_s=450)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join((b'{"journal":9,"needs":"1.4"}\n', *lines[1:])))


def delivering(
    patch: Patch, spool: Callable[[Patch], None] = outage, *, down: str | None = None, ended: bool = False
) -> None:
    """The outage, and a sink for every server."""
    spool(patch)
    sink = FakeSink(runs=RUNS, down=down, ended=ended)
    delivery = partial(OrphanDelivery, open_sink=lambda _: sink, wait_seconds=0.0)
    patch.setattr(import_module("mlflow_sysmetrics.cli.sync"), "OrphanDelivery", delivery_of(sink))
    patch.setattr(import_module("mlflow_sysmetrics.cli.reap"), "OrphanDelivery", delivery)


def delivery_of(sink: FakeSink) -> Callable[..., OrphanDelivery]:
    """Returns a delivery that waits for no server."""
    return lambda uri, **_: OrphanDelivery(uri, open_sink=lambda _: sink, wait_seconds=0.0)


def dead_runs(patch: Patch, *, down: str | None = None) -> None:
    """The outage, with runs that are still RUNNING on both servers."""
    delivering(patch)
    full = {MEMORY: 97.4}
    ago = partial(lambda seconds: now_ms() - seconds * 1000)
    runs = {
        RUNS[0]: running(RUNS[0], last_sign=ago(450)),
        RUNS[1]: running(RUNS[1], last_sign=ago(9000)),
        RUNS[4]: running(
            RUNS[4],
            last_sign=ago(99_000),
            system=full,
            hostname="trainer",
            name="resnet50, learning rate 0.001, batch size 256, augmented",
        ),
        RUNS[5]: running(RUNS[5], last_sign=ago(999_000), system={MEMORY: 12.0}, hostname="trainer"),
    }
    server = FakeServer(runs, down=down)

    def open_server(uri: str, **_: object) -> FakeServer:
        server.uri = server.name = uri
        return FakeServer(runs, down=down, name=uri, uri=uri)

    patch.setattr("mlflow_sysmetrics.cli.dead_runs.TrackingServer", open_server)


def unreachable(patch: Patch) -> None:
    """A tracking server that is down, and no journals."""

    def refuse(_: str, **__: object) -> FakeServer:
        raise DOWN

    patch.setattr("mlflow_sysmetrics.cli.dead_runs.TrackingServer", refuse)


def checked(patch: Patch, **fails: BaseException) -> None:
    """A tracking server in memory."""
    fake = CheckedServer()
    fake.fails.update(fails)

    def verify(uri: str, experiment: str | None, *, timeout: float) -> Verification:
        return Verification(
            uri,
            experiment,
            timeout=timeout,
            connect=lambda _: (fake, fake),
            sleep=fake.slept.append,
        )

    patch.setattr(import_module("mlflow_sysmetrics.cli.check"), "Verification", verify)
    patch.setattr("mlflow_sysmetrics.mlflow_api.fluent_state.version", lambda: "3.17.2")
    patch.setattr("mlflow_sysmetrics.preflight.verification.credentials_sent", lambda _: "no credentials")


def measured(patch: Patch, server: Callable[[], MeasuredServer] = fleet, *, down: bool = False) -> None:
    """A tracking server with runs of a GPU that works, one that waits, and no GPU."""

    def open_server(uri: str) -> MeasuredServer:
        found = server()
        found.uri, found.down = uri, down
        return found

    patch.setattr("mlflow_sysmetrics.cli.report.TrackingServer", open_server)


def watched(patch: Patch, *, down: bool = False) -> None:
    """The same server, looked at ten minutes after the runs began, and a clock that costs nothing."""

    def open_server(uri: str) -> MeasuredServer:
        found = fleet()
        found.uri, found.down = uri, down
        return found

    patch.setattr("mlflow_sysmetrics.cli.watch.TrackingServer", open_server)
    stand_in = SimpleNamespace(monotonic=lambda: 0.0, time=lambda: BEGAN / 1000 + 600, sleep=lambda _: None)
    patch.setattr(import_module("mlflow_sysmetrics.cli.watch"), "time", stand_in)


def followed(patch: Patch) -> None:
    """A living process with one run, seen at one moment."""
    patch.setattr(socket, "gethostname", lambda: "trainer")
    patch.setattr(platform, "node", lambda: "trainer")
    now = now_ms() / 1000
    stand_in = SimpleNamespace(monotonic=lambda: 0.0, time=lambda: now)
    patch.setattr(import_module("mlflow_sysmetrics.cli.watch"), "time", stand_in)
    patch.setattr(import_module("mlflow_sysmetrics.live.local"), "is_owned", lambda _: True)
    with written_by(5_000_004):
        alive.append(living(Path("spool"), RUNS[3], 300, silent_s=1))


def in_terminal(patch: Patch) -> None:
    """A terminal."""
    patch.setattr(import_module("mlflow_sysmetrics.cli.watch"), "_is_terminal", lambda: True)


def machine(patch: Patch, **uris: str) -> None:
    """A recorded machine with a GPU, a working installation, and a server that is down."""
    del uris
    from mlflow_sysmetrics.cli import installed, this_machine, tracking_server

    recorded = next(path for path in HOSTS if path.name == "gpu-node")
    root = Path("machine").absolute()
    host = revive(recorded, root)
    now = [100.0]

    def pause(_: float) -> None:
        advance(recorded, root)
        now[0] += 1

    patch.setattr(this_machine, "time", SimpleNamespace(monotonic=lambda: now[0]))
    patch.setattr(installed, "installed_version", lambda: "0.2.0")  # the next one changes no transcript
    facts: Any = SimpleNamespace(tags=lambda **_: dict.fromkeys(map(str, range(15)), "x"))
    patch.setattr(
        installed,
        "findings",
        partial(installed.findings, load=mlflow(providers=BOTH), registered=ENTRY_POINTS, required=()),
    )
    patch.setattr(
        this_machine,
        "findings",
        partial(
            this_machine.findings,
            host=host,
            collectors=[one for one in LINUX if one.__name__ in SHOWN],
            facts=facts,
            pause=pause,
        ),
    )

    class Store:
        def reach(self, _seconds: float) -> None:
            raise DOWN

    real = tracking_server._findings
    patch.setattr(
        tracking_server,
        "findings",
        lambda environ: list(real(environ, lambda _: Store())),  # type: ignore[arg-type, return-value]
    )
    patch.setattr(tracking_server, "credentials_sent", lambda _: "no credentials")


def server_machine(patch: Patch) -> None:
    """A machine for a tracking server, with room on its disks."""
    inspection = import_module("mlflow_sysmetrics.cli.server.inspection")
    patch.setattr("mlflow_sysmetrics.mlflow_api.fluent_state.version", lambda: "3.17.2")
    patch.setattr("mlflow_sysmetrics.mlflow_api.fluent_state.server_runs_jobs", lambda: True)
    real = inspection.server_store
    patch.setattr(inspection, "server_store", lambda uri: uri if "psycopg2" in uri else real(uri))
    patch.setattr(inspection, "database_state", lambda *_: DatabaseState(False, "0a8213491aaa", 97))
    patch.setattr(inspection, "newest_revision", lambda: "1b9c37e8b2fd")
    patch.setattr(inspection, "_is_there", lambda _: False)
    patch.setattr(inspection.shutil, "disk_usage", lambda _: SimpleNamespace(free=4_000_000_000))


def server_process(patch: Patch, error: BaseException | None = None) -> None:
    """A tracking server that does not start, or that is stopped with Ctrl-C."""
    run = import_module("mlflow_sysmetrics.cli.server.run")

    class Server:
        url = "http://127.0.0.1:5000"
        log_path = Path("mlflow-server/server.log")
        environ: Mapping[str, str] = {}

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __enter__(self) -> Server:
            if error is not None:
                raise error
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def stop(_: object) -> None:
        raise run.Stopped

    patch.setattr(run, "LocalServer", Server)
    patch.setattr(run, "_wait_for_exit", stop)


ON_NODE = f"--run-id {RUNS[0]} --tracking-uri {SERVER}"
REFUSED = Fault("HTTP 401: unauthorized", Cause.UNAUTHENTICATED, status_code=401)


def node_with(*answers: State | BaseException, leads: bool = True) -> Callable[[Patch], None]:
    """A node, a clock that goes a minute with every pause, and a server that answers so."""

    def world(patch: Patch) -> None:
        agent = import_module("mlflow_sysmetrics.cli.node_agent")
        left = list(answers)
        now = [0.0]
        sampler = SimpleNamespace(is_leader=leads, is_over=False, reason=None, close=lambda: None)

        def state(_: object) -> State:
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, BaseException):
                raise answer
            return answer

        def start(*_: object, node_name: str | None = None, **__: object) -> object:
            sampler.node_name = node_name or "trainer"
            return sampler

        def pause(_: float) -> None:
            now[0] += 60
            ending = left[-1]
            if isinstance(ending, BaseException):
                raise ending
            sampler.is_over = True

        patch.setattr(agent.TrackedRun, "state", state)
        patch.setattr(agent, "start_node_sampler", start)
        patch.setattr(agent, "Agent", partial(agent.Agent, clock=lambda: now[0], pause=pause))
        patch.setenv("MLFLOW_SYSMETRICS_COLLECTORS", "default")

    return world


FAILED_START = ServerStartError(
    "The tracking server exited with code 1 before it answered. Its database was made by a newer version of "
    "MLflow: install that version, or start with an empty database.",
    "INFO: started\nERROR: Detected out-of-date database schema (found 0a8213491aaa)",
)

COSTS = {"MLFLOW_SYSMETRICS_PRICE_PER_GPU_HOUR": "2", "MLFLOW_SYSMETRICS_CARBON_G_PER_KWH": "400"}

CASES: dict[str, Sequence[Case]] = {
    "": (Case("--version"), Case("snyc"), Case("server", "a group of commands without one of them")),
    "status": (
        Case("status", "nothing has waited here"),
        Case("status --dir spool", "after an outage", outage),
        Case("status --dir spool --any-host", "also what other hosts left on this volume", outage),
        Case("status --dir spool", "points were dropped", dropped),
        Case("status --dir spool", "damaged, and written by a newer version", damaged),
        Case("status --dir spool --json", "", dropped),
        Case("status --print-dir"),
        Case("status", "the directory of the settings is a file", lambda _: Path("state").write_text("")),
    ),
    "sync": (
        Case("sync", "nothing has waited here"),
        Case("sync --dir spool --dry-run", "", outage),
        Case("sync --dir spool", "", partial(delivering, ended=True)),
        Case("sync --dir spool", "the servers are down", partial(delivering, down="Connection refused")),
        Case("sync --dir spool --any-host", "", delivering),
        Case("sync --dir spool --json", "", delivering),
        Case("sync --dir spool --tracking-uri http://another:5000 --wait 0", "an unused server", delivering),
        Case(
            "sync --dir spool", "damaged, and written by a newer version", partial(delivering, spool=damaged)
        ),
    ),
    "reap": (
        Case("reap", "nothing is dead"),
        Case("reap --dir spool", "", dead_runs),
        Case(f"reap --dir spool --tracking-uri {SERVER}", "", dead_runs),
        Case(f"reap --dir spool --tracking-uri {SERVER} --apply --older-than 5m", "", dead_runs),
        Case(f"reap --dir spool --tracking-uri {SERVER} --experiment Default --json", "", dead_runs),
        Case(f"reap --dir spool --tracking-uri {SERVER} --any-host", "", dead_runs),
        Case(f"reap --tracking-uri {SERVER}", "the server is down", unreachable),
        Case("reap --experiment ships", "without a server"),
        Case(f"reap --tracking-uri {SERVER} --experiment sihps", "", dead_runs),
        Case("reap", "a wrong variable", environ={"MLFLOW_TRACKING_URI": "localhost:5000"}),
    ),
    "report": (
        Case("report", "neither runs nor an experiment"),
        Case(f"report --experiment ships {RUNS[0]}"),
        Case("report --experiment ships", "no server is known"),
        Case(f"report --experiment ships --tracking-uri {SERVER}", "", measured),
        Case(f"report --experiment ships --by user --tracking-uri {SERVER}", "", measured),
        Case(f"report --experiment ships --csv --tracking-uri {SERVER}", "", measured),
        Case(f"report --experiment sihps --tracking-uri {SERVER}", "", measured),
        Case(f"report {RUNS[1]} --tracking-uri {SERVER}", "", measured, COSTS),
        Case(f"report {RUNS[0]} {RUNS[1]} --tracking-uri {SERVER}", "", measured),
        Case(f"report {RUNS[2]} --json --tracking-uri {SERVER}", "", measured),
        Case(f"report {RUNS[2]} --json --csv --tracking-uri {SERVER}"),
        Case(f"report {RUNS[2]} --by user --tracking-uri {SERVER}"),
        Case(f"report {RUNS[3]} --tracking-uri {SERVER}", "no system metrics", measured),
        Case(f"report {RUNS[4]} --tracking-uri {SERVER}", "an unknown run", measured),
        Case(f"report {RUNS[0]} --tracking-uri {SERVER}", "the server is down", partial(measured, down=True)),
        Case(f"report {RUNS[0]} --parquet runs.parquet --tracking-uri {SERVER}", "without pandas", measured),
        Case(f"report {RUNS[0]} --interactive --tracking-uri {SERVER}", "no page to put it into"),
        Case(
            f"report {RUNS[0]} --html page.html --interactive --tracking-uri {SERVER}",
            "without plotly",
            measured,
        ),
        Case(
            f"report {RUNS[2]} --tracking-uri {SERVER}",
            "a wrong variable",
            measured,
            {"MLFLOW_SYSMETRICS_PUE": "0.5"},
        ),
        Case(
            "report --experiment ships", "a wrong variable", environ={"MLFLOW_TRACKING_URI": "localhost:5000"}
        ),
    ),
    "watch": (
        Case("watch", "no process of this machine has a journal"),
        Case("watch --local --once --dir spool", "one process", followed),
        Case(f"watch {RUNS[0]} --local"),
        Case(f"watch {RUNS[0]} --once", "no server is known"),
        Case(f"watch {RUNS[0]} --dir spool --once", "", outage),
        Case(f"watch --tracking-uri {SERVER}", "a server without a run"),
        Case(f"watch {RUNS[1]} --tracking-uri {SERVER}", "no terminal, so as with --once", watched),
        Case(f"watch --experiment ships --tracking-uri {SERVER} --once", "", watched),
        Case(f"watch --experiment sihps --tracking-uri {SERVER}", "", watched),
        Case(f"watch {RUNS[3]} --tracking-uri {SERVER}", "no system metrics", watched),
        Case(f"watch {RUNS[4]} --tracking-uri {SERVER}", "an unknown run", watched),
        Case(f"watch {RUNS[0]} --tracking-uri {SERVER}", "the server is down", partial(watched, down=True)),
        Case("watch --local", "in a terminal, without rich", in_terminal),
        Case(
            f"watch {RUNS[0]}",
            "a wrong variable",
            environ={"MLFLOW_TRACKING_URI": "localhost:5000"},
        ),
    ),
    "check": (
        Case("check", "no server is known"),
        Case(f"check --tracking-uri {SERVER}", "", checked),
        Case(f"check --tracking-uri {SERVER} --keep --experiment ships --timeout 5s", "", checked),
        Case(f"check --tracking-uri {SERVER}", "the server is down", partial(checked, reach=DOWN)),
        Case(
            f"check --tracking-uri {SERVER}",
            "the metric is refused",
            partial(checked, log=Fault("HTTP 500: database is locked", Cause.DOWN, status_code=500)),
        ),
        Case(f"check --tracking-uri {SERVER} --json", "", checked),
        Case(f"check --tracking-uri {SERVER}", "Ctrl-C", partial(checked, log=KeyboardInterrupt())),
    ),
    "node-agent": (
        Case("node-agent", "without a run"),
        Case(f"node-agent --run-id {RUNS[0]}", "without a server"),
        Case(f"node-agent {ON_NODE}", "the run ends", node_with(State.ALIVE, State.ENDED)),
        Case(
            f"node-agent {ON_NODE} --node-name gpu-a01",
            "another process of the node samples it",
            node_with(State.ALIVE, State.ENDED, leads=False),
        ),
        Case(
            "node-agent",
            "from the environment of a job; SIGTERM",
            node_with(State.ALIVE, Stopped()),
            {"MLFLOW_RUN_ID": RUNS[0], "MLFLOW_TRACKING_URI": SERVER},
        ),
        Case(f"node-agent {ON_NODE}", "the run has ended before", node_with(State.ENDED)),
        Case(f"node-agent {ON_NODE}", "the server has no such run", node_with(State.UNKNOWN)),
        Case(f"node-agent {ON_NODE} --wait 0", "the server is down", node_with(DOWN)),
        Case(f"node-agent {ON_NODE}", "the credentials are refused", node_with(REFUSED)),
        Case(
            f"node-agent --run-id {RUNS[0]}",
            "a wrong variable",
            environ={"MLFLOW_TRACKING_URI": "localhost:5000"},
        ),
        Case(
            f"node-agent {ON_NODE}",
            "a name that MLflow refuses, from the environment",
            environ={"MLFLOW_SYSTEM_METRICS_NODE_ID": "gpu:1"},
        ),
    ),
    "doctor": (
        Case("doctor", "", machine),
        Case("doctor --json", "", machine),
        Case(
            "doctor",
            "a server that is down, a wrong variable, an old journal",
            lambda patch: (machine(patch), outage(patch)),
            {
                "MLFLOW_TRACKING_URI": SERVER,
                "MLFLOW_SYSMETRICS_SEND_INTERVAL": "soon",
                "MLFLOW_SYSMETRICS_COLLECTORS": "cpu,memory,gpu",
                "MLFLOW_SYSMETRICS_SPOOL_DIR": "spool",
            },
        ),
    ),
    "server run": (
        Case("server run", "stopped with Ctrl-C", server_process),
        Case("server run", "it does not start", partial(server_process, error=FAILED_START)),
        Case("server run --basic-auth", "without a password"),
        Case("server run --allowed-host http://m.org"),
        Case("server run --backend-store-uri ftp://x"),
    ),
    "server print-compose": (
        Case("server print-compose --to deployment"),
        Case(
            "server print-compose --to deployment",
            "again",
            lambda _: (Path("deployment").mkdir(), Path("deployment/compose.yaml").write_text("")),
        ),
    ),
    "server doctor": (
        Case("server doctor", "nothing is set", server_machine),
        Case(
            "server doctor --backend-store-uri postgresql+psycopg2://mlflow@db/mlflow --workers 2"
            " --artifacts-destination s3://bucket/artifacts --allowed-hosts mlflow:5000"
            " --public-name mlflow:5000 --public-name mlflow.example.org --basic-auth",
            "",
            server_machine,
        ),
        Case(
            "server doctor --backend-store-uri postgresql+psycopg2://mlflow@db/mlflow --workers 2 --json",
            "",
            server_machine,
        ),
        Case("server doctor", "a wrong variable", environ={"MLFLOW_WORKERS": "many"}),
    ),
}

# Values that an option must refuse, besides none and an empty one. Every option with a value has its line.
WRONG: dict[str, Mapping[str, Sequence[str]]] = {
    "status": {"--dir": ("missing", "s3://bucket/spool", "file")},
    "sync": {
        "--dir": ("missing",),
        "--tracking-uri": ("nonsense", "localhost:5000", "htp://me:secret@host"),
        "--wait": ("soon", "-1", "5x"),
    },
    "reap": {
        "--older-than": ("soon", "0"),
        "--experiment": (),
        "--dir": ("missing",),
        "--tracking-uri": ("nonsense",),
    },
    "node-agent": {
        "--run-id": (),
        "--tracking-uri": ("nonsense",),
        "--node-name": ("gpu:1", "../etc", "a//b"),
        "--pid": ("self", "0", "5000001"),
        "--wait": ("soon", "-1"),
    },
    "report": {
        "--experiment": (),
        "--since": ("soon", "0"),
        "--by": ("colour",),
        "--html": ("missing/page.html",),
        "--parquet": ("missing/runs.parquet",),
        "--tracking-uri": ("nonsense",),
    },
    "watch": {"--experiment": (), "--dir": ("missing",), "--tracking-uri": ("nonsense",)},
    "check": {"--tracking-uri": ("nonsense",), "--experiment": (), "--timeout": ("soon", "0")},
    "server run": {
        "--backend-store-uri": ("nonsense",),
        "--dir": ("file", "s3://bucket/server"),
        "--artifacts-destination": (),
        "--host": (),
        "--port": ("abc", "65536", "-1"),
        "--workers": ("abc", "0"),
        "--allowed-host": ("a b",),
        "--start-timeout": ("soon",),
    },
    "server print-compose": {"--file": ("compose.yml",), "--to": ("file", "s3://bucket/server")},
    "server doctor": {
        "--backend-store-uri": ("nonsense",),
        "--artifacts-destination": (),
        "--workers": ("abc", "0"),
        "--allowed-hosts": (),
        "--public-name": ("http://mlflow:5000",),
    },
}


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yields every command and group of the real parser, by what is written after `mlflow-sysmetrics`."""
    yield " ".join(path), group
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands(found, (*path, name))
        else:
            yield " ".join((*path, name)), found


def options(command: click.Command) -> Iterator[click.Option]:
    """Yields the options of a command, except for those that only print something."""
    yield from (one for one in command.params if isinstance(one, click.Option) and not one.is_eager)


def lines(path: str, command: click.Command) -> Iterator[Case]:
    """Yields the command lines of one command: those above, and those that every option has."""
    yield Case(f"{path} --help".strip())
    if path in CASES:
        yield from CASES[path]
    elif isinstance(command, click.Group):
        yield Case(path, "without a command")
    yield Case(f"{path} --no-such-option".strip())
    if not isinstance(command, click.Group):
        yield Case(f"{path} an-argument")
    for option in options(command):
        name = max(option.opts, key=len)
        if option.is_flag:
            yield Case(f"{path} {name}=yes")
            continue
        yield Case(f"{path} {name}")
        for value in ("", *WRONG[path][name]):
            yield Case(f"{path} {name} {value!r}" if not value else f"{path} {name} {value}", world=a_file)


def a_file(patch: Patch) -> None:
    """A file where a directory is wanted, and no server that could start."""
    Path("file").write_text("")
    server_machine(patch)
    patch.setenv("MLFLOW_RUN_ID", RUNS[0])
    patch.setenv("MLFLOW_TRACKING_URI", SERVER)

    def started(_: object) -> None:
        raise ServerStartError("This value was accepted")

    patch.setattr("mlflow_sysmetrics.server.local_server.LocalServer.__enter__", started)
