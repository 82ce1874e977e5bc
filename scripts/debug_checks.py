"""Checks that a debug run has its tags and metrics, and explains what is missing."""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from debug_report import PREFIX, Report

from mlflow_sysmetrics import Settings, settings, status
from mlflow_sysmetrics.collectors import COLLECTORS, load_classes
from mlflow_sysmetrics.collectors.catalogue.cpu_and_memory import PROCESS_USS
from mlflow_sysmetrics.collectors.registry import name_of
from mlflow_sysmetrics.samples import DEFAULT_FAMILIES, Family

EVERYWHERE = ("cpu",)  # every machine has a CPU
NVIDIA = "gpu (nvidia)"
SELDOM = (PROCESS_USS,)
ALWAYS_THERE = ("sys.cpu", "sys.cpu_cores", "sys.memory_gb", "sys.disk_free_gb", "sys.platform")
FEWEST_POINTS = 2  # per series, except sources that are read less often than at every tick


SQLITE = "sqlite:///"
SQLITE_HEADER = b"SQLite format 3\0"


def broken_file(uri: str) -> str | None:
    """Returns what is wrong with the SQLite file of a store, and what to delete; None if nothing is."""
    path = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or not path.exists():
        return None
    shown = shlex.quote(str(path))
    if path.is_dir():
        return (
            f"{path} is a directory, where the database should be. Delete it (rmdir {shown}), or rename it."
        )
    try:
        with path.open("rb") as file:
            header = file.read(len(SQLITE_HEADER))
        half_made = header and header == SQLITE_HEADER and _is_half_made(path)
    except (OSError, sqlite3.Error):
        return None
    if header not in {b"", SQLITE_HEADER}:
        return f"{path} is not an SQLite database. Rename it, or delete it: rm {shown}"
    if half_made:
        return (
            f"{path} is half made: a program was interrupted while MLflow made the tables in it. Delete it, "
            f"unless it has runs that you need: rm {shown}"
        )
    return None


def _is_half_made(path: Path) -> bool:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if any(name.startswith("_alembic_tmp_") for name in tables):
            return True  # a table that was being replaced
        if "alembic_version" not in tables:
            return "experiments" in tables
        return not database.execute("SELECT version_num FROM alembic_version").fetchall()


def check(report: Report) -> None:
    """Adds to the report what this machine lacks, and what is missing in the store, with the remedy."""
    report.not_available.extend(absent(report))
    report.problems.extend([*missing_tags(report), *missing_metrics(report)])
    if report.problems:
        unexplained = (
            "the reason is unknown: try --seconds 20, and if that does not help, report it with this output"
        )
        report.problems.extend(list(reasons(report)) or [unexplained])


def absent(report: Report) -> Iterator[str]:
    """Yields what this machine does not have."""
    for name, health in status().collectors.items():
        if health != "ok":
            reason = health.removeprefix("unavailable: ")
            yield f"no NVIDIA GPU: {reason}" if name == NVIDIA else f"{name}: {reason}"
    if "sysmetrics.error" in report.tags:
        yield f"could not be determined: {report.tags['sysmetrics.error']}"


def missing_tags(report: Report) -> Iterator[str]:
    """Yields a sentence if the store lacks tags that every machine has."""
    missing = [name for name in ALWAYS_THERE if name not in report.tags]
    if missing:
        yield f"tags are not in the store: {', '.join(missing)}"


def missing_metrics(report: Report) -> Iterator[str]:
    """Yields a sentence for each host metric that is missing in the store."""
    if not report.metrics:
        yield "no system metric is in the store"
        return
    node_id = Settings.from_environ().node_id
    health = status().collectors
    prefix = f"{PREFIX}{node_id}/" if node_id else PREFIX
    for collector in load_classes(COLLECTORS):
        if collector.family is Family.GPU:
            continue
        # A source may be absent from a machine, except the CPU.
        state = health.get(name_of(collector), "not switched on")
        if state.startswith(("unavailable", "ok, but")) and name_of(collector) not in EVERYWHERE:
            continue
        for metric in collector.metrics if collector.family in DEFAULT_FAMILIES else ():
            key = prefix + metric.name
            points = report.metrics[key].points if key in report.metrics else 0
            fewest = 1 if metric in SELDOM else FEWEST_POINTS
            if points < fewest and not metric.only:
                yield f"{key}: {points} points in the store, expected at least {fewest} ({state})"


def reasons(report: Report) -> Iterator[str]:
    """Yields the reasons why something is missing, with the remedy."""
    wanted = Settings.from_environ()
    environ = os.environ
    if not wanted.providers:
        value = environ[settings.PROVIDERS]
        yield f'{settings.PROVIDERS}={value} switches the plugin off: unset it, or add "sysmetrics" to it'
    if not wanted.tags:
        yield f"{settings.TAGS}={environ[settings.TAGS]} switches the tags off: unset it"
    if not wanted.metrics:
        yield f"{settings.METRICS}={environ[settings.METRICS]} switches the metrics off: unset it"
    if wanted.collectors != DEFAULT_FAMILIES:
        yield f"{settings.COLLECTORS}={environ[settings.COLLECTORS]} excludes some metrics: unset it"
    state = report.tags.get("sys.metrics", "")
    if state.startswith("unavailable"):
        yield f'metrics are {state} and need MLflow 2.8: pip install --upgrade "mlflow>=2.8"'
    error = status().last_error
    if error is not None:
        yield f"the store does not accept the points: {error}"
