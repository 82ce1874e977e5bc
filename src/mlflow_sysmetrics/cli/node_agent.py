"""`mlflow-sysmetrics node-agent`: samples this node for a run of another process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import NoReturn

import click

from mlflow_sysmetrics.cli.options import (
    DURATION_FORMAT,
    Name,
    Whole,
    check_tracking_uri,
    duration_or_zero,
    tracking_uri_option,
)
from mlflow_sysmetrics.cli.output import complain, say_wrapped
from mlflow_sysmetrics.cli.program import FAILED, Command, Stopped, raising_on_signals
from mlflow_sysmetrics.cli.tracked_runs import tracking_uri_in_force
from mlflow_sysmetrics.cluster import NodeSampler, start_node_sampler
from mlflow_sysmetrics.daemon.journal.store_files import check_store
from mlflow_sysmetrics.errors import SettingsError, ThreadUnavailable
from mlflow_sysmetrics.mlflow_api.clients import load
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.mlflow_api.runs import Runs, open_runs
from mlflow_sysmetrics.mlflow_api.tracking_uris import anchored, redacted
from mlflow_sysmetrics.runtime.backoff import doubled
from mlflow_sysmetrics.runtime.process_identity import is_running
from mlflow_sysmetrics.samples import Family
from mlflow_sysmetrics.settings import COLLECTORS, NODE_ID, Settings

UNKNOWN_RUN, UNREACHABLE = 3, 4
_LOOK_SECONDS = 1.0
_FIRST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 30.0
_ALIVE = frozenset({"RUNNING", "SCHEDULED"})


class State(Enum):
    """What a tracking server says about a run."""

    ALIVE = "it has not ended"
    ENDED = "it has ended"
    UNKNOWN = "the server does not have it"


class TrackedRun:
    """The run to sample for.

    Args:
        run_id: the run.
        uri: its tracking server.
        open_server: opens that.
    """

    def __init__(self, run_id: str, uri: str, open_server: Callable[[str], Runs] = open_runs) -> None:
        self.run_id = run_id
        self.uri = uri
        self._open_server = open_server
        self._runs: Runs | None = None

    def state(self) -> State:
        """Asks the server once.

        Raises:
            Fault: it does not answer, or not with a run.
        """
        try:
            check_store(self.uri)
            load(self.uri)
            self._runs = self._runs or self._open_server(self.uri)
            status = self._runs.state(self.run_id).status
        except Exception as error:  # noqa: BLE001 - MLflow, a plugin or a driver may raise anything
            fault = error if isinstance(error, Fault) else fault_of_error(error, self.uri)
            if fault.refuses_run and fault.cause in {Cause.MISSING, Cause.REFUSED}:
                return State.UNKNOWN
            if fault.run_is_deleted:
                return State.ENDED
        else:
            return State.ALIVE if status in _ALIVE else State.ENDED
        raise fault


class Agent:
    """Samples until something ends it.

    Args:
        run: the run.
        start: starts the sampler.
        wait: longest wait in seconds for the first answer of the server.
        clock: returns monotonic seconds.
        pause: waits for some seconds.
        pids_run: returns whether one of the processes to watch still runs.
    """

    def __init__(
        self,
        run: TrackedRun,
        start: Callable[[], NodeSampler],
        *,
        wait: float,
        pids_run: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._run = run
        self._start = start
        self._wait = wait
        self._pids_run = pids_run
        self._clock = clock
        self._pause = pause
        self._ask_at = 0.0
        self._failures = 0
        self._answered = False
        self._began = clock()

    def run(self) -> str:
        """Returns why it has ended.

        Raises:
            Fault: the server could not be reached in time, see `UnknownRun` for one that answers.
        """
        if self._ask() is State.ENDED:
            return "the run has ended"
        sampler = self._start()
        # From here on nothing is lost: what the server does not take stays in the journal.
        try:
            return self._sample(sampler)
        finally:
            sampler.close()

    def _sample(self, sampler: NodeSampler) -> str:
        led = None
        while True:
            if sampler.is_leader is not led:
                led = sampler.is_leader
                _say_place(sampler, self._run)
            if not self._pids_run():
                return "the processes to sample have ended"
            if sampler.is_over:
                return sampler.reason or "the run has ended"
            # Later the sampler hears of the end, with what it sends anyway.
            if not self._answered and self._clock() >= self._ask_at and self._ask() is State.ENDED:
                return "the run has ended"
            self._pause(_LOOK_SECONDS)

    def _ask(self) -> State:
        """Asks whether there is the run, and whether it has ended."""
        try:
            state = self._run.state()
        except Fault as fault:
            late = self._clock() - self._began >= self._wait
            if late or fault.refuses_credentials:
                raise
            pause = doubled(
                self._failures, first_seconds=_FIRST_RETRY_SECONDS, longest_seconds=_LONGEST_RETRY_SECONDS
            )
            self._failures += 1
            self._ask_at = self._clock() + pause
            return State.ALIVE
        if state is State.UNKNOWN:
            raise UnknownRun
        self._answered = True
        return state


class UnknownRun(Exception):
    """The tracking server has no such run."""


def _say_place(sampler: NodeSampler, run: TrackedRun) -> None:
    if sampler.is_leader:
        name = f" as {sampler.node_name}" if sampler.node_name else ""
        say_wrapped(f"Sampling this node{name} for run {run.run_id} on {redacted(run.uri)}.")
    else:
        say_wrapped("Another process samples this node for the run; waiting to take over.")


def _named_processes(pids: Iterable[int]) -> Callable[[], bool]:
    """Returns a function that returns whether one of these processes still runs.

    Raises:
        click.BadParameter: one does not run now.
    """
    now = time.time()
    watched = tuple(pids)
    for pid in watched:
        if not is_running(pid, began_before=now):
            raise click.BadParameter(f"must be the id of a process that runs, got {pid}", param_hint="--pid")
    return lambda: not watched or any(is_running(pid, began_before=now) for pid in watched)


def _uri_in_force() -> str:
    uri = tracking_uri_in_force()
    if not uri:
        raise click.UsageError("no tracking server: pass --tracking-uri or set MLFLOW_TRACKING_URI")
    try:
        check_tracking_uri(uri)
    except ValueError as error:
        raise click.UsageError(f"MLFLOW_TRACKING_URI {error}") from error
    return uri


def _check_name(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            Settings(node_id=value)
        except SettingsError as error:
            raise click.BadParameter(str(error).partition(" ")[2], ctx, option) from error
    return value


@click.command(
    cls=Command,
    short_help="Sample this node for a run of another process.",
    exits={
        0: "the run or the processes have ended, or a signal stopped the agent",
        FAILED: "the sampler could not be started",
        UNKNOWN_RUN: "the server does not have the run",
        UNREACHABLE: "the server could not be reached, or refused the credentials",
    },
)
@click.option(
    "--run-id",
    metavar="ID",
    type=Name("the id of a run"),
    envvar="MLFLOW_RUN_ID",
    help="The run.  [default: MLFLOW_RUN_ID]",
)
@tracking_uri_option("Its server, with user and password if it needs them.  [default: MLFLOW_TRACKING_URI]")
@click.option(
    "--node-name",
    metavar="NAME",
    type=Name("the name of this node"),
    callback=_check_name,
    envvar=NODE_ID,
    help="Name of this node in the keys, as in system/NAME/cpu_utilization_percentage.  [default: node_N by"
    " the job's launcher, else the host name]",
)
@click.option(
    "--pid",
    "pids",
    metavar="N",
    type=Whole(1),
    multiple=True,
    help="A process of the job: it is sampled with its children, and the agent ends with the last of them;"
    " repeatable.",
)
@click.option(
    "--wait",
    metavar="DURATION",
    callback=duration_or_zero,
    default="10m",
    show_default=True,
    help=f"Longest wait for a server that cannot be reached at the start: {DURATION_FORMAT}. Points are"
    " kept meanwhile.",
)
def node_agent(
    *, run_id: str | None, tracking_uri: str | None, node_name: str | None, pids: tuple[int, ...], wait: float
) -> None:
    """Sample this node for a run of another process, which need not be Python.

    One process per node and run samples: if another one does, this one waits and takes over when that ends or
    is killed. The run is neither started nor ended here. The agent ends when the run has ended, when the
    processes of --pid have, or with SIGTERM and Ctrl-C. Without --pid it samples the node without the metrics
    of processes.
    """
    if not run_id:
        raise click.UsageError("no run: pass --run-id or set MLFLOW_RUN_ID")
    uri = tracking_uri or _uri_in_force()
    pids_run = _named_processes(pids)

    if not pids:  # they would be those of this command
        os.environ[COLLECTORS] = f"{os.environ.get(COLLECTORS) or 'default'},-{Family.PROCESS.value}"

    def start() -> NodeSampler:
        return start_node_sampler(run_id, uri, node_name=node_name, pids=pids or None)

    agent = Agent(TrackedRun(run_id, anchored(uri), open_runs), start, wait=wait, pids_run=pids_run)
    try:
        with raising_on_signals():
            say_wrapped(f"Ended: {agent.run()}.")
    except Stopped:
        say_wrapped("Stopped.")
    except UnknownRun:
        _fail(UNKNOWN_RUN, f"{redacted(uri)} has no run {run_id!r}: check --run-id and --tracking-uri")
    except Fault as fault:
        what = "refused the credentials" if fault.refuses_credentials else f"was not reached in {wait:g} s"
        remedy = f" {fault.remedy}" if fault.remedy else ""
        _fail(UNREACHABLE, f"{redacted(uri)} {what}: {fault}.{remedy}")
    except ThreadUnavailable as error:
        raise click.ClickException(str(error)) from error


def _fail(code: int, message: str) -> NoReturn:
    complain(message)
    raise SystemExit(code)
