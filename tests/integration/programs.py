"""What integration tests share beside fixtures: programs, the stores that they write to, what is expected there."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from counting_server import CountingServer
from databases import Postgres, Sqlite

from mlflow_sysmetrics.collectors import COLLECTORS, load_classes, watched_paths
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import DEFAULT_FAMILIES, Family, Kind, Sample

MLFLOW = tuple(int(part) for part in version("mlflow").split(".")[:2])


TESTS = Path(__file__).parents[1]
# A disk that answers late would be left out; a machine that is busy with other things is no dead file server.
watched_paths._FIRST_ANSWER_SECONDS = 60.0


def series_of_this_machine() -> Iterator[Sample]:
    """Yields what the collectors say here, each read twice; what the daemon has to deliver of a run."""
    host = Host()
    probes = [
        Probe(one, host)
        for one in COLLECTORS
        if one.family in DEFAULT_FAMILIES and one.family is not Family.GPU
    ]
    for moment in (0.0, 1.0):
        for probe in probes:
            yield from probe.read(moment)
        time.sleep(0.05)  # so that the kernel's counters of CPU time move on


HERE = [sample for sample in series_of_this_machine() if sample.kind is not Kind.EVENTS]
HOST_METRICS = {f"system/{sample.key}" for sample in HERE}
# Totals that are silent until something happens, to whomever: a busy machine may lose packets at any time.
EVENTS = {
    metric.name for one in load_classes(COLLECTORS) for metric in one.metrics if metric.kind is Kind.EVENTS
}
LEVELS = {f"system/{sample.key}" for sample in HERE if sample.kind is not Kind.RATE}

# MLflow 3 prints no links when told so; 2.22 prints them whatever it is told.
QUIET = {"GIT_PYTHON_REFRESH": "quiet", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
# An end waits until all is delivered, and so no longer than it takes; on a busy machine that is no five seconds.
PATIENT = {"MLFLOW_SYSMETRICS_FLUSH_TIMEOUT": "60"}

# The threads of a process with one tracking server.
OUR_THREADS = ["sysmetrics-journal", "sysmetrics-sampler", "sysmetrics-sender-0"]

# Every program begins with this: MLflow, and how to wait for what a test is about. Private memory may be read as
# often as it changes: a virtual machine may take 5 ms for a reading, after which a program that grows by a tenth
# has no value for 25 s, longer than a test's run.
PREAMBLE = f"""
import contextlib, logging, os, sys, threading, time
import mlflow
import mlflow_sysmetrics
sys.path.append({str(TESTS)!r})
from stalls import Stalls
from watching import eventually, lasting_threads, ticked, watched
from mlflow_sysmetrics.collectors import watched_paths
from mlflow_sysmetrics.collectors.processes import uss
watched_paths._FIRST_ANSWER_SECONDS = 60.0
uss._AT_ONCE_SECONDS = 60.0
"""


def lasting(keys: Iterable[str]) -> set[str]:
    """Returns the keys of system metrics, but for the summary and for events that no test causes."""
    sampled = (key for key in keys if key.startswith("system/") and not key.startswith("system/summary/"))
    return {key for key in sampled if key.rpartition("/")[2] not in EVENTS}


@dataclass(frozen=True)
class Finished:
    """What a program left."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def words(self) -> list[str]:
        """Words of its output, without the links that MLflow prints; programs print run ids and the like."""
        own = [line for line in self.stdout.splitlines() if not line.startswith(("🏃", "🧪"))]
        return " ".join(own).split()


@dataclass(frozen=True)
class Store:
    """A tracking store, read through MLflow."""

    uri: str

    @property
    def client(self) -> Any:
        with warnings.catch_warnings():
            # MLflow 3.17 on SQLAlchemy 2.1, MLflow 2.8 on anything of today: their warnings, not ours.
            warnings.simplefilter("ignore")
            from mlflow import MlflowClient

            client = MlflowClient(self.uri)
            client.get_experiment("0")
        return client

    def tags(self, run_id: str) -> dict[str, str]:
        return dict(self.client.get_run(run_id).data.tags)

    def keys(self, run_id: str) -> set[str]:
        """Returns the system metrics that a run has."""
        return lasting(self.client.get_run(run_id).data.metrics)

    def points(self, run_id: str, key: str) -> list[Any]:
        """Returns the points of one series, oldest first."""
        history = self.client.get_metric_history(run_id, key)
        return sorted(history, key=lambda metric: metric.timestamp)


@dataclass(frozen=True)
class Remote:
    """A counting server, read as a `Store` is; it is up in a twentieth of the time that a database takes."""

    server: CountingServer

    @property
    def uri(self) -> str:
        return self.server.url

    def tags(self, run_id: str) -> dict[str, str]:
        return Store(self.uri).tags(run_id)

    def keys(self, run_id: str) -> set[str]:
        """Returns the system metrics that a run has."""
        return lasting(self.server.points(run_id))

    def points(self, run_id: str, key: str) -> list[Any]:
        """Returns the points of one series, oldest first."""
        found = [SimpleNamespace(**point) for point in self.server.points(run_id)[key]]
        return sorted(found, key=lambda metric: metric.timestamp)


Program = Callable[..., Finished]
Databases = Callable[[str], "Sqlite | Postgres"]
